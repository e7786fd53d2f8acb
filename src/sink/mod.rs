//! Hands a new credential to one receiver: a file, a command, a webhook, a unit of systemd.
//!
//! One call of [`Sink::deliver`] is one try. It can be repeated at will: a receiver is told the
//! same thing with the same [`Credential::id`], and a file that is right already is left alone.
//!
//! **Invariant:** a secret leaves this room on the way that the configuration names and on no
//! other: it is in no error, no argument and no environment of a child, and buffers around it
//! are wiped.
//!
//! Deliberately absent: the outbox, the order of deliveries, a second try and when it is due.
//! Whoever calls knows what else waits, and for how long it has.

mod command;
mod disk;
mod error;
mod file;
mod kv2;
mod render;
mod template;
#[cfg(test)]
mod tests;
mod webhook;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use error::{Class, SinkError};

use crate::http::Http;
use crate::secret::Secret;

/// What is handed over.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The Salesforce username, as the configuration writes it.
    pub username: String,
    /// The password followed at once by the token.
    pub secret: Secret,
    /// Which version of the account's credential it is.
    pub version: u64,
    /// What tells two secrets apart and says nothing of either.
    pub fingerprint: String,
    /// The same at every try of one delivery, so that a receiver can tell a repetition.
    pub id: String,
    /// When the token came.
    pub received: Option<Timestamp>,
}

/// The secrets of the way itself, read for one delivery.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The key of a webhook's signature.
    pub key: Option<Secret>,
    /// The values of a webhook's header fields, by name in lower case.
    pub headers: Vec<(String, Secret)>,
}

/// A receiver, as the configuration names it.
#[derive(Clone, Debug)]
pub enum Options {
    /// A file for each account.
    File(FileOptions),
    /// A program that reads the credential from its standard input.
    Command(CommandOptions),
    /// An HTTPS request.
    Webhook(WebhookOptions),
    /// A unit of systemd that is reloaded or restarted.
    Systemd {
        /// Its whole name.
        unit: String,
        /// How long that may take.
        timeout: Duration,
        /// Variables of our environment that `systemctl` does not get.
        hidden: Vec<OsString>,
    },
}

/// A file for each account.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Its path; `{username}` stands for the username.
    pub path: PathBuf,
    /// What stands in it.
    pub format: Format,
    /// Its permissions.
    pub mode: u32,
    /// `user:group`, `user` or `:group`, by name or number; the daemon's own where it is not set.
    pub owner: Option<String>,
}

/// What stands in a file.
#[derive(Clone, Debug)]
pub enum Format {
    /// `SALESFORCE_USERNAME` and `SALESFORCE_PASSWORD`, for systemd, sh and compose.
    Env,
    /// The same without any quoting, for `docker run --env-file`.
    DockerEnv,
    /// One object.
    Json,
    /// Password and token, and nothing else.
    Raw,
    /// What this template makes of it.
    Template(PathBuf),
}

/// A program that reads the credential from its standard input.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// The program and its arguments; no shell is involved.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Variables of our environment that it does not get.
    pub hidden: Vec<OsString>,
}

/// An HTTPS request.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Where it goes; `{username}` stands for the username, percent-encoded.
    pub url: String,
    /// What is sent.
    pub body: Body,
    /// PUT and not POST.
    pub put: bool,
    /// The password and token may be in the body.
    pub include_secret: bool,
    /// The request is signed, with [`Secrets::key`].
    pub signed: bool,
    /// The header fields whose values come with [`Secrets::headers`], in lower case.
    pub headers: Vec<String>,
    /// The body's media type, where it is not `application/json`.
    pub content_type: Option<String>,
    /// How long the request may take.
    pub timeout: Duration,
    /// The way to the receiver.
    pub http: Http,
}

/// What a webhook sends.
#[derive(Clone, Debug)]
pub enum Body {
    /// One object, `"type": "credential.updated"`.
    Json,
    /// What this template makes of it.
    Template(PathBuf),
    /// An entry of a key-value store of version 2 (`HashiCorp` Vault, `OpenBao`), by check-and-set.
    Kv2,
}

/// What a delivery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The receiver has it now.
    New,
    /// The receiver had it already, and nothing was changed.
    Already,
}

/// One receiver. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Sink(Arc<Receiver>);

#[derive(Debug)]
enum Receiver {
    File(disk::Disk, Arc<file::File>),
    Command(command::Command),
    Webhook(Box<webhook::Webhook>),
    Kv2(kv2::Kv2),
}

impl Sink {
    /// Looks at everything that can be looked at before there is a credential: the template, the
    /// owner, the address.
    ///
    /// # Errors
    ///
    /// Those of [`Class::Person`] that the options themselves are to blame for.
    pub fn new(options: &Options) -> Result<Self, SinkError> {
        let receiver = match options {
            Options::File(options) => {
                Receiver::File(disk::Disk::new(), Arc::new(file::File::new(options)?))
            }
            Options::Command(options) => Receiver::Command(command::Command::new(options)?),
            Options::Systemd {
                unit,
                timeout,
                hidden,
            } => Receiver::Command(command::Command::of_unit(unit, *timeout, hidden)?),
            Options::Webhook(options) => match options.body {
                Body::Kv2 => Receiver::Kv2(kv2::Kv2::new(options)?),
                Body::Json | Body::Template(_) => {
                    Receiver::Webhook(Box::new(webhook::Webhook::new(options)?))
                }
            },
        };
        Ok(Self(Arc::new(receiver)))
    }

    /// Looks at what a delivery for this user needs on this machine, as far as that can be seen
    /// without one: the folder of a file, the program of a command, which is looked for in the
    /// folders `programs`. Nobody is told of anything.
    ///
    /// # Errors
    ///
    /// What would most likely keep a delivery from working.
    pub async fn look(&self, username: &str, programs: &[PathBuf]) -> Result<(), SinkError> {
        match &*self.0 {
            Receiver::File(disk, file) => {
                let (file, username) = (Arc::clone(file), username.to_owned());
                disk.run(move || file.look(&username)).await?
            }
            Receiver::Command(command) => command.look(programs),
            Receiver::Webhook(_) | Receiver::Kv2(_) => Ok(()),
        }
    }

    /// Hands the credential over, once.
    ///
    /// Dropping the future gives the delivery up: a command is killed with all that it started,
    /// a request is cut, and a file is whole, old or new.
    ///
    /// # Errors
    ///
    /// Whatever keeps the receiver from having it; what the receiver did with a request that was
    /// cut is not known.
    pub async fn deliver(
        &self,
        credential: &Credential,
        secrets: &Secrets,
    ) -> Result<Delivered, SinkError> {
        match &*self.0 {
            Receiver::File(disk, file) => {
                let (file, credential) = (Arc::clone(file), credential.clone());
                disk.run(move || file.write(&credential)).await?
            }
            Receiver::Command(command) => command.run(credential).await,
            Receiver::Webhook(webhook) => webhook.send(credential, secrets).await,
            Receiver::Kv2(kv2) => kv2.put(credential, secrets).await,
        }
    }

    /// Whether what the receiver should hold is there already, as far as we can see without
    /// asking it: a file may be gone after a reboot. Of the others it is said of all.
    pub async fn is_there(&self, credential: &Credential) -> bool {
        match &*self.0 {
            Receiver::File(disk, file) => {
                let (file, credential) = (Arc::clone(file), credential.clone());
                let there = disk.run(move || file.is_right(&credential)).await;
                there.is_ok_and(|there| there)
            }
            Receiver::Command(_) | Receiver::Webhook(_) | Receiver::Kv2(_) => true,
        }
    }
}
