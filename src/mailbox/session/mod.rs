//! A connection: one command, its answers, its tag.
//!
//! async-imap parses what the server says; everything else is done here,
//! because its own commands take a lost connection for "no mail", a refused
//! SEARCH for an empty one, and a closed stream for a wake-up. In this layer a
//! command has succeeded when its tagged OK was read, and the end of the stream
//! is [`MailboxError::Lost`], always.
//!
//! `command` is the layer itself, `folder` opens folders, `mails` asks for
//! mails, `idle` waits for news, and `change` holds the only commands that
//! change a mailbox, for `after` (invariant 8).
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of imap-proto are open: what was not asked for is passed over"
)]

mod change;
mod command;
mod folder;
mod idle;
mod mails;

use std::collections::BTreeSet;
use std::time::Duration;

use async_imap::Client;
use async_imap::imap_proto::{Capability, MailboxDatum, Outcome, Response, ResponseCode, Status};
use jiff::Timestamp;

use super::MailboxError;
use super::connect::{self, Line, Roots, Security, Server};
use super::error::clean;
use super::guard::{Guard, Limits};
use super::wire::response_code;

pub(super) use command::Answer;
pub use folder::{Access, Folder};
pub use idle::Wake;
pub use mails::Head;
pub(super) use mails::Set;

/// A connection to a server.
pub struct Session {
    client: Client<Guard<Box<dyn Line>>>,
    pub(super) host: String,
    pub(super) port: u16,
    /// How long the server may be silent while it owes an answer.
    patience: Duration,
    tags: u32,
    pub(super) capabilities: BTreeSet<String>,
    /// How many mails the folder has.
    exists: u32,
    /// How many of them a look has covered.
    covered: u32,
    /// What is known of their numbers.
    numbers: Numbers,
    /// Mails came into the open folder since this was last asked.
    news: bool,
    /// Something came into another folder (RFC 5465).
    stirred: bool,
    /// The server tells of the other folders, too (RFC 5465).
    notified: bool,
    /// The server's last words, if it has said BYE.
    bye: Option<String>,
    /// When the server last said anything.
    heard: Timestamp,
}

/// What is known of the mails' numbers since the folder was opened, or since
/// [`Session::hold_still`].
#[derive(Default)]
struct Numbers {
    /// The UID of the last mail, where a list has said it.
    last: Option<u32>,
    /// Mails have come or gone.
    moved: bool,
}

impl Session {
    /// Connects and reads the greeting.
    pub async fn connect(server: &Server, roots: &Roots) -> Result<Self, MailboxError> {
        let line = connect::line(server, roots).await?;
        let limits = Limits::for_mails_up_to(server.max_mail_size);
        let mut session = Self {
            client: Client::new(Guard::new(line, limits)),
            host: server.host.clone(),
            port: server.port,
            patience: server.patience,
            tags: 0,
            capabilities: BTreeSet::new(),
            exists: 0,
            covered: 0,
            numbers: Numbers::default(),
            news: false,
            stirred: false,
            notified: false,
            bye: None,
            heard: Timestamp::now(),
        };
        // STARTTLS has used the greeting up, and what was said before TLS is
        // forgotten (RFC 3501, section 6.2.1).
        if server.security != Security::StartTls {
            session.greeting().await?;
        }
        if session.capabilities.is_empty() {
            session.command("CAPABILITY", "CAPABILITY", |_| {}).await?;
        }
        Ok(session)
    }

    async fn greeting(&mut self) -> Result<(), MailboxError> {
        let mut unwanted = Some("no greeting".to_owned());
        let heard = self.hear("the greeting", self.patience, "", |response| {
            if let Response::Data { status, outcome } = response {
                unwanted = (*status != Status::Ok).then(|| clean(&words(outcome)));
            }
        });
        match (heard.await, unwanted) {
            (Err(MailboxError::Bye(words)), _) => Err(MailboxError::NotImap(words)),
            (Err(error), _) => Err(error),
            (Ok(_), Some(unwanted)) => Err(MailboxError::NotImap(unwanted)),
            (Ok(_), None) => Ok(()),
        }
    }

    /// Whether the server pushes news (RFC 2177).
    pub fn can_idle(&self) -> bool {
        self.can("IDLE")
    }

    /// Whether the server can push the news of several folders (RFC 5465).
    pub fn can_notify(&self) -> bool {
        self.can("NOTIFY") && self.can_idle()
    }

    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// When the server last said anything.
    pub fn heard(&self) -> Timestamp {
        self.heard
    }

    /// Ends the session politely, if the server plays along.
    pub async fn log_out(mut self) {
        let farewell = self.command("LOGOUT", "LOGOUT", |_| {});
        if tokio::time::timeout(Duration::from_secs(2), farewell)
            .await
            .is_err()
        {
            tracing::debug!(event = "mailbox.logout", "the server did not answer LOGOUT");
        }
    }

    /// How many mails the folder has, as far as the server has said.
    pub fn exists(&self) -> u32 {
        self.exists
    }

    /// How many of them, the first ones, have been looked at.
    pub(super) fn covered(&self) -> u32 {
        self.covered
    }

    /// So many have been looked at.
    pub(super) fn cover(&mut self, mails: u32) {
        self.covered = mails.min(self.exists);
    }

    /// The UID of the last mail, where a list has said it.
    pub(super) fn last(&self) -> Option<u32> {
        self.numbers.last
    }

    /// Whether mails have come or gone, so that sequence numbers and EXISTS are
    /// not what they were.
    pub(super) fn has_moved(&self) -> bool {
        self.numbers.moved
    }

    /// From now on it is noted whether they change.
    pub(super) fn hold_still(&mut self) {
        self.numbers = Numbers::default();
    }

    /// Keeps what the server says by the way.
    fn note(&mut self, response: &Response<'_>) {
        match response {
            Response::MailboxData(MailboxDatum::Exists(n)) => {
                self.news |= *n > self.exists;
                self.numbers.moved |= *n != self.exists;
                self.exists = *n;
                // Some servers lower it without EXPUNGE: what comes then is new.
                self.covered = self.covered.min(*n);
            }
            // Nobody asks for STATUS: it is news of another folder (RFC 5465).
            Response::MailboxData(MailboxDatum::Status { .. }) => self.stirred = true,
            Response::Expunge(sequence) => {
                self.numbers.moved = true;
                self.exists = self.exists.saturating_sub(1);
                if *sequence <= self.covered {
                    self.covered = self.covered.saturating_sub(1);
                }
            }
            Response::Capabilities(list) => self.learn_capabilities(list),
            Response::Data { status, outcome } => {
                if *status == Status::Bye {
                    self.bye = Some(clean(&words(outcome)));
                }
                self.learn(outcome);
                // It has too much to tell, and tells nothing any more
                // (RFC 5465, section 5.8).
                if response_code(&words(outcome)).as_deref() == Some("NOTIFICATIONOVERFLOW") {
                    self.stirred = true;
                    self.notified = false;
                }
            }
            Response::Done { outcome, .. } => self.learn(outcome),
            _ => {}
        }
    }

    fn learn(&mut self, outcome: &Outcome<'_>) {
        if let Some(ResponseCode::Capabilities(list)) = &outcome.code {
            self.learn_capabilities(list);
        }
    }

    fn learn_capabilities(&mut self, list: &[Capability<'_>]) {
        self.capabilities = list
            .iter()
            .map(|capability| match capability {
                Capability::Imap4rev1 => "IMAP4REV1".to_owned(),
                Capability::Auth(way) => format!("AUTH={}", way.to_ascii_uppercase()),
                Capability::Atom(word) => word.to_ascii_uppercase(),
            })
            .collect();
    }
}

fn words(outcome: &Outcome<'_>) -> String {
    outcome
        .information
        .as_deref()
        .unwrap_or_default()
        .to_owned()
}
