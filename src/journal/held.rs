//! The mails that wait for a person, and what became of them when a person, or
//! the time, put them away.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Journal, JournalError, Place, timestamp};

/// A mail that waits for a person.
#[derive(Clone, Debug)]
pub struct HeldMail {
    /// The number by which a person names it.
    pub id: i64,
    /// Where it is.
    pub place: Place,
    /// A stable code.
    pub reason: Option<String>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Whose token it brings, where that is certain.
    pub username: Option<String>,
    /// Whom its `From` names.
    pub sender: Option<String>,
    /// Its `Message-ID`.
    pub message_id: Option<String>,
    /// When the server received it.
    pub received: Timestamp,
    /// Since when it waits.
    pub since: Timestamp,
}

/// Why a mail that was held waits no more, although nobody accepted it. It is
/// not held again, however often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutAway {
    /// A person dropped it.
    Dropped,
    /// Nobody decided for too long.
    Expired,
}

impl PutAway {
    /// The reason that is stored and printed.
    pub fn code(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Expired => "expired",
        }
    }

    /// The same in words.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Dropped => "a person dropped it",
            Self::Expired => "it was held for so long that nobody waits for it any more",
        }
    }
}

impl Journal {
    /// The mails that wait for a person, the newest first; with `id` that one
    /// alone. They are those that [`count`](Self::count) counts.
    pub fn held(
        &self,
        id: Option<i64>,
        counts: impl Fn((&str, &str)) -> bool,
    ) -> Result<Vec<HeldMail>, JournalError> {
        let sql = "SELECT id, mailbox, folder, outcome.uid_validity, uid, reason, detail,
              username, sender, message_id, received, decided
            FROM outcome LEFT JOIN cursor USING (mailbox, folder)
            WHERE kind = 'held' AND id = ifnull(?1, id)
              AND outcome.uid_validity = ifnull(cursor.uid_validity, outcome.uid_validity)
            ORDER BY received DESC, id DESC";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([id])?;
        let mut held = Vec::new();
        while let Some(row) = rows.next()? {
            let mail = mail(row)?;
            if counts((&mail.place.mailbox, &mail.place.folder)) {
                held.push(mail);
            }
        }
        Ok(held)
    }

    /// A held mail waits no more; `false` where no such mail does.
    pub fn put_away(&self, id: i64, why: PutAway, now: Timestamp) -> Result<bool, JournalError> {
        let sql = "UPDATE outcome SET kind = 'ignored', reason = ?2, detail = ?3, decided = ?4
            WHERE id = ?1 AND kind = 'held'";
        let mut change = self.db.prepare_cached(sql)?;
        let changed = change.execute(params![id, why.code(), why.detail(), now.as_second()])?;
        Ok(changed > 0)
    }

    /// Puts the mails away that were held before `before` and are so still:
    /// how many.
    pub fn expire(&self, before: Timestamp, now: Timestamp) -> Result<usize, JournalError> {
        let sql = "UPDATE outcome SET kind = 'ignored', reason = ?2, detail = ?3, decided = ?4
            WHERE kind = 'held' AND decided < ?1";
        let why = PutAway::Expired;
        let (before, now) = (before.as_second(), now.as_second());
        let mut change = self.db.prepare_cached(sql)?;
        Ok(change.execute(params![before, why.code(), why.detail(), now])?)
    }

    /// What is held for `reason` waits for nobody any more where `of` says so of
    /// whose token it is: it is looked at again by itself. How many that are.
    pub fn look_again_at_held(
        &self,
        reason: &str,
        of: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Result<usize, JournalError> {
        let sql = "SELECT id, username FROM outcome
            WHERE kind = 'held' AND reason = ?1 AND username IS NOT NULL";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([reason])?;
        let mut ids: Vec<i64> = Vec::new();
        while let Some(row) = rows.next()? {
            if of(&row.get::<_, String>(1)?) {
                ids.push(row.get(0)?);
            }
        }
        // It has as long to be judged as a mail that has just come.
        let sql = "UPDATE outcome SET kind = 'undecided', first_seen = ?2, decided = ?2
            WHERE id = ?1";
        let mut change = self.db.prepare_cached(sql)?;
        for id in &ids {
            change.execute(params![id, now.as_second()])?;
        }
        Ok(ids.len())
    }

    /// The mail at this place has this `Message-ID`. One that waits there, or
    /// was put away, under another is gone, for its server went back: `true`
    /// where that is so, and it is forgotten.
    pub fn forget_another(
        &self,
        place: &Place,
        message_id: Option<&str>,
    ) -> Result<bool, JournalError> {
        let sql = "DELETE FROM outcome WHERE kind IN ('held', 'ignored')
            AND mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 AND uid = ?4
            AND message_id IS NOT NULL AND message_id IS NOT ?5";
        let mut change = self.db.prepare_cached(sql)?;
        let (mailbox, folder) = (&place.mailbox, &place.folder);
        let key = params![mailbox, folder, place.uid_validity, place.uid, message_id];
        Ok(change.execute(key)? > 0)
    }

    /// Why a mail was put away, if it was. What has expired by a clock that was
    /// fast is held again.
    pub fn was_put_away(
        &self,
        place: &Place,
        now: Timestamp,
    ) -> Result<Option<PutAway>, JournalError> {
        let sql = "SELECT reason, decided FROM outcome WHERE kind = 'ignored'
            AND mailbox = ?1 AND folder = ?2 AND uid_validity = ?3 AND uid = ?4";
        let mut query = self.db.prepare_cached(sql)?;
        let key = params![place.mailbox, place.folder, place.uid_validity, place.uid];
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: Option<(Option<String>, i64)> = query.query_row(key, row).optional()?;
        let (reason, decided) = found.unwrap_or_default();
        Ok([PutAway::Dropped, PutAway::Expired]
            .into_iter()
            .filter(|why| *why == PutAway::Dropped || decided <= now.as_second())
            .find(|why| reason.as_deref() == Some(why.code())))
    }
}

fn mail(row: &Row<'_>) -> rusqlite::Result<HeldMail> {
    Ok(HeldMail {
        id: row.get(0)?,
        place: Place {
            mailbox: row.get(1)?,
            folder: row.get(2)?,
            uid_validity: row.get(3)?,
            uid: row.get(4)?,
        },
        reason: row.get(5)?,
        detail: row.get(6)?,
        username: row.get(7)?,
        sender: row.get(8)?,
        message_id: row.get(9)?,
        received: timestamp(row, 10)?,
        since: timestamp(row, 11)?,
    })
}
