//! `tokenwatch extract`: what the daemon would make of saved mails.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use mail_parser::mailbox::mbox;
use serde::Serialize;

use super::error::{CliError, complain};
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
    let mut unreadable: Option<ExitCode> = None;
    let bar = progress_bar(&wanted.files);
    for file in &wanted.files {
        let mails = mails(file, policy.max_size).unwrap_or_else(|error| {
            let none: Mails = Box::new(std::iter::once(Err(error)));
            none
        });
        for mail in mails {
            let (source, raw) = match mail {
                Ok(mail) => mail,
                // The others are read all the same.
                Err(error) => {
                    let code = bar.suspend(|| complain(&error.into()));
                    unreadable.get_or_insert(code);
                    continue;
                }
            };
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
            bar.suspend(|| {
                if wanted.json {
                    print_json(&line)
                } else {
                    line.show()
                }
            })?;
            bar.inc(u64::try_from(raw.len()).unwrap_or(u64::MAX));
        }
    }
    bar.finish_and_clear();
    match unreadable {
        Some(code) => Ok(code),
        None if notices == 0 => Err(CliError::NoNotice(read).into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A bar over the octets of all files, on a terminal.
fn progress_bar(files: &[PathBuf]) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let size = |path: &PathBuf| path.metadata().map_or(0, |about| about.len());
    let all = files.iter().map(|path| match maildir(path) {
        Ok(mails) => mails.iter().map(size).sum(),
        Err(_) => size(path),
    });
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(all.sum()).with_style(style)
}

/// One mail after the other, each with its name.
type Mails = Box<dyn Iterator<Item = Result<(String, Vec<u8>), CliError>>>;

/// The mails of a file, a Maildir folder or standard input. Of a mail that is
/// larger than `max_size` no more is read than shows that it is, but in an mbox,
/// which must be read to find the next one.
fn mails(path: &Path, max_size: usize) -> Result<Mails, CliError> {
    if path.is_dir() {
        let files = maildir(path).map_err(|source| unreadable(path, source))?;
        return Ok(Box::new(files.into_iter().map(move |file| {
            let name = file.display().to_string();
            let opened = File::open(&file).and_then(|opened| whole(opened, max_size));
            opened
                .map(|mail| (name, mail))
                .map_err(|source| unreadable(&file, source))
        })));
    }
    let path = path.to_owned();
    let name = path.display().to_string();
    let mut reader: Box<dyn BufRead> = if name == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(&path).map_err(|source| unreadable(&path, source))?;
        Box::new(BufReader::new(file))
    };
    let begin = reader
        .fill_buf()
        .map_err(|source| unreadable(&path, source))?;
    if begin.starts_with(b"From ") {
        let mails = mbox::MessageIterator::new(reader).enumerate();
        let mut is_broken = false;
        return Ok(Box::new(mails.map_while(move |(n, mail)| {
            // Behind an error there is nothing but the same error.
            if is_broken {
                return None;
            }
            is_broken = mail.is_err();
            let source = format!("{name}#{}", n.saturating_add(1));
            let mail = mail
                .map(|mail| (source, mail.unwrap_contents()))
                .map_err(|source| unreadable(&path, source));
            Some(mail)
        })));
    }
    let mail = whole(reader, max_size).map_err(|source| unreadable(&path, source))?;
    Ok(Box::new(std::iter::once(Ok((name, mail)))))
}

fn unreadable(path: &Path, source: std::io::Error) -> CliError {
    CliError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// The files of a Maildir folder, in the order of their names.
fn maildir(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for part in ["cur", "new"] {
        let part = folder.join(part);
        if !part.is_dir() {
            return Err(std::io::Error::other(
                "a Maildir has folders `cur` and `new`",
            ));
        }
        for entry in std::fs::read_dir(part)? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

fn whole(reader: impl Read, max_size: usize) -> std::io::Result<Vec<u8>> {
    let enough = u64::try_from(max_size)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut mail = Vec::new();
    reader.take(enough).read_to_end(&mut mail)?;
    Ok(mail)
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
    /// What is worth knowing beside the verdict, for a person.
    #[serde(skip)]
    note: Option<String>,
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
            note: None,
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
                line.note = notice
                    .unusual_length()
                    .map(|length| format!("the token has {length} characters; 24 or 25 are usual"));
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
            ("note", self.note.as_deref()),
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
