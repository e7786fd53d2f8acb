//! The words by which a token mail is known: its subject and its two labels,
//! in the languages of which a real mail was seen, and those that the
//! configuration adds.

use std::fmt::Write;
use std::sync::LazyLock;

use regex::Regex;

use super::text;

/// Up to two line ends may stand between a label and its value: the value on
/// the next line, in the next table cell, or below an empty line.
const GAP: &str = r"[ *]*(?:\n[ *]*){0,2}";

/// English as seen from 2019 to 2021 and before 2016, Japanese as seen on mails and on
/// the help pages. No other language's mail could be had.
const USERNAMES: &str = r"user ?name|ユーザー?名";
const TOKENS: &str = r"security token|セキュリティ ?トークン";
const SUBJECTS: [&str; 2] = [
    "your new salesforce security token",
    "salesforce.com security token confirmation",
];

/// How long a label or a subject may be, in characters.
const MAX_WORDS: usize = 80;

/// The words of one language, as the configuration adds them (`[[wording]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wording {
    /// What a subject must hold for the mail to be known by it.
    pub subject: Option<String>,
    /// The label of the username, without its colon.
    pub username: String,
    /// The label of the token, without its colon and what stands in brackets.
    pub token: String,
}

/// Why a wording is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordingError {
    /// It has no letter.
    #[error("it has no letter")]
    Empty,
    /// It has more than 80 characters.
    #[error("it has more than 80 characters")]
    TooLong,
    /// It has what stands beside a label and not in it.
    #[error(
        "it has a colon, a bracket, `*`, `|` or a line end, which stand beside a label and not in it"
    )]
    NotALabel,
    /// The two labels of a wording are one and the same.
    #[error("username and token have the same label")]
    Same,
    /// All labels together are too many for one pattern.
    #[error("the labels are too many")]
    TooMany,
}

/// All words that are known.
#[derive(Clone, Debug)]
pub struct Wordings {
    /// One capture: the value behind the label.
    pub(super) username: Regex,
    /// Two captures: the value, and what follows on its line.
    pub(super) token: Regex,
    /// A label of the token anywhere: a quick look before the others.
    pub(super) token_label: Regex,
    /// In lower case.
    subjects: Vec<String>,
}

static BUILT_IN: LazyLock<Wordings> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "built from constants, and tests run it")]
    Wordings::new(&[]).expect("the known wordings")
});

impl Default for Wordings {
    /// The known ones.
    fn default() -> Self {
        BUILT_IN.clone()
    }
}

impl Wordings {
    /// The known ones and `added`.
    pub fn new(added: &[Wording]) -> Result<Self, WordingError> {
        let (mut usernames, mut tokens) = (USERNAMES.to_owned(), TOKENS.to_owned());
        let mut subjects: Vec<String> = SUBJECTS.iter().map(|&known| known.to_owned()).collect();
        for wording in added {
            let (username, token) = (label(&wording.username)?, label(&wording.token)?);
            if username.to_lowercase() == token.to_lowercase() {
                return Err(WordingError::Same);
            }
            // A label that begins like another one must be tried before it.
            usernames = alternatives(&username, &usernames);
            tokens = alternatives(&token, &tokens);
            if let Some(subject) = &wording.subject {
                subjects.push(words(subject)?.to_lowercase());
            }
        }
        let compile = |source: String| Regex::new(&source).map_err(|_| WordingError::TooMany);
        Ok(Self {
            username: compile(format!(r"(?im)^[ *|]*(?:{usernames})[ *]*:{GAP}(\S[^\n]*)"))?,
            token: compile(format!(
                r"(?im)^[ *|]*(?:{tokens})[ *]*(?:\([^()\n]{{1,40}}\))?[ *]*:{GAP}(\S+)([^\n]*)"
            ))?,
            token_label: compile(format!("(?i)(?:{tokens})"))?,
            subjects,
        })
    }

    /// What a server can search subjects for: one of these is in each, but for
    /// what stands around them. In lower case.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        let known = |subject: &&String| !subject.contains(super::SUBJECT_SEARCH);
        let added = self.subjects.iter().filter(known).map(String::as_str);
        std::iter::once(super::SUBJECT_SEARCH).chain(added)
    }

    /// Whether this is the subject of a token mail, whatever stands around it.
    pub(super) fn announce(&self, subject: &str) -> bool {
        let subject = subject.to_lowercase();
        self.subjects
            .iter()
            .any(|known| subject.contains(known.as_str()))
    }
}

fn alternatives(first: &str, others: &str) -> String {
    let mut all = String::with_capacity(first.len().saturating_add(others.len()));
    for (nth, word) in first.split(' ').enumerate() {
        if nth > 0 {
            all.push_str(" ?");
        }
        all.push_str(&regex::escape(word));
    }
    // Writing to a string does not fail.
    let _infallible = write!(all, "|{others}");
    all
}

/// A label as it is looked for; what a person copied along is taken away.
fn label(written: &str) -> Result<String, WordingError> {
    let label = words(written)?;
    if label.contains([':', '(', ')', '*', '|']) {
        return Err(WordingError::NotALabel);
    }
    Ok(label)
}

/// Words with single spaces, as they are found in a normalised text.
fn words(written: &str) -> Result<String, WordingError> {
    if written.chars().any(char::is_control) {
        return Err(WordingError::NotALabel);
    }
    let words = text::one_line(written);
    if words.chars().count() > MAX_WORDS {
        return Err(WordingError::TooLong);
    }
    if !words.chars().any(char::is_alphabetic) {
        return Err(WordingError::Empty);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wording(username: &str, token: &str) -> Wording {
        Wording {
            subject: None,
            username: username.to_owned(),
            token: token.to_owned(),
        }
    }

    #[test]
    fn a_label_is_taken_as_it_stands_and_never_as_a_pattern() {
        let wordings = Wordings::new(&[wording("Nom\u{a0}d'utilisateur", "[a-z]+ .+")]).unwrap();
        assert!(wordings.username.is_match("Nom d'utilisateur : x"));
        assert!(!wordings.token.is_match("anything at all: x"));
        assert!(wordings.token.is_match("[A-Z]+ .+ (x): y"));
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for (wrong, error) in [
            ("", WordingError::Empty),
            (" - ", WordingError::Empty),
            ("Token:", WordingError::NotALabel),
            ("Token (x)", WordingError::NotALabel),
            ("To\nken", WordingError::NotALabel),
            ("User", WordingError::Same),
        ] {
            let added = Wordings::new(&[wording("USER", wrong)]);
            assert_eq!(added.unwrap_err(), error, "{wrong:?}");
        }
        let long = "x".repeat(81);
        let added = Wordings::new(&[wording("User", &long)]);
        assert_eq!(added.unwrap_err(), WordingError::TooLong);
    }

    #[test]
    fn an_added_subject_announces() {
        let mut added = wording("Benutzername", "Sicherheitstoken");
        added.subject = Some("Ihr neuer  Sicherheitstoken".to_owned());
        let wordings = Wordings::new(&[added]).unwrap();
        assert!(wordings.announce("Sandbox: IHR NEUER Sicherheitstoken"));
        assert!(!Wordings::default().announce("Ihr neuer Sicherheitstoken"));
    }
}
