//! What can go wrong with the daemon, and with one line of it.

use std::time::Duration;

use super::errands::SetUpError;
use super::gate::Held;
use super::socket::ControlError;
use super::state::StateError;
use crate::config::ConfigError;
use crate::mailbox::{Class, MailboxError};
use crate::oauth::{self, OauthError};
use crate::sender::KeysError;

/// The daemon does not start, or has to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Vault or journal cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The configuration cannot be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The resolver does not start.
    #[error("the resolver cannot be set up")]
    Keys(#[from] KeysError),
    /// The control socket cannot be made.
    #[error("the control socket cannot be made")]
    Control(#[from] ControlError),
    /// The worker's thread does not start.
    #[error("the worker's thread does not start")]
    Thread(#[source] std::io::Error),
    /// Nothing is configured to be watched.
    #[error("no [[mailbox]] is configured")]
    NoMailbox,
    /// The worker ended while it was needed.
    #[error("the worker has stopped")]
    WorkerGone,
    /// Some mailboxes could not be looked through.
    #[error("{failed} of {of} folders could not be looked through")]
    Incomplete {
        /// So many.
        failed: usize,
        /// Of so many.
        of: usize,
        /// The mailbox of the first.
        mailbox: String,
        /// The first failure.
        source: Box<InboxError>,
    },
    /// Nobody could be signed in.
    #[error("the sign-in for mailbox {mailbox} failed")]
    SignIn {
        /// The mailbox.
        mailbox: String,
        /// Why.
        source: Box<InboxError>,
    },
    /// A sink cannot be set up.
    #[error(transparent)]
    Sink(#[from] SetUpError),
    /// What was found could not be handed on.
    #[error("{}", unfinished(*.sinks, *.checks))]
    Unfinished {
        /// So many deliveries wait.
        sinks: usize,
        /// So many credentials wait for their check.
        checks: usize,
    },
    /// Some mails, or their senders, could not be judged.
    #[error("{0} mails cannot be judged now")]
    Undecided(usize),
}

impl DaemonError {
    /// Nobody could be signed in for the mailbox.
    pub fn sign_in(mailbox: &str, error: InboxError) -> Self {
        Self::SignIn {
            mailbox: mailbox.to_owned(),
            source: Box::new(error),
        }
    }
}

/// Why a folder is not watched.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The mailbox failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The vault or the journal failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no password to log in with.
    #[error("the password of mailbox {0} is not set")]
    NoPassword(String),
    /// Nobody has signed in for it.
    #[error("nobody has signed in for mailbox {0}")]
    NotSignedIn(String),
    /// The secret of the OAuth 2 client is not set.
    #[error("the client secret of mailbox {0} is not set")]
    NoClientSecret(String),
    /// Without a refresh token one would have to sign in every hour.
    #[error("the provider gave mailbox {0} no refresh token")]
    NoRefreshToken(String),
    /// There is no access token.
    #[error("there is no access token for the mailbox")]
    Oauth(#[from] OauthError),
    /// It is too soon for another login.
    #[error("{}", held_back(*.why))]
    HeldBack {
        /// For so long.
        wait: Duration,
        /// Why.
        why: Held,
    },
    /// A login was refused while others are in with the same password.
    #[error("the server lets no more connections in")]
    OneTooMany(#[source] MailboxError),
    /// The task panicked.
    #[error("the task that watches it went wrong")]
    Panicked,
}

impl InboxError {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Mailbox(error) => error.class(),
            Self::Oauth(error) => match error.class() {
                oauth::Class::Transient => Class::Transient,
                oauth::Class::SignIn | oauth::Class::Person => Class::Person,
            },
            Self::State(StateError::Secret(error)) if !error.is_transient() => Class::Person,
            Self::NoPassword(_)
            | Self::NotSignedIn(_)
            | Self::NoClientSecret(_)
            | Self::NoRefreshToken(_)
            | Self::Panicked => Class::Person,
            Self::HeldBack {
                why: Held::Dropped, ..
            } => Class::Transient,
            Self::HeldBack { .. } | Self::OneTooMany(_) => Class::Login,
            Self::State(_) => Class::Transient,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Mailbox(error) => error.code(),
            Self::Oauth(error) => error.code(),
            Self::NotSignedIn(_) | Self::NoRefreshToken(_) => "oauth-sign-in",
            Self::NoPassword(_) | Self::NoClientSecret(_) | Self::State(StateError::Secret(_)) => {
                "mailbox-password-missing"
            }
            Self::HeldBack { why, .. } => match why {
                Held::Refused => "mailbox-login-refused",
                Held::Dropped => "mailbox-lost",
                Held::TooMany => "mailbox-login-limit",
            },
            Self::OneTooMany(_) => "mailbox-login-refused",
            Self::State(_) => "storage-failed",
            Self::Panicked => "internal",
        }
    }

    /// Whether the connection is lost for an answer that cannot be used.
    pub(super) fn is_garbage(&self) -> bool {
        matches!(self, Self::Mailbox(error) if error.is_garbage())
    }

    /// The exit code of a command that fails for it. What the storage does is
    /// told apart by its own errors.
    pub fn exit_code(&self) -> u8 {
        const FAILED: u8 = 1;
        const BAD_INPUT: u8 = 65;
        const UNREACHABLE: u8 = 69;
        const PERMISSION: u8 = 77;
        const CONFIGURATION: u8 = 78;
        match self {
            Self::State(_) | Self::Panicked => FAILED,
            Self::NoPassword(_)
            | Self::NotSignedIn(_)
            | Self::NoClientSecret(_)
            | Self::NoRefreshToken(_) => CONFIGURATION,
            Self::Oauth(error) => match error.class() {
                oauth::Class::Transient => UNREACHABLE,
                oauth::Class::SignIn => PERMISSION,
                oauth::Class::Person => CONFIGURATION,
            },
            Self::Mailbox(error) => match error.class() {
                Class::Login => PERMISSION,
                Class::Person => CONFIGURATION,
                Class::Transient if self.is_garbage() => BAD_INPUT,
                Class::Transient => UNREACHABLE,
            },
            Self::HeldBack { .. } | Self::OneTooMany(_) => match self.class() {
                Class::Login => PERMISSION,
                Class::Person | Class::Transient => UNREACHABLE,
            },
        }
    }

    /// What a person can do about it.
    pub fn hint(&self, mailbox: &str) -> String {
        match self {
            Self::Mailbox(error) => error.hint().replace("NAME", mailbox),
            Self::NoPassword(name) => format!("run `tokenwatch secret set mailbox/{name}`"),
            Self::Oauth(error) => error.hint().replace("NAME", mailbox),
            Self::NotSignedIn(name) => format!("run `tokenwatch login {name}`"),
            Self::NoClientSecret(name) => format!("run `tokenwatch secret set client/{name}`"),
            Self::NoRefreshToken(_) => {
                "add the scope that the provider asks for it, `offline_access` most often, to `scopes`"
                    .to_owned()
            }
            Self::HeldBack { why, .. } => match why {
                Held::Refused => format!(
                    "set the right password with `tokenwatch secret set mailbox/{mailbox}`, or sign in with `tokenwatch login {mailbox}`: then it is tried at once"
                ),
                Held::Dropped => "it is tried again by itself; see the server if it stays so".to_owned(),
                Held::TooMany => {
                    "see the server's log: it lets us in and hangs up, again and again".to_owned()
                }
            },
            Self::OneTooMany(_) => format!(
                "the other connections of mailbox {mailbox} are in: lower its `max-connections`, or set its password if that was changed"
            ),
            Self::State(error) => error.hint(),
            Self::Panicked => "this is a fault of tokenwatch: please report it".to_owned(),
        }
    }
}

fn unfinished(sinks: usize, checks: usize) -> String {
    let sinks = match sinks {
        0 => None,
        1 => Some("1 sink could not be told".to_owned()),
        sinks => Some(format!("{sinks} sinks could not be told")),
    };
    let checks = match checks {
        0 => None,
        1 => Some("1 credential could not be checked".to_owned()),
        checks => Some(format!("{checks} credentials could not be checked")),
    };
    sinks
        .into_iter()
        .chain(checks)
        .collect::<Vec<_>>()
        .join(", and ")
}

fn held_back(why: Held) -> &'static str {
    match why {
        Held::Refused => "the login was refused before, and it is too soon to try it again",
        Held::Dropped => {
            "the server hung up on the last login or did not answer it, and it is too soon for another"
        }
        Held::TooMany => "there were too many logins in a short time, and the next one waits",
    }
}
