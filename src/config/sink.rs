//! A sink as it is meant: who is handed the credentials, of which accounts, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meant::{argv, duration, is_id, plain_text, unique};
use super::webhook::{self, Webhook};
use super::{Account, ConfigError, SecretSource, written};

/// How long a receiver may take where nothing else is written.
pub(super) const USUAL: Duration = Duration::from_secs(30);

/// systemd itself gives a unit a minute and a half to start.
const OF_A_UNIT: Duration = Duration::from_secs(120);

/// An entry may not wait for one receiver for longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// Who is handed new credentials.
#[derive(Clone, Debug)]
pub struct Sink {
    /// What people call it.
    pub name: String,
    /// Whose credentials it gets, as the accounts are written; `None` for all.
    pub accounts: Option<Vec<String>>,
    /// Who it is.
    pub to: Receiver,
}

/// Who is handed a credential.
#[derive(Clone, Debug)]
pub enum Receiver {
    /// A file for each account.
    File {
        /// Its path, with `{username}` in it where there are more accounts than one.
        path: PathBuf,
        /// What stands in it.
        format: FileFormat,
        /// Its permissions.
        mode: u32,
        /// `user:group`.
        owner: Option<String>,
    },
    /// A program that reads its standard input.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// An HTTPS request.
    Webhook(Box<Webhook>),
    /// A unit that is reloaded or restarted.
    Systemd {
        /// Its name.
        unit: String,
        /// How long that may take.
        timeout: Duration,
    },
}

/// What stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// For systemd, sh and compose.
    Env,
    /// For `docker run --env-file`.
    DockerEnv,
    /// One object.
    Json,
    /// Password and token alone.
    Raw,
    /// What a template makes of it.
    Template(PathBuf),
}

impl Sink {
    /// Whether it gets this account's credentials.
    pub fn wants(&self, username: &str) -> bool {
        let wanted = username.to_lowercase();
        let is_it = |account: &String| account.to_lowercase() == wanted;
        self.accounts
            .as_ref()
            .is_none_or(|accounts| accounts.iter().any(is_it))
    }

    /// Where the secrets are that it needs for itself, and under which names a vault has them:
    /// `sink/NAME` for the key of a signature, `sink/NAME/HEADER` for a header field.
    pub fn secrets(&self) -> Vec<(String, &SecretSource)> {
        let Receiver::Webhook(webhook) = &self.to else {
            return Vec::new();
        };
        let key = webhook.secret.iter();
        let key = key.map(|source| (format!("sink/{}", self.name), source));
        let headers = webhook.headers.iter();
        let headers =
            headers.map(|(header, source)| (format!("sink/{}/{header}", self.name), source));
        key.chain(headers).collect()
    }

    /// Where the credential goes, and as what: another one is another delivery.
    pub fn whereabouts(&self) -> String {
        match &self.to {
            Receiver::File {
                path,
                format,
                mode,
                owner,
            } => format!("{} {format:?} {mode:o} {owner:?}", path.display()),
            Receiver::Command { argv, .. } => format!("{argv:?}"),
            Receiver::Systemd { unit, .. } => format!("{unit:?}"),
            Receiver::Webhook(webhook) => {
                let headers = webhook.headers.iter().map(|(name, _)| name);
                let headers: Vec<_> = headers.collect();
                let kind = (webhook.put, webhook.include_secret, &webhook.content_type);
                format!(
                    "{:?} {:?} {kind:?} {headers:?}",
                    webhook.url, webhook.format
                )
            }
        }
    }

    /// Anybody on the machine may read what it writes.
    pub(super) fn is_readable_by_all(&self) -> bool {
        matches!(self.to, Receiver::File { mode, .. } if mode & 0o004 != 0)
    }
}

/// What is written under `[[sink]]`, as it is meant.
pub(super) fn mean(
    written: Vec<written::Sink>,
    accounts: &[Account],
    folder: &Path,
) -> Result<Vec<Sink>, ConfigError> {
    let sinks = written
        .into_iter()
        .enumerate()
        .map(|(at, sink)| {
            let name = name(&sink, at);
            one(&sink, &name, accounts, folder).map_err(|error| error.of("sink", at, &name))
        })
        .collect::<Result<Vec<_>, _>>()?;
    unique("sink.name", sinks.iter().map(|sink| sink.name.clone()))?;
    let files = sinks.iter().flat_map(|sink| files(sink, accounts));
    unique("sink.path", files)?;
    Ok(sinks)
}

/// The files that a sink writes, so that no two sinks write the same.
fn files(sink: &Sink, accounts: &[Account]) -> Vec<String> {
    let Receiver::File { path, .. } = &sink.to else {
        return Vec::new();
    };
    // The components are the same for `/run//x` and `/run/./x`.
    let path = path.components().collect::<PathBuf>();
    let path = path.display().to_string();
    let its = accounts.iter().map(|account| account.username.as_str());
    let mut files: Vec<_> = its
        .filter(|username| sink.wants(username))
        .map(|username| path.replace("{username}", username))
        .collect();
    files.dedup();
    files
}

/// What it is called, or its kind and its number.
fn name(written: &written::Sink, at: usize) -> String {
    match &written.name {
        Some(name) => name.clone(),
        None => format!("{}-{}", written.kind, at.saturating_add(1)),
    }
}

fn one(
    written: &written::Sink,
    name: &str,
    accounts: &[Account],
    folder: &Path,
) -> Result<Sink, ConfigError> {
    only_its_own(written)?;
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !is_id(name) || !name.bytes().all(is_plain) {
        return Err(invalid(
            "name",
            "a name has lower-case letters, digits and `-` only",
            "use a short name such as exalate",
        ));
    }
    let for_whom = for_whom(written.accounts.as_deref(), accounts)?;
    let how_many = for_whom.as_ref().map_or(accounts.len(), Vec::len);
    let to = match written.kind.as_str() {
        "file" => file(written, how_many, folder)?,
        "command" => Receiver::Command {
            argv: command(written.argv.as_ref())?,
            timeout: timeout(written, USUAL)?,
        },
        "webhook" => Receiver::Webhook(Box::new(webhook::mean(written, folder)?)),
        "systemd" => Receiver::Systemd {
            unit: unit(written.unit.as_deref())?,
            timeout: timeout(written, OF_A_UNIT)?,
        },
        _ => {
            return Err(invalid(
                "kind",
                "this is none of `file`, `command`, `webhook` and `systemd`",
                "use `file` for a program that reads a file",
            ));
        }
    };
    Ok(Sink {
        name: name.to_owned(),
        accounts: for_whom,
        to,
    })
}

pub(super) fn invalid(name: &str, why: impl Into<String>, hint: &'static str) -> ConfigError {
    ConfigError::invalid(format!("sink.{name}"), why, hint)
}

/// A key of another kind of sink would be without effect, and somebody counted on it.
fn only_its_own(written: &written::Sink) -> Result<(), ConfigError> {
    let kv2 = written.format.as_deref() == Some("kv2");
    let is = |kind: &str| written.kind == kind;
    let keys = [
        ("path", written.path.is_some(), is("file")),
        ("mode", written.mode.is_some(), is("file")),
        ("owner", written.owner.is_some(), is("file")),
        (
            "format",
            written.format.is_some(),
            is("file") || is("webhook"),
        ),
        (
            "template",
            written.template.is_some(),
            (is("file") || is("webhook")) && !kv2,
        ),
        ("argv", written.argv.is_some(), is("command")),
        ("timeout", written.timeout.is_some(), !is("file")),
        ("url", written.url.is_some(), is("webhook")),
        ("method", written.method.is_some(), is("webhook") && !kv2),
        (
            "include-secret",
            written.include_secret.is_some(),
            is("webhook"),
        ),
        ("secret", written.secret.is_some(), is("webhook") && !kv2),
        ("headers", written.headers.is_some(), is("webhook")),
        (
            "content-type",
            written.content_type.is_some(),
            is("webhook") && !kv2,
        ),
        ("ca-file", written.ca_file.is_some(), is("webhook")),
        ("proxy", written.proxy.is_some(), is("webhook")),
        ("unit", written.unit.is_some(), is("systemd")),
    ];
    let known = ["file", "command", "webhook", "systemd"].contains(&written.kind.as_str());
    match keys.iter().find(|(_, set, its)| known && *set && !*its) {
        Some((key, ..)) => Err(invalid(
            key,
            format!(
                "the key is without effect with `kind = {:?}`{}",
                written.kind,
                if kv2 && is("webhook") {
                    " and `format = \"kv2\"`"
                } else {
                    ""
                }
            ),
            "take the key away, or see config/tokenwatch.toml for the keys of each kind",
        )),
        None => Ok(()),
    }
}

/// The accounts of this sink, as they are written under `[[account]]`.
fn for_whom(
    written: Option<&[String]>,
    accounts: &[Account],
) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(written) = written else {
        return Ok(None);
    };
    let known = |username: &String| {
        let wanted = username.to_lowercase();
        accounts
            .iter()
            .find(|account| account.username.to_lowercase() == wanted)
            .map(|account| account.username.clone())
            .ok_or_else(|| {
                invalid(
                    "accounts",
                    format!("no account {username:?} is configured"),
                    "name usernames that have an [[account]], or leave the key out for all",
                )
            })
    };
    let meant: Vec<_> = written.iter().map(known).collect::<Result<_, _>>()?;
    unique("sink.accounts", meant.iter().cloned())?;
    if meant.is_empty() {
        return Err(invalid(
            "accounts",
            "with no account the sink would never be told of anything",
            "leave the key out for all accounts",
        ));
    }
    Ok(Some(meant))
}

fn file(written: &written::Sink, accounts: usize, folder: &Path) -> Result<Receiver, ConfigError> {
    let path = match written.path.as_deref() {
        Some(path) if !path.is_empty() && !path.ends_with('/') => path,
        _ => {
            return Err(invalid(
                "path",
                "a file needs a path",
                "write /run/tokenwatch/{username}.env",
            ));
        }
    };
    plain_text("sink.path", path)?;
    let rest = placeholder("path", path)?;
    if !rest && accounts > 1 {
        return Err(invalid(
            "path",
            "one file cannot hold the credentials of several accounts",
            "put `{username}` into the path, or name one account in `accounts`",
        ));
    }
    let template = written.template.as_ref().map(|path| folder.join(path));
    let format = match (written.format.as_deref(), template) {
        (None | Some("template"), Some(template)) => FileFormat::Template(template),
        (Some("template"), None) => return Err(no_template()),
        (None | Some("env"), None) => FileFormat::Env,
        (Some("docker-env"), None) => FileFormat::DockerEnv,
        (Some("json"), None) => FileFormat::Json,
        (Some("raw"), None) => FileFormat::Raw,
        (Some(_), Some(_)) => return Err(two_formats()),
        (Some(_), None) => {
            return Err(invalid(
                "format",
                "this is none of `env`, `docker-env`, `json`, `raw` and `template`",
                "leave the key out for `env`",
            ));
        }
    };
    Ok(Receiver::File {
        path: folder.join(path),
        format,
        mode: mode(written.mode.as_deref().unwrap_or("0600"))?,
        owner: written.owner.as_deref().map(owner).transpose()?,
    })
}

pub(super) fn no_template() -> ConfigError {
    invalid(
        "template",
        "the format `template` needs a template",
        "name its file in `template`",
    )
}

pub(super) fn two_formats() -> ConfigError {
    invalid(
        "format",
        "there is a template, and another format is named",
        "take one of the two away",
    )
}

/// Whether `{username}` stands in it; another word in braces would be a slip.
pub(super) fn placeholder(key: &str, text: &str) -> Result<bool, ConfigError> {
    let rest = text.replace("{username}", "");
    if rest.contains(['{', '}']) {
        return Err(invalid(
            key,
            "the one word in braces that is known is `{username}`",
            "write /run/tokenwatch/{username}.env",
        ));
    }
    Ok(rest != text)
}

fn mode(written: &str) -> Result<u32, ConfigError> {
    let digits = written.trim_start_matches("0o");
    let is_octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = is_octal.then(|| u32::from_str_radix(digits, 8).ok());
    mode.flatten()
        .filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600 && mode & 0o133 == 0)
        .ok_or_else(|| {
            invalid(
                "mode",
                "these are no permissions of a file that its owner reads and writes and others read at most",
                "write \"0600\", or \"0640\" with an `owner` whose group reads it",
            )
        })
}

/// Whether the names are known here is for the room to say that looks them up.
fn owner(written: &str) -> Result<String, ConfigError> {
    let is_name = |name: &str| {
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-$".contains(&b))
    };
    let (user, group) = written.split_once(':').unwrap_or((written, ""));
    if (user.is_empty() && group.is_empty()) || !is_name(user) || !is_name(group) {
        return Err(invalid(
            "owner",
            "this is none of `user:group`, `user` and `:group`",
            "write root:docker, or :exalate",
        ));
    }
    Ok(written.to_owned())
}

fn command(written: Option<&written::Argv>) -> Result<Vec<String>, ConfigError> {
    let words = match written {
        Some(written::Argv::Line(line)) => argv(line),
        Some(written::Argv::Words(words)) => {
            let is_usable = !words.iter().any(|word| word.contains('\0'))
                && words.first().is_some_and(|program| !program.is_empty());
            is_usable.then(|| words.clone())
        }
        None => None,
    };
    words.ok_or_else(|| {
        invalid(
            "argv",
            "this is no program with its arguments; no shell is involved, so a line has no quotes",
            "write [\"/usr/local/bin/program\", \"argument\"]",
        )
    })
}

pub(super) fn timeout(written: &written::Sink, usual: Duration) -> Result<Duration, ConfigError> {
    let Some(timeout) = &written.timeout else {
        return Ok(usual);
    };
    let timeout = duration("sink.timeout", timeout)?;
    if timeout > LONGEST {
        return Err(invalid(
            "timeout",
            "nobody waits for a receiver for longer than an hour",
            "leave the key out for 30s",
        ));
    }
    Ok(timeout)
}

fn unit(written: Option<&str>) -> Result<String, ConfigError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    written
        .filter(|unit| {
            unit.rsplit_once('.').is_some_and(|(name, kind)| {
                !name.is_empty() && !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase())
            }) && unit.len() <= 255
                && !unit.starts_with(['-', '.'])
                && unit.bytes().all(is_plain)
        })
        .map(str::to_owned)
        .ok_or_else(|| {
            invalid(
                "unit",
                "this is no whole name of a unit",
                "write exalate.service",
            )
        })
}
