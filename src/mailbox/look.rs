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

use jiff::tz::Offset;
use jiff::{Timestamp, civil};

use super::MailboxError;
use super::query::{keys, set};
use super::session::{Folder, Head, Session};

/// How many UIDs are asked for in one command, and how many of the newest are
/// never left to SEARCH: some servers index late.
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
    /// A mail that the server does not hand out.
    Unfetchable {
        /// Its UID.
        uid: u32,
    },
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
    unfetchable: VecDeque<u32>,
    gone: VecDeque<u32>,
    seen: Option<u32>,
    /// Mails that were received before this day are left out.
    since: Option<civil::Date>,
    /// UIDs that are not asked for: the server has stumbled over each for long.
    skip: BTreeSet<u32>,
    /// Goes on where the server fails over a mail.
    tolerant: bool,
    /// How many UIDs the next window has. It shrinks to find the one mail that
    /// makes the server fail.
    window: usize,
    looked_at: usize,
    of: usize,
}

/// How the rest is found.
#[derive(Clone, Copy)]
enum Way {
    /// By what EXAMINE said of the folder.
    Through { folder: Folder, scope: Scope },
    /// By SEARCH from `scope.first` to before `until`, so many UIDs at a time,
    /// and by a list from there to before `end`.
    Search {
        scope: Scope,
        until: u32,
        end: u32,
        size: u32,
    },
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
        let mut look = Self::new(Way::Through {
            folder,
            scope: Scope { first, ..scope },
        });
        look.since = scope.since;
        look
    }

    /// Leaves mails out that the server has stumbled over for long; each is
    /// told of as [`Step::Unfetchable`].
    #[must_use]
    pub fn skipping(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.skip.extend(uids);
        self
    }

    /// Goes on where the server fails over a mail, and tells of it as
    /// [`Step::Unfetchable`].
    #[must_use]
    pub fn tolerant(mut self) -> Self {
        self.tolerant = true;
        self
    }

    /// A look at what was announced in a folder that is open.
    pub fn at_news(first: u32) -> Self {
        Self::new(Way::News {
            first: first.max(1),
        })
    }

    /// A look at these mails again.
    pub fn again_at(uids: impl IntoIterator<Item = u32>) -> Self {
        let mut look = Self::new(Way::Again).tolerant();
        look.list(uids, None);
        look
    }

    fn new(way: Way) -> Self {
        Self {
            way,
            listed: VecDeque::new(),
            covered: None,
            heads: VecDeque::new(),
            unfetchable: VecDeque::new(),
            gone: VecDeque::new(),
            seen: None,
            since: None,
            skip: BTreeSet::new(),
            tolerant: false,
            window: WINDOW,
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
            // Before the mails around it: they move the cursor past it.
            if let Some(uid) = self.unfetchable.pop_front() {
                return Ok(Some(Step::Unfetchable { uid }));
            }
            while let Some(head) = self.heads.pop_front() {
                let uid = head.uid;
                match fetch(session, wanted, head).await {
                    Ok(Some(found)) => return Ok(Some(Step::Mail(found))),
                    Ok(None) => {}
                    Err(error) => self.stumble(uid, error)?,
                }
            }
            if !self.unfetchable.is_empty() {
                continue;
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
                Way::Search {
                    scope, until, end, ..
                } if scope.first >= until => {
                    self.way = Way::Done;
                    self.list_all(session, scope.first, end).await?;
                }
                Way::Search {
                    scope,
                    until,
                    end,
                    size,
                } => {
                    self.way = Way::Done;
                    self.search(session, wanted, scope, until, end, size)
                        .await?;
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
        let newest = u32::try_from(WINDOW).unwrap_or(u32::MAX);
        self.way = Way::Search {
            scope,
            until: end.saturating_sub(newest).max(first),
            end,
            size: SEARCH_WINDOW,
        };
        Ok(())
    }

    /// Lets the server narrow one window of UIDs. Where it refuses, the fields
    /// of every mail are looked at.
    async fn search(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        scope: Scope,
        until: u32,
        end: u32,
        size: u32,
    ) -> Result<(), MailboxError> {
        let first = scope.first;
        let behind = first.saturating_add(size).min(until);
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
            until,
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
        let exists = session.exists();
        let mut uids = session.uids(&format!("{first}:*")).await?;
        uids.retain(|uid| *uid >= first);
        session.cover(exists);
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
    /// gaps, and the session knows how many mails were covered before, so that
    /// an answer which is missing is noticed; then it is done the careful way.
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
        let asked = session
            .heads(&format!("{first}:*"), |head| heads.push(head))
            .await;
        match asked {
            Err(error) if is_of_a_mail(&error) => return self.list_from(session, first).await,
            asked => asked?,
        }
        heads.retain(|head| head.uid >= first);
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
        if !has_no_gap || expected < exists || has_skipped {
            return self.list_from(session, first).await;
        }
        session.cover(expected);
        self.looked_at = heads.len();
        self.of = heads.len();
        self.seen = heads.last().map(|last| last.uid.saturating_add(1));
        self.take(heads, wanted);
        Ok(())
    }

    /// The fields of the next window of the list. Each mail of it must be
    /// accounted for: it came, or it is gone. Where the server fails, the
    /// window is halved until the one mail is found that makes it fail.
    async fn window(&mut self, session: &mut Session, wanted: &Wanted) -> Result<(), MailboxError> {
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
            (Err(error), _) => return Err(error),
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
    fn stumble(&mut self, uid: u32, error: MailboxError) -> Result<(), MailboxError> {
        if !is_of_a_mail(&error) {
            return Err(error);
        }
        if self.tolerant {
            self.unfetchable.push_back(uid);
            return Ok(());
        }
        Err(MailboxError::Stumbled {
            uid,
            source: Box::new(error),
        })
    }

    fn take(&mut self, mut heads: Vec<Head>, wanted: &Wanted) {
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
fn is_of_a_mail(error: &MailboxError) -> bool {
    matches!(
        error,
        MailboxError::Refused { .. } | MailboxError::Lacking { .. }
    )
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
        .heads(&set(uids), |head| {
            if missing.remove(&head.uid) {
                heads.push(head);
            }
        })
        .await?;
    let missing: Vec<u32> = missing.into_iter().collect();
    if !missing.is_empty() && !session.uids(&set(&missing)).await?.is_empty() {
        return Err(MailboxError::Lacking {
            doing: "FETCH",
            what: "mails that are there",
        });
    }
    Ok((heads, missing))
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
        // One byte more than is wanted, for some servers count otherwise.
        let limit = wanted.max_size.saturating_add(1);
        match session.body(head.uid, limit).await? {
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
