//! Which vault this journal goes with: the generation of the encrypted file
//! that was last seen. A file that is older was put back from somewhere, and
//! does not have what mails have brought since.

use rusqlite::{OptionalExtension, params};

use super::{Journal, JournalError};

impl Journal {
    /// The generation that was noted last; 0 where none was.
    pub fn vault_generation(&self) -> Result<u64, JournalError> {
        let sql = "SELECT generation FROM vault";
        let noted = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(noted.optional()?.map_or(0, i64::cast_unsigned))
    }

    /// Notes a generation. A lower one changes nothing: that is for who starts.
    pub fn note_vault(&self, generation: u64) -> Result<(), JournalError> {
        let sql = "INSERT INTO vault (id, generation) VALUES (1, ?1)
            ON CONFLICT DO UPDATE SET generation = max(generation, excluded.generation)";
        let row = params![generation.cast_signed()];
        self.db.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// The vault is another one from now on.
    pub fn forget_vault(&self) -> Result<(), JournalError> {
        self.db.execute("DELETE FROM vault", [])?;
        Ok(())
    }

    /// The vault has gone back to this generation: all folders are to be looked
    /// through again, as far back as a first look goes.
    pub fn look_again(&self, generation: u64) -> Result<(), JournalError> {
        self.together(|journal| {
            journal.db.execute("DELETE FROM cursor", [])?;
            journal.forget_vault()?;
            journal.note_vault(generation)
        })
    }
}
