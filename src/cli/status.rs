//! `tokenwatch status`

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use super::client::Client;
use super::{Ended, print_json, stdout};
use crate::api::{AccountState, Health, MailboxState, SinkState, Status};
use crate::config::Config;

pub(super) async fn status(config: &Config, json: bool, watch: bool) -> Ended {
    let mut seen_before = false;
    loop {
        let status = match ask(config).await {
            Ok(status) => status,
            // It may be on its way back; whoever watches wants to see that.
            Err(error) if watch && seen_before => {
                writeln!(anstream::stderr().lock(), "{error}")?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        seen_before = true;
        if json {
            print_json(&status)?;
        } else {
            let mut out = stdout();
            if watch {
                // Clears the screen and goes to its first line.
                write!(out, "\x1b[2J\x1b[H")?;
            }
            show(&mut out, &status)?;
            out.flush()?;
        }
        if !watch {
            return Ok(match status.state {
                Health::Healthy => ExitCode::SUCCESS,
                Health::Degraded | Health::Starting => ExitCode::FAILURE,
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn ask(config: &Config) -> anyhow::Result<Status> {
    let mut daemon = Client::require(config).await?;
    daemon.get("/v1/status").await
}

fn show(out: &mut impl Write, status: &Status) -> std::io::Result<()> {
    let state = match status.state {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Starting => "starting",
    };
    writeln!(out, "tokenwatch is {state}")?;
    writeln!(out, "\nmailboxes")?;
    for row in &status.mailboxes {
        let doing = match row.state {
            MailboxState::Connecting => "connecting",
            MailboxState::Authenticating => "logging in",
            MailboxState::CatchingUp => "catching up",
            MailboxState::Watching => "watching",
            MailboxState::Polling => "polling",
            MailboxState::Waiting => "waiting",
        };
        write!(
            out,
            "  {}/{}  {}  {doing} since {}",
            row.name,
            row.folder,
            row.host,
            second(row.since)
        )?;
        match (row.next_attempt, row.proof_of_life) {
            (Some(next), _) => writeln!(out, ", next attempt {}", second(next))?,
            (None, Some(alive)) => writeln!(out, ", server last heard {}", second(alive))?,
            (None, None) => writeln!(out)?,
        }
        if let (MailboxState::Waiting, Some(error)) = (row.state, &row.last_error) {
            writeln!(out, "    {error}")?;
        }
    }
    writeln!(out, "\naccounts")?;
    for account in &status.accounts {
        writeln!(out, "  {}", account_line(account))?;
    }
    if !status.sinks.is_empty() {
        writeln!(out, "\nsinks")?;
    }
    for sink in &status.sinks {
        let state = match sink.state {
            SinkState::Delivered => "told",
            SinkState::Waiting => "waits",
            SinkState::Failing => "failing",
        };
        let since = second(sink.since);
        write!(
            out,
            "  {}  {}  {state} since {since}",
            sink.name, sink.username
        )?;
        match sink.next_attempt {
            Some(next) => writeln!(out, ", next attempt {}", second(next))?,
            None => writeln!(out)?,
        }
    }
    if status.held > 0 {
        writeln!(
            out,
            "\n{} mails are held for a person to decide: see `tokenwatch held`",
            status.held
        )?;
    }
    if !status.problems.is_empty() {
        writeln!(out, "\nproblems")?;
        for problem in &status.problems {
            writeln!(
                out,
                "  {}  {} (since {})\n    hint: {}",
                problem.code,
                problem.title,
                second(problem.since),
                problem.hint
            )?;
        }
    }
    Ok(())
}

/// One account on a line, for `status` and `credential list`.
pub(super) fn account_line(account: &crate::api::AccountStatus) -> String {
    let state = match account.state {
        AccountState::Current => "current",
        AccountState::Checking => "waits for its check",
        AccountState::PasswordMissing => "password missing",
        AccountState::LoginRefused => "login refused",
        AccountState::NoToken => "no token yet",
        AccountState::Unreadable => "cannot be read: run `tokenwatch check`",
    };
    let username = &account.username;
    if let (Some(version), Some(received), Some(fingerprint)) = (
        account.version,
        account.token_received,
        &account.fingerprint,
    ) {
        let received = second(received);
        format!(
            "{username}  {state}, version {version}, token received {received}, fingerprint {fingerprint}"
        )
    } else {
        format!("{username}  {state}")
    }
}

/// RFC 3339 to the second.
pub(super) fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}
