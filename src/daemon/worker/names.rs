//! The names of the secrets that people set.

use std::fmt;

/// The name of a secret that a person sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretName {
    /// The login password of a mailbox.
    Mailbox(String),
    /// The Salesforce password of an account; usernames have no case.
    Account(String),
}

impl SecretName {
    /// Reads `mailbox/NAME` or `account/USERNAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some(("mailbox", name)) if !name.is_empty() => Some(Self::Mailbox(name.to_owned())),
            Some(("account", name)) if name.contains('@') => Some(Self::Account(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(name) => write!(f, "mailbox/{name}"),
            Self::Account(name) => write!(f, "account/{}", name.to_lowercase()),
        }
    }
}
