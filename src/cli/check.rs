//! `tokenwatch check`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hyper::Method;
use tokio::sync::mpsc;

use super::reach::Reach;
use super::{Ended, stdout};
use crate::api::CheckLine;
use crate::config::Config;
use crate::daemon::{Doctor, StateError, policy};

pub(super) async fn check(file: Option<&Path>, offline: bool) -> Ended {
    let config = Arc::new(Config::load(file)?);
    policy(&config)?;
    let mut well = true;
    let mut show = |line: CheckLine| -> anyhow::Result<()> {
        well &= line.ok;
        let mut out = stdout();
        let sign = match (line.ok, line.warning) {
            (false, _) => "✗",
            (true, true) => "!",
            (true, false) => "✓",
        };
        writeln!(out, "{sign} {}: {}", line.what, line.found)?;
        if let Some(hint) = line.hint {
            writeln!(out, "  hint: {hint}")?;
        }
        out.flush()?;
        Ok(())
    };
    let named = config
        .file
        .as_ref()
        .map_or_else(|| "the defaults".to_owned(), |f| f.display().to_string());
    show(CheckLine::well(
        "configuration",
        format!("{named} can be used"),
    ))?;
    for warning in config.warnings() {
        let mut out = stdout();
        writeln!(out, "! {warning}")?;
    }
    if config.mailboxes.is_empty() {
        show(CheckLine::ill(
            "mailboxes",
            "no [[mailbox]] is configured",
            "add one; config/minimal.toml is a start",
        ))?;
    }
    let reach = match Reach::open(Arc::clone(&config)).await {
        Ok(reach) => reach,
        Err(error) => {
            let Some(state) = error.downcast_ref::<StateError>() else {
                return Err(error);
            };
            show(CheckLine::ill("vault", crate::chain(state), state.hint()))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    match reach {
        Reach::Daemon(mut daemon) => {
            show(CheckLine::well("daemon", "it is running"))?;
            let path = if offline {
                "/v1/check?offline=true"
            } else {
                "/v1/check"
            };
            daemon.lines(Method::GET, path, "", show).await?;
        }
        Reach::Alone(worker) => {
            show(CheckLine::well(
                "daemon",
                "none is running; the vault is opened by this command",
            ))?;
            let doctor = Doctor::alone(config, *worker)?;
            let (lines, mut received) = mpsc::channel(16);
            let showing = async {
                while let Some(line) = received.recv().await {
                    show(line)?;
                }
                anyhow::Ok(())
            };
            let ((), shown) = tokio::join!(doctor.examine(lines, offline), showing);
            shown?;
        }
    }
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
