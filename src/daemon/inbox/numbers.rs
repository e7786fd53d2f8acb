//! Whether a folder's numbers still are those that the journal knows.

use super::folder::Watched;
use crate::journal::Cursor;
use crate::mailbox::Folder;

/// What the cursor says of the folder that was opened.
pub(super) enum Known {
    /// It is the folder that was read up to there.
    UpTo(Cursor),
    /// It must be looked through from the beginning, and from this UID on its
    /// mails are others than before.
    Anew { forget_from: Option<u32> },
}

/// Whether the cursor still means this folder.
pub(super) fn known(watched: &mut Watched, cursor: Option<Cursor>, folder: Folder) -> Known {
    let anew = |forget_from| Known::Anew { forget_from };
    let Some(cursor) = cursor else {
        return anew(None);
    };
    let uid_validity = folder.uid_validity;
    if uid_validity == 0 && watched.is_open() {
        return Known::UpTo(cursor);
    }
    if uid_validity == 0 {
        tracing::warn!(
            event = "mailbox.uidvalidity",
            "the server gives no UIDVALIDITY; the folder is looked through at every connection"
        );
        watched.lessons.forget_mails();
        return anew(Some(1));
    }
    if cursor.uid_validity != uid_validity {
        tracing::warn!(
            event = "mailbox.uidvalidity",
            before = cursor.uid_validity,
            now = uid_validity,
            "the server has numbered its mails anew; they are looked through again"
        );
        watched.lessons.forget_mails();
        return anew(None);
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
        watched.lessons.forget_mails();
        return anew(Some(uid_next));
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
        watched.lessons.forget_mails();
        return anew(Some(1));
    }
    Known::UpTo(cursor)
}
