//! Why a mail is no notice: a code for scripts and a sentence for people.

use std::fmt;

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
    /// It has more parts or HTML than are looked at.
    TooComplex,
    /// It is larger than any notice.
    TooLarge,
    /// More than one notice is attached.
    SeveralMails,
    /// A header that must stand once stands twice, or is misspelt so that some
    /// programs take it for that header and others do not.
    DuplicateHeader,
    /// The labels are there, and a value is missing or has an impossible shape.
    Malformed,
    /// It seems to be a token mail, by its subject or its labels alone, and no
    /// username and token are found with certainty.
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
                Doubt::TooLarge => "too-large",
                Doubt::SeveralMails => "several-mails",
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
                Doubt::TooComplex => "it is too complex to be read with certainty",
                Doubt::TooLarge => "it is larger than any token mail, and was not read",
                Doubt::SeveralMails => "more than one token mail is attached to it",
                Doubt::DuplicateHeader => {
                    "a header that may stand once stands in it twice or misspelt"
                }
                Doubt::Malformed => "username or token is missing or has an impossible shape",
                Doubt::Unreadable => {
                    "it seems to be a token mail, but its username and token were not found with certainty"
                }
            },
        })
    }
}
