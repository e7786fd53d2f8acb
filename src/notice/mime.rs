//! What a mail shows, taken out of its MIME parts.
//!
//! A mail reader shows either the plain or the HTML rendition of a mail, so
//! both are made and `read` compares them. Attachments are deliberately
//! absent: nobody sees them without a click.

use jiff::Timestamp;
use mail_parser::{HeaderName, Message, MimeHeaders, PartType};

use super::{Envelope, Ignored, html, text};

/// One way in which a mail reader would show the mail.
#[derive(Default)]
pub(super) struct Rendition {
    /// What a person would see, normalised.
    pub(super) visible: String,
    /// What styling hides, normalised.
    pub(super) hidden: String,
    /// Link targets.
    pub(super) links: String,
}

/// All renditions of a mail.
pub(super) struct Renditions {
    pub(super) renditions: Vec<Rendition>,
    /// A shown part could not be decoded without loss.
    pub(super) broken: bool,
}

pub(super) fn envelope(mail: &Message<'_>) -> Envelope {
    Envelope {
        from: mail
            .from()
            .and_then(|from| from.first())
            .and_then(|addr| addr.address())
            .map(str::to_owned),
        message_id: mail.message_id().map(str::to_owned),
        date: mail
            .date()
            .filter(|date| date.is_valid())
            .and_then(|date| Timestamp::from_second(date.to_timestamp()).ok()),
    }
}

pub(super) fn subject(mail: &Message<'_>) -> String {
    text::normalise(mail.subject().unwrap_or_default())
}

/// Whether the headers say that somebody passed the mail on, that a server
/// sent it back, or that it went to many.
pub(super) fn why_not_direct(
    mail: &Message<'_>,
    subject: &str,
    announced: bool,
) -> Option<Ignored> {
    if is_bounce(mail) {
        return Some(Ignored::Bounce);
    }
    if is_reply_or_forward(subject) {
        return Some(Ignored::Quoted);
    }
    // A distribution list that a company keeps for its administrators sets
    // these headers too, so they count only where the subject is another one.
    let bulk = mail
        .headers_raw()
        .any(|(name, _)| name.eq_ignore_ascii_case("List-Unsubscribe"));
    (bulk && !announced).then_some(Ignored::Bulk)
}

fn is_bounce(mail: &Message<'_>) -> bool {
    let report = mail.content_type().is_some_and(|ct| {
        ct.ctype().eq_ignore_ascii_case("multipart")
            && ct
                .subtype()
                .is_some_and(|sub| sub.eq_ignore_ascii_case("report"))
    });
    let from_a_server = mail
        .from()
        .and_then(|from| from.first())
        .and_then(|addr| addr.address())
        .and_then(|address| address.split_once('@'))
        .is_some_and(|(local, _)| {
            local.eq_ignore_ascii_case("mailer-daemon") || local.eq_ignore_ascii_case("postmaster")
        });
    report || from_a_server
}

/// `Re:`, `Fwd:` and what they are called elsewhere, at the start of the
/// subject or behind a tag such as `[EXTERNAL]`.
fn is_reply_or_forward(subject: &str) -> bool {
    let mut rest = subject.trim_start();
    while let Some((tag, behind)) = rest
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
    {
        debug_assert!(!tag.contains(']'));
        rest = behind.trim_start();
    }
    let Some((prefix, _)) = rest.split_once(':') else {
        return false;
    };
    let prefix: String = prefix
        .chars()
        .take_while(|c| c.is_alphabetic())
        .flat_map(char::to_lowercase)
        .collect();
    matches!(
        prefix.as_str(),
        "re" | "fw"
            | "fwd"
            | "aw"
            | "wg"
            | "antw"
            | "sv"
            | "vs"
            | "tr"
            | "rv"
            | "enc"
            | "ynt"
            | "odp"
            | "転送"
            | "返信"
    )
}

/// Whether `From` or `Subject` stands in the mail more than once.
///
/// mail-parser 0.11.9 lets the last one win, other programs the first: such a
/// mail shows different things to different readers (RFC 5322, section 3.6
/// allows each once).
pub(super) fn has_duplicate_headers(mail: &Message<'_>) -> bool {
    [HeaderName::From, HeaderName::Subject]
        .iter()
        .any(|wanted| {
            mail.headers()
                .iter()
                .filter(|header| header.name == *wanted)
                .count()
                > 1
        })
}

pub(super) fn renditions(mail: &Message<'_>) -> Renditions {
    let mut made = Renditions {
        renditions: vec![rendition(mail, &mail.text_body)],
        broken: false,
    };
    if mail.html_body != mail.text_body {
        made.renditions.push(rendition(mail, &mail.html_body));
    }
    made.broken = mail
        .text_body
        .iter()
        .chain(&mail.html_body)
        .filter_map(|id| mail.parts.get(*id as usize))
        .any(|part| part.is_encoding_problem || has_replacement(&part.body));
    made
}

/// Whether decoding left U+FFFD behind, the sign of bytes that no character
/// stands for.
fn has_replacement(body: &PartType<'_>) -> bool {
    match body {
        PartType::Text(text) | PartType::Html(text) => text.contains('\u{fffd}'),
        PartType::Binary(_)
        | PartType::InlineBinary(_)
        | PartType::Message(_)
        | PartType::Multipart(_) => false,
    }
}

fn rendition(mail: &Message<'_>, parts: &[u32]) -> Rendition {
    let mut made = Rendition::default();
    for part in parts.iter().filter_map(|id| mail.parts.get(*id as usize)) {
        match &part.body {
            PartType::Text(shown) => push(&mut made.visible, shown),
            PartType::Html(source) => {
                let seen = html::render(source);
                push(&mut made.visible, &seen.visible);
                push(&mut made.hidden, &seen.hidden);
                made.links.push_str(&seen.links);
            }
            PartType::Binary(_)
            | PartType::InlineBinary(_)
            | PartType::Message(_)
            | PartType::Multipart(_) => {}
        }
    }
    made
}

fn push(out: &mut String, shown: &str) {
    out.push_str(&text::normalise(shown));
    out.push('\n');
}
