//! The logins that prove credentials: each is noted before it is handed out, one
//! at a time for an account, and its answer is kept until it is durable.
//!
//! Which logins are under way is known here and not by the clock: it may be set,
//! or the machine sleep, while one is.

use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::super::errands::CheckJob;
use super::super::secrets::DEADLINE;
use super::super::state::StateError;
use super::Worker;
use crate::rotation::{Answer, Event};

/// The first wait before an answer is written again, and the longest, in seconds.
const WAITS: (i64, i64) = (2, 60);

/// What Salesforce has said, and nobody could write down.
pub(super) struct Said {
    /// The keyed hashes of token and password, which name the pair.
    token: String,
    password: String,
    answer: Answer,
    /// How often it could not be written.
    failed: u32,
    /// When it is tried again.
    next: Timestamp,
}

impl Worker {
    /// The logins that are due. Each is noted before it is handed out.
    pub(in crate::daemon) fn begin_checks(
        &mut self,
        now: Timestamp,
        room: usize,
    ) -> Result<Vec<CheckJob>, StateError> {
        let mut has_changed = self.write_answers(now, now);
        let config = Arc::clone(&self.config);
        let mut jobs = Vec::new();
        let begun = Instant::now();
        for configured in &config.accounts {
            let username = &configured.username;
            let is_due = self.due.get(username).is_some_and(|due| *due <= now);
            let waits = self.logins.contains_key(username) || self.settles(username).is_some();
            if jobs.len() >= room || !is_due || waits {
                continue;
            }
            // A password was waited for: what else is due is due still, and others
            // have their turn before it.
            if begun.elapsed() >= DEADLINE {
                break;
            }
            match self.happen(configured, Event::Due, now) {
                Ok(job) => {
                    has_changed = true;
                    jobs.extend(job);
                }
                // Its problem is on the board; those that can be checked are.
                Err(error) if error.is_of_one_account() => {
                    has_changed = true;
                    self.due.remove(username);
                }
                Err(error) if jobs.is_empty() => return Err(error),
                // What was begun has to be done.
                Err(_) => break,
            }
        }
        if has_changed {
            // What was released without a check, too. The answers tell it again, and
            // what was begun has to be done.
            self.tell_board().unwrap_or_default();
        }
        Ok(jobs)
    }

    /// Takes the answer to a login in. Where it cannot be written down it is kept,
    /// and written as soon as that can be done.
    pub(in crate::daemon) fn answered(
        &mut self,
        username: &str,
        token: String,
        password: String,
        answer: Answer,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let said = Said {
            token,
            password,
            answer,
            failed: 0,
            next: Timestamp::MIN,
        };
        let written = self.write_answer(username, said, now);
        self.tell_board().and(written)
    }

    /// Writes the kept answers down that are due by then, and says whether there
    /// were any.
    pub(in crate::daemon) fn write_answers(&mut self, now: Timestamp, due: Timestamp) -> bool {
        let is_due = |said: &mut Option<Said>| said.as_ref().is_some_and(|said| said.next <= due);
        let due: Vec<_> = self
            .logins
            .extract_if(.., |_, said| is_due(said))
            .filter_map(|(username, said)| Some((username, said?)))
            .collect();
        let any = !due.is_empty();
        for (username, said) in due {
            // What fails is kept again, and on the board.
            self.write_answer(&username, said, now).unwrap_or_default();
        }
        any
    }

    /// When the next of the kept answers is written again, if there are any.
    pub(in crate::daemon) fn next_answer(&self) -> Option<Timestamp> {
        self.logins.values().flatten().map(|said| said.next).min()
    }

    /// What is due by a clock that was set back is due by this one.
    pub(super) fn answers_are_due(&mut self, now: Timestamp) {
        for said in self.logins.values_mut().flatten() {
            said.next = now.min(said.next);
        }
    }

    fn write_answer(
        &mut self,
        username: &str,
        mut said: Said,
        now: Timestamp,
    ) -> Result<(), StateError> {
        // From here on the login is over; what is not written is kept again below.
        self.logins.remove(username);
        let config = Arc::clone(&self.config);
        let Some(configured) = config.account(username) else {
            return Ok(());
        };
        let event = Event::Answered {
            token: said.token.clone(),
            password: said.password.clone(),
            answer: said.answer,
        };
        let Err(error) = self.happen(configured, event, now) else {
            return Ok(());
        };
        let (first, most) = WAITS;
        let wait = first.saturating_mul(2_i64.saturating_pow(said.failed));
        let wait = SignedDuration::from_secs(wait.min(most));
        said.failed = said.failed.saturating_add(1);
        said.next = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        tracing::error!(event = "salesforce.unwritten", username, answer = said.answer.word(),
            error = %crate::chain(&error), hint = error.hint(), next = %said.next,
            "what Salesforce has said cannot be written down, and is kept until it can");
        self.unsettle(username);
        self.logins.insert(username.to_owned(), Some(said));
        self.bell.notify_one();
        Err(error)
    }
}
