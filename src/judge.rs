//! Where `notice` and `sender` meet: one mail in, one judgement out.
//!
//! The daemon and `tokenwatch extract` both call [`judge`], so what `extract`
//! says is what the daemon does.

use jiff::{SignedDuration, Timestamp};

use crate::notice::{self, Doubt, Envelope, Ignored, Mail, NotANotice, Notice, Wordings};
use crate::sender::{self, Keys, Verdict};

/// How far a sender's clock may be ahead of our server's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(60);

/// How mails are judged.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whose word is believed.
    pub trust: sender::Policy,
    /// The words by which a token mail is known.
    pub wordings: Wordings,
    /// Octets of the largest mail that is read. A token mail has some thousands.
    pub max_size: usize,
}

/// What is to be thought of a mail.
#[derive(Debug)]
pub struct Judgement {
    /// What its headers say; where the notice is attached, what the attached
    /// mail's say, and the Message-ID by which this one is found.
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
    if let Some(begin) = raw.get(..policy.max_size)
        && begin.len() < raw.len()
    {
        return too_large(begin, &policy.wordings);
    }
    let sent = notice::as_sent(raw);
    let mail = Mail::parse(&sent, &policy.wordings);
    let mut envelope = mail.envelope();
    let finding = match notice::read(&mail, &policy.wordings) {
        Ok(reading) => {
            let verdict = match &reading.attached {
                None => sender::judge(&mail, &policy.trust, keys).await,
                Some(attached) => {
                    let attached = Mail::parse(attached, &policy.wordings);
                    envelope = Envelope {
                        message_id: envelope.message_id,
                        ..attached.envelope()
                    };
                    sender::judge(&attached, &policy.trust.of_attached(), keys).await
                }
            };
            Finding::Notice(reading.notice, verdict)
        }
        Err(why) => Finding::NotANotice(why),
    };
    Judgement { envelope, finding }
}

/// A mail of which only the beginning is looked at: the daemon does not fetch
/// the rest of such a one.
fn too_large(begin: &[u8], wordings: &Wordings) -> Judgement {
    let finding = if notice::worth_reading(begin, &[], wordings) {
        NotANotice::Held(Doubt::TooLarge)
    } else {
        NotANotice::Ignored(Ignored::NoNotice)
    };
    Judgement {
        envelope: notice::envelope(begin),
        finding: Finding::NotANotice(finding),
    }
}
