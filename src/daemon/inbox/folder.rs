//! One folder of a line: opened, caught up, looked at.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::Offset;
use jiff::{Timestamp, civil};
use tokio::time::Instant;

use super::numbers::{Known, known};
use super::{InboxError, Line};
use crate::api::MailboxState;
use crate::config::{After, Since};
use crate::daemon::doors::Entered;
use crate::daemon::lessons::Lessons;
use crate::daemon::looking::{Looked, Sheaf, Target};
use crate::journal::{Cursor, Kind};
use crate::mailbox::{Access, Backoff, Folder, Look, MailboxError, Session};

/// How long a mail that the server does not hand out may keep the others from
/// being seen. Then it is passed over, remembered, and asked for again later.
pub(super) const STUMBLING: Duration = Duration::from_secs(600);

/// For so long a connection is asked for a folder that it does not have. Then
/// another one is: some servers forget who is logged in.
const MISSING: Duration = Duration::from_secs(600);

/// How often the journal is told that a folder in which nothing happens is
/// caught up: a look back goes by days.
const CAUGHT_UP: Duration = Duration::from_secs(3600);

/// A folder, and what is remembered of it between connections.
pub(super) struct Watched {
    pub(super) name: String,
    /// When mails whose sender could not be judged are looked at again.
    pub(super) due: Option<Instant>,
    pub(super) lessons: Lessons,
    retry: Backoff,
    pub(super) position: Option<Position>,
    /// Since when this connection has no such folder.
    missing: Option<Instant>,
    /// It was told of.
    told: bool,
    /// The mails with which `after` failed on this connection. They wait for
    /// the next.
    pub(super) after_failed: BTreeSet<u32>,
}

/// Where in the folder the task is.
pub(super) struct Position {
    pub(super) uid_validity: u32,
    next_uid: u32,
    exists: u32,
    mod_seq: Option<u64>,
    /// When the journal was last told that everything has been looked at.
    caught_up: Option<Instant>,
}

impl Watched {
    /// Mails over which the server fails keep the others waiting for that long.
    pub(super) fn new(name: &str, patience: Duration) -> Self {
        Self {
            name: name.to_owned(),
            due: None,
            lessons: Lessons::new(patience),
            retry: Backoff::new(Duration::from_secs(30), Duration::from_secs(300)),
            position: None,
            missing: None,
            told: false,
            after_failed: BTreeSet::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.position.is_some()
    }

    /// The connection is another one now.
    pub(super) fn forget_session(&mut self) {
        self.position = None;
        self.due = None;
        self.missing = None;
        self.after_failed.clear();
    }

    fn close(&mut self) {
        self.position = None;
        self.due = None;
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
                let since = *watched.missing.get_or_insert_with(Instant::now);
                // It was there a moment ago, or has been gone for long: another
                // connection knows better.
                if watched.is_open() || since.elapsed() >= MISSING {
                    return Err(error.into());
                }
                self.complain(watched, &error.into());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        watched.missing = None;
        let looked = if watched.is_where_it_was(folder) {
            Ok(())
        } else {
            self.catch_up(session, watched, folder).await
        };
        if looked.is_ok() {
            self.caught_up(watched, folder).await?;
        }
        self.conclude(session, watched, looked).await
    }

    /// Looks at what was announced in the folder that is open.
    pub(super) async fn look_at_news(
        &self,
        session: &mut Session,
        watched: &mut Watched,
    ) -> Result<(), InboxError> {
        let first = watched.position.as_ref().map_or(1, |p| p.next_uid);
        let look = watched.lessons.look_at_news(first);
        let looked = self.go_through(look, session, watched, true).await;
        if let Some(position) = &mut watched.position {
            position.exists = session.exists();
        }
        self.conclude(session, watched, looked).await
    }

    /// Takes a failure in, and looks at what is due where there was none.
    async fn conclude(
        &self,
        session: &mut Session,
        watched: &mut Watched,
        looked: Result<(), InboxError>,
    ) -> Result<(), InboxError> {
        let looked = match looked {
            Ok(()) => {
                watched.told = false;
                self.look_again(session, watched).await
            }
            failed => failed,
        };
        if let Err(error) = &looked {
            watched.lessons.learn(error);
        }
        looked
    }

    /// Tells that a folder is not watched, once, and closes it: it is opened
    /// again in the next round.
    fn complain(&self, watched: &mut Watched, error: &InboxError) {
        if !std::mem::replace(&mut watched.told, true) {
            self.log(error, self.mailbox.poll, 0);
        }
        self.show(&watched.name, error, self.mailbox.poll, 0);
        watched.close();
    }

    /// A look from the cursor on, and at what is undecided: how much stays so.
    pub(super) async fn look_once(
        &self,
        entered: &mut Option<Entered>,
        watched: &mut Watched,
    ) -> Result<usize, InboxError> {
        watched.forget_session();
        let session = self.tools.inside(entered, &self.mailbox).await?;
        let folder = session.open(&watched.name, self.access()).await?;
        self.catch_up(session, watched, folder).await?;
        self.caught_up(watched, folder).await?;
        let open = self.undecided(watched).await?;
        let again = watched.lessons.look_again_at(open);
        self.go_through(again, session, watched, false).await?;
        self.afterwards(session, watched).await?;
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
        let cursor = self.cursor(watched).await?;
        let folder = self.believed(session, watched, cursor, folder).await?;
        let cursor = match known(watched, cursor, folder) {
            Known::UpTo(cursor) => cursor,
            Known::Anew { forget_from } => {
                self.begin_anew(watched, cursor, folder, forget_from)
                    .await?
            }
        };
        // A look back that was interrupted goes on as one.
        let (first, since) = (cursor.next_uid, cursor.since);
        watched.position = Some(Position {
            uid_validity: folder.uid_validity,
            next_uid: first,
            exists: folder.exists,
            mod_seq: cursor.mod_seq,
            caught_up: None,
        });
        let look = watched.lessons.look_through(folder, first, since);
        self.go_through(look, session, watched, true).await?;
        watched.lessons.passed();
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

    /// The cursor of a look through the whole folder: as far back as the
    /// configuration says, but what came while nobody watched is looked at
    /// however long that was, and no look back becomes a shorter one.
    async fn begin_anew(
        &self,
        watched: &Watched,
        before: Option<Cursor>,
        folder: Folder,
        forget_from: Option<u32>,
    ) -> Result<Cursor, InboxError> {
        let now = Timestamp::now();
        let caught_up = before.and_then(|cursor| cursor.caught_up);
        let unwatched = caught_up.and_then(|at| {
            let day = Offset::UTC.to_datetime(at).date();
            Since::Date(day).first_day(now)
        });
        let others = [before.and_then(|cursor| cursor.since), unwatched];
        let since: Option<civil::Date> = self
            .mailbox
            .since
            .first_day(now)
            .map(|day| others.into_iter().flatten().fold(day, civil::Date::min));
        let (name, folder_name) = self.place(&watched.name);
        let uid_validity = folder.uid_validity;
        self.tools
            .worker
            .run(move |worker| {
                worker.look_back(&name, &folder_name, uid_validity, since, forget_from)
            })
            .await?;
        Ok(Cursor {
            since,
            ..Cursor::at(uid_validity, 1)
        })
    }

    /// Everything has been looked at, as it was at this modification sequence
    /// where the server has one.
    async fn caught_up(&self, watched: &mut Watched, folder: Folder) -> Result<(), InboxError> {
        let Some(position) = &mut watched.position else {
            return Ok(());
        };
        let is_told = position
            .caught_up
            .is_some_and(|told| told.elapsed() < CAUGHT_UP)
            && (folder.mod_seq.is_none() || position.mod_seq == folder.mod_seq);
        if is_told {
            return Ok(());
        }
        let (name, folder_name) = self.place(&watched.name);
        let Folder {
            uid_validity,
            mod_seq,
            ..
        } = folder;
        self.tools
            .worker
            .run(move |worker| worker.caught_up(&name, &folder_name, uid_validity, mod_seq))
            .await?;
        position.mod_seq = mod_seq.or(position.mod_seq);
        position.caught_up = Some(Instant::now());
        Ok(())
    }

    /// What the server says of the folder, but for a UIDNEXT that is not above
    /// the mails that there are.
    async fn believed(
        &self,
        session: &mut Session,
        watched: &Watched,
        cursor: Option<Cursor>,
        folder: Folder,
    ) -> Result<Folder, InboxError> {
        // It is not where it was, so there are others now.
        let stands_still = watched.position.as_ref().is_some_and(|position| {
            folder
                .uid_next
                .is_some_and(|next| next <= position.next_uid)
        });
        let goes_back = cursor.is_some_and(|cursor| {
            cursor.uid_validity == folder.uid_validity
                && folder.uid_next.is_some_and(|next| next < cursor.next_uid)
        });
        if watched.is_open() && !stands_still && !goes_back || folder.exists == 0 {
            return Ok(folder);
        }
        let last = match session.last_uid().await {
            // It says nothing of the mails, then.
            Err(MailboxError::Refused { .. }) => None,
            last => last?,
        };
        let uid_next = folder
            .uid_next
            .filter(|next| last.is_none_or(|last| last < *next));
        Ok(Folder { uid_next, ..folder })
    }

    async fn cursor(&self, watched: &Watched) -> Result<Option<Cursor>, InboxError> {
        let (name, folder) = self.place(&watched.name);
        let cursor = self
            .tools
            .worker
            .run(move |worker| worker.cursor(&name, &folder));
        Ok(cursor.await?)
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
        let mut sheaf = Sheaf::default();
        while let Some(looked) = self
            .tools
            .step(&mut look, session, &wanted, &target, &mut sheaf)
            .await?
        {
            self.alive(session.heard());
            for looked in looked {
                match looked {
                    Looked::Mail { uid, outcome } => {
                        watched.lessons.answered(uid);
                        if outcome.kind != Kind::Undecided {
                            self.board.event(&place);
                        }
                    }
                    Looked::Seen { next_uid } => {
                        position.next_uid = position.next_uid.max(next_uid);
                    }
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
            let again = watched.lessons.look_again_at(open);
            self.go_through(again, session, watched, false).await?;
        }
        if is_due || watched.due.is_none() {
            let open = self.undecided(watched).await?;
            let next_uid = watched.position.as_ref().map_or(1, |p| p.next_uid);
            watched
                .lessons
                .keep(|uid| uid >= next_uid || open.contains(&uid));
            if open.is_empty() {
                watched.retry.reset();
                watched.due = None;
            } else {
                let delay = watched.retry.next(fastrand::f64());
                watched.due = Instant::now().checked_add(delay);
            }
        }
        self.afterwards(session, watched).await
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
