//! The outbox: which sink is to be told of which account's credential, and how
//! far that is. What is to be told is known by a keyed hash; the credential
//! itself is in the vault.
//!
//! A sink that could not be told of two credentials in a row is told of the
//! second one only: the first is dead.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Journal, JournalError};

/// What a sink is told of one account, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The sink's name.
    pub sink: String,
    /// The account's username.
    pub username: String,
    /// The same for every try of one delivery.
    pub id: String,
    /// When it was put here.
    pub since: Timestamp,
    /// When it was delivered.
    pub delivered: Option<Timestamp>,
    /// How often that was tried in vain.
    pub tries: u32,
    /// When it is tried next.
    pub next_try: Timestamp,
    /// What went wrong last.
    pub error: Option<String>,
    /// What a person can do about it.
    pub hint: Option<String>,
}

impl Journal {
    /// Notes what sinks (each with the keyed hash of that) are to be told of an
    /// account; nothing where they are to be told this, or have been. `false`:
    /// there was nothing to note.
    pub fn want(
        &self,
        username: &str,
        wanted: &[(String, String)],
        id: impl Fn() -> String,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        let sql = "INSERT INTO outbox (sink, username, wanted, id, since, next_try)
            VALUES (?1, ?2, ?3, ?4, ?5, ?5)
            ON CONFLICT DO UPDATE SET wanted = excluded.wanted, id = excluded.id,
              since = excluded.since, next_try = excluded.next_try,
              delivered = NULL, tries = 0, error = NULL, hint = NULL
            WHERE wanted <> excluded.wanted";
        self.together(|journal| {
            let mut noted = false;
            for (sink, print) in wanted {
                let row = params![sink, username, print, id(), now.as_millisecond()];
                noted |= journal.db.prepare_cached(sql)?.execute(row)? > 0;
            }
            Ok(noted)
        })
    }

    /// All of it.
    pub fn parcels(&self) -> Result<Vec<Parcel>, JournalError> {
        let sql = "SELECT sink, username, id, since, delivered, tries, next_try, error, hint
            FROM outbox ORDER BY next_try";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map([], parcel)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How often a parcel could not be delivered.
    pub fn tries(&self, (sink, username): (&str, &str)) -> Result<u32, JournalError> {
        let sql = "SELECT tries FROM outbox WHERE sink = ?1 AND username = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let tries = query.query_row([sink, username], |row| row.get(0));
        Ok(tries.optional()?.unwrap_or(0))
    }

    /// A parcel has arrived. One that was replaced meanwhile stays.
    pub fn delivered(
        &self,
        (sink, username): (&str, &str),
        id: &str,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let sql = "UPDATE outbox SET delivered = ?4, error = NULL, hint = NULL
            WHERE sink = ?1 AND username = ?2 AND id = ?3";
        let row = params![sink, username, id, now.as_millisecond()];
        self.db.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// A parcel could not be delivered.
    pub fn not_delivered(
        &self,
        (sink, username): (&str, &str),
        id: &str,
        next_try: Timestamp,
        (error, hint): (&str, &str),
    ) -> Result<(), JournalError> {
        let sql = "UPDATE outbox SET tries = tries + 1, next_try = ?4, error = ?5, hint = ?6
            WHERE sink = ?1 AND username = ?2 AND id = ?3";
        let row = params![sink, username, id, next_try.as_millisecond(), error, hint];
        self.db.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// A parcel that was delivered is there no more: it is delivered again.
    pub fn lost(&self, (sink, username): (&str, &str), now: Timestamp) -> Result<(), JournalError> {
        let sql = "UPDATE outbox SET delivered = NULL, tries = 0, since = ?3, next_try = ?3
            WHERE sink = ?1 AND username = ?2";
        let row = params![sink, username, now.as_millisecond()];
        self.db.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// Whatever waits for its next try is tried now.
    pub fn try_now(&self, now: Timestamp) -> Result<(), JournalError> {
        let sql = "UPDATE outbox SET next_try = ?1 WHERE delivered IS NULL AND next_try > ?1";
        let row = params![now.as_millisecond()];
        self.db.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// Nothing can be written any more, as on a disk that is full; or it can again.
    #[cfg(test)]
    pub(crate) fn refuse(&self, refuses: bool) {
        let change = self.db.pragma_update(None, "query_only", refuses);
        change.unwrap();
    }

    /// What was to be told, or was told, is so no more.
    pub fn forget_parcel(&self, (sink, username): (&str, &str)) -> Result<(), JournalError> {
        let sql = "DELETE FROM outbox WHERE sink = ?1 AND username = ?2";
        self.db.prepare_cached(sql)?.execute([sink, username])?;
        Ok(())
    }
}

fn parcel(row: &Row<'_>) -> rusqlite::Result<Parcel> {
    Ok(Parcel {
        sink: row.get(0)?,
        username: row.get(1)?,
        id: row.get(2)?,
        since: millisecond(row, 3)?.unwrap_or_default(),
        delivered: millisecond(row, 4)?,
        tries: row.get(5)?,
        next_try: millisecond(row, 6)?.unwrap_or_default(),
        error: row.get(7)?,
        hint: row.get(8)?,
    })
}

fn millisecond(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let at: Option<i64> = row.get(column)?;
    at.map(Timestamp::from_millisecond)
        .transpose()
        .map_err(|_| rusqlite::Error::InvalidQuery)
}
