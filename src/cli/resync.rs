//! `tokenwatch resync`

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};

use super::client::Client;
use super::{Ended, arguments, print_json, stdout};
use crate::api::{ResyncEvent, ResyncRequest, ResyncSummary};
use crate::config::Config;

pub(super) async fn resync(config: &Config, wanted: &arguments::Resync) -> Ended {
    let mut daemon = Client::require(config).await?;
    let request = ResyncRequest {
        mailbox: wanted.mailbox.clone(),
        since: wanted.since.clone(),
        dry_run: wanted.dry_run,
        no_wait: wanted.no_wait,
    };
    let body = serde_json::to_vec(&request)?;
    if wanted.no_wait {
        daemon.call(Method::POST, "/v1/resync", body).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let bar = progress_bar(wanted.json);
    let mut summary: Option<ResyncSummary> = None;
    daemon
        .lines(Method::POST, "/v1/resync", body, |event: ResyncEvent| {
            if wanted.json {
                print_json(&event)?;
            } else {
                bar.suspend(|| show(&event, wanted.dry_run))?;
                advance(&bar, &event);
            }
            if let ResyncEvent::Finished(finished) = event {
                summary = Some(finished);
            }
            Ok(())
        })
        .await?;
    bar.finish_and_clear();
    match summary {
        Some(summary) if summary.failed == 0 => Ok(ExitCode::SUCCESS),
        Some(_) => Ok(ExitCode::FAILURE),
        None => anyhow::bail!("the daemon stopped before the resync was done"),
    }
}

fn progress_bar(json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} mails")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn advance(bar: &ProgressBar, event: &ResyncEvent) {
    if let ResyncEvent::Progress {
        mailbox,
        folder,
        looked_at,
        of,
    } = event
    {
        bar.set_message(format!("{mailbox}/{folder}"));
        bar.set_length(u64::try_from(*of).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(*looked_at).unwrap_or(u64::MAX));
    }
}

fn show(event: &ResyncEvent, dry_run: bool) -> anyhow::Result<()> {
    let mut out = stdout();
    match event {
        ResyncEvent::Started { .. } | ResyncEvent::Progress { .. } => {}
        ResyncEvent::Outcome(line) => {
            write!(
                out,
                "{:<10} {}/{} {}",
                line.outcome, line.mailbox, line.folder, line.uid
            )?;
            if let Some(username) = &line.username {
                write!(out, "  {username}")?;
            }
            if let Some(detail) = &line.detail {
                write!(out, "  {detail}")?;
            }
            writeln!(out)?;
        }
        ResyncEvent::Failed {
            mailbox,
            folder,
            error,
            hint,
        } => {
            let mut err = anstream::stderr().lock();
            writeln!(err, "error: {mailbox}/{folder}: {error}\nhint: {hint}")?;
        }
        ResyncEvent::Finished(s) => {
            let would = if dry_run {
                " (nothing was changed)"
            } else {
                ""
            };
            writeln!(
                out,
                "{} mails looked at: {} updated, {} duplicate, {} older, {} held, {} ignored, {} undecided{would}",
                s.looked_at, s.updated, s.duplicate, s.older, s.held, s.ignored, s.undecided
            )?;
        }
    }
    out.flush()?;
    Ok(())
}
