//! Accounts that a look has brought a token for, and may bring another.
//!
//! A first look, or one after a long absence, finds old tokens before the one
//! that is good. Nobody is to log in with each of them in turn (invariant 6),
//! nor is a sink to be told of each: both wait until the look is through.

use jiff::{SignedDuration, Timestamp};

use super::Worker;

/// A look that takes longer, or has failed and does not come back, is not
/// waited for.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// A username, and the mailbox and folder that its token came from.
pub(super) type Key = (String, String, String);

impl Worker {
    /// A token of this account was found in a folder that is being looked
    /// through.
    pub(super) fn may_bring_more(
        &mut self,
        username: &str,
        (mailbox, folder): (&str, &str),
        now: Timestamp,
    ) {
        let key = (username.to_owned(), mailbox.to_owned(), folder.to_owned());
        let until = now.saturating_add(PATIENCE).unwrap_or(Timestamp::MAX);
        self.settling.entry(key).or_insert(until);
    }

    /// All that was to be found in a folder has been handed in.
    pub(in crate::daemon) fn looked_through(&mut self, mailbox: &str, folder: &str) {
        self.settling
            .retain(|(_, m, f), _| m != mailbox || f != folder);
        self.bell.notify_one();
    }

    /// No look is waited for.
    pub(in crate::daemon) fn settle(&mut self) {
        self.settling.clear();
    }

    /// Until when nothing is done with what is known of this account.
    pub(super) fn settles(&self, username: &str) -> Option<Timestamp> {
        if self.settling.is_empty() {
            return None;
        }
        let from = (username.to_owned(), String::new(), String::new());
        let its = self.settling.range(from..);
        let its = its.take_while(|((known, ..), _)| known == username);
        its.map(|(_, until)| *until).max()
    }

    /// What has waited for long enough waits no more. A clock that was set back
    /// makes nobody wait for longer.
    pub(super) fn stop_waiting(&mut self, now: Timestamp) {
        let latest = now.saturating_add(PATIENCE).unwrap_or(Timestamp::MAX);
        self.settling
            .retain(|_, until| *until > now && *until <= latest);
    }
}
