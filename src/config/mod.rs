//! The configuration: as it is written (serde) → as it is meant (validated).
//!
//! TOML from one file, then `TOKENWATCH__SECTION__KEY` from the environment.
//! An unknown key is refused by name, with the nearest one that exists, and an error
//! names the line or the variable that it is about. The
//! types here hold no secret, only where each is to be read from; a value that
//! somebody wrote where such a place belongs is never repeated in an error, for
//! it may be the password itself.
//!
//! This is the one room that reads the environment.

mod account;
mod error;
mod mailbox;
mod meant;
mod paths;
mod place;
mod read;
mod sink;
mod webhook;
mod written;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{Span, Timestamp, civil};

pub use account::{Account, Verify};
pub use error::{ConfigError, Entry};
pub use mailbox::{After, Auth, Grant, Mailbox, Oauth2, Provider, Proxy, Tls};
pub use paths::{
    credentials_directory, not_for_children, place_of_a_new_one, programs, sockets,
    sockets_to_serve, state_dir_of_the_system, stderr_is_the_journal,
};
pub use place::Place;
pub use sink::{FileFormat, Receiver, Sink};
pub use webhook::{Webhook, WebhookFormat};

/// The configuration as it is meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from; `None` where the defaults are used.
    pub file: Option<PathBuf>,
    /// Where the vault, its key, the journal and their locks are.
    pub state_dir: PathBuf,
    /// The configuration leaves `state-dir` to the environment, which is not
    /// the same for everybody.
    pub names_no_state_dir: bool,
    /// Where secrets are kept.
    pub vault: Vault,
    /// Who is believed.
    pub trust: Trust,
    /// The words of token mails, beside those that are known.
    pub wordings: Vec<Wording>,
    /// What is watched.
    pub mailboxes: Vec<Mailbox>,
    /// Whose credentials are kept.
    pub accounts: Vec<Account>,
    /// Who is handed new credentials.
    pub sinks: Vec<Sink>,
}

/// Where secrets are kept.
#[derive(Clone, Debug)]
pub struct Vault {
    /// Which store.
    pub backend: Backend,
    /// The encrypted file, which may also be what is moved to or from.
    pub path: PathBuf,
    /// Where the key of the encrypted file is.
    pub key: VaultKey,
    /// Who else can open the encrypted file.
    pub recipients: Vec<age::x25519::Recipient>,
    /// The service of the entries that others read.
    pub service: String,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The encrypted file.
    File,
    /// The desktop's Secret Service.
    Native,
    /// The kernel's keyring.
    Keyutils,
}

impl Backend {
    /// As it is written in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Native => "native",
            Self::Keyutils => "keyutils",
        }
    }
}

/// Where the key of the encrypted file is.
#[derive(Clone, Debug)]
pub enum VaultKey {
    /// A file, made on the first write.
    File(PathBuf),
    /// A systemd credential, by its ID.
    Credential(String),
    /// A file that a passphrase opens, made on the first write.
    Passphrase(PathBuf),
}

/// Who is believed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Exact addresses, the domain in lower case.
    pub senders: Vec<String>,
    /// A DKIM signature aligned with `From` is enough.
    pub dkim: bool,
    /// The word of one of `receivers` is enough.
    pub receiver: bool,
    /// The `From` address alone is enough.
    pub sender_address: bool,
    /// The authserv-ids of our own mail servers.
    pub receivers: Vec<String>,
    /// The domains whose ARC seals are believed; with none, ARC is not looked at.
    pub arc_sealers: Vec<String>,
    /// DNS servers; the system's where there are none.
    pub dns_servers: Vec<SocketAddr>,
    /// How long a mail whose key cannot be looked up is tried again.
    pub undecided_for: Duration,
}

/// The words of token mails in one language, as they are written.
#[derive(Clone, Debug)]
pub struct Wording {
    /// What the subject holds.
    pub subject: Option<String>,
    /// The label of the username.
    pub username: String,
    /// The label of the token.
    pub token: String,
}

/// Where a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// The vault, filled by `tokenwatch secret set`.
    Vault,
    /// A systemd credential, by its ID.
    Credential(String),
    /// A file.
    File(PathBuf),
    /// The output of a command: its argv.
    Command(Vec<String>),
}

/// How far back a look goes.
#[derive(Clone, Debug)]
pub enum Since {
    /// To the first mail.
    All,
    /// To a day.
    Date(civil::Date),
    /// So far before now.
    Ago(Span),
}

impl Since {
    /// Reads `all`, `2026-01-01` or a span such as `30d`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        if let Ok(date) = text.parse::<civil::Date>() {
            return Some(Self::Date(date));
        }
        text.parse::<Span>()
            .ok()
            .filter(|span| !span.is_negative())
            .map(Self::Ago)
    }

    /// The first day to look at, with a day to spare: IMAP's SINCE compares
    /// days and disregards time zones (RFC 3501, section 6.4.4).
    pub fn first_day(&self, now: Timestamp) -> Option<civil::Date> {
        let day = match self {
            Self::All => return None,
            Self::Date(date) => Some(*date),
            Self::Ago(span) => jiff::tz::Offset::UTC
                .to_datetime(now)
                .checked_sub(*span)
                .ok()
                .map(civil::DateTime::date),
        };
        day.and_then(|day| day.yesterday().ok())
    }
}

impl Config {
    /// Reads the configuration: from `given`, else from the first place where
    /// one is.
    pub fn load(given: Option<&Path>) -> Result<Self, ConfigError> {
        let file = paths::find(given)?;
        let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
        let (written, sources) = read::read(Some(&file))?;
        meant::mean(written, &folder, Some(file)).map_err(|error| error.found_in(&sources))
    }

    /// As [`load`](Self::load), but the defaults where no file is found, for
    /// commands that can do without.
    pub fn load_or_default(given: Option<&Path>) -> Result<Self, ConfigError> {
        match Self::load(given) {
            Err(ConfigError::NotFound { .. }) if given.is_none() => {
                let (written, sources) = read::read(None)?;
                meant::mean(written, Path::new("/"), None).map_err(|error| error.found_in(&sources))
            }
            loaded => loaded,
        }
    }

    /// Octets of the largest mail that is read, whichever mailbox it is in.
    pub fn max_mail_size(&self) -> u32 {
        let sizes = self.mailboxes.iter().map(|mailbox| mailbox.max_mail_size);
        sizes.max().unwrap_or_else(written::max_mail_size)
    }

    /// The mailbox of this name.
    pub fn mailbox(&self, name: &str) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|mailbox| mailbox.name == name)
    }

    /// The account of this username, as Salesforce compares usernames.
    pub fn account(&self, username: &str) -> Option<&Account> {
        let wanted = username.to_lowercase();
        self.accounts
            .iter()
            .find(|account| account.username.to_lowercase() == wanted)
    }

    /// The sinks that are told of this account.
    pub fn sinks_of(&self, username: &str) -> impl Iterator<Item = &Sink> {
        self.sinks.iter().filter(move |sink| sink.wants(username))
    }

    /// Where a sink's own secret is, by its name in the vault: `sink/NAME` or `sink/NAME/HEADER`.
    pub fn sink_secret(&self, name: &str) -> Option<&SecretSource> {
        let mut secrets = self.sinks.iter().flat_map(Sink::secrets);
        let (_, source) = secrets.find(|(known, _)| known == name)?;
        Some(source)
    }

    /// What is worth a warning at every start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.trust.sender_address {
            warnings.push(
                "trust.accept has \"sender-address\": anyone who can write a From line can change credentials"
                    .to_owned(),
            );
        }
        for mailbox in &self.mailboxes {
            if mailbox.tls == Tls::None {
                warnings.push(format!("mailbox {} is watched without TLS", mailbox.name));
            }
        }
        for sink in &self.sinks {
            if sink.is_readable_by_all() {
                warnings.push(format!(
                    "sink {} writes files that anybody on this machine may read",
                    sink.name
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
