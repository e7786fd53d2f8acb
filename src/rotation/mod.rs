//! The versions of an account's token, and what is to be done with a new one.
//!
//! PURE: `(state, event) → (state, actions)`. Time comes in as a value, no
//! I/O is done; the daemon's worker carries the actions out. The same state
//! and event always give the same answer, so that property tests can look for
//! the bugs here.
//!
//! Invariant 2, *never backwards*, lives here: a notice that is older than the
//! newest known one never replaces it. So does invariant 6, *no lock-out*
//! (`check`). Labels move in one step, the whole account is one document, and
//! it is stored before anything is published or tried. Passwords are
//! deliberately absent: the account keeps tokens, and of a password it knows a
//! keyed hash, which tells one from another and nothing more.

mod check;
mod document;

use jiff::Timestamp;

use crate::secret::Secret;

pub use check::{Answer, Rules, Standing, Trial};
pub use document::{DocumentError, from_document, to_document};

/// How many versions an account remembers.
const MAX_VERSIONS: usize = 20;

/// One Salesforce user's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The username as the configuration writes it.
    pub username: String,
    /// Counts every change, for a person who compares two copies of a vault.
    pub generation: u64,
    /// All remembered versions, in the order in which they were stored.
    pub versions: Vec<Version>,
    /// The keyed hash of the password that goes with the current version: the
    /// two together are what others log in with.
    pub password: Option<String>,
    /// What is known of logins with tokens that are kept.
    pub trials: Vec<Trial>,
    /// When logins began, within the last day, that Salesforce may have
    /// counted as failed.
    pub failures: Vec<Timestamp>,
    /// Since when some of these have been in the future: the clock was set back.
    pub set_back: Option<Timestamp>,
}

/// One token of an account. Its token and source are never edited; its label
/// moves, and what Salesforce said of it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1 for the first token of the account, and so on.
    pub id: u64,
    /// What the version is now.
    pub label: Label,
    /// The token; gone once the version is superseded.
    pub token: Option<Secret>,
    /// A keyed hash that tells tokens apart without knowing them.
    pub fingerprint: String,
    /// Where it came from.
    pub source: Source,
    /// Why the sender was trusted, in words.
    pub proof: String,
    /// When it was stored.
    pub stored: Timestamp,
    /// When its label last moved.
    pub moved: Timestamp,
    /// What Salesforce last said of it, and when.
    pub checked: Option<(Answer, Timestamp)>,
}

/// What a version is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Received, and waiting: for the Salesforce password, or for the check.
    Pending,
    /// The one in use.
    Current,
    /// The one that was in use before.
    Previous,
    /// Older ones; their tokens are wiped.
    Superseded,
}

impl Label {
    /// The word for people and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Superseded => "superseded",
        }
    }
}

/// The mail that a version came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name of the mailbox.
    pub mailbox: String,
    /// The folder in it.
    pub folder: String,
    /// UIDVALIDITY of the folder (RFC 3501, section 2.3.1.1).
    pub uid_validity: u32,
    /// UID of the mail.
    pub uid: u32,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// When the notice was made: its signed `Date`, else INTERNALDATE.
    pub originated: Timestamp,
    /// When the server received the mail (INTERNALDATE).
    pub received: Timestamp,
}

impl Source {
    /// The order of notices: origination, then arrival, then UID.
    fn order(&self) -> (Timestamp, Timestamp, u32) {
        (self.originated, self.received, self.uid)
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A trusted notice came in.
    Notice {
        /// Its token.
        token: Secret,
        /// The token's keyed hash.
        fingerprint: String,
        /// The mail.
        source: Source,
        /// Why its sender was trusted.
        proof: String,
    },
    /// The password may have changed, or the daemon has just started.
    Reconcile,
    /// Somebody is there who would log in now, if that is to be done.
    Due,
    /// Salesforce has answered a login with the pair that this trial is of.
    Answered {
        /// The token's keyed hash.
        token: String,
        /// The password's.
        password: String,
        /// What it said.
        answer: Answer,
    },
    /// A person wants the previous version back.
    RollBack,
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It is the newest, and kept.
    Updated,
    /// Its token is known already.
    Duplicate,
    /// A newer one is known.
    Older,
}

/// What the worker must do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the account's document, whole.
    Store,
    /// Write password and current token to the entry that others read, and have
    /// the sinks told.
    Publish,
    /// Log in with the newest token and the password, once, after the document
    /// is stored.
    Check,
}

/// The answer to an event.
#[derive(Clone, Debug)]
pub struct Step {
    /// The account as it is from now on.
    pub account: Account,
    /// What is to be done.
    pub actions: Vec<Action>,
    /// What became of the notice, where the event was one.
    pub reception: Option<Reception>,
}

impl Account {
    /// An account of which nothing is known yet.
    pub fn new(username: &str) -> Self {
        Self {
            username: username.to_owned(),
            generation: 0,
            versions: Vec::new(),
            password: None,
            trials: Vec::new(),
            failures: Vec::new(),
            set_back: None,
        }
    }

    /// The version with this label; at most one has each but `Superseded`.
    pub fn labelled(&self, label: Label) -> Option<&Version> {
        self.versions.iter().rev().find(|v| v.label == label)
    }

    /// The version that is in use, or is to come into use.
    pub fn newest(&self) -> Option<&Version> {
        self.labelled(Label::Pending)
            .or_else(|| self.labelled(Label::Current))
    }

    /// The version that the sinks and the entry have, where this is the
    /// password that goes with it.
    pub fn released(&self, password: Option<&str>) -> Option<&Version> {
        password
            .filter(|password| self.password.as_deref() == Some(password))
            .and(self.labelled(Label::Current))
    }

    /// What follows from `event`. `password` is the keyed hash of the account's
    /// Salesforce password, where that is there.
    #[must_use]
    pub fn step(
        &self,
        event: Event,
        password: Option<&str>,
        rules: &Rules,
        now: Timestamp,
    ) -> Step {
        let mut next = self.clone();
        let may_check = matches!(event, Event::Due);
        let mut reception = None;
        next.heed_clock(now);
        match event {
            Event::Notice {
                token,
                fingerprint,
                source,
                proof,
            } => reception = Some(next.receive(token, fingerprint, source, proof, now)),
            Event::Answered {
                token,
                password,
                answer,
            } => next.note(&token, &password, answer, now),
            Event::RollBack => next.roll_back(password, now),
            Event::Reconcile | Event::Due => {}
        }
        let checks = next.settle(password, rules, now, may_check);
        let mut actions = Vec::new();
        if next != *self {
            next.generation = next.generation.saturating_add(1);
            actions.push(Action::Store);
        }
        if next.released(password).is_some() {
            actions.push(Action::Publish);
        }
        if checks {
            actions.push(Action::Check);
        }
        Step {
            account: next,
            actions,
            reception,
        }
    }

    fn receive(
        &mut self,
        token: Secret,
        fingerprint: String,
        source: Source,
        proof: String,
        now: Timestamp,
    ) -> Reception {
        if self.versions.iter().any(|v| v.fingerprint == fingerprint) {
            return Reception::Duplicate;
        }
        let order = source.order();
        if self.versions.iter().any(|v| v.source.order() > order) {
            return Reception::Older;
        }
        // Salesforce has killed the one that waited, too.
        self.relabel(Label::Pending, Label::Superseded, now);
        let newest = self.versions.iter().map(|v| v.id).max().unwrap_or(0);
        self.versions.push(Version {
            id: newest.saturating_add(1),
            label: Label::Pending,
            token: Some(token),
            fingerprint,
            source,
            proof,
            stored: now,
            moved: now,
            checked: None,
        });
        while self.versions.len() > MAX_VERSIONS {
            let superseded = |version: &Version| version.label == Label::Superseded;
            let Some(oldest) = self.versions.iter().position(superseded) else {
                break;
            };
            self.versions.remove(oldest);
        }
        Reception::Updated
    }

    /// The newest version goes into use, with this password.
    fn release(&mut self, password: &str, now: Timestamp) {
        if self.labelled(Label::Pending).is_some() {
            self.relabel(Label::Previous, Label::Superseded, now);
            self.relabel(Label::Current, Label::Previous, now);
            self.relabel(Label::Pending, Label::Current, now);
        }
        self.password = Some(password.to_owned());
    }

    /// Previous and current change places. What waits goes on waiting.
    fn roll_back(&mut self, password: Option<&str>, now: Timestamp) {
        let (Some(password), Some(_)) = (password, self.labelled(Label::Previous)) else {
            return;
        };
        for version in &mut self.versions {
            version.label = match version.label {
                Label::Previous => Label::Current,
                Label::Current => Label::Previous,
                Label::Pending | Label::Superseded => continue,
            };
            version.moved = now;
        }
        self.password = Some(password.to_owned());
    }

    fn relabel(&mut self, from: Label, to: Label, now: Timestamp) {
        for version in self.versions.iter_mut().filter(|v| v.label == from) {
            version.label = to;
            version.moved = now;
            if to == Label::Superseded {
                version.token = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
