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

    /// The lower-case form that is compared and stored under.
    pub fn key(&self) -> &str {
        &self.key
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
mod tests {
    use super::*;

    const MAIL: &str = "From: support@salesforce.com\r\n\
        Subject: Your new Salesforce security token\r\n\r\n\
        Username: mariana@idalko.com\r\n\
        Security token (case-sensitive): Efdli7MO6ISYJj5Jy3tSDc5\r\n";

    fn outcome(mail: &str) -> String {
        match read(&Mail::parse(mail.as_bytes())) {
            Ok(notice) => format!("{} {}", notice.username, notice.token.expose()),
            Err(why) => why.code().to_owned(),
        }
    }

    #[test]
    fn the_mail_of_the_help_page_is_read() {
        assert_eq!(outcome(MAIL), "mariana@idalko.com Efdli7MO6ISYJj5Jy3tSDc5");
    }

    #[test]
    fn two_tokens_are_never_guessed_between() {
        let second = MAIL.to_owned() + "Security token: AAAAbbbbCCCCddddEEEE1234\r\n";
        assert_eq!(outcome(&second), "two-tokens");
        for more in [
            "AAAAbbbbCCCCddddEEEE1234",
            "Your other token is AAAAbbbbCCCCddddEEEE1234.",
            "> Security token: AAAAbbbbCCCCddddEEEE1234",
        ] {
            let beside = format!("{MAIL}\r\n{more}\r\n");
            assert_eq!(outcome(&beside), "two-tokens", "{more}");
        }
        for more in ["Security token: Efdli-7MO6", "Username: somebody"] {
            let beside = format!("{MAIL}\r\n{more}\r\n");
            assert_eq!(outcome(&beside), "malformed", "{more}");
        }
    }

    #[test]
    fn a_token_in_another_part_is_a_disagreement() {
        for html in [
            "<p>Username: mariana@idalko.com Security token: AAAAbbbbCCCCddddEEEE1234</p>",
            "<p><b>AAAAbbbbCCCCddddEEEE1234</b></p>",
        ] {
            let mail = format!(
                "Subject: Your new Salesforce security token\r\nMIME-Version: 1.0\r\n\
                 Content-Type: multipart/alternative; boundary=b\r\n\r\n\
                 --b\r\nContent-Type: text/plain\r\n\r\n{}\r\n\
                 --b\r\nContent-Type: text/html\r\n\r\n{html}\r\n--b--\r\n",
                MAIL.split("\r\n\r\n").nth(1).unwrap()
            );
            assert_eq!(outcome(&mail), "two-tokens", "{html}");
        }
    }

    #[test]
    fn a_token_that_was_cut_is_not_read() {
        for cut in [
            "Efdli7MO6ISYJj5Jy3tS Dc5",
            "Efdli7MO6ISYJj5Jy3tS\u{a0}Dc5",
            "Efdli7MO6ISYJj5Jy3tS\r\nDc5",
            "Efdli7MO6ISYJj5Jy3tS\rDc5",
        ] {
            let mail = MAIL.replace("Efdli7MO6ISYJj5Jy3tSDc5", cut);
            assert_eq!(outcome(&mail), "malformed", "{cut:?}");
        }
        // Base64 without its padding, the token at the very end.
        let body =
            "VXNlcm5hbWU6IGFAYi5jbwpTZWN1cml0eSB0b2tlbjogRWZkbGk3TU82SVNZSmo1Snkz\r\ndFNEYzV4eQ";
        let mail = format!(
            "Subject: Your new Salesforce security token\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{body}"
        );
        assert_eq!(outcome(&mail), "broken-encoding");
        assert_eq!(
            outcome(&format!("{mail}==")),
            "a@b.co Efdli7MO6ISYJj5Jy3tSDc5xy"
        );
    }

    #[test]
    fn banners_and_prefixes_do_not_hide_a_notice() {
        let banner = MAIL.replace("\r\n\r\n", "\r\n\r\n----- EXTERNAL MESSAGE -----\r\n\r\n");
        assert!(outcome(&banner).starts_with("mariana@"));
        for subject in ["TR-uat Sandbox: ", "VS Sandbox: ", "[EXTERNAL] Sandbox:  "] {
            let mail = MAIL.replace("Your new", &format!("{subject}Your new"));
            assert!(outcome(&mail).starts_with("mariana@"), "{subject}");
        }
        for subject in ["Re: ", "RE[2]: ", "Fwd: ", "[EXTERNAL] AW: "] {
            let mail = MAIL.replace("Your new", &format!("{subject}Your new"));
            assert_eq!(outcome(&mail), "quoted", "{subject}");
        }
    }

    #[test]
    fn a_field_in_disguise_is_a_second_one() {
        for second in [
            "Date : Fri, 1 Jan 2099 00:00:00 +0000",
            "Da te: x",
            "Date: x",
            "Content-Type : text/plain; charset=UTF-8",
        ] {
            let mail = format!(
                "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nContent-Type: text/plain\r\n{second}\r\n{MAIL}"
            );
            assert_eq!(outcome(&mail), "duplicate-header", "{second}");
        }
    }

    /// Each pair of tags makes the tree builder open all the earlier ones
    /// again: a mail of this size took gigabytes.
    #[test]
    fn html_that_would_take_all_memory_is_not_rendered() {
        let bomb: String = (0..4000)
            .map(|n| format!("<b a={n}><p>"))
            .fold(String::new(), |all, one| all + &one);
        let html = |body: &str| {
            let headers =
                "Subject: Your new Salesforce security token\r\nContent-Type: text/html\r\n\r\n";
            outcome(&format!("{headers}{body}"))
        };
        assert_eq!(html(&bomb), "unreadable");
        let notice =
            "<p>Username: mariana@idalko.com</p><p>Security token: Efdli7MO6ISYJj5Jy3tSDc5</p>";
        assert!(html(notice).starts_with("mariana@"));
    }

    #[test]
    fn a_token_mail_that_cannot_be_read_is_held_and_not_dropped() {
        let cut = MAIL.split("Username").next().unwrap_or_default();
        assert_eq!(outcome(cut), "unreadable");
        let short = MAIL.replace("Efdli7MO6ISYJj5Jy3tSDc5", "Efdli7MO6I");
        assert_eq!(outcome(&short), "malformed");
    }

    #[test]
    fn headers_decide_what_is_fetched() {
        let senders = ["support@salesforce.com".to_owned()];
        let ours = b"From: <SUPPORT@salesforce.com>\r\nSubject: x\r\n\r\n";
        let forged = b"From: a@b.c\r\nSubject: Re: SECURITY token\r\n\r\n";
        let other = b"From: a@b.c\r\nSubject: lunch\r\n\r\n";
        assert!(worth_reading(ours, &senders));
        assert!(worth_reading(forged, &senders));
        assert!(!worth_reading(other, &senders));
    }
}
