//! One task a line: a connection and the folders that are watched over it. It
//! watches, and comes back whatever happens.
//!
//! A session is connected, logged in, caught up and then watched until it
//! fails; then it is tried again, later each time (`session`). A failure is
//! told on the board and in the log, and a panic is a failure like any other.
//! The cursor is the worker's: what this task forgets when it starts over, it
//! looks at again (`folder`).

mod after;
mod folder;
mod numbers;
mod session;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::InboxError;
use super::board::{self, Board, Failure};
use super::clock::Slept;
use super::gate::{AFTER_A_REFUSAL, AFTER_MANY, Held};
use super::lessons::MAX_LESSONS;
use super::looking::Tools;
use crate::config;
use crate::mailbox::{Backoff, Class, MailboxError};
use folder::{STUMBLING, Watched};

/// A connection that held for so long was a good one.
const STABLE: Duration = Duration::from_secs(120);

/// How often a secret that is kept elsewhere is looked at again after it was
/// refused.
const ANOTHER_SECRET: Duration = Duration::from_secs(30);

/// The task of one line.
pub(super) struct Line {
    pub(super) mailbox: Arc<config::Mailbox>,
    pub(super) folders: Vec<String>,
    pub(super) tools: Tools,
    pub(super) board: Arc<Board>,
    pub(super) slept: Slept,
    pub(super) stop: CancellationToken,
}

/// What came of a single run over a mailbox.
#[derive(Default)]
pub(super) struct Once {
    /// Mails whose sender could not be judged.
    pub(super) undecided: usize,
    /// Folders that could not be looked through.
    pub(super) failed: usize,
    /// The first failure.
    pub(super) first: Option<InboxError>,
}

/// Which folders share a line: one each, as far as the connections go, and the
/// last line takes the rest.
pub(super) fn lines(mailbox: &config::Mailbox) -> Vec<Vec<String>> {
    let alone = match mailbox.folders.len() {
        few if few <= mailbox.max_connections => few,
        _ => mailbox.max_connections.saturating_sub(1),
    };
    let (alone, shared) = mailbox
        .folders
        .split_at_checked(alone)
        .unwrap_or((&mailbox.folders, &[]));
    let alone = alone.iter().map(|folder| vec![folder.clone()]);
    alone
        .chain((!shared.is_empty()).then(|| shared.to_vec()))
        .collect()
}

impl Line {
    fn place(&self, folder: &str) -> board::Folder {
        (self.mailbox.name.clone(), folder.to_owned())
    }

    fn span(&self, folder: &str) -> tracing::Span {
        tracing::info_span!("inbox", mailbox = self.mailbox.name, folder)
    }

    /// Watches until it is stopped.
    pub(super) async fn watch(self) {
        let stop = self.stop.clone();
        // Dropping a session is safe at any point: nothing is lost before the
        // worker has it, and what the worker has it finishes.
        stop.run_until_cancelled_owned(self.come_back()).await;
    }

    /// Looks through the folders of the line once, over one connection.
    pub(super) async fn once(&self) -> Once {
        let mut once = Once::default();
        let mut entered = None;
        for (number, name) in self.folders.iter().enumerate() {
            let mut watched = Watched::new(name, Duration::ZERO);
            let span = self.span(name);
            for lesson in 0..=MAX_LESSONS {
                let looked = self
                    .look_once(&mut entered, &mut watched)
                    .instrument(span.clone())
                    .await;
                let error = match looked {
                    Ok(undecided) => {
                        once.undecided = once.undecided.saturating_add(undecided);
                        break;
                    }
                    Err(error) => error,
                };
                let is_in = entered.is_some();
                if watched.lessons.learn(&error) && lesson < MAX_LESSONS {
                    entered = None;
                    continue;
                }
                if !matches!(&error, InboxError::Mailbox(MailboxError::NoFolder(_))) {
                    entered = None;
                }
                tracing::error!(
                    parent: &span,
                    event = "mailbox.lost",
                    error = crate::chain(&error),
                    hint = error.hint(&self.mailbox.name),
                    "a folder could not be looked through"
                );
                once.failed = once.failed.saturating_add(1);
                once.first.get_or_insert(error);
                if !is_in {
                    // Who does not get in for one folder does not for the others.
                    let others = self.folders.len().saturating_sub(number).saturating_sub(1);
                    once.failed = once.failed.saturating_add(others);
                    return once;
                }
                break;
            }
        }
        if let Some(entered) = entered {
            entered.session.log_out().await;
        }
        once
    }

    async fn come_back(&self) {
        let mut network = Backoff::new(Duration::from_secs(2), Duration::from_secs(80));
        // For a login that is refused while others are in.
        let mut login = Backoff::new(AFTER_A_REFUSAL, AFTER_MANY);
        let mut alone_refused = 0_u32;
        let gate = self.tools.doors.gate(&self.mailbox.name);
        let mut openings = gate.openings();
        let mut folders: Vec<Watched> = self
            .folders
            .iter()
            .map(|folder| Watched::new(folder, STUMBLING))
            .collect();
        loop {
            let mut watching = None;
            openings.mark_unchanged();
            let session = AssertUnwindSafe(self.session(&mut folders, &mut watching));
            let error = match session.catch_unwind().await {
                Ok(Err(error)) => error,
                Ok(Ok(never)) => match never {},
                Err(_) => InboxError::Panicked,
            };
            if watching.is_some() {
                alone_refused = 0;
            }
            if watching.is_some_and(|since: Instant| since.elapsed() >= STABLE) {
                network.reset();
                login.reset();
            }
            let (held_back, refusals) = gate.held_back();
            let delay = match (&error, held_back) {
                (InboxError::OneTooMany(_), _) => {
                    alone_refused = alone_refused.saturating_add(1);
                    login.next(fastrand::f64())
                }
                (_, Some(wait)) => wait,
                (_, None) => network.next(fastrand::f64()),
            };
            let was_refused = refusals > 0 || alone_refused > 0;
            let refusals = refusals.max(alone_refused);
            // A server that lets in and hangs up is told of as such.
            let error = match gate.is_open() {
                Err(
                    held @ InboxError::HeldBack {
                        why: Held::TooMany, ..
                    },
                ) => held,
                _ => error,
            };
            for folder in &folders {
                let _in_span = self.span(&folder.name).entered();
                self.log(&error, delay, refusals);
                self.show(&folder.name, &error, delay, refusals);
            }
            let mut slept = self.slept.clone();
            slept.mark_unchanged();
            let changed = tokio::select! {
                () = tokio::time::sleep(delay) => false,
                Ok(()) = openings.changed() => true,
                () = self.another_secret(), if was_refused => true,
                Ok(()) = slept.changed() => true,
            };
            if changed {
                network.reset();
                login.reset();
            }
        }
    }

    /// Ends when a secret that is kept in a file is not the refused one any
    /// more.
    async fn another_secret(&self) {
        loop {
            tokio::time::sleep(ANOTHER_SECRET).await;
            let gate = self.tools.doors.gate(&self.mailbox.name);
            if let Some(secret) = self.tools.secret_in_a_file(&self.mailbox).await
                && !gate.has_refused(&secret)
            {
                gate.open();
                return;
            }
        }
    }

    fn log(&self, error: &InboxError, delay: Duration, refusals: u32) {
        let chain = crate::chain(error);
        let hint = error.hint(&self.mailbox.name);
        let seconds = delay.as_secs();
        if passes(error, refusals) {
            tracing::warn!(
                event = "mailbox.lost",
                error = chain,
                hint,
                retry_in = seconds,
                "the mailbox is not watched; it is tried again"
            );
        } else {
            tracing::error!(
                event = "mailbox.lost",
                error = chain,
                hint,
                retry_in = seconds,
                "the mailbox is not watched; a person must act"
            );
        }
    }

    fn show(&self, folder: &str, error: &InboxError, delay: Duration, refusals: u32) {
        let delay = SignedDuration::try_from(delay).unwrap_or_default();
        let failure = Failure {
            code: error.code(),
            error: crate::chain(error),
            hint: error.hint(&self.mailbox.name),
            next_attempt: Timestamp::now()
                .checked_add(delay)
                .unwrap_or(Timestamp::MAX),
            is_problem: error.class() != Class::Login || !passes(error, refusals),
        };
        self.board.failed(&self.place(folder), failure);
    }
}

/// Whether nobody needs to act yet. Some servers refuse a good password now and
/// then, so that is told of at the second refusal.
fn passes(error: &InboxError, refusals: u32) -> bool {
    if matches!(
        error,
        InboxError::HeldBack {
            why: Held::TooMany,
            ..
        }
    ) {
        return false;
    }
    match error.class() {
        Class::Transient => true,
        Class::Login => refusals < 2,
        Class::Person => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_share_a_line_only_where_connections_are_few() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenwatch.toml");
        let lines_of = |most: usize, names: &str| {
            let text = format!(
                "state-dir = '/s'\n[[mailbox]]\nname='n'\nhost='h'\nuser='u'\n\
                 folders=[{names}]\nmax-connections={most}\n"
            );
            let mut file = std::fs::File::create(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            let config = config::Config::load(Some(&path)).unwrap();
            lines(&config.mailboxes[0])
        };
        assert_eq!(lines_of(4, "'A','B'"), [["A"], ["B"]]);
        assert_eq!(lines_of(1, "'A','B'"), [["A", "B"]]);
        let three = lines_of(2, "'A','B','C'");
        assert_eq!(three, [vec!["A".to_owned()], vec!["B".into(), "C".into()]]);
    }
}
