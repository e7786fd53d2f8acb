//! A look through a folder: which mails could be notices, in the order of
//! their UIDs, and up to which UID everything has been seen.
//!
//! Narrowing goes from cheap to dear: a SEARCH by sender, subject and date
//! where there is much to look through (`search`), then the `From` and
//! `Subject` fields (`window`), then the size, then the mail itself. Where the
//! server refuses to search, or does not find what is there, the fields of
//! every mail are looked at. Every UID that is asked for is accounted for: it
//! came, or it is gone. Whatever a folder holds, no more of it than a window is
//! kept in memory.

mod news;
mod query;
mod search;
mod window;

use std::collections::{BTreeSet, VecDeque};

use jiff::{Timestamp, civil};

use super::MailboxError;
use super::session::{Folder, Head, Session};
use search::Search;
use window::List;

/// How many UIDs are asked for in one command, and how many of the newest are
/// never left to SEARCH: some servers index late.
const WINDOW: usize = 500;

/// With fewer mails to look at, SEARCH is a round trip more and not less.
const WORTH_A_SEARCH: u32 = 200;

/// Decides by the `From` and `Subject` fields whether a mail could be a notice.
pub type FieldsTest = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Which mails could be notices.
pub struct Wanted {
    /// Words that `From` holds, one of them.
    pub from: Vec<String>,
    /// Words that `Subject` holds, one of them.
    pub subjects: Vec<String>,
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
    /// The server may narrow it by SEARCH.
    pub narrow: bool,
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
    /// Goes on where a list leaves mails out.
    lenient: bool,
    /// How many UIDs the next window has. It shrinks to find the one mail that
    /// makes the server fail, and grows again.
    window: usize,
    looked_at: usize,
    of: usize,
}

/// How the rest is found.
#[derive(Clone, Copy)]
enum Way {
    /// By what the server said of the folder when it was opened.
    Through { folder: Folder, scope: Scope },
    /// By SEARCH, and then by a list.
    Search(Search),
    /// By a list of all UIDs.
    List(List),
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

    /// Asks for so many mails at once at first, because the answer about more
    /// could not be used ([`MailboxError::Garbled`]).
    #[must_use]
    pub fn by(mut self, mails: usize) -> Self {
        self.window = mails.clamp(1, WINDOW);
        self
    }

    /// Goes on where the server fails over a mail, and tells of it as
    /// [`Step::Unfetchable`].
    #[must_use]
    pub fn tolerant(mut self) -> Self {
        self.tolerant = true;
        self
    }

    /// Goes on where a list leaves mails out ([`MailboxError::Gaps`]).
    #[must_use]
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
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
            lenient: false,
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
                match window::fetch(session, wanted, head).await {
                    Ok(Some(found)) => return Ok(Some(Step::Mail(found))),
                    Ok(None) => {}
                    Err(error) => {
                        self.stumble(uid, error)?;
                        break;
                    }
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
            match std::mem::replace(&mut self.way, Way::Done) {
                Way::Done => {
                    // Mails that went meanwhile are not waited for.
                    self.of = self.looked_at;
                    return Ok(None);
                }
                Way::Again => {}
                Way::News { first } => self.news(session, wanted, first).await?,
                Way::Through { folder, scope } => {
                    self.begin(session, wanted, folder, scope).await?;
                }
                Way::Search(search) => self.search(session, wanted, search).await?,
                Way::List(list) => self.list_window(session, list).await?,
            }
        }
    }

    /// Chooses how to look: by a list where there is little, or where SEARCH
    /// cannot be relied on, else by SEARCH.
    async fn begin(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        folder: Folder,
        scope: Scope,
    ) -> Result<(), MailboxError> {
        let first = scope.first;
        let Some(end) = folder.uid_next else {
            return self.list_rest(session, first).await;
        };
        if folder.exists == 0 || end <= first {
            self.seen = (end > first).then_some(end);
            return Ok(());
        }
        let few = folder.exists <= WORTH_A_SEARCH || end.saturating_sub(first) <= WORTH_A_SEARCH;
        if few || !scope.narrow {
            self.list_until(session, first, end);
            return Ok(());
        }
        self.narrow(session, wanted, scope, end).await
    }
}
