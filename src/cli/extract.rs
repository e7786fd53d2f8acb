//! `tokenwatch extract`: what the daemon would make of saved mails.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use mail_parser::mailbox::{maildir, mbox};
use serde::Serialize;

use super::error::CliError;
use super::{Ended, arguments, print_json, stdout};
use crate::config::Config;
use crate::daemon::policy;
use crate::judge::{Finding, Judgement, judge};
use crate::notice::NotANotice;
use crate::secret::Secret;
use crate::sender::{Keys, Verdict};

pub(super) async fn extract(config: Config, wanted: &arguments::Extract) -> Ended {
    let keys = Keys::new(&config.trust.dns_servers)?;
    let policy = policy(&config)?;
    let (mut read, mut notices) = (0_usize, 0_usize);
    for file in &wanted.files {
        for (source, raw) in mails(file)? {
            read = read.saturating_add(1);
            let judgement = judge(&raw, &policy, &keys).await;
            let line = Line::of(source, &judgement, &config, wanted.reveal);
            let is_one = !matches!(
                judgement.finding,
                Finding::NotANotice(NotANotice::Ignored(_))
            );
            if is_one {
                notices = notices.saturating_add(1);
            }
            if wanted.json {
                print_json(&line)?;
            } else {
                line.show()?;
            }
        }
    }
    if notices == 0 {
        return Err(CliError::NoNotice(read).into());
    }
    Ok(ExitCode::SUCCESS)
}

/// The mails of a file, a folder or standard input, each with its name.
fn mails(path: &Path) -> Result<Vec<(String, Vec<u8>)>, CliError> {
    let unreadable = |source| CliError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let name = path.display().to_string();
    if path.is_dir() {
        let folder = maildir::MessageIterator::new(path).map_err(unreadable)?;
        return folder
            .map(|message| {
                let message = message.map_err(unreadable)?;
                let source = message.path().display().to_string();
                Ok((source, message.unwrap_contents()))
            })
            .collect();
    }
    let mut bytes = Vec::new();
    if name == "-" {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    }
    .map_err(unreadable)?;
    if !bytes.starts_with(b"From ") {
        return Ok(vec![(name, bytes)]);
    }
    mbox::MessageIterator::new(bytes.as_slice())
        .enumerate()
        .map(|(n, message)| {
            // The iterator's error says no more than that.
            let message =
                message.map_err(|_| unreadable(std::io::Error::other("this is no mbox")))?;
            let source = format!("{name}#{}", n.saturating_add(1));
            Ok((source, message.unwrap_contents()))
        })
        .collect()
}

/// What is said of one mail.
#[derive(Serialize)]
struct Line {
    source: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    sender: Option<String>,
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
    detail: Option<String>,
    message_id: Option<String>,
    date: Option<String>,
}

impl Line {
    fn of(source: String, judgement: &Judgement, config: &Config, reveal: bool) -> Self {
        let envelope = &judgement.envelope;
        let mut line = Self {
            source,
            outcome: "ignored",
            username: None,
            token: None,
            sender: envelope.from.clone(),
            verdict: None,
            reason: None,
            detail: None,
            message_id: envelope.message_id.clone(),
            date: envelope.date.map(|date| date.to_string()),
        };
        match &judgement.finding {
            Finding::NotANotice(why) => {
                line.outcome = match why {
                    NotANotice::Ignored(_) => "ignored",
                    NotANotice::Held(_) => "held",
                };
                line.reason = Some(why.code());
                line.detail = Some(why.to_string());
            }
            Finding::Notice(notice, verdict) => {
                line.outcome = "notice";
                line.username = Some(notice.username.to_string());
                line.token = Some(shown(&notice.token, reveal));
                line.verdict = Some(verdict.word());
                line.reason = verdict.code();
                line.detail = Some(verdict.to_string());
                let unknown = !config.accounts.is_empty()
                    && config.account(notice.username.as_str()).is_none();
                if unknown && matches!(verdict, Verdict::Trusted(_)) {
                    line.outcome = "held";
                    line.token = None;
                    line.reason = Some("unknown-account");
                    line.detail = Some(format!(
                        "no [[account]] is configured for {}",
                        notice.username
                    ));
                }
            }
        }
        line
    }

    fn show(&self) -> anyhow::Result<()> {
        let mut out = stdout();
        let would = match (self.outcome, self.verdict) {
            ("notice", Some("trusted")) => "the credential would be updated",
            ("notice", Some("undecided")) => "it would be judged again later",
            ("notice" | "held", _) => "it would be held for a person to decide",
            _ => "it would be ignored",
        };
        writeln!(out, "{}\n  {:<9} {would}", self.source, self.outcome)?;
        let rows = [
            ("username", self.username.as_deref()),
            ("token", self.token.as_deref()),
            ("from", self.sender.as_deref()),
            ("verdict", self.verdict),
            ("reason", self.reason),
            ("", self.detail.as_deref()),
            ("mail", self.message_id.as_deref()),
            ("date", self.date.as_deref()),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                let value: String = value.chars().filter(|c| !c.is_control()).collect();
                writeln!(out, "  {name:<9} {value}")?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

fn shown(token: &Secret, reveal: bool) -> String {
    if reveal {
        token.expose().to_owned()
    } else {
        "***".to_owned()
    }
}
