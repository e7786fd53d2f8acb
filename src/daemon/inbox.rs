//! One task a folder: it watches, and comes back whatever happens.
//!
//! A session is connected, logged in, caught up and then watched until it
//! fails; then it is tried again, later each time. A failure is told on the
//! board and in the log, and a panic is a failure like any other. The cursor
//! is the worker's: what this task forgets when it starts over, it looks at
//! again.

use std::collections::BTreeMap;
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
use super::board::{Board, Failure, Folder};
use super::looking::{Looked, Target, Tools};
use crate::api::MailboxState;
use crate::config;
use crate::journal::Kind;
use crate::mailbox::{Backoff, Class, Look, MailboxError, Scope, Session, Wake};

/// How long a mail that the server does not hand out may keep the others from
/// being seen. Then it is passed over, remembered, and asked for again later.
const STUMBLING: Duration = Duration::from_secs(600);

/// How many mails a single run passes over so.
const MAX_STUMBLES: usize = 16;

/// A connection that held for so long was a good one.
const STABLE: Duration = Duration::from_secs(120);

/// The task of one folder.
pub(super) struct Inbox {
    pub(super) mailbox: Arc<config::Mailbox>,
    pub(super) folder: String,
    pub(super) tools: Tools,
    pub(super) board: Arc<Board>,
    /// Something changed that may let a failed login succeed.
    pub(super) secret_changed: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

impl Inbox {
    fn place(&self) -> Folder {
        (self.mailbox.name.clone(), self.folder.clone())
    }

    /// Watches until it is stopped.
    pub(super) async fn watch(self) {
        let span = tracing::info_span!("inbox", mailbox = self.mailbox.name, folder = self.folder);
        let stop = self.stop.clone();
        // Dropping a session is safe at any point: nothing is lost before the
        // worker has it, and what the worker has it finishes.
        stop.run_until_cancelled_owned(self.come_back().instrument(span))
            .await;
    }

    /// Looks through the folder once: how many mails stay undecided.
    pub(super) async fn once(&self) -> Result<usize, InboxError> {
        let mut skip = Vec::new();
        loop {
            match self.once_without(&skip).await {
                Err(InboxError::Mailbox(MailboxError::Stumbled { uid, .. }))
                    if skip.len() < MAX_STUMBLES =>
                {
                    skip.push(uid);
                }
                ended => return ended,
            }
        }
    }

    async fn once_without(&self, skip: &[u32]) -> Result<usize, InboxError> {
        let (mut session, mut position) = self.open(skip).await?;
        let open = self.undecided(&position).await?;
        self.look_back(&mut session, &mut position).await?;
        self.go_through(Look::again_at(open), &mut session, &mut position, false)
            .await?;
        session.log_out().await;
        Ok(self.undecided(&position).await?.len())
    }

    async fn come_back(&self) {
        let mut network = Backoff::new(Duration::from_secs(2), Duration::from_secs(80));
        // Mails over which the server fails, each since when.
        let mut stumbled: BTreeMap<u32, Instant> = BTreeMap::new();
        // A refused login is not hammered: servers lock accounts.
        let mut login = Backoff::new(Duration::from_secs(60), Duration::from_secs(3600));
        loop {
            let skip: Vec<u32> = stumbled
                .iter()
                .filter(|(_, since)| since.elapsed() >= STUMBLING)
                .map(|(uid, _)| *uid)
                .collect();
            let mut watching = None;
            let session = AssertUnwindSafe(self.session(&skip, &mut watching));
            let error = match session.catch_unwind().await {
                Ok(Err(error)) => error,
                Ok(Ok(never)) => match never {},
                Err(_) => InboxError::Panicked,
            };
            if watching.is_some_and(|since: Instant| since.elapsed() >= STABLE) {
                network.reset();
                login.reset();
            }
            if let InboxError::Mailbox(MailboxError::Stumbled { uid, .. }) = &error {
                stumbled.entry(*uid).or_insert_with(Instant::now);
            }
            let backoff = if error.class() == Class::Login {
                &mut login
            } else {
                &mut network
            };
            let delay = backoff.next(fastrand::f64());
            self.tell(&error, delay);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.secret_changed.notified() => {
                    network.reset();
                    login.reset();
                }
            }
        }
    }

    fn tell(&self, error: &InboxError, delay: Duration) {
        let chain = crate::chain(error);
        let hint = error.hint(&self.mailbox.name);
        let seconds = delay.as_secs();
        if error.class() == Class::Transient {
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
        let delay = SignedDuration::try_from(delay).unwrap_or_default();
        let failure = Failure {
            code: error.code(),
            error: chain,
            hint,
            next_attempt: Timestamp::now()
                .checked_add(delay)
                .unwrap_or(Timestamp::MAX),
        };
        self.board.failed(&self.place(), failure);
    }

    /// One connection's life. It ends with an error, for a server that hangs
    /// up is none to be content with.
    async fn session(
        &self,
        skip: &[u32],
        watching: &mut Option<Instant>,
    ) -> Result<std::convert::Infallible, InboxError> {
        let place = self.place();
        let (mut session, mut position) = self.open(skip).await?;
        self.look_back(&mut session, &mut position).await?;
        *watching = Some(Instant::now());
        let mut retry = Backoff::new(Duration::from_secs(30), Duration::from_secs(300));
        let mut due = self.schedule(&position, &mut retry).await?;
        loop {
            let state = if session.can_idle() && position.idles {
                MailboxState::Watching
            } else {
                MailboxState::Polling
            };
            self.board.state(&place, state);
            self.wait(&mut session, &mut position, due).await?;
            self.board.alive(&place);
            // Whatever ended the wait: a look costs one round trip, and finds
            // what a server forgot to announce.
            let news = Look::at_news(position.next_uid);
            self.go_through(news, &mut session, &mut position, true)
                .await?;
            if due.is_some_and(|due| due <= Instant::now()) {
                let open = self.undecided(&position).await?;
                self.go_through(Look::again_at(open), &mut session, &mut position, false)
                    .await?;
                due = self.schedule(&position, &mut retry).await?;
            } else if due.is_none() {
                due = self.schedule(&position, &mut retry).await?;
            }
        }
    }

    async fn open(&self, skip: &[u32]) -> Result<(Session, Position), InboxError> {
        let place = self.place();
        self.board.state(&place, MailboxState::Connecting);
        let mut session = self.tools.connect(&self.mailbox).await?;
        self.board.state(&place, MailboxState::Authenticating);
        self.tools.log_in(&mut session, &self.mailbox).await?;
        let folder = session.examine(&self.folder).await?;
        self.board.alive(&place);
        tracing::info!(
            event = "mailbox.connected",
            host = self.mailbox.host,
            uid_validity = folder.uid_validity,
            mails = folder.exists,
            idle = session.can_idle(),
            "connected"
        );
        let (name, watched) = place;
        let cursor = self
            .tools
            .worker
            .run(move |worker| worker.cursor(&name, &watched))
            .await?;
        let mut known = cursor.filter(|cursor| cursor.uid_validity == folder.uid_validity);
        if let (Some(cursor), Some(uid_next)) = (known, folder.uid_next)
            && uid_next < cursor.next_uid
        {
            tracing::warn!(
                event = "mailbox.uidnext",
                before = cursor.next_uid,
                now = uid_next,
                "the server has gone back behind what was seen; the folder is looked through again"
            );
            let (name, watched) = self.place();
            let uid_validity = folder.uid_validity;
            self.tools
                .worker
                .run(move |worker| worker.forget_from(&name, &watched, uid_validity, uid_next))
                .await?;
            known = None;
        }
        if let Some(cursor) = cursor.filter(|c| c.uid_validity != folder.uid_validity) {
            tracing::warn!(
                event = "mailbox.uidvalidity",
                before = cursor.uid_validity,
                now = folder.uid_validity,
                "the server has numbered its mails anew; they are looked through again"
            );
        }
        let position = Position {
            folder,
            next_uid: known.map_or(1, |cursor| cursor.next_uid),
            is_known: known.is_some(),
            idles: true,
            skip: skip.to_vec(),
        };
        Ok((session, position))
    }

    /// Looks at what came while nobody watched; at first as far back as the
    /// configuration says.
    async fn look_back(
        &self,
        session: &mut Session,
        position: &mut Position,
    ) -> Result<(), InboxError> {
        self.board.state(&self.place(), MailboxState::CatchingUp);
        let scope = Scope {
            first: position.next_uid,
            since: if position.is_known {
                None
            } else {
                self.mailbox.since.first_day(Timestamp::now())
            },
        };
        let look = Look::through(position.folder, scope);
        self.go_through(look, session, position, true).await?;
        self.board.alive(&self.place());
        tracing::info!(
            event = "mailbox.watching",
            next_uid = position.next_uid,
            "watching"
        );
        Ok(())
    }

    async fn go_through(
        &self,
        look: Look,
        session: &mut Session,
        position: &mut Position,
        moves_cursor: bool,
    ) -> Result<(), InboxError> {
        let mut look = if moves_cursor {
            look.skipping(position.skip.iter().copied())
        } else {
            look
        };
        let wanted = self.tools.wanted(&self.mailbox);
        let target = Target {
            mailbox: &self.mailbox,
            folder: &self.folder,
            uid_validity: position.folder.uid_validity,
            moves_cursor,
            dry_run: false,
        };
        while let Some(looked) = self
            .tools
            .step(&mut look, session, &wanted, &target)
            .await?
        {
            match looked {
                Looked::Mail { outcome, .. } => {
                    if outcome.kind != Kind::Undecided {
                        self.board.event(&self.place());
                    }
                }
                Looked::Seen { next_uid } => {
                    position.next_uid = position.next_uid.max(next_uid);
                }
            }
        }
        Ok(())
    }

    /// Waits for news, for the time to renew IDLE, or until a mail is due.
    async fn wait(
        &self,
        session: &mut Session,
        position: &mut Position,
        due: Option<Instant>,
    ) -> Result<(), InboxError> {
        let until_due = due.map_or(Duration::MAX, |due| {
            due.saturating_duration_since(Instant::now())
        });
        if session.can_idle() && position.idles {
            let renew = self.mailbox.idle_renew.min(until_due);
            match session.idle(renew).await? {
                Some(Wake::News | Wake::Renew) => {}
                None => {
                    tracing::warn!(
                        event = "mailbox.idle-refused",
                        "the server refuses IDLE; it is polled"
                    );
                    position.idles = false;
                }
            }
        } else {
            tokio::time::sleep(self.mailbox.poll.min(until_due)).await;
            session.poll().await?;
        }
        Ok(())
    }

    async fn undecided(&self, position: &Position) -> Result<Vec<u32>, InboxError> {
        let (name, folder) = self.place();
        let uid_validity = position.folder.uid_validity;
        let open = self
            .tools
            .worker
            .run(move |worker| worker.undecided(&name, &folder, uid_validity));
        Ok(open.await?)
    }

    /// When the mails whose sender could not be judged are looked at again.
    async fn schedule(
        &self,
        position: &Position,
        retry: &mut Backoff,
    ) -> Result<Option<Instant>, InboxError> {
        if self.undecided(position).await?.is_empty() {
            retry.reset();
            return Ok(None);
        }
        Ok(Instant::now().checked_add(retry.next(fastrand::f64())))
    }
}

/// Where in the folder the task is.
struct Position {
    folder: crate::mailbox::Folder,
    next_uid: u32,
    /// The folder was read before.
    is_known: bool,
    /// The server has not refused IDLE.
    idles: bool,
    /// Mails that are not asked for, because the server fails over them.
    skip: Vec<u32>,
}
