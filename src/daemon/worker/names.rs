//! The names of the secrets that people set.

use std::fmt;

/// The name of a secret that a person sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretName {
    /// The login password of a mailbox.
    Mailbox(String),
    /// The Salesforce password of an account; usernames have no case.
    Account(String),
    /// The refresh token of a mailbox that logs in by OAuth 2.
    Oauth(String),
    /// The secret of the OAuth 2 client that a mailbox logs in with.
    Client(String),
    /// What a sink signs with (its name), or sends in a header field (`NAME/HEADER`).
    Sink(String),
}

impl SecretName {
    /// Reads `mailbox/NAME`, `account/USERNAME`, `oauth/NAME`, `client/NAME`, `sink/NAME` or
    /// `sink/NAME/HEADER`. A name that nothing in a configuration can have is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let owned = name.to_owned();
        match kind {
            "mailbox" if is_id(name) => Some(Self::Mailbox(owned)),
            "oauth" if is_id(name) => Some(Self::Oauth(owned)),
            "client" if is_id(name) => Some(Self::Client(owned)),
            "sink" => {
                let (sink, header) = name.split_once('/').unwrap_or((name, "x"));
                let can_be = is_id(sink) && is_id(header);
                can_be.then(|| Self::Sink(name.to_ascii_lowercase()))
            }
            "account" if is_username(name) => Some(Self::Account(owned)),
            _ => None,
        }
    }

    /// The mailbox whose login it is for.
    pub fn mailbox(&self) -> Option<&str> {
        match self {
            Self::Mailbox(name) | Self::Oauth(name) | Self::Client(name) => Some(name),
            Self::Account(_) | Self::Sink(_) => None,
        }
    }
}

fn is_id(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.bytes().all(is_plain)
}

fn is_username(name: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    name.split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && name.chars().all(is_plain)
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(name) => write!(f, "mailbox/{name}"),
            Self::Account(name) => write!(f, "account/{}", name.to_lowercase()),
            Self::Oauth(name) => write!(f, "oauth/{name}"),
            Self::Client(name) => write!(f, "client/{name}"),
            Self::Sink(name) => write!(f, "sink/{name}"),
        }
    }
}
