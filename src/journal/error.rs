//! What can go wrong with the journal.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be made or opened.
    #[error("cannot open the journal {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// `SQLite` failed.
    #[error("the journal failed")]
    Sqlite(#[from] rusqlite::Error),
    /// It was written by a newer version of tokenwatch.
    #[error("the journal has format {0}, which this version does not know")]
    NewerFormat(i64),
}

/// How an error is to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Trying again may help.
    Transient,
    /// The permissions are wrong.
    Permission,
    /// What is on the disk cannot be used.
    Damaged,
}

impl JournalError {
    fn sqlite_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::File { .. } | Self::NewerFormat(_) => None,
        }
    }

    /// How the error is to be met.
    pub fn class(&self) -> Class {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Permission
            }
            Self::NewerFormat(_) => Class::Damaged,
            Self::File { .. } | Self::Sqlite(_) => match self.sqlite_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Class::Damaged,
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Class::Permission,
                _ => Class::Transient,
            },
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match (self, self.sqlite_code()) {
            (Self::NewerFormat(_), _) => "install the newer tokenwatch again",
            (_, Some(ErrorCode::DiskFull)) => {
                "make room on the disk; nothing is lost, and it is tried again"
            }
            (_, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => {
                "stop the other tokenwatch, or use the one that runs"
            }
            (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {
                "move journal.db away: the mailboxes are looked through again, and no credential is lost"
            }
            _ => "see that the state folder exists, is writable, and is yours",
        }
    }
}
