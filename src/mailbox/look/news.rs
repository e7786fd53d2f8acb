//! What is new in a folder that is open, in one round trip.

use super::window::{garbled, is_of_a_mail};
use super::{Look, WINDOW, Wanted};
use crate::mailbox::MailboxError;
use crate::mailbox::session::{Session, Set};

impl Look {
    /// The fields of what is new. Sequence numbers have no gaps, and the
    /// session knows how many mails were covered before, so that an answer
    /// which is missing is noticed; then it is done the careful way.
    pub(super) async fn news(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        first: u32,
    ) -> Result<(), MailboxError> {
        let exists = session.exists();
        let new = exists.saturating_sub(session.covered());
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        if new == 0 {
            return Ok(());
        }
        if new > self.window {
            return self.list_rest(session, first).await;
        }
        let mut heads = Vec::new();
        // So many more may have come meanwhile.
        let most = new.saturating_mul(2).min(WINDOW);
        let mut are_too_many = false;
        // `first:*` names the last mail even where it is below `first`
        // (RFC 3501, section 6.4.8).
        let asked = session
            .heads(Set::Uids(&format!("{first}:*")), |head| {
                if head.uid >= first {
                    are_too_many |= heads.len() >= most;
                    if !are_too_many {
                        heads.push(head);
                    }
                }
            })
            .await;
        match asked {
            Err(error) if is_of_a_mail(&error) => return self.list_rest(session, first).await,
            Err(error) => return Err(garbled(error, new)),
            Ok(()) => {}
        }
        heads.sort_by_key(|head| head.uid);
        heads.dedup_by_key(|head| head.uid);
        // A mail that was expunged meanwhile moves the numbers: that costs the
        // careful way, and no mail.
        let mut expected = session.covered();
        let has_no_gap = heads.iter().all(|head| {
            expected = expected.saturating_add(1);
            head.sequence == expected
        });
        let has_skipped = heads.iter().any(|head| self.skip.contains(&head.uid));
        if are_too_many || !has_no_gap || expected < exists || has_skipped {
            return self.list_rest(session, first).await;
        }
        session.cover(expected);
        self.looked_at = heads.len();
        self.of = heads.len();
        self.seen = heads.last().map(|last| last.uid.saturating_add(1));
        self.take(heads, wanted);
        Ok(())
    }
}
