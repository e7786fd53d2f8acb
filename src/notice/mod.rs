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
//! The way of a mail through this room: `mime` takes out what each
//! rendition of the mail shows, `html` what a person would see of an HTML
//! part, `text` makes look-alike characters equal, `wording` finds the
//! labels and values.

mod html;
mod mime;
mod text;
mod wording;

use std::fmt;

use jiff::Timestamp;

use crate::secret::Secret;

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

/// Why a mail is no notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotANotice {
    /// It is about something else; nobody needs to know.
    Ignored(Ignored),
    /// It looks like a notice and cannot be read with certainty: a person decides.
    Held(Doubt),
}

/// Why a mail is none of our business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Not a mail at all.
    NotAMail,
    /// No username and token stand in it.
    NoNotice,
    /// A reply or a forwarded mail that quotes one.
    Quoted,
    /// A delivery report.
    Bounce,
    /// A newsletter or a mailing list.
    Bulk,
    /// A sample: the token is a row of one letter.
    Placeholder,
}

/// Why a mail that looks like a notice is not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Two different tokens could be meant.
    TwoTokens,
    /// Two different usernames could be meant.
    TwoUsernames,
    /// The plain and the HTML part say different things.
    PartsDisagree,
    /// Text that a person would not see holds a token or a label.
    HiddenText,
    /// A part could not be decoded without loss.
    BrokenEncoding,
    /// A part has more HTML than is rendered.
    TooComplex,
    /// A header that must stand once stands twice.
    DuplicateHeader,
    /// The labels are there, and a value is missing or has an impossible shape.
    Malformed,
    /// The subject is that of a token mail, and no username and token are found.
    Unreadable,
}

impl NotANotice {
    /// A stable kebab-case code for scripts.
    pub fn code(self) -> &'static str {
        match self {
            Self::Ignored(why) => match why {
                Ignored::NotAMail => "not-a-mail",
                Ignored::NoNotice => "no-notice",
                Ignored::Quoted => "quoted",
                Ignored::Bounce => "bounce",
                Ignored::Bulk => "bulk",
                Ignored::Placeholder => "placeholder",
            },
            Self::Held(why) => match why {
                Doubt::TwoTokens => "two-tokens",
                Doubt::TwoUsernames => "two-usernames",
                Doubt::PartsDisagree => "parts-disagree",
                Doubt::HiddenText => "hidden-text",
                Doubt::BrokenEncoding => "broken-encoding",
                Doubt::TooComplex => "too-complex",
                Doubt::DuplicateHeader => "duplicate-header",
                Doubt::Malformed => "malformed",
                Doubt::Unreadable => "unreadable",
            },
        }
    }
}

impl fmt::Display for NotANotice {
    /// One sentence for a person, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignored(why) => match why {
                Ignored::NotAMail => "this is not a mail",
                Ignored::NoNotice => "no username and security token stand in it",
                Ignored::Quoted => "a reply or forwarded mail that quotes a token mail",
                Ignored::Bounce => "a delivery report, not a mail from Salesforce",
                Ignored::Bulk => "a newsletter or mailing list, not a token mail",
                Ignored::Placeholder => "the token is a placeholder",
            },
            Self::Held(why) => match why {
                Doubt::TwoTokens => "two different tokens could be meant",
                Doubt::TwoUsernames => "two different usernames could be meant",
                Doubt::PartsDisagree => "its plain and its HTML part disagree",
                Doubt::HiddenText => "text that a person would not see holds a token or a label",
                Doubt::BrokenEncoding => "its encoding is broken, so the token cannot be trusted",
                Doubt::TooComplex => "its HTML is too complex to be read with certainty",
                Doubt::DuplicateHeader => "a header that may stand once stands in it twice",
                Doubt::Malformed => "username or token is missing or has an impossible shape",
                Doubt::Unreadable => {
                    "the subject is that of a token mail, but username and token were not found"
                }
            },
        })
    }
}

/// A mail as it was parsed, once, for everybody who asks something of it.
pub struct Mail<'a> {
    parsed: Option<mail_parser::Message<'a>>,
}

impl<'a> Mail<'a> {
    /// Parses the bytes of a mail; never fails, for `read` says what is wrong.
    pub fn parse(raw: &'a [u8]) -> Self {
        Self {
            parsed: mail_parser::MessageParser::default()
                .parse(raw)
                .filter(|mail| !mail.headers().is_empty()),
        }
    }

    /// The parsed mail, where there is one.
    pub fn parsed(&self) -> Option<&mail_parser::Message<'a>> {
        self.parsed.as_ref()
    }

    /// What the headers say.
    pub fn envelope(&self) -> Envelope {
        self.parsed.as_ref().map(mime::envelope).unwrap_or_default()
    }
}

/// Reads a mail.
pub fn read(mail: &Mail<'_>) -> Result<Notice, NotANotice> {
    let parsed = mail
        .parsed
        .as_ref()
        .ok_or(NotANotice::Ignored(Ignored::NotAMail))?;
    let subject = mime::subject(parsed);
    let announced = wording::is_notice_subject(&subject);
    if let Some(why) = mime::why_not_direct(parsed, &subject, announced) {
        return Err(NotANotice::Ignored(why));
    }

    let seen = mime::renditions(parsed);
    let found: Vec<_> = seen
        .shown
        .iter()
        .map(|rendition| wording::find(rendition, announced))
        .collect();
    let agreed = agree(&found);
    let none_at_all = matches!(agreed, Err(NotANotice::Ignored(Ignored::NoNotice)));
    if none_at_all {
        return Err(if announced {
            NotANotice::Held(Doubt::Unreadable)
        } else {
            NotANotice::Ignored(Ignored::NoNotice)
        });
    }
    let notice = agreed?;
    // From here on the mail looks like a notice, so each flaw is worth a person's look.
    if seen.broken {
        return Err(NotANotice::Held(Doubt::BrokenEncoding));
    }
    if seen.too_complex {
        return Err(NotANotice::Held(Doubt::TooComplex));
    }
    if seen
        .shown
        .iter()
        .any(|r| wording::shows_another_token(&r.visible, &notice.token))
    {
        return Err(NotANotice::Held(Doubt::TwoTokens));
    }
    if seen.shown.iter().any(|r| wording::is_suspicious(&r.hidden)) {
        return Err(NotANotice::Held(Doubt::HiddenText));
    }
    if mime::has_duplicate_headers(parsed) {
        return Err(NotANotice::Held(Doubt::DuplicateHeader));
    }
    Ok(notice)
}

/// Whether the headers alone make a mail worth fetching: its subject is that
/// of a token mail, or it comes from one of `senders`. Anything else is never
/// downloaded whole.
pub fn worth_reading(headers: &[u8], senders: &[String]) -> bool {
    let mail = Mail::parse(headers);
    let Some(parsed) = mail.parsed() else {
        return false;
    };
    if wording::mentions_token(&mime::subject(parsed)) {
        return true;
    }
    // `From` is searched as text and not parsed: a strange one must come
    // through, so that `sender` may say what is wrong with it.
    parsed.headers_raw().any(|(name, value)| {
        name.eq_ignore_ascii_case("from") && {
            let value = value.to_ascii_lowercase();
            senders
                .iter()
                .any(|sender| value.contains(&sender.to_ascii_lowercase()))
        }
    })
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
