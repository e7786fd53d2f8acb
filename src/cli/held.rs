//! `tokenwatch held`

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::Method;

use super::error::CliError;
use super::reach::Reach;
use super::status::second;
use super::{Ended, arguments, print_json, stdout};
use crate::api::{AcceptRequest, Acceptance, HeldLine};
use crate::config::Config;
use crate::daemon::{HeldError, accept_alone};

pub(super) async fn held(config: Config, wanted: arguments::Held) -> Ended {
    let config = Arc::new(config);
    let usual = arguments::HeldVerb::List { json: false };
    match wanted.verb.unwrap_or(usual) {
        arguments::HeldVerb::List { json } => list(config, json || wanted.json).await,
        arguments::HeldVerb::Accept { .. } | arguments::HeldVerb::Drop { .. } if wanted.json => {
            Err(CliError::JsonIsForLists.into())
        }
        arguments::HeldVerb::Accept { id, yes } => accept(&config, id, yes).await,
        arguments::HeldVerb::Drop { id } => drop_it(config, id).await,
    }
}

async fn list(config: Arc<Config>, json: bool) -> Ended {
    let mails: Vec<HeldLine> = match Reach::open(config).await? {
        Reach::Daemon(mut daemon) => daemon.get("/v1/held").await?,
        Reach::Alone(worker) => worker.held()?,
    };
    if json {
        for mail in &mails {
            print_json(mail)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = stdout();
    for mail in &mails {
        let reason = mail.reason.as_deref().unwrap_or("held");
        writeln!(out, "{}  {reason}", mail.id)?;
        let place = format!("{}/{} UID {}", mail.mailbox, mail.folder, mail.uid);
        let times = format!(
            "{}, held since {}",
            second(mail.received),
            second(mail.held_since)
        );
        let rows = [
            ("why", mail.detail.as_deref()),
            ("from", mail.sender.as_deref()),
            ("username", mail.username.as_deref()),
            ("received", Some(times.as_str())),
            ("place", Some(place.as_str())),
            ("mail", mail.message_id.as_deref()),
            ("hint", Some(mail.hint.as_str())),
        ];
        show_rows(&mut out, &rows)?;
    }
    if mails.is_empty() {
        // Standard output is data, and there is none.
        writeln!(anstream::stderr().lock(), "no mail is held")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// In two steps, between which a person thinks: the vault is free meanwhile
/// where no daemon runs, and one may have begun to.
async fn accept(config: &Arc<Config>, id: i64, yes: bool) -> Ended {
    let shown = step(config, id, None).await?;
    show(&shown)?;
    if !yes && !ask(id)? {
        writeln!(anstream::stderr().lock(), "nothing was changed")?;
        return Ok(ExitCode::FAILURE);
    }
    let done = step(config, id, Some(shown.confirm)).await?;
    let mut out = stdout();
    writeln!(out, "{}  {}", done.outcome, done.username)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn step(
    config: &Arc<Config>,
    id: i64,
    confirm: Option<String>,
) -> anyhow::Result<Acceptance> {
    match Reach::open(Arc::clone(config)).await? {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/held/{id}/accept");
            let body = serde_json::to_vec(&AcceptRequest { confirm })?;
            let response = daemon.call(Method::POST, &path, body).await?;
            let response = response.ok_or(HeldError::NotHeld(id))?;
            let bytes = response.into_body().collect().await?.to_bytes();
            Ok(serde_json::from_slice(&bytes).map_err(|_| CliError::Answer)?)
        }
        Reach::Alone(worker) => Ok(accept_alone(config, *worker, id, confirm).await?),
    }
}

async fn drop_it(config: Arc<Config>, id: i64) -> Ended {
    let dropped = match Reach::open(config).await? {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/held/{id}");
            daemon.call(Method::DELETE, &path, "").await?.is_some()
        }
        Reach::Alone(mut worker) => worker.drop_held(id)?,
    };
    if !dropped {
        return Err(HeldError::NotHeld(id).into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what accepting a mail will do.
fn show(shown: &Acceptance) -> anyhow::Result<()> {
    let place = format!("{}/{} UID {}", shown.mailbox, shown.folder, shown.uid);
    let verdict = match &shown.reason {
        Some(reason) => format!("{} ({reason}): {}", shown.verdict, shown.detail),
        None => format!("{}: {}", shown.verdict, shown.detail),
    };
    let known = shown.known.as_ref().map_or_else(
        || "no token yet".to_owned(),
        |known| {
            format!(
                "version {}, fingerprint {}, sent {}",
                known.version,
                known.fingerprint,
                second(known.originated)
            )
        },
    );
    let brought = format!(
        "fingerprint {}, sent {}",
        shown.fingerprint,
        second(shown.originated)
    );
    let will = match shown.outcome.as_str() {
        "updated" => "this token becomes the account's newest, and its credential is made with it",
        "duplicate" => {
            "this token is known already: no credential changes, and the mail waits no more"
        }
        _ => {
            "it is older than the token that is known: no credential changes, and the mail waits no more"
        }
    };
    let received = second(shown.received);
    let rows = [
        ("account", Some(shown.username.as_str())),
        ("from", shown.sender.as_deref()),
        ("verdict", Some(verdict.as_str())),
        ("received", Some(received.as_str())),
        ("place", Some(place.as_str())),
        ("mail", shown.message_id.as_deref()),
        ("now", Some(known.as_str())),
        ("it brings", Some(brought.as_str())),
        ("then", Some(will)),
    ];
    let mut out = stdout();
    writeln!(out, "mail {}", shown.id)?;
    show_rows(&mut out, &rows)?;
    out.flush()?;
    Ok(())
}

fn show_rows(out: &mut impl Write, rows: &[(&str, Option<&str>)]) -> std::io::Result<()> {
    for (name, value) in rows {
        if let Some(value) = value {
            writeln!(out, "  {name:<9}  {}", plain(value))?;
        }
    }
    Ok(())
}

/// What a stranger wrote, so that it can neither move the cursor nor turn the
/// line around.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Asks on the terminal; without one there is nobody to ask.
fn ask(id: i64) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(CliError::NobodyToAsk(id).into());
    }
    let mut err = anstream::stderr().lock();
    write!(err, "accept it? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    let answer = answer.trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_a_stranger_wrote_stays_on_its_line() {
        assert_eq!(plain("O'Brien \"x\" <ö@x.y>"), "O'Brien \"x\" <ö@x.y>");
        let shown = plain("a\u{1b}[2J\r\nb\u{202e}c");
        assert_eq!(shown, "a\\u{1b}[2J\\r\\nb\\u{202e}c");
    }
}
