//! Where `notice` and `sender` meet: one mail in, one judgement out.
//!
//! The daemon and `tokenwatch extract` both call [`judge`], so what `extract`
//! says is what the daemon does.

use jiff::{SignedDuration, Timestamp};

use crate::notice::{self, Envelope, Mail, NotANotice, Notice};
use crate::sender::{self, Keys, Policy, Verdict};

/// How far a sender's clock may be ahead of our server's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(60);

/// What is to be thought of a mail.
#[derive(Debug)]
pub struct Judgement {
    /// What its headers say.
    pub envelope: Envelope,
    /// What it says, and who says it.
    pub finding: Finding,
}

/// The two questions answered.
#[derive(Debug)]
pub enum Finding {
    /// A notice; the verdict decides whether it is acted on.
    Notice(Notice, Verdict),
    /// No notice; its sender was not asked for.
    NotANotice(NotANotice),
}

impl Judgement {
    /// When the notice was made (invariant 2): the `Date` header under a
    /// signature that covers it, but never later than it can have been: clocks
    /// differ by minutes, and a date years ahead would shut out every later
    /// notice. An unsigned `Date` can be anything, so it only
    /// ever makes a notice older than `received`, its INTERNALDATE: that keeps
    /// a mail which was delivered late in its place, and a forged `Date` gains
    /// nothing.
    pub fn originated(&self, received: Timestamp) -> Timestamp {
        let Some(date) = self.envelope.date else {
            return received;
        };
        match &self.finding {
            Finding::Notice(_, Verdict::Trusted(proof)) if proof.date_signed() => {
                let latest = received.checked_add(CLOCKS_DIFFER).unwrap_or(received);
                date.min(latest)
            }
            Finding::Notice(..) | Finding::NotANotice(_) => date.min(received),
        }
    }
}

/// Judges one mail. Only a mail that reads as a notice costs a look-up in the DNS.
pub async fn judge(raw: &[u8], policy: &Policy, keys: &Keys) -> Judgement {
    let mail = Mail::parse(raw);
    let finding = match notice::read(&mail) {
        Ok(notice) => {
            let verdict = sender::judge(raw, &mail, policy, keys).await;
            Finding::Notice(notice, verdict)
        }
        Err(why) => Finding::NotANotice(why),
    };
    Judgement {
        envelope: mail.envelope(),
        finding,
    }
}
