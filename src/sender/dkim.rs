//! DKIM signatures (RFC 6376), verified by mail-auth, with their keys from the DNS.
//!
//! Only signatures whose domain aligns with `From` are looked at, and at most
//! [`MAX_SIGNATURES`] of them, so that a mail cannot make us ask the DNS about
//! other people's names. A signature that does not cover `From`, or that
//! covers only a part of the body (`l=`), is none.

use mail_auth::arc::ArcError;
use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::DkimError;
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, DnsError, Error, Parameters};

use super::keys::{DEADLINE, Keys, Objection};
use super::{Distrust, Proof, Uncertainty, Verdict, aligned};

/// How many aligned signatures of one mail are looked at.
const MAX_SIGNATURES: usize = 4;

/// How many header fields a signature may name. Real ones name some twenty;
/// the work of a verifier grows with their number times that of the fields.
const MAX_SIGNED_FIELDS: usize = 128;

/// Verifies; `None` where no signature is aligned. `message` must have been
/// parsed strictly: mail-auth makes signatures with `l=` errors then.
pub(super) async fn verify(
    message: &mut AuthenticatedMessage<'_>,
    from_domain: &str,
    keys: &Keys,
) -> Option<Verdict> {
    let unreadable = message
        .errors
        .iter()
        .filter(|error| error.name.eq_ignore_ascii_case(b"DKIM-Signature"));
    let mut unusable = unreadable
        .filter_map(|error| unreadable_one(error.value, &error.header))
        .find(|(domain, _)| aligned(domain, from_domain))
        .map(|(_, verdict)| verdict);
    message.dkim_headers.retain_mut(|header| {
        if !aligned(&header.header.d, from_domain) {
            return false;
        }
        // No reports to anyone (RFC 6651): they would be look-ups for a stranger.
        header.header.r = false;
        header.header.atps = None;
        let flaw = flaw(&header.header.h, header.header.a)
            .or_else(|| (!is_dkim_1(header.value)).then_some("its tags are not those of DKIM"));
        if let Some(flaw) = flaw {
            unusable = Some(failed(&header.header.d, &header.header.s, flaw));
        }
        flaw.is_none()
    });
    message.dkim_headers.truncate(MAX_SIGNATURES);
    if message.dkim_headers.is_empty() {
        return unusable;
    }
    let parameters = Parameters::new(&*message).with_txt_cache(keys.cache.as_ref());
    let resolver = keys.resolver();
    let Ok(outputs) = tokio::time::timeout(DEADLINE, resolver.verify_dkim(parameters)).await else {
        keys.renew();
        return Some(undecided("the DNS gave no DKIM key in time"));
    };
    verdict(&outputs, keys).or(unusable)
}

/// What is said of a signature that mail-auth did not take, and whose it is.
fn unreadable_one(value: &[u8], error: &Error) -> Option<(String, Verdict)> {
    let tags = tags(value)?;
    let tag = |name: &str| tags.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let why = if matches!(error, Error::Dkim(DkimError::SignatureLength)) {
        "it covers only a part of the body (l=)".to_owned()
    } else {
        format!("it cannot be read ({error})")
    };
    let domain = tag("d")?;
    let verdict = failed(&domain, &tag("s").unwrap_or_default(), &why);
    Some((domain, verdict))
}

/// Why a signature counts for nothing, whatever it is worth.
pub(super) fn flaw(signed: &[String], algorithm: Algorithm) -> Option<&'static str> {
    if !covers(signed, "from") {
        Some("it does not cover From")
    } else if signed.len() > MAX_SIGNED_FIELDS {
        Some("it names too many header fields")
    } else if algorithm == Algorithm::RsaSha1 {
        // RFC 8301, section 3.1.
        Some("it is made with SHA-1")
    } else {
        None
    }
}

/// Whether a signature has the tags that it must have and none twice, which
/// mail-auth 0.13.3 does not ask (RFC 6376, sections 3.2 and 3.5).
fn is_dkim_1(value: &[u8]) -> bool {
    let Some(tags) = tags(value) else {
        return false;
    };
    let tag = |name: &str| tags.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    tag("v").is_some_and(|v| v == "1")
        && tag("a").is_some()
        && tag("q").is_none_or(|q| q.split(':').any(|way| way.trim() == "dns/txt"))
}

/// The tags of a list; `None` where one stands twice, which makes all of it void.
pub(super) fn tags(list: &[u8]) -> Option<Vec<(String, String)>> {
    let mut tags: Vec<(String, String)> = Vec::new();
    for tag in std::str::from_utf8(list).ok()?.split(';') {
        if let Some((name, value)) = tag.split_once('=') {
            let name = name.trim().to_owned();
            if tags.iter().any(|(known, _)| *known == name) {
                return None;
            }
            tags.push((name, value.trim().to_owned()));
        }
    }
    Some(tags)
}

fn covers(signed: &[String], field: &str) -> bool {
    signed.iter().any(|name| name.eq_ignore_ascii_case(field))
}

fn verdict(outputs: &[DkimOutput<'_>], keys: &Keys) -> Option<Verdict> {
    let mut answer: Option<Verdict> = None;
    for (output, signature) in outputs
        .iter()
        .filter_map(|output| Some((output, output.signature()?)))
    {
        let verdict = match output.result() {
            DkimResult::Pass => match keys.objection(&signature.s, &signature.d) {
                None => {
                    return Some(Verdict::Trusted(Proof::Dkim {
                        domain: signature.d.clone(),
                        selector: signature.s.clone(),
                        date_signed: covers(&signature.h, "date"),
                    }));
                }
                Some(Objection::NotAtHand) => undecided("the DKIM key was let go meanwhile"),
                Some(Objection::Says(why)) => failed(&signature.d, &signature.s, why),
            },
            DkimResult::TempError(error) => undecided(&format!(
                "the DKIM key {}._domainkey.{} could not be looked up: {error}",
                signature.s, signature.d
            )),
            DkimResult::Fail(error) | DkimResult::Neutral(error) | DkimResult::PermError(error) => {
                failed(&signature.d, &signature.s, &why(error))
            }
            DkimResult::None => continue,
        };
        // A failure that may pass away outweighs one that will not; else the
        // newest signature is the one to speak of.
        let is_undecided = matches!(verdict, Verdict::Undecided(_));
        if answer.is_none() || (is_undecided && !matches!(answer, Some(Verdict::Undecided(_)))) {
            answer = Some(verdict);
        }
    }
    if matches!(answer, Some(Verdict::Undecided(_))) {
        keys.renew();
    }
    answer
}

/// What a verification failed over, for a person.
pub(super) fn why(error: &Error) -> String {
    if let Error::Dkim(DkimError::FailedBodyHashMatch) | Error::Arc(ArcError::FailedBodyHashMatch) =
        error
    {
        "the body was changed after it was made".to_owned()
    } else if let Error::Dns(DnsError::RecordNotFound(_)) = error {
        "there is no such key in the DNS".to_owned()
    } else if let Error::Crypto(_) = error {
        format!("a signed header field was changed, or the key is another or too weak ({error})")
    } else {
        error.to_string()
    }
}

fn failed(domain: &str, selector: &str, why: &str) -> Verdict {
    Verdict::Untrusted(Distrust::DkimFailed {
        domain: domain.to_owned(),
        selector: selector.to_owned(),
        why: why.to_owned(),
    })
}

pub(super) fn undecided(why: &str) -> Verdict {
    Verdict::Undecided(Uncertainty::Dns(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_of_a_signature_are_those_of_the_rfc() {
        let good = b" v=1; a=rsa-sha256; d=a.example;\r\n q=dns/txt ; b=x==";
        assert!(is_dkim_1(good));
        for bad in [
            "a=rsa-sha256; d=a.example",
            "v=1; d=a.example",
            "v=2; a=rsa-sha256",
            "v=1; a=rsa-sha256; q=finger",
            "v=1; a=rsa-sha256; d=a.example; d=b.example",
        ] {
            assert!(!is_dkim_1(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_signature_that_proves_too_little_counts_for_nothing() {
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let flaw = |all: &[&str], algorithm| flaw(&names(all), algorithm);
        assert!(flaw(&["To", "FROM"], Algorithm::RsaSha256).is_none());
        assert!(flaw(&["to"], Algorithm::RsaSha256).is_some());
        assert!(flaw(&["from"], Algorithm::RsaSha1).is_some());
        assert!(flaw(&["from"; 129], Algorithm::Ed25519Sha256).is_some());
    }
}
