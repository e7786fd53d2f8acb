//! One task a line: a connection and the folders that are watched over it. It
//! watches, and comes back whatever happens.
//!
//! A session is connected, logged in, caught up and then watched until it
//! fails; then it is tried again, later each time (`session`). A failure is
//! told on the board and in the log, and a panic is a failure like any other.
//! The cursor is the worker's: what this task forgets when it starts over, it
//! looks at again (`folder`).

mod folder;
mod session;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::InboxError;
use super::board::{self, Board, Failure};
use super::clock::Slept;
use super::looking::Tools;
use crate::config;
use crate::mailbox::{Backoff, Class, MailboxError};
use folder::Watched;

/// How many mails a single run passes over because the server fails over them.
const MAX_STUMBLES: usize = 16;

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
    /// Something changed that may let a failed login succeed.
    pub(super) secret_changed: Arc<Notify>,
    pub(super) slept: Slept,
    pub(super) stop: CancellationToken,
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

    /// Looks through the one folder of the line once: how many mails stay
    /// undecided.
    pub(super) async fn once(&self) -> Result<usize, InboxError> {
        let Some(mut watched) = self.folders.first().map(|name| Watched::new(name)) else {
            return Ok(0);
        };
        let span = self.span(&watched.name);
        for _ in 0..MAX_STUMBLES {
            watched.pass_over_stumbling();
            let looked = self.look_once(&mut watched).instrument(span.clone()).await;
            match looked {
                Err(InboxError::Mailbox(
                    MailboxError::Stumbled { .. } | MailboxError::Search(_),
                )) => {}
                ended => return ended,
            }
        }
        self.look_once(&mut watched).instrument(span).await
    }

    async fn come_back(&self) {
        let mut network = Backoff::new(Duration::from_secs(2), Duration::from_secs(80));
        let mut folders: Vec<Watched> = self.folders.iter().map(|f| Watched::new(f)).collect();
        loop {
            let mut watching = None;
            let session = AssertUnwindSafe(self.session(&mut folders, &mut watching));
            let error = match session.catch_unwind().await {
                Ok(Err(error)) => error,
                Ok(Ok(never)) => match never {},
                Err(_) => InboxError::Panicked,
            };
            if watching.is_some_and(|since: Instant| since.elapsed() >= STABLE) {
                network.reset();
            }
            let (held_back, refusals) = self.tools.doors.gate(&self.mailbox).held_back().await;
            let delay = held_back.unwrap_or_else(|| network.next(fastrand::f64()));
            for folder in &folders {
                let _in_span = self.span(&folder.name).entered();
                self.log(&error, delay, refusals);
                self.show(&folder.name, &error, delay, refusals);
            }
            if self.rest(delay, refusals > 0).await {
                network.reset();
            }
        }
    }

    /// Waits until it may be tried again; `true` where something has changed
    /// meanwhile that makes it worth more than before.
    async fn rest(&self, delay: Duration, refused: bool) -> bool {
        let mut slept = self.slept.clone();
        slept.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(delay) => false,
            () = self.secret_changed.notified() => {
                self.tools.doors.gate(&self.mailbox).open().await;
                true
            }
            () = self.another_secret(), if refused => true,
            Ok(()) = slept.changed() => true,
        }
    }

    /// Ends when a secret that is kept in a file is not the refused one any
    /// more.
    async fn another_secret(&self) {
        loop {
            tokio::time::sleep(ANOTHER_SECRET).await;
            if let Some(secret) = self.tools.secret_in_a_file(&self.mailbox).await
                && !self
                    .tools
                    .doors
                    .gate(&self.mailbox)
                    .has_refused(&secret)
                    .await
            {
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
    if matches!(error, InboxError::HeldBack { refused: false, .. }) {
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
