//! One folder of a line: opened, caught up, looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{InboxError, Line};
use crate::api::MailboxState;
use crate::config::After;
use crate::daemon::looking::{Looked, Target};
use crate::journal::{Cursor, Kind, Place};
use crate::mailbox::{Access, Backoff, Folder, Look, MailboxError, Scope, Session};

/// How long a mail that the server does not hand out may keep the others from
/// being seen. Then it is passed over, remembered, and asked for again later.
const STUMBLING: Duration = Duration::from_secs(600);

/// A folder, and what is remembered of it between connections.
pub(super) struct Watched {
    pub(super) name: String,
    /// When mails whose sender could not be judged are looked at again.
    pub(super) due: Option<Instant>,
    retry: Backoff,
    position: Option<Position>,
    /// Mails over which the server fails, each since when.
    stumbled: BTreeMap<u32, Instant>,
    /// How long such a mail keeps the others waiting.
    patience: Duration,
    /// The server's SEARCH has not failed.
    narrow: bool,
    /// The server said that there is no such folder.
    is_missing: bool,
    /// Mails with which `after` could not be done over this connection.
    refused: BTreeSet<u32>,
}

/// Where in the folder the task is.
struct Position {
    uid_validity: u32,
    next_uid: u32,
    exists: u32,
}

impl Watched {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            due: None,
            retry: Backoff::new(Duration::from_secs(30), Duration::from_secs(300)),
            position: None,
            stumbled: BTreeMap::new(),
            patience: STUMBLING,
            narrow: true,
            is_missing: false,
            refused: BTreeSet::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.position.is_some()
    }

    /// The connection is another one now.
    pub(super) fn forget_session(&mut self) {
        self.position = None;
        self.due = None;
        self.refused.clear();
    }

    /// Waits for no mail that the server does not hand out.
    pub(super) fn pass_over_stumbling(&mut self) {
        self.patience = Duration::ZERO;
    }

    /// The mails that are not asked for, because the server fails over them.
    fn skip(&self) -> Vec<u32> {
        self.stumbled
            .iter()
            .filter(|(_, since)| since.elapsed() >= self.patience)
            .map(|(uid, _)| *uid)
            .collect()
    }

    /// Whether nothing can have come since the folder was last looked at.
    fn is_where_it_was(&mut self, folder: Folder) -> bool {
        self.position.as_mut().is_some_and(|position| {
            let same = position.uid_validity == folder.uid_validity
                && folder.uid_next == Some(position.next_uid)
                && folder.exists <= position.exists;
            position.exists = folder.exists;
            same
        })
    }

    /// What a failure says of the folder, and not only of the connection.
    fn learn<T>(&mut self, looked: Result<T, InboxError>) -> Result<T, InboxError> {
        match &looked {
            Err(InboxError::Mailbox(MailboxError::Stumbled { uid, .. })) => {
                self.stumbled.entry(*uid).or_insert_with(Instant::now);
            }
            Err(InboxError::Mailbox(MailboxError::Search(_))) => self.narrow = false,
            _ => {}
        }
        looked
    }
}

impl Line {
    /// Opens a folder, again or for the first time, and looks at what came
    /// while nobody watched. A folder that is not there is told of, and keeps
    /// nobody from the others.
    pub(super) async fn reopen(
        &self,
        session: &mut Session,
        watched: &mut Watched,
    ) -> Result<(), InboxError> {
        let folder = match session.open(&watched.name, self.access()).await {
            Ok(folder) => folder,
            Err(error @ MailboxError::NoFolder(_)) => {
                self.board.alive(&self.place(&watched.name));
                let error = error.into();
                // It is said once, and stands on the board as long as it is so.
                if !watched.is_missing {
                    self.log(&error, self.mailbox.poll, 0);
                }
                self.show(&watched.name, &error, self.mailbox.poll, 0);
                watched.position = None;
                watched.is_missing = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        watched.is_missing = false;
        let place = self.place(&watched.name);
        self.board.alive(&place);
        let looked = if watched.is_where_it_was(folder) {
            Ok(())
        } else {
            self.catch_up(session, watched, folder).await
        };
        watched.learn(looked)?;
        self.look_again(session, watched).await
    }

    /// Looks at what was announced in the folder that is open.
    pub(super) async fn look_at_news(
        &self,
        session: &mut Session,
        watched: &mut Watched,
    ) -> Result<(), InboxError> {
        let first = watched.position.as_ref().map_or(1, |p| p.next_uid);
        let look = Look::at_news(first).skipping(watched.skip());
        let looked = self.go_through(look, session, watched, true).await;
        watched.learn(looked)?;
        if let Some(position) = &mut watched.position {
            position.exists = session.exists();
        }
        self.look_again(session, watched).await
    }

    /// A look from the cursor on, and at what is undecided: how much stays so.
    pub(super) async fn look_once(&self, watched: &mut Watched) -> Result<usize, InboxError> {
        watched.forget_session();
        let mut session = self.connect().await?;
        let folder = session.open(&watched.name, self.access()).await?;
        let looked = self.catch_up(&mut session, watched, folder).await;
        watched.learn(looked)?;
        let open = self.undecided(watched).await?;
        self.go_through(Look::again_at(open), &mut session, watched, false)
            .await?;
        self.afterwards(&mut session, watched).await?;
        session.log_out().await;
        Ok(self.undecided(watched).await?.len())
    }

    /// Nothing is changed in a mailbox unless `after` says so (invariant 8).
    fn access(&self) -> Access {
        match self.mailbox.after {
            After::Nothing => Access::Read,
            After::Flag(_) | After::Move(_) => Access::Write,
        }
    }

    /// Looks at what came since the cursor was last moved; at first as far back
    /// as the configuration says.
    async fn catch_up(
        &self,
        session: &mut Session,
        watched: &mut Watched,
        folder: Folder,
    ) -> Result<(), InboxError> {
        let is_first = !watched.is_open();
        if is_first {
            self.board
                .state(&self.place(&watched.name), MailboxState::CatchingUp);
        }
        let known = self.known(watched, folder).await?;
        let scope = Scope {
            first: known.map_or(1, |cursor| cursor.next_uid),
            since: match known {
                Some(_) => None,
                None => self.mailbox.since.first_day(Timestamp::now()),
            },
            narrow: watched.narrow,
        };
        watched.position = Some(Position {
            uid_validity: folder.uid_validity,
            next_uid: scope.first,
            exists: folder.exists,
        });
        let look = Look::through(folder, scope).skipping(watched.skip());
        self.go_through(look, session, watched, true).await?;
        // A server may say a smaller UIDNEXT than it has mails.
        let next_uid = watched.position.as_ref().map_or(1, |p| p.next_uid);
        let news = Look::at_news(next_uid).skipping(watched.skip());
        self.go_through(news, session, watched, true).await?;
        if let Some(mod_seq) = folder.mod_seq
            && known.and_then(|cursor| cursor.mod_seq) != Some(mod_seq)
        {
            let (name, folder_name) = self.place(&watched.name);
            let uid_validity = folder.uid_validity;
            self.tools
                .worker
                .run(move |worker| worker.caught_up(&name, &folder_name, uid_validity, mod_seq))
                .await?;
        }
        self.board.alive(&self.place(&watched.name));
        if is_first {
            tracing::info!(
                event = "mailbox.watching",
                uid_validity = folder.uid_validity,
                mails = folder.exists,
                next_uid = watched.position.as_ref().map(|p| p.next_uid),
                "watching"
            );
        }
        Ok(())
    }

    /// The cursor, if it still means this folder.
    async fn known(&self, watched: &Watched, folder: Folder) -> Result<Option<Cursor>, InboxError> {
        let place = self.place(&watched.name);
        let (name, folder_name) = place.clone();
        let cursor = self
            .tools
            .worker
            .run(move |worker| worker.cursor(&name, &folder_name))
            .await?;
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        let uid_validity = folder.uid_validity;
        if uid_validity == 0 && watched.is_open() {
            return Ok(Some(cursor));
        }
        if uid_validity == 0 {
            tracing::warn!(
                event = "mailbox.uidvalidity",
                "the server gives no UIDVALIDITY; the folder is looked through at every connection"
            );
            self.forget_from(place, 0, 1).await?;
            return Ok(None);
        }
        if cursor.uid_validity != uid_validity {
            tracing::warn!(
                event = "mailbox.uidvalidity",
                before = cursor.uid_validity,
                now = uid_validity,
                "the server has numbered its mails anew; they are looked through again"
            );
            return Ok(None);
        }
        if let Some(uid_next) = folder.uid_next
            && uid_next < cursor.next_uid
        {
            tracing::warn!(
                event = "mailbox.uidnext",
                before = cursor.next_uid,
                now = uid_next,
                "the server has gone back behind what was seen; the folder is looked through again"
            );
            self.forget_from(place, uid_validity, uid_next).await?;
            return Ok(None);
        }
        // It was put back from a copy, and has new mails under numbers that
        // others had: only the modification sequence shows it (RFC 7162).
        if let (Some(before), Some(now)) = (cursor.mod_seq, folder.mod_seq)
            && now < before
        {
            tracing::warn!(
                event = "mailbox.modseq",
                before,
                now,
                "the server has gone back in time; the folder is looked through again"
            );
            return Ok(None);
        }
        Ok(Some(cursor))
    }

    async fn forget_from(
        &self,
        (name, folder): (String, String),
        uid_validity: u32,
        uid: u32,
    ) -> Result<(), InboxError> {
        let forgotten = self
            .tools
            .worker
            .run(move |worker| worker.forget_from(&name, &folder, uid_validity, uid));
        Ok(forgotten.await?)
    }

    async fn go_through(
        &self,
        mut look: Look,
        session: &mut Session,
        watched: &mut Watched,
        moves_cursor: bool,
    ) -> Result<(), InboxError> {
        let place = self.place(&watched.name);
        let wanted = self.tools.wanted(&self.mailbox);
        let Some(position) = &mut watched.position else {
            return Ok(());
        };
        let target = Target {
            mailbox: &self.mailbox,
            folder: &watched.name,
            uid_validity: position.uid_validity,
            moves_cursor,
            dry_run: false,
        };
        while let Some(looked) = self
            .tools
            .step(&mut look, session, &wanted, &target)
            .await?
        {
            self.board.alive(&place);
            match looked {
                Looked::Mail { outcome, .. } => {
                    if outcome.kind != Kind::Undecided {
                        self.board.event(&place);
                    }
                }
                Looked::Seen { next_uid } => {
                    position.next_uid = position.next_uid.max(next_uid);
                }
            }
        }
        Ok(())
    }

    /// Looks again at mails whose sender could not be judged, when it is time,
    /// and does what is to be done with those that are settled.
    async fn look_again(
        &self,
        session: &mut Session,
        watched: &mut Watched,
    ) -> Result<(), InboxError> {
        let is_due = watched.due.is_some_and(|due| due <= Instant::now());
        if is_due {
            let open = self.undecided(watched).await?;
            self.go_through(Look::again_at(open), session, watched, false)
                .await?;
        }
        if is_due || watched.due.is_none() {
            if self.undecided(watched).await?.is_empty() {
                watched.retry.reset();
                watched.due = None;
            } else {
                let delay = watched.retry.next(fastrand::f64());
                watched.due = Instant::now().checked_add(delay);
            }
        }
        self.afterwards(session, watched).await
    }

    /// Does with the mails that are settled what `after` says. What cannot be
    /// done with one is told of once a connection, and keeps no other waiting.
    async fn afterwards(
        &self,
        session: &mut Session,
        watched: &mut Watched,
    ) -> Result<(), InboxError> {
        let Some(position) = &watched.position else {
            return Ok(());
        };
        if self.mailbox.after == After::Nothing {
            return Ok(());
        }
        let (name, folder) = self.place(&watched.name);
        let uid_validity = position.uid_validity;
        let waiting = self
            .tools
            .worker
            .run(move |worker| worker.waiting_for_after(&name, &folder, uid_validity))
            .await?;
        for uid in waiting {
            if watched.refused.contains(&uid) {
                continue;
            }
            let done = match &self.mailbox.after {
                After::Nothing => Ok(()),
                After::Flag(flag) => session.flag(uid, flag).await,
                After::Move(to) => session.move_to(uid, to).await,
            };
            match done {
                Ok(()) => {}
                Err(error @ (MailboxError::Refused { .. } | MailboxError::NoMove)) => {
                    tracing::error!(
                        event = "mailbox.after-failed",
                        uid,
                        error = crate::chain(&error),
                        hint = "see `after` of the mailbox, and that the folder is there",
                        "what is to be done with a mail afterwards cannot be done"
                    );
                    watched.refused.insert(uid);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let (mailbox, folder) = self.place(&watched.name);
            let place = Place {
                mailbox,
                folder,
                uid_validity,
                uid,
            };
            self.tools
                .worker
                .run(move |worker| worker.did_after(&place))
                .await?;
        }
        Ok(())
    }

    async fn undecided(&self, watched: &Watched) -> Result<Vec<u32>, InboxError> {
        let Some(position) = &watched.position else {
            return Ok(Vec::new());
        };
        let (name, folder) = self.place(&watched.name);
        let uid_validity = position.uid_validity;
        let open = self
            .tools
            .worker
            .run(move |worker| worker.undecided(&name, &folder, uid_validity));
        Ok(open.await?)
    }
}
