//! The journal: what became of which mail, and how far each folder was read.
//!
//! `SQLite`, and never a secret in it: it knows places, outcomes and reasons.
//! Each outcome and the cursor behind it are one transaction, durable when the
//! call returns (invariant 1): the cursor never passes a mail whose outcome is
//! not here.
//!
//! The connection holds the database's exclusive lock, so that a second
//! process is kept out whatever vault is used.

mod error;
mod held;
mod outbox;
mod schema;
mod vault;

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use jiff::{Timestamp, civil};
use rusqlite::{Connection, OptionalExtension, Row, params};

pub use error::{Class, JournalError};
pub use held::{HeldMail, PutAway};
pub use outbox::Parcel;

/// A mail on a server, for ever (RFC 3501, section 2.3.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The mailbox's name in the configuration.
    pub mailbox: String,
    /// The folder.
    pub folder: String,
    /// The folder's UIDVALIDITY.
    pub uid_validity: u32,
    /// The mail's UID.
    pub uid: u32,
}

/// Up to where a folder was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The folder's UIDVALIDITY when it was.
    pub uid_validity: u32,
    /// The first UID that was not looked at.
    pub next_uid: u32,
    /// The folder's highest modification sequence (RFC 7162) when everything
    /// up to there had been looked at, where the server has it.
    pub mod_seq: Option<u64>,
    /// A look back goes on: only what was received on this day or later counts
    /// above `next_uid` too. It belongs to the journal, as `caught_up` does, and
    /// moving the cursor leaves both.
    pub since: Option<civil::Date>,
    /// When everything in the folder had last been looked at.
    pub caught_up: Option<Timestamp>,
}

impl Cursor {
    /// A cursor to be moved to.
    pub fn at(uid_validity: u32, next_uid: u32) -> Self {
        Self {
            uid_validity,
            next_uid,
            mod_seq: None,
            since: None,
            caught_up: None,
        }
    }
}

/// What was done with a mail in the mailbox, after its outcome was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing yet.
    Waits,
    /// It is in the other folder, and still in this one.
    Copied,
    /// All of it.
    Done,
}

/// What became of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It brought a new token.
    Updated,
    /// Its token was known.
    Duplicate,
    /// A newer token was known.
    Older,
    /// A person must decide.
    Held,
    /// It is no notice.
    Ignored,
    /// Its sender cannot be judged now; not an outcome yet.
    Undecided,
}

impl Kind {
    /// The word that is stored, logged and printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::Duplicate => "duplicate",
            Self::Older => "older",
            Self::Held => "held",
            Self::Ignored => "ignored",
            Self::Undecided => "undecided",
        }
    }

    /// The token of the mail is in the vault, or a newer one is: whatever is
    /// found out about it later, this stays.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Updated | Self::Duplicate | Self::Older)
    }
}

/// A mail and what became of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it is.
    pub place: Place,
    /// What became of it.
    pub kind: Kind,
    /// A stable code, for `held`, `ignored` and `undecided`.
    pub reason: Option<String>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Whose token it brought.
    pub username: Option<String>,
    /// Whom its `From` names.
    pub sender: Option<String>,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// When the server received it.
    pub received: Timestamp,
    /// Something is to be done with it in the mailbox, once its token was taken.
    pub after: bool,
}

/// The open journal.
pub struct Journal {
    db: Connection,
}

impl Journal {
    /// Opens the journal, and makes it where there is none.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File {
            path: path.to_owned(),
            source,
        };
        // SQLite would make it with the modes of the umask.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            let mended = file.set_permissions(Permissions::from_mode(0o600)).is_ok();
            tracing::warn!(
                event = "journal.open",
                path = %path.display(),
                mended,
                "others could read the journal"
            );
        }
        let mut db = Connection::open(path)?;
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(&mut db)?;
        Ok(Self { db })
    }

    /// Up to where a folder was read.
    pub fn cursor(&self, mailbox: &str, folder: &str) -> Result<Option<Cursor>, JournalError> {
        let sql = "SELECT uid_validity, next_uid, mod_seq, since, caught_up FROM cursor
            WHERE mailbox = ?1 AND folder = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let cursor = query.query_row([mailbox, folder], |row| {
            Ok(Cursor {
                uid_validity: row.get(0)?,
                next_uid: row.get(1)?,
                mod_seq: row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
                since: day(row, 3)?,
                caught_up: match row.get(4)? {
                    None => None,
                    Some(second) => Some(at(second)?),
                },
            })
        });
        Ok(cursor.optional()?)
    }

    /// Moves the cursor of a folder. It only ever moves forward while
    /// UIDVALIDITY stays.
    pub fn move_cursor(
        &self,
        mailbox: &str,
        folder: &str,
        cursor: Cursor,
    ) -> Result<(), JournalError> {
        let sql = "INSERT INTO cursor (mailbox, folder, uid_validity, next_uid)
            VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET
              next_uid = CASE WHEN uid_validity = excluded.uid_validity
                THEN max(next_uid, excluded.next_uid) ELSE excluded.next_uid END,
              mod_seq = CASE WHEN uid_validity = excluded.uid_validity THEN mod_seq END,
              uid_validity = excluded.uid_validity";
        self.db.prepare_cached(sql)?.execute(params![
            mailbox,
            folder,
            cursor.uid_validity,
            cursor.next_uid
        ])?;
        Ok(())
    }

    /// Everything in a folder has been looked at, as it was at this modification
    /// sequence where the server has one: a look back is through. Without a
    /// cursor there is nothing to add it to.
    pub fn caught_up(
        &self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
        mod_seq: Option<u64>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let sql = "UPDATE cursor SET mod_seq = ifnull(?4, mod_seq), since = NULL, caught_up = ?5
            WHERE mailbox = ?1 AND folder = ?2 AND uid_validity = ?3";
        // RFC 7162 has 63 bits; a server with more is out of order.
        let mod_seq = mod_seq.map(|mod_seq| i64::try_from(mod_seq).unwrap_or(i64::MAX));
        let place = params![mailbox, folder, uid_validity, mod_seq, now.as_second()];
        self.db.prepare_cached(sql)?.execute(place)?;
        Ok(())
    }

    /// The UIDs of a folder with which something is still to be done, and how
    /// far that is.
    pub fn waiting_for_after(
        &self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
    ) -> Result<Vec<(u32, After)>, JournalError> {
        let sql = "SELECT uid, after = 'copied' FROM outcome WHERE after IN ('waits', 'copied')
            AND mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 ORDER BY uid";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![mailbox, folder, uid_validity], |row| {
            let after = if row.get(1)? {
                After::Copied
            } else {
                After::Waits
            };
            Ok((row.get(0)?, after))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// So far it is done.
    pub fn after(&self, place: &Place, after: After) -> Result<(), JournalError> {
        let word = match after {
            After::Waits => "waits",
            After::Copied => "copied",
            After::Done => "done",
        };
        let sql = "UPDATE outcome SET after = ?5
            WHERE mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 AND uid = ?4";
        let key = params![
            place.mailbox,
            place.folder,
            place.uid_validity,
            place.uid,
            word
        ];
        self.db.prepare_cached(sql)?.execute(key)?;
        Ok(())
    }

    /// What became of a mail, if that is known.
    pub fn outcome(&self, place: &Place) -> Result<Option<Kind>, JournalError> {
        let sql = "SELECT kind FROM outcome
            WHERE mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 AND uid = ?4";
        let mut query = self.db.prepare_cached(sql)?;
        let key = params![place.mailbox, place.folder, place.uid_validity, place.uid];
        Ok(query.query_row(key, |row| kind(row, 0)).optional()?)
    }

    /// A look through the whole folder begins, at what was received since a day:
    /// whoever goes on with it after an interruption looks at no more than it
    /// would have. Where the server has gone back, what is known of the mails
    /// from a UID on is forgotten, but for what a person is asked or has said:
    /// that goes by the `Message-ID` from then on.
    pub fn look_back(
        &self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
        since: Option<civil::Date>,
        forget_from: Option<u32>,
    ) -> Result<(), JournalError> {
        let change = self.db.unchecked_transaction()?;
        if let Some(uid) = forget_from {
            change.execute(
                "DELETE FROM outcome
                 WHERE mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 AND uid >= ?4
                   AND NOT (message_id IS NOT NULL
                     AND (kind = 'held' OR kind = 'ignored' AND ifnull(reason, '') IN (?5, ?6)))",
                params![
                    mailbox,
                    folder,
                    uid_validity,
                    uid,
                    PutAway::Dropped.code(),
                    PutAway::Expired.code()
                ],
            )?;
        }
        change.execute(
            "INSERT INTO cursor (mailbox, folder, uid_validity, next_uid, since)
             VALUES (?1, ?2, ?3, 1, ?4)
             ON CONFLICT DO UPDATE SET
               uid_validity = excluded.uid_validity, next_uid = excluded.next_uid,
               mod_seq = NULL, since = excluded.since",
            params![
                mailbox,
                folder,
                uid_validity,
                since.map(|day| day.to_string())
            ],
        )?;
        change.commit()?;
        Ok(())
    }

    /// Records what became of a mail and, in the same transaction, moves the
    /// cursor behind it. A mail whose token was taken stays so, however often
    /// and with whatever result it is looked at again.
    pub fn record(
        &self,
        record: &Record,
        cursor: Option<Cursor>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.together(|journal| journal.put(record, cursor, now))
    }

    /// Does several things, of which all are there after a crash, or none.
    pub fn together<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if !self.db.is_autocommit() {
            // It is a part of something larger.
            return work(self);
        }
        let change = self.db.unchecked_transaction()?;
        let done = work(self)?;
        change.commit()?;
        Ok(done)
    }

    fn put(
        &self,
        record: &Record,
        cursor: Option<Cursor>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let place = &record.place;
        let known = self.outcome(place)?;
        let keep = known.is_some_and(Kind::is_settled);
        if !keep {
            let sql = "INSERT INTO outcome (mailbox, folder, uid_validity, uid, kind, reason,
                  username, message_id, received, first_seen, decided, after, sender, detail)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13)
                ON CONFLICT DO UPDATE SET
                  first_seen = CASE WHEN excluded.kind = 'undecided' AND kind <> 'undecided'
                    THEN excluded.first_seen ELSE first_seen END,
                  decided = CASE WHEN kind = excluded.kind THEN decided
                    ELSE excluded.decided END,
                  kind = excluded.kind, reason = excluded.reason,
                  username = excluded.username,
                  after = excluded.after, sender = excluded.sender, detail = excluded.detail";
            self.db.prepare_cached(sql)?.execute(params![
                place.mailbox,
                place.folder,
                place.uid_validity,
                place.uid,
                record.kind.word(),
                record.reason,
                record.username,
                record.message_id,
                record.received.as_second(),
                now.as_second(),
                (record.after && record.kind.is_settled()).then_some("waits"),
                record.sender,
                record.detail,
            ])?;
        }
        if let Some(cursor) = cursor {
            self.move_cursor(&place.mailbox, &place.folder, cursor)?;
        }
        Ok(())
    }

    /// The UIDs of a folder whose sender could not be judged yet, each with
    /// the time when it was first seen.
    pub fn undecided(
        &self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
    ) -> Result<Vec<(u32, Timestamp)>, JournalError> {
        let sql = "SELECT uid, first_seen FROM outcome WHERE kind = 'undecided'
            AND mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 ORDER BY uid";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![mailbox, folder, uid_validity], |row| {
            Ok((row.get(0)?, timestamp(row, 1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Since when a mail is undecided, where it is.
    pub fn undecided_since(&self, place: &Place) -> Result<Option<Timestamp>, JournalError> {
        let sql = "SELECT first_seen FROM outcome WHERE kind = 'undecided'
            AND mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 AND uid = ?4";
        let mut query = self.db.prepare_cached(sql)?;
        let key = params![place.mailbox, place.folder, place.uid_validity, place.uid];
        Ok(query.query_row(key, |row| timestamp(row, 0)).optional()?)
    }

    /// Whether a token of this account was ever taken.
    pub fn has_taken(&self, username: &str) -> Result<bool, JournalError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM outcome
            WHERE kind = 'updated' AND username = ?1 COLLATE NOCASE)";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([username], |row| row.get(0))?)
    }

    /// Whether anything was ever taken, of whichever account: what was noted of it
    /// has keyed hashes.
    pub fn has_taken_any(&self) -> Result<bool, JournalError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM outcome WHERE kind = 'updated')
            OR EXISTS (SELECT 1 FROM outbox)";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// How many mails have this outcome. A folder that was numbered anew shows
    /// its mails a second time, so only its present numbers count.
    /// `counts` says of which mailbox and folder they do.
    pub fn count(
        &self,
        kind: Kind,
        counts: impl Fn((&str, &str)) -> bool,
    ) -> Result<u32, JournalError> {
        let sql = "SELECT mailbox, folder, count(*)
            FROM outcome LEFT JOIN cursor USING (mailbox, folder)
            WHERE kind = ?1
              AND outcome.uid_validity = ifnull(cursor.uid_validity, outcome.uid_validity)
            GROUP BY mailbox, folder";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([kind.word()])?;
        let mut sum = 0_u32;
        while let Some(row) = rows.next()? {
            let (mailbox, folder): (String, String) = (row.get(0)?, row.get(1)?);
            if counts((&mailbox, &folder)) {
                sum = sum.saturating_add(row.get(2)?);
            }
        }
        Ok(sum)
    }
}

fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<Kind> {
    let word: String = row.get(column)?;
    [
        Kind::Updated,
        Kind::Duplicate,
        Kind::Older,
        Kind::Held,
        Kind::Ignored,
        Kind::Undecided,
    ]
    .into_iter()
    .find(|kind| kind.word() == word)
    .ok_or(rusqlite::Error::InvalidQuery)
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    at(row.get(column)?)
}

fn at(second: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_second(second).map_err(|_| rusqlite::Error::InvalidQuery)
}

fn day(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<civil::Date>> {
    let day: Option<String> = row.get(column)?;
    day.map(|day| day.parse())
        .transpose()
        .map_err(|_| rusqlite::Error::InvalidQuery)
}

#[cfg(test)]
mod tests;
