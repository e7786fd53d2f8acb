//! What is learnt of a folder whose server fails at some of it, so that the
//! next look gets further.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::InboxError;
use crate::mailbox::{Folder, Look, MailboxError, Scope};

/// How often a look is begun anew for what was learnt, where nobody waits in
/// between.
pub(super) const MAX_LESSONS: usize = 16;

/// How much smaller the windows become when an answer cannot be used.
const SMALLER: usize = 8;

/// What is remembered of one folder.
pub(super) struct Lessons {
    /// The server's SEARCH has not failed.
    narrow: bool,
    /// How many mails are asked for at once, where an answer about more could
    /// not be used.
    at_once: Option<usize>,
    /// Mails over which the server fails, each since when, and whether it costs
    /// the connection to ask for it.
    stumbled: BTreeMap<u32, (Instant, bool)>,
    /// How long such a mail keeps the others waiting.
    patience: Duration,
}

impl Lessons {
    /// Mails over which the server fails are waited for that long.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            narrow: true,
            at_once: None,
            stumbled: BTreeMap::new(),
            patience,
        }
    }

    /// Takes a failure in; `true` where the next look may get further.
    pub(super) fn learn(&mut self, error: &InboxError) -> bool {
        let InboxError::Mailbox(error) = error else {
            return false;
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "nothing is to be learnt from the others"
        )]
        match error {
            stumbled @ MailboxError::Stumbled { uid, .. } => {
                let costs = stumbled.is_garbage();
                let entry = self.stumbled.entry(*uid).or_insert((Instant::now(), costs));
                entry.1 |= costs;
                self.patience.is_zero()
            }
            MailboxError::Search(_) => std::mem::replace(&mut self.narrow, false),
            MailboxError::Garbled { mails, .. } => {
                self.at_once = Some(mails.div_ceil(SMALLER).max(1));
                true
            }
            _ => false,
        }
    }

    /// Everything was looked at.
    pub(super) fn passed(&mut self) {
        self.at_once = None;
    }

    /// The folder's mails have other numbers now.
    pub(super) fn forget_mails(&mut self) {
        self.stumbled.clear();
    }

    /// What was learnt of mails that nobody waits for any more is of no use.
    pub(super) fn keep(&mut self, waits: impl Fn(u32) -> bool) {
        self.stumbled.retain(|uid, _| waits(*uid));
    }

    /// A look through the folder, from a UID on.
    pub(super) fn look_through(
        &self,
        folder: Folder,
        first: u32,
        since: Option<jiff::civil::Date>,
    ) -> Look {
        let scope = Scope {
            first,
            since,
            narrow: self.narrow,
        };
        self.apply(Look::through(folder, scope))
    }

    /// A look at what is new, from a UID on.
    pub(super) fn look_at_news(&self, first: u32) -> Look {
        self.apply(Look::at_news(first))
    }

    /// A look at these mails again, one by one, but for those that cost the
    /// connection.
    pub(super) fn look_again_at(&self, uids: Vec<u32>) -> Look {
        let costly = self.stumbled.iter().filter(|(_, (_, costs))| *costs);
        Look::again_at(uids)
            .skipping(costly.map(|(uid, _)| *uid))
            .by(1)
    }

    /// Once one mail has had its time, the others of the folder need none.
    fn apply(&self, look: Look) -> Look {
        let has_had_its_time = |since: &Instant| since.elapsed() >= self.patience;
        let weary = self
            .stumbled
            .values()
            .any(|(since, _)| has_had_its_time(since));
        let skipped = self
            .stumbled
            .iter()
            .filter(|(_, (since, costs))| has_had_its_time(since) || (weary && *costs))
            .map(|(uid, _)| *uid);
        let look = look.skipping(skipped);
        let look = if weary { look.tolerant() } else { look };
        match self.at_once {
            Some(mails) => look.by(mails),
            None => look,
        }
    }
}
