//! The tables, and the way from each older form of them to the newest.

use rusqlite::Connection;

use super::JournalError;

/// The version of the tables.
const SCHEMA: i64 = 4;

/// Brings the tables to the newest form, in one transaction.
pub(super) fn migrate(db: &mut Connection) -> Result<(), JournalError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > SCHEMA {
        return Err(JournalError::NewerFormat(version));
    }
    let change = db.transaction()?;
    if version < 1 {
        change.execute_batch(
            "CREATE TABLE cursor (
               mailbox TEXT NOT NULL, folder TEXT NOT NULL,
               uid_validity INTEGER NOT NULL, next_uid INTEGER NOT NULL,
               PRIMARY KEY (mailbox, folder)) STRICT, WITHOUT ROWID;
             CREATE TABLE outcome (
               id INTEGER PRIMARY KEY,
               mailbox TEXT NOT NULL, folder TEXT NOT NULL,
               uid_validity INTEGER NOT NULL, uid INTEGER NOT NULL,
               kind TEXT NOT NULL, reason TEXT, username TEXT, message_id TEXT,
               received INTEGER NOT NULL, first_seen INTEGER NOT NULL, decided INTEGER NOT NULL,
               UNIQUE (mailbox, folder, uid_validity, uid)) STRICT;
             CREATE INDEX outcome_kind ON outcome (kind);",
        )?;
    }
    if version < 2 {
        change.execute_batch(
            "ALTER TABLE cursor ADD COLUMN mod_seq INTEGER;
             ALTER TABLE outcome ADD COLUMN after TEXT;
             CREATE INDEX outcome_after ON outcome (after)
               WHERE after IN ('waits', 'copied');",
        )?;
    }
    if version < 3 {
        change.execute_batch(
            "ALTER TABLE outcome ADD COLUMN sender TEXT;
             ALTER TABLE outcome ADD COLUMN detail TEXT;
             CREATE TABLE outbox (
               sink TEXT NOT NULL, username TEXT NOT NULL,
               wanted TEXT NOT NULL, id TEXT NOT NULL, since INTEGER NOT NULL,
               delivered INTEGER, tries INTEGER NOT NULL DEFAULT 0,
               next_try INTEGER NOT NULL, error TEXT, hint TEXT,
               PRIMARY KEY (sink, username)) STRICT, WITHOUT ROWID;
             CREATE TABLE vault (
               id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL) STRICT;",
        )?;
    }
    if version < 4 {
        change.execute_batch(
            "ALTER TABLE cursor ADD COLUMN since TEXT;
             ALTER TABLE cursor ADD COLUMN caught_up INTEGER;",
        )?;
    }
    // Written every time: a journal that cannot be written is found out here.
    change.pragma_update(None, "user_version", SCHEMA)?;
    change.commit()?;
    Ok(())
}
