//! A look through a folder: which mails could be notices, in the order of
//! their UIDs, and up to which UID everything has been seen.
//!
//! Narrowing goes from cheap to dear: a SEARCH by sender, subject and date
//! where there is much to look through, then the `From` and `Subject` fields,
//! then the size, then the mail itself. Where the server refuses to search,
//! the fields of every mail are looked at.

use std::collections::{BTreeSet, VecDeque};

use jiff::civil;

use super::MailboxError;
use super::session::{Folder, Head, Session};

/// How many UIDs are asked for in one command.
const WINDOW: usize = 500;

/// With fewer mails to look at, SEARCH is a round trip more and not less.
const WORTH_A_SEARCH: u32 = 200;

/// How many UIDs one SEARCH covers at first; it grows while little is found,
/// so that an answer stays a line of bearable length.
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
    /// Everything below this UID has been handed out.
    Seen {
        /// The first UID that has not been looked at.
        next_uid: u32,
    },
}

/// A mail that could be a notice.
#[derive(Debug)]
pub struct Found {
    /// UID, size, INTERNALDATE and fields.
    pub head: Head,
    /// The whole of it; `None` where it is too large to be fetched.
    pub raw: Option<Vec<u8>>,
}

/// A look, made step by step, so that the caller can make each mail's outcome
/// durable before the next.
pub struct Look {
    plan: Plan,
    heads: VecDeque<Head>,
    /// What is to be told when `heads` are done.
    seen: Option<u32>,
    looked_at: usize,
    of: usize,
}

enum Plan {
    /// Not yet listed: from this UID to the end.
    New {
        scope: Scope,
        folder: Option<Folder>,
    },
    /// These UIDs, and the UID after the last one that is covered by them.
    Listed { uids: VecDeque<u32>, end: u32 },
    /// Nothing is left.
    Done,
}

impl Look {
    /// A look through a folder that was just opened.
    pub fn through(folder: Folder, scope: Scope) -> Self {
        Self::new(Plan::New {
            scope,
            folder: Some(folder),
        })
    }

    /// A look at what was announced in a folder that is open.
    pub fn at_news(first: u32) -> Self {
        Self::new(Plan::New {
            scope: Scope { first, since: None },
            folder: None,
        })
    }

    /// A look at these mails again.
    pub fn again_at(uids: impl IntoIterator<Item = u32>) -> Self {
        let uids: VecDeque<u32> = uids.into_iter().collect();
        let mut look = Self::new(Plan::Listed { uids, end: 0 });
        look.count();
        look
    }

    fn new(plan: Plan) -> Self {
        Self {
            plan,
            heads: VecDeque::new(),
            seen: None,
            looked_at: 0,
            of: 0,
        }
    }

    /// How many mails were looked at, of how many that will be.
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
                if head.size > wanted.max_size {
                    return Ok(Some(Step::Mail(Found { head, raw: None })));
                }
                // A mail that is gone meanwhile has no outcome.
                if let Some(raw) = session.body(head.uid).await? {
                    let raw = Some(raw);
                    return Ok(Some(Step::Mail(Found { head, raw })));
                }
            }
            if let Some(next_uid) = self.seen.take() {
                return Ok(Some(Step::Seen { next_uid }));
            }
            match &mut self.plan {
                Plan::Done => return Ok(None),
                Plan::New { scope, folder } => {
                    let (scope, folder) = (*scope, *folder);
                    self.begin(session, wanted, scope, folder).await?;
                }
                Plan::Listed { uids, end } => {
                    let end = *end;
                    let window: Vec<u32> = uids.drain(..uids.len().min(WINDOW)).collect();
                    let next_uid = if uids.is_empty() {
                        self.plan = Plan::Done;
                        end
                    } else {
                        window.last().map_or(end, |last| last.saturating_add(1))
                    };
                    self.window(session, wanted, &window).await?;
                    self.seen = (next_uid > 0).then_some(next_uid);
                }
            }
        }
    }

    /// Chooses how to look: at the fields at once where there is little, else
    /// by a list of UIDs.
    async fn begin(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        scope: Scope,
        folder: Option<Folder>,
    ) -> Result<(), MailboxError> {
        let first = scope.first.max(1);
        let end = folder.and_then(|folder| folder.uid_next);
        if folder.is_some_and(|f| f.exists == 0) || end.is_some_and(|end| end <= first) {
            self.plan = Plan::Done;
            self.seen = end.filter(|end| *end > first);
            return Ok(());
        }
        let few = folder.is_none_or(|folder| {
            folder.exists <= WORTH_A_SEARCH
                || end.is_some_and(|end| end.saturating_sub(first) <= WORTH_A_SEARCH)
        });
        if few && scope.since.is_none() {
            self.plan = Plan::Done;
            return self.fields_from(session, wanted, first, end).await;
        }
        let (uids, end) = if let Some(end) = end {
            match search(session, wanted, scope, end).await? {
                Some(uids) => (uids, end),
                None => (list(session, scope, end).await?, end),
            }
        } else {
            let mut uids = session.uids(&format!("{first}:*")).await?;
            uids.retain(|uid| *uid >= first);
            let end = uids.last().map_or(first, |last| last.saturating_add(1));
            (uids, end)
        };
        self.plan = Plan::Listed {
            uids: uids.into(),
            end,
        };
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        if let Plan::Listed { uids, .. } = &self.plan {
            self.of = uids.len();
        }
    }

    /// The fields of everything from `first` on. `first:*` names the last mail
    /// even where it is below `first` (RFC 3501, section 6.4.8).
    async fn fields_from(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        first: u32,
        end: Option<u32>,
    ) -> Result<(), MailboxError> {
        let mut next_uid = end.unwrap_or(first);
        let mut looked_at = 0_usize;
        let mut heads = Vec::new();
        session
            .heads(&format!("{first}:*"), |head| {
                if head.uid >= first {
                    looked_at = looked_at.saturating_add(1);
                    next_uid = next_uid.max(head.uid.saturating_add(1));
                    if (wanted.fields)(&head.fields) {
                        heads.push(head);
                    }
                }
            })
            .await?;
        self.take(heads);
        self.looked_at = looked_at;
        self.of = looked_at;
        self.seen = (next_uid > first).then_some(next_uid);
        Ok(())
    }

    /// The fields of the mails with these UIDs, each of which must be
    /// accounted for: it came, or it is gone.
    async fn window(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        uids: &[u32],
    ) -> Result<(), MailboxError> {
        if uids.is_empty() {
            return Ok(());
        }
        let mut missing: BTreeSet<u32> = uids.iter().copied().collect();
        let mut heads = Vec::new();
        session
            .heads(&set(uids), |head| {
                if missing.remove(&head.uid) && (wanted.fields)(&head.fields) {
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
        }
        self.take(heads);
        self.looked_at = self.looked_at.saturating_add(uids.len());
        Ok(())
    }

    fn take(&mut self, mut heads: Vec<Head>) {
        heads.sort_by_key(|head| head.uid);
        heads.dedup_by_key(|head| head.uid);
        self.heads.extend(heads);
    }
}

/// Lets the server narrow, over windows of UIDs; `None` where it refuses.
async fn search(
    session: &mut Session,
    wanted: &Wanted,
    scope: Scope,
    end: u32,
) -> Result<Option<Vec<u32>>, MailboxError> {
    let keys = keys(wanted, scope.since);
    let mut found = Vec::new();
    let (mut first, mut size) = (scope.first.max(1), SEARCH_WINDOW);
    while first < end {
        let last = first.saturating_add(size).min(end).saturating_sub(1);
        let Some(uids) = session
            .search(&format!("UID {first}:{last} {keys}"))
            .await?
        else {
            tracing::debug!(
                event = "mailbox.search-refused",
                "the server refuses to search; the headers of every mail are looked at"
            );
            return Ok(None);
        };
        if uids.len() < WINDOW {
            size = size.saturating_mul(4);
        }
        found.extend(uids.into_iter().filter(|uid| (first..=last).contains(uid)));
        first = last.saturating_add(1);
    }
    Ok(Some(found))
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

/// All UIDs in scope, where the server does not search. A day that is too
/// early costs time; a mail that is missed costs more, so `since` is left out.
async fn list(session: &mut Session, scope: Scope, end: u32) -> Result<Vec<u32>, MailboxError> {
    let first = scope.first.max(1);
    let uids = session
        .uids(&format!("{first}:{}", end.saturating_sub(1)))
        .await?;
    Ok(uids.into_iter().filter(|uid| *uid >= first).collect())
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
