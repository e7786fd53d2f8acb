//! `tokenwatch credential`

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::Method;

use super::client::segment;
use super::error::CliError;
use super::reach::Reach;
use super::status::{account_line, second};
use super::{Ended, arguments, print_json, stdout};
use crate::api::{AccountStatus, VersionLine};
use crate::config::Config;
use crate::secret::Secret;

pub(super) async fn credential(config: Config, verb: arguments::Credential) -> Ended {
    let config = Arc::new(config);
    let reach = Reach::open(Arc::clone(&config)).await?;
    match verb {
        arguments::Credential::List { json } => list(reach, json).await?,
        arguments::Credential::Get { username } => {
            if config.account(&username).is_none() {
                return Err(CliError::UnknownAccount(username).into());
            }
            let secret = get(reach, &username).await?;
            let secret = secret.ok_or(CliError::NoCredential(username))?;
            let mut out = std::io::stdout().lock();
            out.write_all(secret.expose().as_bytes())?;
            if out.is_terminal() {
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
        arguments::Credential::Rollback { username } => {
            if config.account(&username).is_none() {
                return Err(CliError::UnknownAccount(username).into());
            }
            let version = roll_back(reach, &username).await?;
            let version = version.ok_or(CliError::NothingToRollBackTo(username))?;
            writeln!(
                anstream::stderr(),
                "version {version} is current again; Salesforce has most likely killed its token \
                 when it made the next one"
            )?;
        }
        arguments::Credential::History { username, json } => {
            if config.account(&username).is_none() {
                return Err(CliError::UnknownAccount(username).into());
            }
            history(reach, &username, json).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(reach: Reach, json: bool) -> anyhow::Result<()> {
    let accounts: Vec<AccountStatus> = match reach {
        Reach::Daemon(mut daemon) => daemon.get("/v1/credentials").await?,
        Reach::Alone(mut worker) => worker.credentials()?,
    };
    if json {
        return print_json(&accounts);
    }
    let mut out = stdout();
    for account in &accounts {
        writeln!(out, "{}", account_line(account))?;
    }
    out.flush()?;
    Ok(())
}

async fn get(reach: Reach, username: &str) -> anyhow::Result<Option<Secret>> {
    match reach {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/credentials/{}", segment(username));
            let Some(response) = daemon.call(Method::GET, &path, "").await? else {
                return Ok(None);
            };
            let bytes = response.into_body().collect().await?.to_bytes();
            let text = std::str::from_utf8(&bytes).map_err(|_| CliError::Answer)?;
            Ok(Some(Secret::new(text.to_owned())))
        }
        Reach::Alone(worker) => Ok(worker.credential(username)?),
    }
}

async fn roll_back(reach: Reach, username: &str) -> anyhow::Result<Option<u64>> {
    match reach {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/credentials/{}/rollback", segment(username));
            daemon.ask(Method::POST, &path).await
        }
        Reach::Alone(mut worker) => Ok(worker.roll_back(username)?),
    }
}

async fn history(reach: Reach, username: &str, json: bool) -> anyhow::Result<()> {
    let versions: Vec<VersionLine> = match reach {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/credentials/{}/history", segment(username));
            daemon.get(&path).await?
        }
        Reach::Alone(worker) => worker.history(username)?,
    };
    if json {
        return print_json(&versions);
    }
    let mut out = stdout();
    for version in &versions {
        let login = match (&version.verdict, version.checked) {
            (Some(verdict), Some(checked)) => format!("  login {verdict} {}", second(checked)),
            _ => String::new(),
        };
        writeln!(
            out,
            "{:>3}  {:<10} since {}  token {} of {}{login}  {}  {}",
            version.version,
            version.label,
            second(version.moved),
            version.fingerprint,
            second(version.originated),
            version.source,
            version.proof
        )?;
    }
    out.flush()?;
    Ok(())
}
