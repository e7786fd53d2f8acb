//! `tokenwatch secret`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use hyper::Method;
use zeroize::Zeroizing;

use super::client::segment;
use super::error::CliError;
use super::reach::Reach;
use super::{Ended, arguments, print_json, stdout};
use crate::config::{Auth, Backend, Config, SecretSource, VaultKey};
use crate::daemon::{SecretName, secret_from};
use crate::secret::Secret;

pub(super) async fn secret(config: Config, verb: arguments::Secret) -> Ended {
    let config = Arc::new(config);
    match verb {
        arguments::Secret::Set { name } => {
            let name = parse(&name)?;
            warn_of_no_use(&config, &name)?;
            let secret = ask(&name)?;
            let no_vault_yet = vault_files(&config).filter(|(vault, _)| !vault.exists());
            store(&config, &name, &secret).await?;
            if let Some((vault, key)) = no_vault_yet {
                let (vault, key) = (vault.display(), key.display());
                let mut err = anstream::stderr().lock();
                writeln!(
                    err,
                    "made the vault {vault} and its key {key}: keep a copy of both"
                )?;
            }
        }
        arguments::Secret::Remove { name } => {
            let name = parse(&name)?;
            let removed = match Reach::open(config).await? {
                Reach::Daemon(mut daemon) => {
                    let path = format!("/v1/secrets/{}", segment(&name.to_string()));
                    daemon.call(Method::DELETE, &path, "").await?.is_some()
                }
                Reach::Alone(mut worker) => worker.remove_secret(&name)?,
            };
            if !removed {
                return Err(CliError::NoSecret(name.to_string()).into());
            }
        }
        arguments::Secret::List { json } => {
            let names: Vec<String> = match Reach::open(config).await? {
                Reach::Daemon(mut daemon) => daemon.get("/v1/secrets").await?,
                Reach::Alone(worker) => worker.secret_names()?,
            };
            if json {
                print_json(&names)?;
            } else {
                let mut out = stdout();
                for name in names {
                    writeln!(out, "{name}")?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Stores a secret, through the daemon where one runs.
pub(super) async fn store(
    config: &Arc<Config>,
    name: &SecretName,
    secret: &Secret,
) -> anyhow::Result<()> {
    match Reach::open(Arc::clone(config)).await? {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/secrets/{}", segment(&name.to_string()));
            let body = secret.expose().to_owned();
            daemon.call(Method::PUT, &path, body).await?;
        }
        Reach::Alone(mut worker) => worker.set_secret(name, secret)?,
    }
    Ok(())
}

fn parse(name: &str) -> Result<SecretName, CliError> {
    SecretName::parse(name).ok_or_else(|| CliError::SecretName(name.to_owned()))
}

/// The vault's file and the key that is made with it.
pub(super) fn vault_files(config: &Config) -> Option<(PathBuf, PathBuf)> {
    let vault = &config.vault;
    match (vault.backend, &vault.key) {
        (Backend::File, VaultKey::File(key) | VaultKey::Passphrase(key)) => {
            Some((vault.path.clone(), key.clone()))
        }
        (Backend::File, VaultKey::Credential(_)) | (Backend::Native | Backend::Keyutils, _) => None,
    }
}

/// A secret that nothing reads is most often a name with a slip in it.
fn warn_of_no_use(config: &Config, name: &SecretName) -> std::io::Result<()> {
    let auth = |mailbox: &String| config.mailbox(mailbox).map(|m| &m.auth);
    let source = match name {
        SecretName::Account(account) => config.account(account).map(|a| &a.password),
        SecretName::Mailbox(mailbox) => match auth(mailbox) {
            Some(Auth::Password(source)) => Some(source),
            Some(Auth::Oauth2(_)) | None => None,
        },
        SecretName::Client(mailbox) => match auth(mailbox) {
            Some(Auth::Oauth2(oauth2)) => oauth2.client_secret.as_ref(),
            Some(Auth::Password(_)) | None => None,
        },
        SecretName::Oauth(mailbox) => match auth(mailbox) {
            Some(Auth::Oauth2(_)) => Some(&SecretSource::Vault),
            Some(Auth::Password(_)) | None => None,
        },
        SecretName::Sink(_) => config.sink_secret(&name.to_string()),
    };
    let mut err = anstream::stderr().lock();
    match source {
        None => writeln!(
            err,
            "warning: nothing in the configuration asks for {name} yet"
        ),
        Some(SecretSource::Vault) => Ok(()),
        Some(_) => writeln!(
            err,
            "warning: the configuration reads the password of {name} from elsewhere"
        ),
    }
}

/// Asks without echo, or reads standard input to its end.
fn ask(name: &SecretName) -> anyhow::Result<Secret> {
    let input = std::io::stdin();
    let secret = if input.is_terminal() {
        let text = Zeroizing::new(rpassword::prompt_password(format!("{name}: "))?);
        let again = Zeroizing::new(rpassword::prompt_password("once more: ")?);
        if *text != *again {
            anyhow::bail!("the two do not match; nothing was changed");
        }
        secret_from(text.as_bytes())?
    } else {
        secret_from(input)?
    };
    Ok(secret.ok_or(CliError::NotASecret)?)
}
