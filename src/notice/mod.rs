//! Reads a notice: the bytes of a mail in, username and token out.
//!
//! PURE: no clock, no files, no environment, no tasks; a test greps this
//! folder's `use` lines. The same bytes always read the same.
//!
//! Invariant 3, *no guessing*, lives here: where two usernames or two tokens
//! could be meant, where the parts of a mail disagree, where text is hidden or
//! its encoding broken, the answer is [`NotANotice::Held`] and nothing is
//! picked. Who sent the mail is deliberately absent: that is `sender`'s
//! question, and `judge` asks both.
//!
//! The way of a mail through this room: `structure` takes it apart, `mime`
//! makes what a mail reader would show of it, plain and HTML, with `decode` for
//! its octets, `html` for what a person would see of an HTML part and `text` for
//! characters that look alike; `wording` finds the labels of `wordings` and
//! their values. `reason` says why where nothing is read.

mod decode;
mod html;
mod mime;
mod reason;
mod structure;
mod text;
mod wording;
mod wordings;

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;

use crate::secret::Secret;

pub use mime::is_spelt_exactly;
pub use reason::{Doubt, Ignored, NotANotice};
pub use wordings::{Wording, WordingError, Wordings};

/// A Salesforce username as it was written, and the key by which it compares.
///
/// Usernames are shaped like e-mail addresses and compare without regard to
/// case, as Salesforce compares them.
#[derive(Clone, Debug)]
pub struct Username {
    written: String,
    key: String,
}

impl Username {
    /// Takes a name that somebody wrote: in a mail, in the configuration.
    pub fn new(written: &str) -> Self {
        Self {
            written: written.to_owned(),
            key: written.to_lowercase(),
        }
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl PartialEq for Username {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Username {}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// A token mail that was understood.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Whose token it is.
    pub username: Username,
    /// The security token, case-sensitive.
    pub token: Secret,
}

impl Notice {
    /// The length of the token, where it is another than all that was seen in
    /// recent years (24 and 25): worth a line in the log, and no more.
    pub fn unusual_length(&self) -> Option<usize> {
        let length = self.token.expose().len();
        (!(24..=25).contains(&length)).then_some(length)
    }
}

/// A mail that was read. Not to be printed: the attached mail has the token in it.
pub struct Reading {
    /// What it says.
    pub notice: Notice,
    /// The mail that says it, where it came as an attachment of this one
    /// (`message/rfc822`): its own signature is what counts then.
    pub attached: Option<Vec<u8>>,
}

/// What the headers say of a mail, for logs and for the order of notices.
/// Nothing of it is trusted before `sender` has spoken.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    /// The first address of `From`, as it stands.
    pub from: Option<String>,
    /// `Message-ID` without its brackets.
    pub message_id: Option<String>,
    /// `Date` (RFC 5322, section 3.6.1).
    pub date: Option<Timestamp>,
}

/// A mail as it was parsed, once, for everybody who asks something of it.
pub struct Mail<'a> {
    raw: &'a [u8],
    parsed: Option<mail_parser::Message<'a>>,
    taken: Taken,
}

/// How far a mail was taken apart.
#[derive(Clone, Copy)]
enum Taken {
    /// Whole.
    Apart,
    /// Not beyond its headers, which say that it is none of ours.
    Settled(Ignored),
    /// Not at all, or not beyond its headers, for it has more in it than is looked at.
    TooComplex,
}

impl<'a> Mail<'a> {
    /// Parses the bytes of a mail; never fails, for `read` says what is wrong.
    pub fn parse(raw: &'a [u8], wordings: &Wordings) -> Self {
        let mail = |parsed, taken| Self { raw, parsed, taken };
        // A small mail is taken apart at once; of a large one it is first asked
        // whether that can be done, and whether its headers settle it.
        if raw.len() > SMALL {
            if !mime::is_bounded(mime::header_section(raw)) {
                return mail(None, Taken::TooComplex);
            }
            let head = mime::head(raw);
            if let Some(why) = mime::settled_by_headers(head.as_ref(), wordings) {
                return mail(head, Taken::Settled(why));
            }
            if !mime::is_bounded(raw) {
                return mail(None, Taken::TooComplex);
            }
        }
        let whole = mime::whole(raw);
        let is_whole = whole.is_some();
        let parsed = whole.or_else(|| mime::head(raw));
        let taken = match mime::settled_by_headers(parsed.as_ref(), wordings) {
            Some(why) => Taken::Settled(why),
            None if is_whole => Taken::Apart,
            None => Taken::TooComplex,
        };
        mail(parsed, taken)
    }

    /// The parsed mail, where there is one. Of a mail that its headers settle
    /// these are the headers only.
    pub fn parsed(&self) -> Option<&mail_parser::Message<'a>> {
        self.parsed.as_ref()
    }

    /// The bytes that it was parsed from.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What the headers say.
    pub fn envelope(&self) -> Envelope {
        self.parsed.as_ref().map(mime::envelope).unwrap_or_default()
    }
}

/// Octets of a mail that nothing in it can make costly. A token mail has less.
const SMALL: usize = 8 * 1024;

/// How many attached mails are looked into.
const MAX_ATTACHED: usize = 32;

/// Reads a mail; where it is no notice itself, the one that is attached to it.
pub fn read(mail: &Mail<'_>, wordings: &Wordings) -> Result<Reading, NotANotice> {
    let why = match read_itself(mail, wordings) {
        Ok(notice) => {
            return Ok(Reading {
                notice,
                attached: None,
            });
        }
        Err(why) => why,
    };
    let may_carry = matches!(
        why,
        NotANotice::Ignored(Ignored::NoNotice | Ignored::Quoted)
            | NotANotice::Held(Doubt::Unreadable)
    );
    let (Some(parsed), true, Taken::Apart) = (&mail.parsed, may_carry, mail.taken) else {
        return Err(why);
    };
    let mut found: Option<Result<Reading, NotANotice>> = None;
    for (nth, inner) in mime::attached_mails(parsed, mail.raw).enumerate() {
        if nth == MAX_ATTACHED {
            return Err(NotANotice::Held(Doubt::TooComplex));
        }
        let inner = as_sent(&inner).into_owned();
        let read = match read_itself(&Mail::parse(&inner, wordings), wordings) {
            Ok(notice) => Ok(Reading {
                notice,
                attached: Some(inner),
            }),
            Err(NotANotice::Ignored(_)) => continue,
            Err(held) => Err(held),
        };
        if found.is_some() {
            return Err(NotANotice::Held(Doubt::SeveralMails));
        }
        found = Some(read);
    }
    found.unwrap_or(Err(why))
}

/// Reads what the mail says itself.
fn read_itself(mail: &Mail<'_>, wordings: &Wordings) -> Result<Notice, NotANotice> {
    let parsed = match (mail.taken, &mail.parsed) {
        (Taken::Apart, Some(parsed)) => parsed,
        (Taken::Apart, None) => return Err(NotANotice::Ignored(Ignored::NotAMail)),
        (Taken::Settled(why), _) => return Err(NotANotice::Ignored(why)),
        (Taken::TooComplex, _) => return Err(why_too_complex(mail, wordings)),
    };
    let subject = mime::subject(parsed);
    if mime::is_reply_or_forward(&subject) {
        return Err(NotANotice::Ignored(Ignored::Quoted));
    }
    let announced = wordings.announce(&subject);
    let seen = mime::renditions(parsed);
    let found: Vec<_> = seen
        .shown
        .iter()
        .map(|rendition| wording::find(rendition, announced, wordings))
        .collect();
    let flaw = || flaw(mail.raw, parsed, &seen, wordings);
    match agree(&found) {
        Ok(notice) => {
            let other =
                |r: &mime::Rendition| wording::shows_another_token(&r.visible, &notice.token);
            if seen.shown.iter().any(other) {
                return Err(NotANotice::Held(Doubt::TwoTokens));
            }
            flaw().map_or(Ok(notice), |doubt| Err(NotANotice::Held(doubt)))
        }
        // What announces a token is worth a person's look, and its flaw says more
        // than what could not be found for it.
        Err(NotANotice::Ignored(Ignored::NoNotice)) if announced => {
            Err(NotANotice::Held(flaw().unwrap_or(Doubt::Unreadable)))
        }
        Err(NotANotice::Ignored(Ignored::NoNotice))
            if seen.shown.iter().any(wording::is_linked) =>
        {
            let why = flaw().map_or(NotANotice::Ignored(Ignored::NoNotice), NotANotice::Held);
            Err(why)
        }
        Err(NotANotice::Held(doubt @ (Doubt::Malformed | Doubt::Unreadable))) => {
            Err(NotANotice::Held(flaw().unwrap_or(doubt)))
        }
        Err(why) => Err(why),
    }
}

/// A mail that was not taken apart is looked at as one text.
fn why_too_complex(mail: &Mail<'_>, wordings: &Wordings) -> NotANotice {
    let raw = String::from_utf8_lossy(mail.raw);
    let subject = mail.parsed.as_ref().map(mime::subject).unwrap_or_default();
    let announced = wordings.announce(&subject) || wordings.announce(&text::one_line(&raw));
    if announced || wording::links_help(&raw) {
        NotANotice::Held(Doubt::TooComplex)
    } else {
        NotANotice::Ignored(Ignored::NoNotice)
    }
}

/// What keeps a mail that looks like a notice from being relied on.
fn flaw(
    raw: &[u8],
    parsed: &mail_parser::Message<'_>,
    seen: &mime::Renditions,
    wordings: &Wordings,
) -> Option<Doubt> {
    let hides = |r: &mime::Rendition| {
        wording::is_suspicious(&r.hidden, wordings)
            || wording::hides_within_labels(&r.visible, wordings)
            || r.visible.contains(text::RIGHT_TO_LEFT_OVERRIDE)
    };
    if mime::has_ambiguous_headers(raw, parsed) {
        Some(Doubt::DuplicateHeader)
    } else if seen.broken || mime::has_bare_cr(raw) {
        Some(Doubt::BrokenEncoding)
    } else if seen.too_complex {
        Some(Doubt::TooComplex)
    } else if seen.shown.iter().any(hides) {
        Some(Doubt::HiddenText)
    } else {
        None
    }
}

/// Whether the headers alone make a mail worth fetching: its subject is that
/// of a token mail, or it comes from one of `senders`. Anything else is never
/// downloaded whole.
pub fn worth_reading(headers: &[u8], senders: &[String], wordings: &Wordings) -> bool {
    let Some(parsed) = mime::head(headers) else {
        return false;
    };
    let subject = mime::subject(&parsed);
    if wording::mentions_token(&subject) || wordings.announce(&subject) {
        return true;
    }
    // `From` is searched as text and not parsed: a strange one must come
    // through, so that `sender` may say what is wrong with it.
    mime::raw_fields(&parsed, headers, "From").any(|value| {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        senders
            .iter()
            .any(|sender| value.contains(&sender.to_ascii_lowercase()))
    })
}

/// A mail with the line ends that it had on its way: CRLF (RFC 5322, section
/// 2.3). A saved mail may have LF, and some mails have both. Who reads a mail
/// and who verifies its signature must see the same lines, so this is done once
/// and before either.
pub fn as_sent(raw: &[u8]) -> Cow<'_, [u8]> {
    let is_bare = |at: usize| at.checked_sub(1).and_then(|at| raw.get(at)) != Some(&b'\r');
    if !memchr::memchr_iter(b'\n', raw).any(is_bare) {
        return raw.into();
    }
    let mut sent = Vec::with_capacity(raw.len().saturating_add(raw.len() / 16));
    for line in raw.split_inclusive(|b| *b == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                sent.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                sent.extend_from_slice(b"\r\n");
            }
            None => sent.extend_from_slice(line),
        }
    }
    sent.into()
}

/// What the headers of a mail say, which need not be whole.
pub fn envelope(headers: &[u8]) -> Envelope {
    mime::head(headers)
        .as_ref()
        .map(mime::envelope)
        .unwrap_or_default()
}

/// The words that a server is asked to look for in `Subject`, so that a token
/// mail is found whoever sent it.
pub const SUBJECT_SEARCH: &str = "security token";

/// One notice where all renditions that hold one agree.
fn agree(found: &[wording::Found]) -> Result<Notice, NotANotice> {
    let mut agreed: Option<Notice> = None;
    let mut failure = NotANotice::Ignored(Ignored::NoNotice);
    for rendition in found {
        match rendition {
            Ok(notice) => {
                if let Some(other) = &agreed
                    && (other.username != notice.username || other.token != notice.token)
                {
                    return Err(NotANotice::Held(Doubt::PartsDisagree));
                }
                agreed.get_or_insert_with(|| notice.clone());
            }
            // A rendition without any notice is "please use an HTML reader";
            // one that doubts is a disagreement.
            Err(NotANotice::Ignored(Ignored::NoNotice)) => {}
            Err(why) => failure = *why,
        }
    }
    match (agreed, failure) {
        (Some(notice), NotANotice::Ignored(Ignored::NoNotice)) => Ok(notice),
        (Some(_), NotANotice::Ignored(_)) => Err(NotANotice::Held(Doubt::PartsDisagree)),
        (_, failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests;
