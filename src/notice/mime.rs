//! What a mail shows, taken out of its MIME parts.
//!
//! A mail reader shows either the plain or the HTML rendition of a mail, so
//! both are made and `read` compares them. Attachments are deliberately
//! absent: nobody sees them without a click.

use jiff::Timestamp;
use mail_parser::{Encoding, HeaderName, Message, MessagePart, MimeHeaders, PartType};

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
    pub(super) shown: Vec<Rendition>,
    /// A shown part could not be decoded without loss.
    pub(super) broken: bool,
    /// A part has more HTML than is rendered.
    pub(super) too_complex: bool,
}

/// How many tags an HTML part may have. A browser's way of mending open
/// elements takes time and memory that grow with the square of their number:
/// 64 KiB can cost gigabytes. A token mail has some dozens of tags, with a
/// gateway's banner some hundreds.
const MAX_TAGS: usize = 1000;

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
    let subject = text::normalise(mail.subject().unwrap_or_default());
    // Runs of spaces are one: folding and unfolding makes them.
    subject.split_whitespace().collect::<Vec<_>>().join(" ")
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
    let word: String = prefix.chars().take_while(|c| c.is_alphabetic()).collect();
    // `Re[2]:`, but not `Re-set:` and not `TR-uat Sandbox:`.
    let behind = prefix.strip_prefix(word.as_str()).unwrap_or_default();
    if !behind
        .chars()
        .all(|c| c.is_ascii_digit() || " []()".contains(c))
    {
        return false;
    }
    let prefix = word.to_lowercase();
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

/// Whether a field that may stand once stands in the mail more than once.
///
/// mail-parser 0.11.9 lets the last one win, other programs the first: such a
/// mail shows different things to different readers (RFC 5322, section 3.6 and
/// RFC 2045 allow each once). It also takes `Date :` and `Da te:` for `Date`,
/// while a signature covers the field that is written right, so a second one
/// would stand outside of it.
pub(super) fn has_duplicate_headers(mail: &Message<'_>) -> bool {
    const ONCE: [HeaderName<'static>; 5] = [
        HeaderName::From,
        HeaderName::Subject,
        HeaderName::Date,
        HeaderName::ContentType,
        HeaderName::ContentTransferEncoding,
    ];
    ONCE.iter().any(|wanted| {
        mail.headers()
            .iter()
            .filter(|header| header.name == *wanted)
            .count()
            > 1
    })
}

pub(super) fn renditions(mail: &Message<'_>) -> Renditions {
    let mut made = Renditions {
        shown: vec![rendition(mail, &mail.text_body)],
        broken: false,
        too_complex: false,
    };
    if mail.html_body != mail.text_body {
        made.shown.push(rendition(mail, &mail.html_body));
    }
    made.broken = mail
        .text_body
        .iter()
        .chain(&mail.html_body)
        .filter_map(|id| mail.parts.get(*id as usize))
        .any(|part| {
            part.is_encoding_problem
                || has_replacement(&part.body)
                || is_cut_base64(part, mail.raw_message())
        });
    made.too_complex = mail.html_body.iter().any(|id| {
        mail.parts
            .get(*id as usize)
            .is_some_and(|part| matches!(&part.body, PartType::Html(html) if is_too_complex(html)))
    });
    made
}

fn is_too_complex(html: &str) -> bool {
    html.bytes().filter(|b| *b == b'<').nth(MAX_TAGS).is_some()
}

/// Whether a part is base64 whose last group is not whole. mail-parser 0.11.9
/// drops what does not fill a group, and says nothing.
fn is_cut_base64(part: &MessagePart<'_>, raw: &[u8]) -> bool {
    part.encoding == Encoding::Base64
        && raw
            .get(part.offset_body as usize..part.offset_end as usize)
            .is_some_and(|body| {
                let digits = body
                    .iter()
                    .filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                digits.count() % 4 != 0
            })
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
            PartType::Html(source) if !is_too_complex(source) => {
                let seen = html::render(source);
                push(&mut made.visible, &seen.visible);
                push(&mut made.hidden, &seen.hidden);
                made.links.push_str(&seen.links);
            }
            PartType::Html(_)
            | PartType::Binary(_)
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
