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
//! * `sender-address`: the address alone, for who switches that on.
//!
//! SPF is deliberately absent: every customer's Salesforce sends with an
//! envelope that passes.

mod auth_results;
mod dkim;
mod from;

use std::fmt;

use crate::notice::Mail;

pub use dkim::{Keys, KeysError};

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
    /// An `Authentication-Results` header of our own receiver, by its authserv-id.
    Receiver(String),
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
    /// A signature of the sender's domain does not verify.
    DkimFailed(String),
    /// Our own receiver says that the mail failed its checks.
    ReceiverFailed(String),
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
                Distrust::DkimFailed(_) => "dkim-failed",
                Distrust::ReceiverFailed(_) => "receiver-failed",
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
            Self::Trusted(Proof::Receiver(id)) => {
                write!(f, "our receiver {id} says that it passed")
            }
            Self::Trusted(Proof::SenderAddress) => {
                f.write_str("its From address is listed, and nothing more is asked for")
            }
            Self::Untrusted(why) => match why {
                Distrust::FromMalformed => f.write_str("From is not exactly one address"),
                Distrust::SenderNotListed(address) => {
                    write!(f, "{address} is none of trust.senders")
                }
                Distrust::NoProof => f.write_str(
                    "no DKIM signature of the sender's domain, and no word of a receiver of ours",
                ),
                Distrust::DkimFailed(why) => write!(f, "its DKIM signature does not hold: {why}"),
                Distrust::ReceiverFailed(id) => {
                    write!(f, "our receiver {id} says that it failed")
                }
            },
            Self::Undecided(Uncertainty::Dns(why)) => {
                write!(f, "the DKIM key could not be looked up: {why}")
            }
        }
    }
}

/// Judges the sender of a mail. `raw` are the bytes that `mail` was parsed from.
pub async fn judge(raw: &[u8], mail: &Mail<'_>, policy: &Policy, keys: &Keys) -> Verdict {
    let Some(parsed) = mail.parsed() else {
        return Verdict::Untrusted(Distrust::FromMalformed);
    };
    let address = match from::address(parsed) {
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
    // The receiver's word costs nothing; the signature may cost a look-up.
    let mut distrust = Distrust::NoProof;
    if policy.receiver {
        match auth_results::ask(parsed, &policy.receivers, domain) {
            Some((id, true)) => return Verdict::Trusted(Proof::Receiver(id)),
            Some((id, false)) => distrust = Distrust::ReceiverFailed(id),
            None => {}
        }
    }
    if policy.dkim {
        match dkim::verify(raw, parsed, domain, keys).await {
            dkim::Answer::NoSignature => {}
            dkim::Answer::Verdict(verdict) => return verdict,
        }
    }
    Verdict::Untrusted(distrust)
}

/// Whether two domains belong together: they are the same, or one lies under
/// the other. This is stricter than the relaxed alignment of RFC 7489 (section
/// 3.1.1), for two sub-domains of one organisation do not align here, and it
/// needs no list of public suffixes.
fn aligned(signer: &str, from: &str) -> bool {
    let (signer, from) = (signer.to_ascii_lowercase(), from.to_ascii_lowercase());
    let under = |child: &str, parent: &str| {
        parent.contains('.')
            && child
                .strip_suffix(parent)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    under(&signer, &from) || under(&from, &signer)
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
        assert!(!aligned("com", "salesforce.com"));
        assert!(!aligned("", "salesforce.com"));
    }
}
