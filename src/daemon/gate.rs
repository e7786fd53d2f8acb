//! The gate of a mailbox: one login at a time, none soon after a refusal, and
//! not too many that succeed.
//!
//! Servers lock out who guesses passwords, and providers block who logs in
//! without end, so all that log in to a mailbox (its lines, a resync, the
//! doctor) pass through its one gate. Who waits at it is woken when somebody
//! sets another secret.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::InboxError;
use crate::mailbox::{Backoff, Class, MailboxError};
use crate::secret::Secret;

/// After a refusal, and after many of them. Within ten minutes four are tried,
/// one less than the usual lock-out takes.
pub(super) const AFTER_A_REFUSAL: Duration = Duration::from_secs(60);
pub(super) const AFTER_MANY: Duration = Duration::from_secs(3600);

/// After a server hung up on a login, or did not answer it. Some refuse that
/// way, and most are only out of order.
const AFTER_A_DROP: Duration = Duration::from_secs(5);
const AFTER_MANY_DROPS: Duration = Duration::from_secs(300);

/// So many logins may succeed on each connection within `PERIOD`: more come of
/// a server that lets in and hangs up. The usual back-off has fewer.
const LOGINS: usize = 20;
const PERIOD: Duration = Duration::from_secs(600);

/// Why no login is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The last one was refused.
    Refused,
    /// The server hung up on the last one, or did not answer it.
    Dropped,
    /// There were too many.
    TooMany,
}

/// The gate of one mailbox.
pub(super) struct Gate {
    /// Held by who logs in.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// How many are logged in.
    inside: Arc<AtomicUsize>,
    opened: watch::Sender<u64>,
}

struct State {
    refused_for: Backoff,
    dropped_for: Backoff,
    /// Refusals in a row.
    refusals: u32,
    /// Not before this may a login be tried again.
    not_before: Option<(Instant, Held)>,
    /// What was refused.
    refused: Option<Secret>,
    /// What was refused to one while others were in.
    refused_to_one: Option<Secret>,
    logins: Recent,
}

/// A place inside: somebody is logged in until this is dropped.
pub(super) struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// The gate of a mailbox that is watched over so many connections.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                refused_for: Backoff::new(AFTER_A_REFUSAL, AFTER_MANY),
                dropped_for: Backoff::new(AFTER_A_DROP, AFTER_MANY_DROPS),
                refusals: 0,
                not_before: None,
                refused: None,
                refused_to_one: None,
                logins: Recent::new(LOGINS.saturating_mul(connections.max(1))),
            }),
            inside: Arc::default(),
            opened: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a login may be tried now: looked at before anybody connects.
    pub(super) fn is_open(&self) -> Result<(), InboxError> {
        self.state().held_back(Instant::now()).map_or(Ok(()), Err)
    }

    /// Logs in, unless it is too soon. What the server refuses is remembered,
    /// and a `secret` that is another one is tried at once.
    pub(super) async fn pass(
        &self,
        secret: Option<&Secret>,
        login: impl Future<Output = Result<(), InboxError>>,
    ) -> Result<Inside, InboxError> {
        let _turn = self.turn.lock().await;
        {
            let mut state = self.state();
            if secret.is_some() && state.refused.is_some() && state.refused.as_ref() != secret {
                state.forget();
            }
            if let Some(held) = state.held_back(Instant::now()) {
                return Err(held);
            }
        }
        let openings = *self.opened.borrow();
        let ended = login.await;
        let mut state = self.state();
        let opened_meanwhile = *self.opened.borrow() != openings;
        match ended {
            Ok(()) => {
                state.forget();
                state.logins.add(Instant::now());
                self.inside.fetch_add(1, Ordering::Relaxed);
                Ok(Inside(Arc::clone(&self.inside)))
            }
            // Somebody has set another secret meanwhile: what was refused is not
            // what will be tried next.
            Err(error) if opened_meanwhile => Err(error),
            Err(InboxError::Mailbox(error @ MailboxError::LoginDropped)) => {
                let delay = state.dropped_for.next(fastrand::f64());
                state.hold(delay, Held::Dropped);
                Err(error.into())
            }
            // The others are in with the same secret. This one waits by itself,
            // and keeps none of them from coming back.
            Err(InboxError::Mailbox(error))
                if error.class() == Class::Login && self.inside.load(Ordering::Relaxed) > 0 =>
            {
                state.refused_to_one = secret.cloned();
                Err(InboxError::OneTooMany(error))
            }
            Err(error) if error.class() == Class::Login => {
                state.refuse(secret.cloned());
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// There is nothing to log in with: that is as good as a refusal, and one
    /// for all that have found it out together.
    pub(super) fn refuse(&self) {
        let mut state = self.state();
        if state.held_back(Instant::now()).is_none() {
            state.refuse(None);
        }
    }

    /// How long no login may be tried, and how often it was refused in a row.
    pub(super) fn held_back(&self) -> (Option<Duration>, u32) {
        let state = self.state();
        let wait = match state.held_back(Instant::now()) {
            Some(InboxError::HeldBack { wait, .. }) => Some(wait),
            _ => None,
        };
        (wait, state.refusals)
    }

    /// Whether this secret is the one that was refused, to all or to one.
    pub(super) fn has_refused(&self, secret: &Secret) -> bool {
        let state = self.state();
        [&state.refused, &state.refused_to_one]
            .into_iter()
            .flatten()
            .any(|refused| refused == secret)
    }

    /// Something changed that may let a refused login succeed: all that wait
    /// are woken, and whatever they try is tried by one first.
    pub(super) fn open(&self) {
        self.state().forget();
        self.opened
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells when the gate is opened.
    pub(super) fn openings(&self) -> watch::Receiver<u64> {
        self.opened.subscribe()
    }
}

impl State {
    fn forget(&mut self) {
        self.refused_for.reset();
        self.dropped_for.reset();
        self.refusals = 0;
        self.not_before = None;
        self.refused = None;
    }

    fn refuse(&mut self, secret: Option<Secret>) {
        self.refusals = self.refusals.saturating_add(1);
        self.refused = secret;
        self.refused_to_one = None;
        let delay = self.refused_for.next(fastrand::f64());
        self.hold(delay, Held::Refused);
    }

    fn hold(&mut self, delay: Duration, why: Held) {
        let until = Instant::now().checked_add(delay);
        self.not_before = until.map(|until| (until, why));
    }

    fn held_back(&self, now: Instant) -> Option<InboxError> {
        let too_many = self.logins.full_until().map(|until| (until, Held::TooMany));
        [self.not_before, too_many]
            .into_iter()
            .flatten()
            .map(|(until, why)| InboxError::HeldBack {
                wait: until.saturating_duration_since(now),
                why,
            })
            .find(|held| {
                !matches!(
                    held,
                    InboxError::HeldBack {
                        wait: Duration::ZERO,
                        ..
                    }
                )
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

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    async fn fail(gate: &Gate, word: &str, error: MailboxError) -> (bool, InboxError) {
        let mut tried = false;
        let login = async {
            tried = true;
            Err(error.into())
        };
        let ended = gate.pass(Some(&secret(word)), login).await;
        (tried, ended.err().unwrap())
    }

    async fn refuse(gate: &Gate, word: &str) -> bool {
        fail(gate, word, MailboxError::LoginRefused { code: None })
            .await
            .0
    }

    async fn enter(gate: &Gate, word: &str) -> Option<Inside> {
        gate.pass(Some(&secret(word)), async { Ok(()) }).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_secret_waits_longer_each_time_and_another_is_tried_at_once() {
        let gate = Gate::new(1);
        let mut before = Duration::ZERO;
        for refusals in 1..=8 {
            assert!(refuse(&gate, "wrong").await);
            assert!(!refuse(&gate, "wrong").await, "not before its time");
            assert!(gate.is_open().is_err());
            let (wait, counted) = gate.held_back();
            let wait = wait.unwrap();
            assert_eq!(counted, refusals);
            assert!(wait > before || wait >= AFTER_MANY.mul_f64(0.7), "{wait:?}");
            before = wait;
            tokio::time::advance(wait).await;
        }
        assert!(refuse(&gate, "wrong").await);
        assert!(gate.has_refused(&secret("wrong")));
        assert!(
            enter(&gate, "right").await.is_some(),
            "another was not refused"
        );
        assert_eq!(gate.held_back(), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_let_in_again_and_again_must_wait() {
        let gate = Gate::new(2);
        for _ in 0..40 {
            assert!(enter(&gate, "right").await.is_some());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(enter(&gate, "right").await.is_none());
        let (wait, _) = gate.held_back();
        tokio::time::advance(wait.unwrap()).await;
        assert!(enter(&gate, "right").await.is_some());
        assert!(enter(&gate, "right").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_up_is_no_refusal() {
        let gate = Gate::new(1);
        for _ in 0..10 {
            assert!(fail(&gate, "right", MailboxError::LoginDropped).await.0);
            let (wait, refusals) = gate.held_back();
            assert_eq!(refusals, 0);
            let wait = wait.unwrap();
            assert!(wait <= AFTER_MANY_DROPS, "{wait:?}");
            tokio::time::advance(wait).await;
        }
        assert!(enter(&gate, "right").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_too_many_shuts_nobody_out() {
        let gate = Gate::new(2);
        let first = enter(&gate, "right").await.unwrap();
        let refused = MailboxError::LoginRefused { code: None };
        let (_, error) = fail(&gate, "right", refused).await;
        assert!(matches!(error, InboxError::OneTooMany(_)), "{error}");
        assert!(gate.is_open().is_ok());
        assert!(gate.has_refused(&secret("right")) && !gate.has_refused(&secret("new")));
        drop(first);
        assert!(refuse(&gate, "right").await);
        assert!(gate.is_open().is_err(), "nobody is in: it is a refusal");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_how_long_does_not_wait_for_who_logs_in() {
        let gate = Arc::new(Gate::new(1));
        let word = secret("right");
        let mut stalls = Box::pin(gate.pass(Some(&word), std::future::pending()));
        assert!(futures_util::poll!(&mut stalls).is_pending());
        assert_eq!(gate.held_back(), (None, 0));
        gate.open();
    }
}
