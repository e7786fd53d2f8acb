//! A look through a folder: which mails could be notices, in the order of
//! their UIDs, and up to which UID everything has been seen.
//!
//! Narrowing goes from cheap to dear: a SEARCH by sender, subject and date
//! where there is much to look through, then the `From` and `Subject` fields,
//! then the size, then the mail itself. Where the server refuses to search,
//! the fields of every mail are looked at. Every UID that is asked for is
//! accounted for: it came, or it is gone.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use jiff::{Timestamp, civil};

use super::MailboxError;
use super::session::{Folder, Head, Session};

/// How many UIDs are asked for in one command.
const WINDOW: usize = 500;

/// With fewer mails to look at, SEARCH is a round trip more and not less.
const WORTH_A_SEARCH: u32 = 200;

/// How many UIDs one SEARCH covers at first. If all of them match, the answer
/// is still a line that the guard lets pass.
const SEARCH_WINDOW: u32 = 20_000;

/// Decides by the `From` and `Subject` fields whether a mail could be a notice.
pub type FieldsTest = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Which mails could be notices.
pub struct Wanted {
    /// Words that `From` holds, one of them.
    pub from: Vec<String>,
    /// Words that `Subject` holds.
    pub subject: String,
    /// Decides by the `From` and `Subject` fields.
    pub fields: FieldsTest,
    /// The largest mail that is fetched, in bytes.
    pub max_size: u32,
}

/// What is looked through.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The first UID.
    pub first: u32,
    /// Only mails received on this day or later, where it is a look back.
    pub since: Option<civil::Date>,
}

/// One step of a look.
#[derive(Debug)]
pub enum Step {
    /// A mail that could be a notice.
    Mail(Found),
    /// A mail that was to be looked at again, and is there no more.
    Gone {
        /// Its UID.
        uid: u32,
    },
    /// Everything below this UID has been handed out.
    Seen {
        /// The first UID that has not been looked at.
        next_uid: u32,
    },
}

/// A mail that could be a notice.
#[derive(Debug)]
pub struct Found {
    /// UID, size and fields.
    pub head: Head,
    /// INTERNALDATE.
    pub received: Timestamp,
    /// The whole of it; `None` where it is too large to be fetched.
    pub raw: Option<Vec<u8>>,
}

/// A look, made step by step, so that the caller can make each mail's outcome
/// durable before the next.
pub struct Look {
    way: Way,
    /// UIDs whose fields are yet to be looked at, and up to where they cover
    /// the folder.
    listed: VecDeque<u32>,
    covered: Option<u32>,
    /// What is ready to be handed out, in this order.
    heads: VecDeque<Head>,
    gone: VecDeque<u32>,
    seen: Option<u32>,
    looked_at: usize,
    of: usize,
}

/// How the rest is found.
#[derive(Clone, Copy)]
enum Way {
    /// By what EXAMINE said of the folder.
    Through { folder: Folder, scope: Scope },
    /// By SEARCH, from `scope.first` on, so many UIDs at a time.
    Search { scope: Scope, end: u32, size: u32 },
    /// From this UID on, whatever is there.
    News { first: u32 },
    /// These mails and no others, whatever their fields.
    Again,
    /// Nothing is left to be found.
    Done,
}

impl Look {
    /// A look through a folder that was just opened.
    pub fn through(folder: Folder, scope: Scope) -> Self {
        let first = scope.first.max(1);
        Self::new(Way::Through {
            folder,
            scope: Scope { first, ..scope },
        })
    }

    /// A look at what was announced in a folder that is open.
    pub fn at_news(first: u32) -> Self {
        Self::new(Way::News {
            first: first.max(1),
        })
    }

    /// A look at these mails again.
    pub fn again_at(uids: impl IntoIterator<Item = u32>) -> Self {
        let mut look = Self::new(Way::Again);
        look.list(uids, None);
        look
    }

    fn new(way: Way) -> Self {
        Self {
            way,
            listed: VecDeque::new(),
            covered: None,
            heads: VecDeque::new(),
            gone: VecDeque::new(),
            seen: None,
            looked_at: 0,
            of: 0,
        }
    }

    /// How many mails were looked at, of how many as far as is known.
    pub fn progress(&self) -> (usize, usize) {
        (self.looked_at, self.of)
    }

    /// The next step; `None` at the end.
    pub async fn next(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
    ) -> Result<Option<Step>, MailboxError> {
        loop {
            while let Some(head) = self.heads.pop_front() {
                if let Some(found) = fetch(session, wanted, head).await? {
                    return Ok(Some(Step::Mail(found)));
                }
            }
            if let Some(uid) = self.gone.pop_front() {
                return Ok(Some(Step::Gone { uid }));
            }
            if let Some(next_uid) = self.seen.take() {
                return Ok(Some(Step::Seen { next_uid }));
            }
            if !self.listed.is_empty() {
                self.window(session, wanted).await?;
                continue;
            }
            match self.way {
                Way::Done => return Ok(None),
                Way::Again => self.way = Way::Done,
                Way::News { first } => {
                    self.way = Way::Done;
                    self.news(session, wanted, first).await?;
                }
                Way::Through { folder, scope } => {
                    self.way = Way::Done;
                    self.begin(session, folder, scope).await?;
                }
                Way::Search { scope, end, size } => {
                    self.way = Way::Done;
                    self.search(session, wanted, scope, end, size).await?;
                }
            }
        }
    }

    /// Chooses how to look: by a list where there is little, else by SEARCH.
    async fn begin(
        &mut self,
        session: &mut Session,
        folder: Folder,
        scope: Scope,
    ) -> Result<(), MailboxError> {
        let first = scope.first;
        let Some(end) = folder.uid_next else {
            return self.list_from(session, first).await;
        };
        if folder.exists == 0 || end <= first {
            self.seen = (end > first).then_some(end);
            return Ok(());
        }
        let few = folder.exists <= WORTH_A_SEARCH || end.saturating_sub(first) <= WORTH_A_SEARCH;
        if few && scope.since.is_none() {
            return self.list_all(session, first, end).await;
        }
        self.way = Way::Search {
            scope,
            end,
            size: SEARCH_WINDOW,
        };
        Ok(())
    }

    /// Lets the server narrow one window of UIDs. Where it refuses, every mail
    /// is looked at: a day that is too early costs time, a mail that is missed
    /// costs more.
    async fn search(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        scope: Scope,
        end: u32,
        size: u32,
    ) -> Result<(), MailboxError> {
        let first = scope.first;
        if first >= end {
            return Ok(());
        }
        let behind = first.saturating_add(size).min(end);
        let keys = keys(wanted, scope.since);
        let range = format!("UID {first}:{} {keys}", behind.saturating_sub(1));
        let begun = Instant::now();
        let Some(uids) = session.search(&range).await? else {
            tracing::debug!(
                event = "mailbox.search-refused",
                "the server refuses to search; the headers of every mail are looked at"
            );
            return self.list_all(session, first, end).await;
        };
        // Sparse UIDs are passed over quickly; a slow server is not asked for more.
        let easy = uids.len() < WINDOW && begun.elapsed() < Duration::from_secs(2);
        self.list(
            uids.into_iter().filter(|uid| (first..behind).contains(uid)),
            Some(behind),
        );
        self.way = Way::Search {
            scope: Scope {
                first: behind,
                ..scope
            },
            end,
            size: if easy { size.saturating_mul(4) } else { size },
        };
        Ok(())
    }

    /// All mails from `first` to before `end`.
    async fn list_all(
        &mut self,
        session: &mut Session,
        first: u32,
        end: u32,
    ) -> Result<(), MailboxError> {
        let range = format!("{first}:{}", end.saturating_sub(1));
        let uids = session.uids(&range).await?;
        self.list(
            uids.into_iter().filter(|uid| (first..end).contains(uid)),
            Some(end),
        );
        Ok(())
    }

    /// All mails from `first` on. `first:*` names the last mail even where it
    /// is below `first` (RFC 3501, section 6.4.8).
    async fn list_from(&mut self, session: &mut Session, first: u32) -> Result<(), MailboxError> {
        if session.exists() == 0 {
            return Ok(());
        }
        let mut uids = session.uids(&format!("{first}:*")).await?;
        uids.retain(|uid| *uid >= first);
        let behind = uids.last().map(|last| last.saturating_add(1));
        self.list(uids, behind);
        Ok(())
    }

    fn list(&mut self, uids: impl IntoIterator<Item = u32>, covered: Option<u32>) {
        self.listed.extend(uids);
        self.of = self.of.saturating_add(self.listed.len());
        self.covered = covered;
        if self.listed.is_empty() {
            self.seen = self.covered.take();
        }
    }

    /// The fields of what is new, in one round trip. Sequence numbers have no
    /// gaps, so they tell whether an answer is missing; then it is done the
    /// careful way.
    async fn news(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        first: u32,
    ) -> Result<(), MailboxError> {
        let exists = session.exists();
        if exists == 0 {
            return Ok(());
        }
        let mut heads = Vec::new();
        session
            .heads(&format!("{first}:*"), |head| heads.push(head))
            .await?;
        heads.sort_by_key(|head| head.uid);
        heads.dedup_by_key(|head| head.uid);
        let reaches_the_end = heads.last().is_some_and(|last| last.sequence >= exists);
        heads.retain(|head| head.uid >= first);
        let has_no_gap = heads.windows(2).all(|pair| match pair {
            [one, next] => one.sequence.checked_add(1) == Some(next.sequence),
            _ => true,
        });
        if !(reaches_the_end && has_no_gap) {
            return self.list_from(session, first).await;
        }
        self.looked_at = heads.len();
        self.of = heads.len();
        self.seen = heads.last().map(|last| last.uid.saturating_add(1));
        self.take(heads, wanted);
        Ok(())
    }

    /// The fields of the next window of the list. Each mail of it must be
    /// accounted for: it came, or it is gone.
    async fn window(&mut self, session: &mut Session, wanted: &Wanted) -> Result<(), MailboxError> {
        let uids: Vec<u32> = self.listed.drain(..self.listed.len().min(WINDOW)).collect();
        let mut missing: BTreeSet<u32> = uids.iter().copied().collect();
        let mut heads = Vec::new();
        session
            .heads(&set(&uids), |head| {
                if missing.remove(&head.uid) {
                    heads.push(head);
                }
            })
            .await?;
        if !missing.is_empty() {
            let missing: Vec<u32> = missing.into_iter().collect();
            if !session.uids(&set(&missing)).await?.is_empty() {
                return Err(MailboxError::Lacking {
                    doing: "FETCH",
                    what: "mails that are there",
                });
            }
            if matches!(self.way, Way::Again) {
                self.gone.extend(missing);
            }
        }
        self.looked_at = self.looked_at.saturating_add(uids.len());
        heads.sort_by_key(|head| head.uid);
        self.take(heads, wanted);
        self.seen = if self.listed.is_empty() {
            self.covered.take()
        } else {
            self.covered
                .and(uids.last().map(|last| last.saturating_add(1)))
        };
        Ok(())
    }

    fn take(&mut self, mut heads: Vec<Head>, wanted: &Wanted) {
        if !matches!(self.way, Way::Again) {
            heads.retain(|head| (wanted.fields)(&head.fields));
        }
        self.heads.extend(heads);
    }
}

/// The whole of a mail; `None` where it is gone meanwhile, and so has no outcome.
async fn fetch(
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
        match session.body(head.uid).await? {
            Some(raw) => Some(raw),
            None => return Ok(None),
        }
    };
    Ok(Some(Found {
        head,
        received,
        raw,
    }))
}

/// `SINCE 1-Jan-2026 OR SUBJECT "…" OR FROM "…" FROM "…"`
fn keys(wanted: &Wanted, since: Option<civil::Date>) -> String {
    use std::fmt::Write as _;

    let mut keys = String::new();
    if let Some(day) = since {
        keys.push_str("SINCE ");
        keys.push_str(&imap_day(day));
        keys.push(' ');
    }
    let one_of = std::iter::once(("SUBJECT", &wanted.subject))
        .chain(wanted.from.iter().map(|from| ("FROM", from)));
    let mut left = wanted.from.len();
    for (key, word) in one_of {
        let or = if left > 0 { "OR " } else { "" };
        left = left.saturating_sub(1);
        let word: String = word.chars().filter(|c| !"\"\\".contains(*c)).collect();
        // Writing to a String cannot fail.
        write!(keys, "{or}{key} \"{word}\" ").unwrap_or_default();
    }
    keys.trim_end().to_owned()
}

fn imap_day(day: civil::Date) -> String {
    day.strftime("%-d-%b-%Y").to_string()
}

/// `1,2,3,7` as `1:3,7` (RFC 3501, section 9, `sequence-set`).
fn set(uids: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    ranges
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}:{last}")
            }
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_written_as_ranges() {
        assert_eq!(set(&[1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
        assert_eq!(set(&[u32::MAX]), "4294967295");
    }

    #[test]
    fn search_keys_are_one_alternative_and_a_day() {
        let wanted = Wanted {
            from: vec!["a@b.c".into(), "d@e.f".into()],
            subject: "security token".into(),
            fields: Box::new(|_| true),
            max_size: 0,
        };
        let day = civil::date(2026, 1, 5);
        assert_eq!(
            keys(&wanted, Some(day)),
            "SINCE 5-Jan-2026 OR SUBJECT \"security token\" OR FROM \"a@b.c\" FROM \"d@e.f\""
        );
    }
}
