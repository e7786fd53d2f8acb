//! Who sent a mail: `trusted`, `untrusted` or `undecided`.
//!
//! Invariant 4, *nobody else writes our credentials*, lives here. A mail is
//! trusted when its one `From` address is exactly one of `trust.senders` and
//! one of the accepted proofs stands behind that address:
//!
//! * `dkim`: a signature that verifies and whose domain aligns with `From`
//!   (RFC 6376, and alignment as in RFC 7489, section 3.1.1);
//! * `receiver`: our own mail server says so in `Authentication-Results`
//!   (RFC 8601);
//! * `arc`: forwarders that we list have sealed what the first of them saw (RFC
//!   8617);
//! * `sender-address`: the address alone, for who switches that on.
//!
//! SPF is deliberately absent: every customer's Salesforce sends with an
//! envelope that passes.

mod arc;
mod auth_results;
mod dkim;
mod from;
mod keys;

use std::fmt;

use mail_auth::AuthenticatedMessage;

use crate::notice::Mail;

pub use keys::{Keys, KeysError};

/// Which senders are trusted, and by which proofs.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Exact addresses, the domain in lower case.
    pub senders: Vec<String>,
    /// Accept a DKIM signature aligned with `From`.
    pub dkim: bool,
    /// Accept the word of our own receivers.
    pub receiver: bool,
    /// Accept the `From` address alone.
    pub sender_address: bool,
    /// The authserv-ids of our own mail servers.
    pub receivers: Vec<String>,
    /// The domains whose ARC seals are believed; with none, ARC is not looked at.
    pub arc_sealers: Vec<String>,
}

impl Policy {
    /// What is asked of a mail that is attached to another one. Who attached it
    /// could have written every field of it, so its own signature is all that
    /// counts.
    #[must_use]
    pub fn of_attached(&self) -> Self {
        Self {
            receiver: false,
            sender_address: false,
            arc_sealers: Vec::new(),
            ..self.clone()
        }
    }
}

/// Whether a mail may change a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may, and this is why.
    Trusted(Proof),
    /// It may not.
    Untrusted(Distrust),
    /// It cannot be told now; ask again later.
    Undecided(Uncertainty),
}

/// What a trusted sender was proved by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A DKIM signature: its domain, its selector, and whether it covers `Date`.
    Dkim {
        /// `d=`
        domain: String,
        /// `s=`
        selector: String,
        /// The signature covers the `Date` header.
        date_signed: bool,
    },
    /// An `Authentication-Results` header of our own receiver.
    Receiver {
        /// Its authserv-id.
        id: String,
        /// What it said: `dkim=pass` or `dmarc=pass`.
        result: String,
    },
    /// A chain of seals of forwarders that we list.
    Arc {
        /// `d=` of the newest seal.
        sealer: String,
        /// The domain for which DKIM had passed.
        domain: String,
    },
    /// The address alone.
    SenderAddress,
}

impl Proof {
    /// Whether `Date` can be relied on for the order of notices (invariant 2).
    pub fn date_signed(&self) -> bool {
        matches!(
            self,
            Self::Dkim {
                date_signed: true,
                ..
            }
        )
    }
}

/// Why a mail is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// `From` is missing, stands twice, or is not exactly one address.
    FromMalformed,
    /// The address is none of `trust.senders`.
    SenderNotListed(String),
    /// No signature of the sender's domain, and no word of our receiver.
    NoProof,
    /// A signature of the sender's domain does not hold.
    DkimFailed {
        /// `d=`
        domain: String,
        /// `s=`
        selector: String,
        /// What it failed over.
        why: String,
    },
    /// Our own receiver does not say that the mail passed its checks.
    ReceiverFailed {
        /// Its authserv-id.
        id: String,
        /// What it says.
        results: String,
    },
    /// A chain of seals whose newest one is of a forwarder that we list does
    /// not hold.
    ArcFailed(String),
}

/// Why it cannot be told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncertainty {
    /// The DNS did not answer in time, or answered with a failure of its own.
    Dns(String),
}

impl Verdict {
    /// `trusted`, `untrusted` or `undecided`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Trusted(_) => "trusted",
            Self::Untrusted(_) => "untrusted",
            Self::Undecided(_) => "undecided",
        }
    }

    /// A stable code for the reason, where the mail is not trusted.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Trusted(_) => None,
            Self::Untrusted(why) => Some(match why {
                Distrust::FromMalformed => "from-malformed",
                Distrust::SenderNotListed(_) => "sender-not-listed",
                Distrust::NoProof => "sender-not-proved",
                Distrust::DkimFailed { .. } => "dkim-failed",
                Distrust::ReceiverFailed { .. } => "receiver-failed",
                Distrust::ArcFailed(_) => "arc-failed",
            }),
            Self::Undecided(Uncertainty::Dns(_)) => Some("dns-unavailable"),
        }
    }
}

impl fmt::Display for Verdict {
    /// One sentence for a person, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted(Proof::Dkim {
                domain, selector, ..
            }) => {
                write!(f, "signed by {domain} with key {selector}")
            }
            Self::Trusted(Proof::Receiver { id, result }) => {
                write!(f, "Authentication-Results of {id} says {result}")
            }
            Self::Trusted(Proof::Arc { sealer, domain }) => write!(
                f,
                "sealed by {sealer}, and when the first sealer saw it {domain} had signed it"
            ),
            Self::Trusted(Proof::SenderAddress) => {
                f.write_str("its From address is listed, and nothing more is asked for")
            }
            Self::Untrusted(why) => match why {
                Distrust::FromMalformed => f.write_str("From is not exactly one address"),
                Distrust::SenderNotListed(address) => {
                    write!(f, "{} is none of trust.senders", from::shown(address))
                }
                Distrust::NoProof => f.write_str(
                    "it has nothing that trust.accept takes for a proof: no DKIM signature of the sender's domain, no word of a receiver of ours",
                ),
                Distrust::DkimFailed {
                    domain,
                    selector,
                    why,
                } => write!(
                    f,
                    "the DKIM signature of {domain} with key {selector} does not count: {why}"
                ),
                Distrust::ReceiverFailed { id, results } => write!(
                    f,
                    "Authentication-Results of {id} says {results}, which is no pass for the sender's domain"
                ),
                Distrust::ArcFailed(why) => write!(f, "its ARC chain does not count: {why}"),
            },
            Self::Undecided(Uncertainty::Dns(why)) => {
                write!(f, "{why}")
            }
        }
    }
}

/// Judges the sender of a mail. Each accepted proof is enough, so one that is
/// missing or broken does not outvote another that holds.
pub async fn judge(mail: &Mail<'_>, policy: &Policy, keys: &Keys) -> Verdict {
    let Some(parsed) = mail.parsed() else {
        return Verdict::Untrusted(Distrust::FromMalformed);
    };
    let address = match from::address(parsed, mail.raw()) {
        Ok(address) => address,
        Err(why) => return Verdict::Untrusted(why),
    };
    if !policy.senders.contains(&address) {
        return Verdict::Untrusted(Distrust::SenderNotListed(address));
    }
    if policy.sender_address {
        return Verdict::Trusted(Proof::SenderAddress);
    }
    let domain = from::domain(&address);
    // What is known so far, the more telling in place of the less.
    let mut verdict = Verdict::Untrusted(Distrust::NoProof);
    // The receiver's word costs nothing; a signature may cost a look-up.
    if policy.receiver
        && let Some(word) = auth_results::ask(parsed, mail.raw(), &policy.receivers, domain)
    {
        let (id, results) = (word.authserv_id, word.results);
        if word.passed {
            let result = results;
            return Verdict::Trusted(Proof::Receiver { id, result });
        }
        verdict = Verdict::Untrusted(Distrust::ReceiverFailed { id, results });
    }
    if !policy.dkim && policy.arc_sealers.is_empty() {
        return verdict;
    }
    // `true`: signatures that cover a part of the body only become errors.
    let mut message = AuthenticatedMessage::from_parsed(parsed, mail.raw(), true);
    if policy.dkim {
        match dkim::verify(&mut message, domain, keys).await {
            Some(trusted @ Verdict::Trusted(_)) => return trusted,
            Some(other) => verdict = other,
            None => {}
        }
    }
    match arc::verify(&message, domain, &policy.arc_sealers, keys).await {
        Some(trusted @ Verdict::Trusted(_)) => trusted,
        // Where one proof cannot be judged now, nothing is final.
        Some(undecided @ Verdict::Undecided(_)) => undecided,
        Some(failed) if verdict == Verdict::Untrusted(Distrust::NoProof) => failed,
        _ => verdict,
    }
}

/// Whether two domains belong together: relaxed alignment, by the organisational
/// domain that the public suffix list tells (RFC 7489, sections 3.1.1 and 3.2).
fn aligned(signer: &str, from: &str) -> bool {
    let (signer, from) = (signer.to_ascii_lowercase(), from.to_ascii_lowercase());
    let is_host = |name: &str| !name.starts_with('.') && !name.ends_with('.');
    if !is_host(&signer) || !is_host(&from) {
        return false;
    }
    match (psl::domain_str(&signer), psl::domain_str(&from)) {
        (Some(signer), Some(from)) => signer == from,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_by_whole_labels() {
        assert!(aligned("salesforce.com", "salesforce.com"));
        assert!(aligned("salesforce.com", "EMEA.salesforce.com"));
        assert!(aligned("emea.salesforce.com", "salesforce.com"));
        assert!(!aligned("evilsalesforce.com", "salesforce.com"));
        assert!(!aligned("salesforce.com.evil.example", "salesforce.com"));
        assert!(aligned("mail.salesforce.com", "emea.salesforce.com"));
        assert!(!aligned("salesforce.com.", "salesforce.com"));
        assert!(!aligned("com", "salesforce.com"));
        assert!(!aligned("a.co.uk", "b.co.uk"));
        assert!(!aligned("", "salesforce.com"));
    }
}
