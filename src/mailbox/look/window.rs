//! Lists of UIDs, and the fields of the mails that they name.

use std::collections::BTreeSet;

use jiff::tz::Offset;

use super::query::set;
use super::{Found, Look, WINDOW, Wanted, Way};
use crate::mailbox::MailboxError;
use crate::mailbox::session::{Head, Session, Set};

/// How many UIDs one list covers at first.
const FIRST_SIZE: u32 = 20_000;

/// In a folder with more mails a list never covers more UIDs than this: its
/// answer must stay within what the guard lets one command bring.
const MANY: u32 = 100_000;
const LARGEST_SIZE: u32 = 1 << 19;

/// All UIDs from `next` to before `end`, `size` of them at a time.
#[derive(Clone, Copy)]
pub(super) struct List {
    next: u32,
    end: u32,
    size: u32,
    largest: u32,
    /// The sequence number of the first mail that is not listed, where it is
    /// known.
    number: Option<u32>,
}

impl List {
    pub(super) fn new(session: &Session, next: u32, end: u32) -> Self {
        Self {
            next,
            end,
            // A folder with few mails is listed at once, however far apart
            // their UIDs are.
            size: if session.exists() <= FIRST_SIZE {
                u32::MAX
            } else {
                FIRST_SIZE
            },
            largest: if session.exists() > MANY {
                LARGEST_SIZE
            } else {
                u32::MAX
            },
            number: (next <= 1).then_some(1),
        }
    }

    /// Whether these are all of a window's mails: sequence numbers have no gaps,
    /// and the last mail's is EXISTS. Where mails come or go meanwhile, that
    /// says nothing.
    fn is_whole(&mut self, session: &Session, listed: &[(u32, u32)], behind: u32) -> bool {
        let mut has_gap = session.last().is_some_and(|last| {
            (self.next..behind).contains(&last) && listed.iter().all(|(uid, _)| *uid != last)
        });
        for (_, sequence) in listed {
            has_gap |= self.number.is_some_and(|number| number != *sequence);
            self.number = sequence.checked_add(1);
        }
        if behind >= self.end {
            let behind_the_last = session.exists().checked_add(1);
            has_gap |= self.number.is_some() && self.number != behind_the_last;
        }
        session.has_moved() || !has_gap
    }
}

impl Look {
    /// All mails from `first` to before `end`.
    pub(super) fn list_until(&mut self, session: &Session, first: u32, end: u32) {
        if first <= 1 {
            self.of = usize::try_from(session.exists()).unwrap_or(usize::MAX);
        }
        self.way = Way::List(List::new(session, first, end));
    }

    /// All mails from `first` on, where the server does not say up to where.
    pub(super) async fn list_rest(
        &mut self,
        session: &mut Session,
        first: u32,
    ) -> Result<(), MailboxError> {
        let exists = session.exists();
        if exists == 0 {
            return Ok(());
        }
        // The first that is new may have a UID from before the cursor: some
        // servers give numbers out before they show the mail.
        let new = session.covered().saturating_add(1).min(exists);
        session.hold_still();
        let uids = session
            .uids(Set::Numbers(&format!("{new},{exists}")))
            .await?;
        let lacking = MailboxError::Lacking {
            doing: "FETCH",
            what: "the last mail",
        };
        let (Some(first_new), Some(last)) = (uids.first(), uids.last()) else {
            return Err(lacking);
        };
        if (first_new == last) != (new == exists) {
            return Err(lacking);
        }
        session.cover(exists);
        self.list_until(session, first.min(*first_new), last.saturating_add(1));
        Ok(())
    }

    pub(super) async fn list_window(
        &mut self,
        session: &mut Session,
        mut list: List,
    ) -> Result<(), MailboxError> {
        let List {
            next, end, size, ..
        } = list;
        if next >= end {
            return Ok(());
        }
        let behind = next.saturating_add(size).min(end);
        let range = format!("{next}:{}", behind.saturating_sub(1));
        let mut found = session.numbered(Set::Uids(&range)).await?;
        found.retain(|(uid, _)| (next..behind).contains(uid));
        if !list.is_whole(session, &found, behind) {
            if !self.lenient {
                return Err(MailboxError::Gaps);
            }
            tracing::warn!(
                event = "mailbox.gaps",
                "the server's list leaves out mails that are there, each time; they are passed over"
            );
        }
        // Whether mails are missing behind the last one shows in the next window.
        let covered = if behind >= end {
            Some(behind)
        } else {
            found.last().map(|(uid, _)| uid.saturating_add(1))
        };
        // UIDs with large gaps are passed over quickly.
        let size = if found.len() < WINDOW {
            size.saturating_mul(4).min(list.largest)
        } else {
            FIRST_SIZE
        };
        self.list(found.into_iter().map(|(uid, _)| uid), covered);
        self.way = Way::List(List {
            next: behind,
            size,
            ..list
        });
        Ok(())
    }

    pub(super) fn list(&mut self, uids: impl IntoIterator<Item = u32>, covered: Option<u32>) {
        self.listed.extend(uids);
        self.of = self
            .of
            .max(self.looked_at.saturating_add(self.listed.len()));
        self.covered = covered;
        if self.listed.is_empty() {
            self.seen = self.covered.take();
        }
    }

    /// The fields of the next window of the list. Each mail of it must be
    /// accounted for: it came, or it is gone. Where the server fails, the
    /// window is halved until the one mail is found that makes it fail.
    pub(super) async fn window(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
    ) -> Result<(), MailboxError> {
        let size = self.listed.len().min(self.window);
        let window: Vec<u32> = self.listed.iter().take(size).copied().collect();
        let uids: Vec<u32> = window
            .iter()
            .filter(|uid| !self.skip.contains(uid))
            .copied()
            .collect();
        let asked = account_for(session, &uids).await;
        let (mut heads, gone) = match (asked, window.as_slice()) {
            (Ok(answer), _) => answer,
            (Err(error), [uid]) => {
                self.stumble(*uid, error)?;
                (Vec::new(), Vec::new())
            }
            (Err(error), _) if is_of_a_mail(&error) => {
                self.window = size.div_ceil(2);
                return Ok(());
            }
            (Err(error), [first, ..]) if error.ends_the_line() => {
                return Err(cut_off(error, *first, size));
            }
            (Err(error), _) => return Err(garbled(error, size)),
        };
        self.window = WINDOW.min(self.window.saturating_mul(2));
        self.listed.drain(..size);
        self.unfetchable
            .extend(window.iter().filter(|uid| self.skip.contains(uid)));
        if matches!(self.way, Way::Again) {
            self.gone.extend(gone);
        }
        self.looked_at = self.looked_at.saturating_add(size);
        heads.sort_by_key(|head| head.uid);
        self.take(heads, wanted);
        self.seen = if self.listed.is_empty() {
            self.covered.take()
        } else {
            self.covered
                .and(window.last().map(|last| last.saturating_add(1)))
        };
        Ok(())
    }

    /// The server failed over one mail. Unless the look is tolerant that ends
    /// the session, which comes back and tries once more.
    pub(super) fn stumble(&mut self, uid: u32, error: MailboxError) -> Result<(), MailboxError> {
        if error.ends_the_line() {
            return Err(cut_off(error, uid, 1));
        }
        let ends_the_session = error.is_garbage();
        if !is_of_a_mail(&error) && !ends_the_session {
            return Err(error);
        }
        if self.tolerant && !ends_the_session {
            self.unfetchable.push_back(uid);
            return Ok(());
        }
        Err(MailboxError::Stumbled {
            uid,
            source: Box::new(error),
        })
    }

    pub(super) fn take(&mut self, mut heads: Vec<Head>, wanted: &Wanted) {
        if let Some(since) = self.since {
            let day = |at| Offset::UTC.to_datetime(at).date();
            heads.retain(|head| head.received.is_none_or(|at| day(at) >= since));
        }
        if !matches!(self.way, Way::Again) {
            // Fields that the server did not say may be any.
            heads.retain(|head| head.fields.as_deref().is_none_or(&wanted.fields));
        }
        self.heads.extend(heads);
    }
}

/// Whether a failure may be one mail's, and not the connection's.
pub(super) fn is_of_a_mail(error: &MailboxError) -> bool {
    matches!(
        error,
        MailboxError::Refused { .. } | MailboxError::Lacking { .. }
    )
}

/// What an answer about so many mails says of them.
pub(super) fn garbled(error: MailboxError, mails: usize) -> MailboxError {
    if !error.is_garbage() {
        return error;
    }
    MailboxError::Garbled {
        mails,
        source: Box::new(error),
    }
}

fn cut_off(error: MailboxError, uid: u32, mails: usize) -> MailboxError {
    MailboxError::CutOff {
        uid,
        mails,
        source: Box::new(error),
    }
}

/// The heads of these mails, and those of them that are gone.
async fn account_for(
    session: &mut Session,
    uids: &[u32],
) -> Result<(Vec<Head>, Vec<u32>), MailboxError> {
    if uids.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut missing: BTreeSet<u32> = uids.iter().copied().collect();
    let mut heads = Vec::new();
    session
        .heads(Set::Uids(&set(uids)), |head| {
            if missing.remove(&head.uid) {
                heads.push(head);
            }
        })
        .await?;
    let missing: Vec<u32> = missing.into_iter().collect();
    if !missing.is_empty() && !session.uids(Set::Uids(&set(&missing))).await?.is_empty() {
        return Err(MailboxError::Lacking {
            doing: "FETCH",
            what: "mails that are there",
        });
    }
    Ok((heads, missing))
}

/// The whole of a mail; `None` where it is gone meanwhile, and so has no outcome.
pub(super) async fn fetch(
    session: &mut Session,
    wanted: &Wanted,
    head: Head,
) -> Result<Option<Found>, MailboxError> {
    let received = head.received.ok_or(MailboxError::Lacking {
        doing: "FETCH",
        what: "INTERNALDATE",
    })?;
    let raw = if head.size > wanted.max_size {
        None
    } else {
        // One byte more than is wanted, for some servers count otherwise.
        let limit = wanted.max_size.saturating_add(1);
        match session.body(head.uid, limit).await? {
            // A verdict on nothing would be none.
            Some(raw) if raw.is_empty() && !is_empty(&head) => {
                return Err(MailboxError::Lacking {
                    doing: "FETCH",
                    what: "the mail",
                });
            }
            Some(raw) => Some(raw).filter(|raw| {
                u32::try_from(raw.len()).is_ok_and(|length| length <= wanted.max_size)
            }),
            None => return Ok(None),
        }
    };
    Ok(Some(Found {
        head,
        received,
        raw,
    }))
}

/// Whether the server says of a mail that there is nothing of it at all.
fn is_empty(head: &Head) -> bool {
    let fields = head.fields.as_deref().unwrap_or_default();
    head.size == 0 && fields.trim_ascii().is_empty()
}
