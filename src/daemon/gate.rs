//! The gate of a mailbox: one login at a time, none soon after a refusal, and
//! not too many that succeed.
//!
//! Servers lock out who guesses passwords, and providers block who logs in
//! without end, so all that log in to a mailbox (its lines, a resync, the
//! doctor) pass through its one gate.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::InboxError;
use crate::mailbox::{Backoff, Class};
use crate::secret::Secret;

/// After a refusal, and after many of them. Within ten minutes four are tried,
/// one less than the usual lock-out takes.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(60);
const AFTER_MANY: Duration = Duration::from_secs(3600);

/// So many logins may succeed on each connection within `PERIOD`: more come of
/// a server that lets in and hangs up.
const LOGINS: usize = 10;
const PERIOD: Duration = Duration::from_secs(600);

/// The gate of one mailbox.
pub(super) struct Gate {
    state: Mutex<State>,
}

struct State {
    backoff: Backoff,
    /// Refusals in a row.
    refusals: u32,
    /// Not before this may a login be tried again.
    not_before: Option<Instant>,
    /// What was refused.
    refused: Option<Secret>,
    logins: Recent,
}

impl Gate {
    /// The gate of a mailbox that is watched over so many connections.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            state: Mutex::new(State {
                backoff: Backoff::new(AFTER_A_REFUSAL, AFTER_MANY),
                refusals: 0,
                not_before: None,
                refused: None,
                logins: Recent::new(LOGINS.saturating_mul(connections.max(1))),
            }),
        }
    }

    /// Logs in, unless it is too soon. What the server refuses is remembered,
    /// and a `secret` that is another one is tried at once.
    pub(super) async fn pass(
        &self,
        secret: Option<&Secret>,
        login: impl Future<Output = Result<(), InboxError>>,
    ) -> Result<(), InboxError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        // Another secret has not been refused.
        if secret.is_some() && state.refused.is_some() && state.refused.as_ref() != secret {
            state.forget();
        }
        if let Some(held) = state.held_back(now) {
            return Err(held);
        }
        let ended = login.await;
        match &ended {
            Ok(()) => {
                state.forget();
                state.logins.add(Instant::now());
            }
            Err(error) if error.class() == Class::Login => {
                state.refusals = state.refusals.saturating_add(1);
                let delay = state.backoff.next(fastrand::f64());
                state.not_before = Instant::now().checked_add(delay);
                state.refused = secret.cloned();
            }
            Err(_) => {}
        }
        ended
    }

    /// How long no login may be tried, and how often it was refused in a row.
    pub(super) async fn held_back(&self) -> (Option<Duration>, u32) {
        let state = self.state.lock().await;
        let wait = match state.held_back(Instant::now()) {
            Some(InboxError::HeldBack { wait, .. }) => Some(wait),
            _ => None,
        };
        (wait, state.refusals)
    }

    /// Whether this secret is the one that was refused.
    pub(super) async fn has_refused(&self, secret: &Secret) -> bool {
        self.state.lock().await.refused.as_ref() == Some(secret)
    }

    /// Something changed that may let a refused login succeed.
    pub(super) async fn open(&self) {
        self.state.lock().await.forget();
    }
}

impl State {
    fn forget(&mut self) {
        self.backoff.reset();
        self.refusals = 0;
        self.not_before = None;
        self.refused = None;
    }

    fn held_back(&self, now: Instant) -> Option<InboxError> {
        let left = |until: Instant| {
            let wait = until.saturating_duration_since(now);
            (!wait.is_zero()).then_some(wait)
        };
        if let Some(wait) = self.not_before.and_then(left) {
            return Some(InboxError::HeldBack {
                wait,
                refused: true,
            });
        }
        let wait = self.logins.full_until().and_then(left)?;
        Some(InboxError::HeldBack {
            wait,
            refused: false,
        })
    }
}

/// The last logins that succeeded.
struct Recent {
    most: usize,
    times: VecDeque<Instant>,
}

impl Recent {
    fn new(most: usize) -> Self {
        Self {
            most,
            times: VecDeque::new(),
        }
    }

    fn add(&mut self, now: Instant) {
        if self.times.len() >= self.most {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    /// Until when there are too many.
    fn full_until(&self) -> Option<Instant> {
        let oldest = self
            .times
            .front()
            .filter(|_| self.times.len() >= self.most)?;
        oldest.checked_add(PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::MailboxError;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    async fn refuse(gate: &Gate, word: &str) -> bool {
        let mut tried = false;
        let login = async {
            tried = true;
            Err(MailboxError::LoginRefused { code: None }.into())
        };
        gate.pass(Some(&secret(word)), login).await.unwrap_err();
        tried
    }

    async fn succeed(gate: &Gate, word: &str) -> bool {
        gate.pass(Some(&secret(word)), async { Ok(()) })
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_secret_waits_longer_each_time_and_another_is_tried_at_once() {
        let gate = Gate::new(1);
        let mut before = Duration::ZERO;
        for refusals in 1..=8 {
            assert!(refuse(&gate, "wrong").await);
            assert!(!refuse(&gate, "wrong").await, "not before its time");
            let (wait, counted) = gate.held_back().await;
            let wait = wait.unwrap();
            assert_eq!(counted, refusals);
            assert!(wait > before || wait >= AFTER_MANY.mul_f64(0.7), "{wait:?}");
            before = wait;
            tokio::time::advance(wait).await;
        }
        assert!(refuse(&gate, "wrong").await);
        assert!(gate.has_refused(&secret("wrong")).await);
        assert!(succeed(&gate, "right").await, "another was not refused");
        assert_eq!(gate.held_back().await, (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_let_in_again_and_again_must_wait() {
        let gate = Gate::new(2);
        for _ in 0..20 {
            assert!(succeed(&gate, "right").await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(!succeed(&gate, "right").await);
        let (wait, _) = gate.held_back().await;
        tokio::time::advance(wait.unwrap()).await;
        assert!(succeed(&gate, "right").await);
        assert!(!succeed(&gate, "right").await);
    }
}
