//! Finds username and token in what a person would see.
//!
//! First choice are the labels of [`Wordings`]. Second is the structure that
//! every language shares: the link to the help page on security tokens, a line
//! `label: address`, and on the next line `label: letters-and-digits`.
//! Everything is collected, and only then judged: two different values mean
//! that nothing is picked.

use std::sync::LazyLock;

use regex::{Regex, bytes};

use super::html::HIDDEN_WITHIN;
use super::mime::Rendition;
use super::{Doubt, Ignored, NotANotice, Notice, Username, Wordings};
use crate::secret::Secret;

/// What one rendition holds.
pub(super) type Found = Result<Notice, NotANotice>;

/// The help page that every known token mail links to, in every language.
const HELP_PAGE: [&str; 3] = [
    "user_security_token",
    "user-5Fsecurity-5Ftoken",
    "user%5Fsecurity%5Ftoken",
];

/// How long a token is. Samples have 22 to 25 characters; Salesforce names no
/// length, so there is room on both sides.
const TOKEN_LENGTH: std::ops::RangeInclusive<usize> = 20..=32;

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants, and a test compiles them"
)]
fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern")
}

/// Where a mail program begins to quote another mail. It is looked for in
/// octets, a character of any line being written as its first octet and what
/// follows it: repeated, that takes a tenth of the memory that `[^\n]` does.
static QUOTE: LazyLock<bytes::Regex> = LazyLock::new(|| {
    const ONE: &str = r"(?-u:[^\n\x80-\xBF][\x80-\xBF]*)";
    let source = [
        r"(?im)^[ ]*(?:-{2,}",
        &format!("{ONE}{{0,60}}(?:message|nachricht|mensaje|messaggio|メッセージ){ONE}{{0,20}}"),
        r"-{2,}[ ]*\n(?:[ ]*\n)?[ *]*(?:from|von|de|da|van|från|fra|od|от|差出人|发件人)[ *]*:",
        r"|begin forwarded message|_{10,}\n[ ]*(?:from|von|de|da)[ ]*:",
        &format!("|on {ONE}{{5,120}} wrote:|am {ONE}{{5,120}} schrieb)"),
    ];
    #[expect(clippy::expect_used, reason = "built from constants, and tests run it")]
    bytes::Regex::new(&source.concat()).expect("a constant pattern")
});

/// The longest part of an address before the `@`, in characters.
const LONGEST_LOCAL_PART: usize = 80;

/// `address` or `address <mailto:address>`, as a converter from HTML writes it.
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"^(([^\s@<>()\[\],;:"\\]+)@[^\s@<>()\[\],;:"\\]+\.[^\s@<>()\[\],;:"\\]*[A-Za-z0-9])(?: ?<mailto:[^<>]*>)?$"#,
    )
});

/// Whether a subject has to do with security tokens at all.
pub(super) fn mentions_token(subject: &str) -> bool {
    subject.to_lowercase().contains(super::SUBJECT_SEARCH)
}

/// Whether hidden text holds what should have been visible: a label, or a
/// word with the shape of a token.
pub(super) fn is_suspicious(hidden: &str, wordings: &Wordings) -> bool {
    wordings.username.is_match(hidden)
        || wordings.token.is_match(hidden)
        || hidden.split_whitespace().any(looks_like_token)
}

/// Whether one short line ends with an address, and another with what looks like
/// a token.
fn holds_both(text: &str) -> bool {
    let values = || {
        let is_edge = |c: char| !c.is_ascii_alphanumeric();
        text.lines()
            .filter(|line| line.len() <= 120)
            .filter_map(|line| line.split_whitespace().next_back())
            .map(move |word| word.trim_matches(is_edge))
    };
    values().any(looks_like_token) && values().any(|word| address(word).is_some())
}

/// Whether visible words that hidden text interrupts would be a label.
pub(super) fn hides_within_labels(visible: &str, wordings: &Wordings) -> bool {
    let count = |text: &str| {
        let usernames = wordings.username.find_iter(text).count();
        usernames.saturating_add(wordings.token.find_iter(text).count())
    };
    visible.contains(HIDDEN_WITHIN) && count(visible) != count(&visible.replace(HIDDEN_WITHIN, ""))
}

/// Whether the help page on security tokens is linked or named.
pub(super) fn is_linked(shown: &Rendition) -> bool {
    links_help(&shown.visible) || links_help(&shown.links)
}

/// Looks for one username and one token. `announced` says that the subject is
/// that of a token mail.
pub(super) fn find(shown: &Rendition, announced: bool, wordings: &Wordings) -> Found {
    let linked = is_linked(shown);
    let own = || own_words(&shown.visible);
    if !announced && !linked {
        if !wordings.token_label.is_match(&shown.visible) {
            return Err(NotANotice::Ignored(Ignored::NoNotice));
        }
        // A gateway may have rewritten the link beyond recognition. The labels
        // alone are too little to act on, and too much to pass over.
        return match by_labels(&own().text, wordings) {
            Ok(_) => Err(NotANotice::Held(Doubt::Unreadable)),
            Err(_) => Err(NotANotice::Ignored(Ignored::NoNotice)),
        };
    }
    let own = own();
    let found = match by_labels(&own.text, wordings) {
        Err(NotANotice::Ignored(Ignored::NoNotice)) if linked => by_structure(&own.text),
        found => found,
    };
    match found {
        // All of it is there, and not as it is known: nobody else would be told.
        Err(NotANotice::Ignored(Ignored::NoNotice)) if linked && holds_both(&own.text) => {
            Err(NotANotice::Held(Doubt::Unreadable))
        }
        Err(NotANotice::Ignored(Ignored::NoNotice)) if own.quotes => {
            let all = unquoted(&shown.visible);
            match by_labels(&all, wordings) {
                Err(NotANotice::Ignored(Ignored::NoNotice)) => found,
                // Under the subject of a token mail, what looks like a quotation
                // may be the mail itself behind somebody's banner.
                _ if announced => Err(NotANotice::Held(Doubt::Unreadable)),
                _ => Err(NotANotice::Ignored(Ignored::Quoted)),
            }
        }
        found => found,
    }
}

/// Whether a text has the address of the help page in it, as it is or as
/// gateways write it into links of their own.
pub(super) fn links_help(text: &str) -> bool {
    help_page_in(text).is_some()
}

/// The address of the help page, where a text has it.
pub(super) fn help_page_in(text: &str) -> Option<&'static str> {
    HELP_PAGE.into_iter().find(|page| text.contains(page))
}

/// What the writer of the mail wrote, without what is quoted from others.
struct OwnWords {
    text: String,
    quotes: bool,
}

fn own_words(visible: &str) -> OwnWords {
    let (before, quotes) = match QUOTE.find(visible.as_bytes()) {
        Some(found) => (visible.get(..found.start()).unwrap_or_default(), true),
        None => (visible, false),
    };
    let mut own = OwnWords {
        text: String::with_capacity(before.len()),
        quotes,
    };
    for line in before.lines() {
        if line.trim_start().starts_with('>') {
            own.quotes = true;
        } else {
            own.text.push_str(line);
            own.text.push('\n');
        }
    }
    own
}

/// The text with its quotation marks taken away, to see what was quoted.
fn unquoted(visible: &str) -> String {
    let mut text = String::with_capacity(visible.len());
    for line in visible.lines() {
        text.push_str(line.trim_start_matches(['>', ' ']));
        text.push('\n');
    }
    text
}

fn by_labels(text: &str, wordings: &Wordings) -> Found {
    let usernames: Vec<&str> = wordings
        .username
        .captures_iter(text)
        .filter_map(|found| found.get(1))
        .map(|value| value.as_str().trim_end().trim_matches('*'))
        .collect();
    let mut tokens = Vec::new();
    for found in wordings.token.captures_iter(text) {
        let group = |n| found.get(n).map_or("", |value| value.as_str());
        let end = found.get(0).map_or(text.len(), |all| all.end());
        let below = text.get(end..).unwrap_or_default().lines().nth(1);
        if is_cut(group(2), below.unwrap_or_default()) {
            return Err(NotANotice::Held(Doubt::Malformed));
        }
        tokens.push(group(1).trim_matches('*'));
    }
    if usernames.is_empty() || tokens.is_empty() {
        return Err(NotANotice::Ignored(Ignored::NoNotice));
    }
    decide(usernames.iter().copied(), tokens.iter().copied())
}

/// Whether a token goes on behind what was taken for it: on its line, or as
/// the one short word of the next.
fn is_cut(behind: &str, next_line: &str) -> bool {
    let next = next_line.trim();
    let goes_on = (1..20).contains(&next.len()) && next.bytes().all(|b| b.is_ascii_alphanumeric());
    goes_on || !behind.trim_matches([' ', '*', '|']).is_empty()
}

/// The structural reading, for languages whose labels nobody has shown us.
fn by_structure(text: &str) -> Found {
    let lines = labelled_lines(text);
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in lines.windows(2) {
        let [first, second] = pair else {
            continue;
        };
        let could_be = looks_like_token(&second.value) || is_placeholder(&second.value);
        if address(&first.value).is_some() && could_be {
            if is_cut("", &second.below) {
                return Err(NotANotice::Held(Doubt::Malformed));
            }
            pairs.push((&first.value, &second.value));
        }
    }
    if pairs.is_empty() {
        let is_near = |pair: &[Labelled]| {
            let [first, second] = pair else { return false };
            address(&first.value).is_some() && begins_like_token(&second.value)
        };
        // Worth a person's look, for nobody else would be told.
        return Err(if lines.windows(2).any(is_near) {
            NotANotice::Held(Doubt::Malformed)
        } else {
            NotANotice::Ignored(Ignored::NoNotice)
        });
    }
    decide(
        pairs.iter().map(|(username, _)| *username),
        pairs.iter().map(|(_, token)| *token),
    )
}

/// One username and one token, or why not.
fn decide<'a>(
    usernames: impl Iterator<Item = &'a str>,
    tokens: impl Iterator<Item = &'a str>,
) -> Found {
    let malformed = || NotANotice::Held(Doubt::Malformed);
    let mut username: Option<Username> = None;
    for candidate in usernames {
        let candidate = Username::new(address(candidate).ok_or_else(malformed)?);
        match &username {
            Some(known) if *known != candidate => {
                return Err(NotANotice::Held(Doubt::TwoUsernames));
            }
            _ => username = Some(candidate),
        }
    }
    let (mut token, mut placeholder): (Option<&str>, bool) = (None, false);
    for candidate in tokens {
        if is_placeholder(candidate) {
            placeholder = true;
        } else if is_token(candidate) {
            if token.is_some_and(|known| known != candidate) {
                return Err(NotANotice::Held(Doubt::TwoTokens));
            }
            token = Some(candidate);
        } else {
            return Err(malformed());
        }
    }
    match (username, token) {
        (Some(username), Some(token)) => Ok(Notice {
            username,
            token: Secret::new(token.to_owned()),
        }),
        (_, None) if placeholder => Err(NotANotice::Ignored(Ignored::Placeholder)),
        _ => Err(malformed()),
    }
}

/// A line of the form `label: value`.
struct Labelled {
    value: String,
    /// The line right below the value, empty where a gap is.
    below: String,
}

/// The lines that have text, the value taken from the next one where nothing
/// stands behind the colon.
fn labelled_lines(text: &str) -> Vec<Labelled> {
    let mut lines = text.lines().map(str::trim).peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let labelled = line.split_once(':');
        let (label, value) = labelled.unwrap_or((line, ""));
        let mut value = value.trim();
        if value.is_empty() && labelled.is_some() {
            // The value on the next line, or below one empty line.
            lines.next_if(|next| next.is_empty());
            value = lines
                .next_if(|next| !next.contains(':'))
                .unwrap_or_default();
        }
        if label.chars().count() <= 80 {
            found.push(Labelled {
                value: value.to_owned(),
                below: lines
                    .peek()
                    .map_or_else(String::new, |&next| next.to_owned()),
            });
        }
    }
    found
}

fn address(value: &str) -> Option<&str> {
    if value.chars().any(char::is_control) {
        return None;
    }
    let found = ADDRESS.captures(value)?;
    let local = found.get(2)?.as_str();
    (local.chars().count() <= LONGEST_LOCAL_PART)
        .then(|| found.get(1))
        .flatten()
        .map(|address| address.as_str())
}

fn is_token(word: &str) -> bool {
    TOKEN_LENGTH.contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A token by its looks alone: it must mix letters and digits, or upper and
/// lower case, as a word of a language does not, and be no mere number.
fn looks_like_token(word: &str) -> bool {
    if !is_token(word) || is_placeholder(word) || is_hexadecimal(word) {
        return false;
    }
    let letters = || word.bytes().filter(u8::is_ascii_alphabetic);
    let mixes_digits = word.bytes().any(|b| b.is_ascii_digit()) && letters().next().is_some();
    let turns = letters()
        .zip(letters().skip(1))
        .filter(|(a, b)| a.is_ascii_uppercase() != b.is_ascii_uppercase());
    mixes_digits || turns.count() >= MIXED_CASE
}

/// Whether a value begins with what may be a token, too short, too long or with
/// something behind it. A short one is filled up, to be judged by its looks.
fn begins_like_token(value: &str) -> bool {
    let end = value
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(value.len());
    let run = value.get(..end).unwrap_or_default();
    let cut = run.get(..run.len().min(24)).unwrap_or_default();
    let padded = format!("{cut:a<20}");
    (16..=36).contains(&run.len()) && looks_like_token(&padded)
}

/// Of two dozen random letters some eleven differ in case from the one before;
/// of names made of several words hardly more than six do.
const MIXED_CASE: usize = 8;

/// The number of a scan or a ticket, which gateways write below mails. That a
/// token of Salesforce's looks so is out of the question: one in 10^14.
fn is_hexadecimal(word: &str) -> bool {
    let all = |digits: &str| word.chars().all(|c| digits.contains(c));
    all("0123456789abcdef") || all("0123456789ABCDEF")
}

/// `XXXXXXXXXXXXXXXXXXXXXXXX`: a row of one letter, which a sample shows.
fn is_placeholder(word: &str) -> bool {
    is_token(word)
        && word.bytes().all(|b| {
            Some(b.to_ascii_lowercase()) == word.bytes().next().map(|f| f.to_ascii_lowercase())
        })
}

/// Whether a word that could be a token, and is another one, is in view.
pub(super) fn shows_another_token(visible: &str, token: &Secret) -> bool {
    visible
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .any(|word| looks_like_token(word) && word != token.expose())
}
