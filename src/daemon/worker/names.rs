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
    /// `sink/NAME/HEADER`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some((_, "")) => None,
            Some(("mailbox", name)) => Some(Self::Mailbox(name.to_owned())),
            Some(("oauth", name)) => Some(Self::Oauth(name.to_owned())),
            Some(("client", name)) => Some(Self::Client(name.to_owned())),
            Some(("sink", name)) => Some(Self::Sink(name.to_ascii_lowercase())),
            Some(("account", name)) if name.contains('@') => Some(Self::Account(name.to_owned())),
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
