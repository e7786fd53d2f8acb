//! ARC chains (RFC 8617): what a mail server on the way saw before it changed
//! the mail, as a mailing list or a gateway does.
//!
//! A chain is worth what its sealers are worth. The newest one vouches for the
//! seals below it being whole, and not for their being true: anyone can begin a
//! chain with a lie and send it through an honest forwarder. So each sealer
//! of the chain must be one of `trust.arc-sealers`, and the first of them must
//! say that DKIM passed for a domain aligned with `From`.

use mail_auth::common::crypto::Algorithm;
use mail_auth::{AuthenticatedMessage, DkimResult, Parameters};

use super::keys::{DEADLINE, Keys, Objection};
use super::{Distrust, Proof, Verdict, auth_results, dkim};

/// How many sets are verified: each is a look-up or two. RFC 8617 allows 50; a
/// mail that passes through more than a few forwarders of ours is none.
const MAX_SETS: usize = 8;

/// Verifies; `None` where there is no chain, or none of ours has sealed it.
pub(super) async fn verify(
    message: &AuthenticatedMessage<'_>,
    from_domain: &str,
    sealers: &[String],
    keys: &Keys,
) -> Option<Verdict> {
    let is_listed = |domain: &str| sealers.iter().any(|ours| ours.eq_ignore_ascii_case(domain));
    let newest = message.as_headers.last()?;
    if !is_listed(&newest.header.d) {
        return None;
    }
    let failed = |why: &str| Some(Verdict::Untrusted(Distrust::ArcFailed(why.to_owned())));
    if message.has_arc_errors || message.as_headers.len() > MAX_SETS {
        return failed("it cannot be read, or has too many seals");
    }
    let seals = message.as_headers.iter().map(|seal| &seal.header.d);
    let signers = message.ams_headers.iter().map(|ams| &ams.header.d);
    if let Some(stranger) = seals.chain(signers).find(|domain| !is_listed(domain)) {
        return failed(&format!("{stranger} is none of trust.arc-sealers"));
    }
    let fields = message.ams_headers.iter().map(|ams| ams.value);
    let mut fields = fields.chain(message.as_headers.iter().map(|seal| seal.value));
    if fields.any(|field| dkim::tags(field).is_none()) {
        return failed("a tag stands twice in it");
    }
    let is_old = |algorithm| algorithm == Algorithm::RsaSha1;
    if message.as_headers.iter().any(|seal| is_old(seal.header.a)) {
        return failed("a seal is made with SHA-1");
    }
    let signature = &message.ams_headers.last()?.header;
    if let Some(flaw) = dkim::flaw(&signature.h, signature.a) {
        return failed(&format!("of its newest signature: {flaw}"));
    }
    // Sorted by their instance, so this is what the first sealer saw.
    let first = message.aar_headers.first()?;
    let passed = std::str::from_utf8(first.value)
        .ok()
        .is_some_and(|value| auth_results::sealed_pass(value, from_domain));
    if !passed {
        return failed("its first results do not say that DKIM passed for the sender's domain");
    }
    let parameters = Parameters::new(message).with_txt_cache(keys.cache.as_ref());
    let resolver = keys.resolver();
    let Ok(output) = tokio::time::timeout(DEADLINE, resolver.verify_arc(parameters)).await else {
        keys.renew();
        return Some(dkim::undecided("the DNS gave no key of a seal in time"));
    };
    match output.result() {
        DkimResult::Pass => {}
        DkimResult::TempError(error) => {
            keys.renew();
            return Some(dkim::undecided(&format!(
                "a key of a seal could not be looked up: {error}"
            )));
        }
        DkimResult::Fail(error) | DkimResult::Neutral(error) | DkimResult::PermError(error) => {
            return failed(&dkim::why(error));
        }
        DkimResult::None => return None,
    }
    let seals = message.as_headers.iter().map(|seal| &seal.header);
    let used = seals
        .map(|seal| (&seal.s, &seal.d))
        .chain([(&signature.s, &signature.d)]);
    for (selector, domain) in used {
        match keys.objection(selector, domain) {
            None => {}
            Some(Objection::Says(why)) => return failed(&format!("of {domain}: {why}")),
            Some(Objection::NotAtHand) => {
                return Some(dkim::undecided("a key of a seal was let go meanwhile"));
            }
        }
    }
    Some(Verdict::Trusted(Proof::Arc {
        sealer: newest.header.d.clone(),
        domain: from_domain.to_owned(),
    }))
}
