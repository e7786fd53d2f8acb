//! The versions of an account's token, and what is to be done with a new one.
//!
//! PURE: `(state, event) → (state, actions)`. Time comes in as a value, no
//! I/O is done; the daemon's worker carries the actions out. The same state
//! and event always give the same answer, so that property tests can look for
//! the bugs here.
//!
//! Invariant 2, *never backwards*, lives here: a notice that is older than the
//! newest known one never replaces it. Labels move in one step, the whole
//! account is one document, and it is stored before anything is published.
//! Passwords are deliberately absent: the account keeps tokens, and is only
//! told whether a password is there.

mod document;

use jiff::Timestamp;

use crate::secret::Secret;

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
}

/// One token of an account. Versions are never edited, only relabelled.
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
}

/// What a version is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Received, and waiting: for the Salesforce password.
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
    /// Write password and current token to the entry that others read.
    Publish,
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
        }
    }

    /// The version with this label; at most one has each but `Superseded`.
    pub fn labelled(&self, label: Label) -> Option<&Version> {
        self.versions.iter().rev().find(|v| v.label == label)
    }

    /// The newest version, pending or current.
    pub fn newest(&self) -> Option<&Version> {
        self.labelled(Label::Pending)
            .or_else(|| self.labelled(Label::Current))
    }

    /// What follows from `event`. `password_known` says whether the account's
    /// Salesforce password is there.
    #[must_use]
    pub fn step(&self, event: Event, password_known: bool, now: Timestamp) -> Step {
        match event {
            Event::Notice {
                token,
                fingerprint,
                source,
                proof,
            } => {
                if self.versions.iter().any(|v| v.fingerprint == fingerprint) {
                    return self.unchanged(Reception::Duplicate);
                }
                if self
                    .versions
                    .iter()
                    .any(|known| known.source.order() > source.order())
                {
                    return self.unchanged(Reception::Older);
                }
                let mut next = self.clone();
                next.make_room_for_newer(password_known);
                next.versions.push(Version {
                    id: self
                        .versions
                        .iter()
                        .map(|v| v.id)
                        .max()
                        .unwrap_or(0)
                        .saturating_add(1),
                    label: if password_known {
                        Label::Current
                    } else {
                        Label::Pending
                    },
                    token: Some(token),
                    fingerprint,
                    source,
                    proof,
                    stored: now,
                });
                next.finish(password_known, Some(Reception::Updated))
            }
            Event::Reconcile => self.reconcile(password_known),
        }
    }

    fn unchanged(&self, reception: Reception) -> Step {
        Step {
            account: self.clone(),
            actions: Vec::new(),
            reception: Some(reception),
        }
    }

    /// A password that came makes a pending token current. The entry that
    /// others read is always written again: the password may be another one.
    fn reconcile(&self, password_known: bool) -> Step {
        if password_known && self.labelled(Label::Pending).is_some() {
            let mut next = self.clone();
            next.relabel(Label::Previous, Label::Superseded);
            next.relabel(Label::Current, Label::Previous);
            next.relabel(Label::Pending, Label::Current);
            return next.finish(true, None);
        }
        let publish = password_known && self.labelled(Label::Current).is_some();
        Step {
            account: self.clone(),
            actions: if publish {
                vec![Action::Publish]
            } else {
                Vec::new()
            },
            reception: None,
        }
    }

    /// Moves the labels out of the way of a version that is about to come.
    fn make_room_for_newer(&mut self, becomes_current: bool) {
        self.relabel(Label::Pending, Label::Superseded);
        if becomes_current {
            self.relabel(Label::Previous, Label::Superseded);
            self.relabel(Label::Current, Label::Previous);
        }
    }

    fn relabel(&mut self, from: Label, to: Label) {
        for version in self.versions.iter_mut().filter(|v| v.label == from) {
            version.label = to;
            if to == Label::Superseded {
                version.token = None;
            }
        }
    }

    fn finish(mut self, publish: bool, reception: Option<Reception>) -> Step {
        while self.versions.len() > MAX_VERSIONS {
            let Some(oldest) = self
                .versions
                .iter()
                .position(|v| v.label == Label::Superseded)
            else {
                break;
            };
            self.versions.remove(oldest);
        }
        self.generation = self.generation.saturating_add(1);
        let mut actions = vec![Action::Store];
        if publish {
            actions.push(Action::Publish);
        }
        Step {
            account: self,
            actions,
            reception,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
    fn notice(n: i64, uid: u32) -> Event {
        let at = Timestamp::from_second(1_700_000_000 + n).unwrap();
        Event::Notice {
            token: Secret::new(format!("token{n}")),
            fingerprint: format!("print{n}"),
            source: Source {
                mailbox: "ops".into(),
                folder: "INBOX".into(),
                uid_validity: 1,
                uid,
                message_id: None,
                originated: at,
                received: at,
            },
            proof: "signed".into(),
        }
    }

    fn current(account: &Account) -> Option<&str> {
        let version = account.labelled(Label::Current)?;
        version.token.as_ref().map(Secret::expose)
    }

    #[test]
    fn without_a_password_the_token_waits_and_the_password_completes_it() {
        let account = Account::new("u@x.y");
        let now = Timestamp::UNIX_EPOCH;
        let step = account.step(notice(1, 1), false, now);
        assert_eq!(step.reception, Some(Reception::Updated));
        assert_eq!(step.actions, [Action::Store]);
        assert_eq!(step.account.labelled(Label::Pending).unwrap().id, 1);
        let step = step.account.step(Event::Reconcile, true, now);
        assert_eq!(step.actions, [Action::Store, Action::Publish]);
        assert_eq!(current(&step.account), Some("token1"));
    }

    #[test]
    fn a_changed_password_publishes_again_and_edits_no_version() {
        let now = Timestamp::UNIX_EPOCH;
        let account = Account::new("u@x.y").step(notice(1, 1), true, now).account;
        let step = account.step(Event::Reconcile, true, now);
        assert_eq!(step.actions, [Action::Publish]);
        assert_eq!(step.account, account);
    }

    proptest! {
        /// Whatever the order of arrival, however often, with the password
        /// there or not at any time: in the end the newest token is current.
        #[test]
        fn the_newest_wins_in_any_order(
            arrivals in prop::collection::vec((0_i64..40, any::<bool>()), 1..80),
        ) {
            let now = Timestamp::UNIX_EPOCH;
            let mut account = Account::new("u@x.y");
            for (n, password_known) in &arrivals {
                let before = account.newest().map(|v| v.source.order());
                let event = notice(*n, u32::try_from(*n).unwrap());
                let step = account.step(event, *password_known, now);
                prop_assert!(step.account.newest().map(|v| v.source.order()) >= before);
                account = step.account;
                prop_assert!(account.versions.len() <= MAX_VERSIONS + 1);
                for label in [Label::Pending, Label::Current, Label::Previous] {
                    prop_assert!(account.versions.iter().filter(|v| v.label == label).count() <= 1);
                }
                prop_assert!(account.versions.iter()
                    .all(|v| (v.label == Label::Superseded) == v.token.is_none()));
            }
            account = account.step(Event::Reconcile, true, now).account;
            let newest = arrivals.iter().map(|(n, _)| n).max().unwrap();
            let expected = format!("token{newest}");
            prop_assert_eq!(current(&account), Some(expected.as_str()));
            // And the whole of it survives being written down.
            let document = to_document(&account).unwrap();
            prop_assert_eq!(from_document(&document).unwrap(), account);
        }
    }
}
