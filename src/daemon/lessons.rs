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

/// A mail that cost the connection is not asked for again before this is over.
const SELDOM: Duration = Duration::from_secs(3600);

/// How much smaller the windows become when an answer cannot be used.
const SMALLER: usize = 8;

/// What is remembered of one folder.
pub(super) struct Lessons {
    /// The server's SEARCH has not failed.
    narrow: bool,
    /// How many mails are asked for at once, where an answer about more could
    /// not be used.
    at_once: Option<usize>,
    /// Mails over which the server fails.
    stumbled: BTreeMap<u32, Stumble>,
    /// The mail at which the last connection was cut off. Any line may end once.
    cut_off_at: Option<u32>,
    /// The server's lists leave mails out; whether more than once.
    gaps: Option<(Stumble, bool)>,
    /// How long such a mail keeps the others waiting.
    patience: Duration,
}

/// What the server fails at.
#[derive(Clone, Copy)]
struct Stumble {
    since: Instant,
    /// When it last did: while the server cannot be reached nothing is proved.
    last: Instant,
    /// Whether the connection is lost over it.
    costs: bool,
}

impl Stumble {
    fn now(costs: bool) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            last: now,
            costs,
        }
    }

    fn again(&mut self, costs: bool) {
        self.last = Instant::now();
        self.costs |= costs;
    }

    fn has_lasted(&self, patience: Duration) -> bool {
        self.last.saturating_duration_since(self.since) >= patience
    }
}

impl Lessons {
    /// Mails over which the server fails are waited for that long.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            narrow: true,
            at_once: None,
            stumbled: BTreeMap::new(),
            cut_off_at: None,
            gaps: None,
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
                self.stumble(*uid, stumbled.is_garbage());
                self.patience.is_zero()
            }
            MailboxError::CutOff { uid, mails: 1, .. } => {
                let is_again = self.cut_off_at.replace(*uid) == Some(*uid);
                if is_again || self.stumbled.contains_key(uid) {
                    self.stumble(*uid, true);
                }
                self.patience.is_zero()
            }
            // Smaller windows cost little, and show which mail it is, if it is one.
            MailboxError::CutOff { mails, .. } => {
                self.ask_for_less(*mails);
                true
            }
            MailboxError::Gaps => {
                match &mut self.gaps {
                    Some((gaps, are_again)) => {
                        gaps.again(true);
                        *are_again = true;
                    }
                    None => self.gaps = Some((Stumble::now(true), false)),
                }
                self.patience.is_zero()
            }
            MailboxError::Search(_) => std::mem::replace(&mut self.narrow, false),
            MailboxError::Garbled { mails, .. } => {
                self.ask_for_less(*mails);
                true
            }
            _ => false,
        }
    }

    fn stumble(&mut self, uid: u32, costs: bool) {
        self.stumbled
            .entry(uid)
            .and_modify(|stumble| stumble.again(costs))
            .or_insert_with(|| Stumble::now(costs));
    }

    fn ask_for_less(&mut self, mails: usize) {
        self.at_once = Some(mails.div_ceil(SMALLER).max(1));
    }

    /// Everything was looked at.
    pub(super) fn passed(&mut self) {
        self.at_once = None;
        if !self.is_lenient() {
            self.gaps = None;
        }
    }

    /// A mail has an outcome: what cut the connection off was not this mail.
    pub(super) fn answered(&mut self, uid: u32) {
        self.cut_off_at.take_if(|cut_off_at| *cut_off_at == uid);
    }

    /// The folder's mails have other numbers now.
    pub(super) fn forget_mails(&mut self) {
        self.stumbled.clear();
        self.cut_off_at = None;
        self.gaps = None;
    }

    /// What was learnt of mails that nobody waits for any more is of no use.
    pub(super) fn keep(&mut self, waits: impl Fn(u32) -> bool) {
        self.stumbled.retain(|uid, _| waits(*uid));
        self.cut_off_at.take_if(|uid| !waits(*uid));
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

    /// A look at these mails again, one by one, but for those that have cost the
    /// connection of late.
    pub(super) fn look_again_at(&self, uids: Vec<u32>) -> Look {
        Look::again_at(uids).skipping(self.of_late()).by(1)
    }

    fn of_late(&self) -> impl Iterator<Item = u32> {
        let is_of_late = |it: &Stumble| it.costs && it.last.elapsed() < SELDOM;
        let of_late = self.stumbled.iter().filter(move |(_, it)| is_of_late(it));
        of_late.map(|(uid, _)| *uid)
    }

    /// Once one mail has had its time, the others of the folder need none.
    fn apply(&self, look: Look) -> Look {
        let look = look.skipping(self.skipped());
        let look = if self.is_weary() {
            look.tolerant()
        } else {
            look
        };
        let look = if self.is_lenient() {
            look.lenient()
        } else {
            look
        };
        match self.at_once {
            Some(mails) => look.by(mails),
            None => look,
        }
    }

    fn is_weary(&self) -> bool {
        let mut stumbled = self.stumbled.values();
        stumbled.any(|stumble| stumble.has_lasted(self.patience))
    }

    fn skipped(&self) -> impl Iterator<Item = u32> {
        let is_weary = self.is_weary();
        let is_skipped = move |it: &Stumble| it.has_lasted(self.patience) || (is_weary && it.costs);
        let skipped = self.stumbled.iter().filter(move |(_, it)| is_skipped(it));
        skipped.map(|(uid, _)| *uid)
    }

    /// A list that leaves mails out each time is better than none.
    fn is_lenient(&self) -> bool {
        let gaps = self.gaps.as_ref();
        gaps.is_some_and(|(gaps, are_again)| *are_again && gaps.has_lasted(self.patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(600);
    const A_MINUTE: Duration = Duration::from_secs(60);

    fn cut_off(uid: u32, mails: usize) -> InboxError {
        let source = Box::new(MailboxError::Lost("FETCH"));
        MailboxError::CutOff { uid, mails, source }.into()
    }

    fn skipped(lessons: &Lessons) -> Vec<u32> {
        lessons.skipped().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_that_cuts_each_connection_off_is_passed_over_when_it_has_had_its_time() {
        let mut lessons = Lessons::new(PATIENCE);
        for _ in 0..11 {
            assert!(!lessons.learn(&cut_off(7, 1)), "others wait in between");
            assert!(skipped(&lessons).is_empty());
            tokio::time::advance(A_MINUTE).await;
        }
        lessons.learn(&cut_off(7, 1));
        assert_eq!(skipped(&lessons), [7]);
        // The next one needs no such time, and is given a second chance all the same.
        lessons.learn(&cut_off(9, 1));
        assert_eq!(skipped(&lessons), [7]);
        lessons.learn(&cut_off(9, 1));
        assert_eq!(skipped(&lessons), [7, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_drops_now_and_then_makes_no_mail_unfetchable() {
        let mut lessons = Lessons::new(PATIENCE);
        for _ in 0..20 {
            lessons.learn(&cut_off(7, 1));
            tokio::time::advance(PATIENCE).await;
            lessons.answered(7);
            lessons.learn(&cut_off(8, 1));
            tokio::time::advance(PATIENCE).await;
        }
        assert!(skipped(&lessons).is_empty());
        assert!(lessons.stumbled.is_empty());
    }

    /// While nothing can be reached no mail uses its time up.
    #[tokio::test(start_paused = true)]
    async fn an_outage_is_no_proof() {
        let mut lessons = Lessons::new(PATIENCE);
        lessons.learn(&cut_off(7, 1));
        lessons.learn(&cut_off(7, 1));
        tokio::time::advance(PATIENCE * 2).await;
        lessons.learn(&MailboxError::Lost("the greeting").into());
        assert!(skipped(&lessons).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_that_cost_the_connection_is_asked_for_again_seldom() {
        let mut lessons = Lessons::new(Duration::ZERO);
        assert!(lessons.learn(&cut_off(7, 1)) && lessons.learn(&cut_off(7, 1)));
        let is_asked_for = |lessons: &Lessons| !lessons.of_late().any(|uid| uid == 7);
        assert!(!is_asked_for(&lessons));
        tokio::time::advance(SELDOM).await;
        assert!(is_asked_for(&lessons));
        lessons.learn(&cut_off(7, 1));
        assert!(!is_asked_for(&lessons));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_is_cut_off_becomes_smaller() {
        let mut lessons = Lessons::new(PATIENCE);
        let windows = [500, 63, 8].map(|mails| {
            assert!(lessons.learn(&cut_off(7, mails)));
            lessons.at_once.unwrap()
        });
        assert_eq!(windows, [63, 8, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_leaves_mails_out_for_long_is_better_than_none() {
        let mut lessons = Lessons::new(PATIENCE);
        for _ in 0..10 {
            lessons.learn(&MailboxError::Gaps.into());
            assert!(!lessons.is_lenient());
            tokio::time::advance(A_MINUTE).await;
        }
        lessons.learn(&MailboxError::Gaps.into());
        lessons.passed();
        assert!(lessons.is_lenient());
    }
}
