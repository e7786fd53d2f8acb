//! `tokenwatch vault`

use std::io::Write;
use std::process::ExitCode;

use super::client::Client;
use super::error::CliError;
use super::{Ended, arguments};
use crate::config::{Backend, Config};
use crate::daemon::{StateError, file_options, keep_out, vault_options};
use crate::vault::{self, Vault};

pub(super) async fn vault(config: Config, verb: arguments::Vault) -> Ended {
    if Client::find(&config).await?.is_some() {
        return Err(CliError::DaemonRuns.into());
    }
    // Between two stores the journal is what keeps a daemon away.
    let journal = keep_out(&config)?;
    match verb {
        arguments::Vault::Move { to, replace } => {
            move_to(&config, backend(to), replace)?;
            journal.forget_vault().map_err(StateError::Journal)?;
        }
        arguments::Vault::Rekey => rekey(&config)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn backend(store: arguments::Store) -> Backend {
    match store {
        arguments::Store::File => Backend::File,
        arguments::Store::Native => Backend::Native,
        arguments::Store::Keyutils => Backend::Keyutils,
    }
}

fn move_to(config: &Config, to: Backend, replace: bool) -> anyhow::Result<()> {
    let from = config.vault.backend;
    if from == to {
        return Err(CliError::SameStore(to.word()).into());
    }
    let open = |backend| -> Result<Vault, StateError> {
        Ok(Vault::open(vault_options(config, backend)?)?)
    };
    let (source, target) = (open(from)?, open(to)?);
    let services = [crate::INTERNAL_SERVICE, config.vault.service.as_str()];
    let count = source
        .move_to(&target, &services, replace)
        .map_err(StateError::from)?;
    let mut err = anstream::stderr().lock();
    let (from, to) = (from.word(), to.word());
    writeln!(
        err,
        "moved {count} entries from {from} to {to}, and read each back"
    )?;
    writeln!(
        err,
        "now set `backend = \"{to}\"` in [vault], before the daemon starts"
    )?;
    Ok(())
}

fn rekey(config: &Config) -> anyhow::Result<()> {
    if config.vault.backend != Backend::File {
        return Err(CliError::NoKey(config.vault.backend.word()).into());
    }
    let options = file_options(config)?;
    vault::rekey(options).map_err(StateError::Vault)?;
    let mut err = anstream::stderr().lock();
    writeln!(
        err,
        "the vault {} has another key: keep a copy of it",
        config.vault.path.display()
    )?;
    writeln!(
        err,
        "copies of the old key still open old copies of the vault: destroy both, and if\n\
         somebody may have had them, change the passwords and tokens that were in there"
    )?;
    Ok(())
}
