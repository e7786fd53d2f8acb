//! What a mail shows, taken out of its MIME parts.
//!
//! A mail reader shows either the plain or the HTML rendition of a mail, so
//! both are made and `read` compares them. Attachments are deliberately
//! absent: nobody sees them without a click; only a mail that is attached to
//! another is handed on as it came.

use std::borrow::Cow;

use jiff::Timestamp;
use mail_parser::{ContentType, Header, HeaderName, Message, MessagePart, MimeHeaders, PartType};

use super::{Envelope, Ignored, Wordings, decode, html, structure, text, wording};

pub(super) use super::structure::{attached_mails, head, header_section, is_bounded, whole};

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
#[derive(Default)]
pub(super) struct Renditions {
    pub(super) shown: Vec<Rendition>,
    /// A shown part could not be decoded without loss.
    pub(super) broken: bool,
    /// A part has more HTML than is rendered.
    pub(super) too_complex: bool,
}

/// How many tags the HTML of a mail may have. A browser's way of mending open
/// elements takes time and memory that grow with the square of their number:
/// 64 KiB can cost gigabytes. A token mail has some dozens of tags, with a
/// gateway's banner some hundreds.
const MAX_TAGS: usize = 1000;

/// How many words a tag may have: each attribute is compared with the others.
const MAX_ATTRIBUTES: usize = 600;

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
    // Runs of spaces are one: folding and unfolding makes them.
    text::one_line(mail.subject().unwrap_or_default())
}

/// The values of a header field as they stand, from the top.
pub(super) fn raw_fields<'m>(
    mail: &'m Message<'_>,
    raw: &'m [u8],
    name: &'m str,
) -> impl Iterator<Item = &'m [u8]> {
    mail.headers()
        .iter()
        .filter(move |header| header.name.as_str().eq_ignore_ascii_case(name))
        .filter_map(|header| raw.get(header.offset_start as usize..header.offset_end as usize))
}

/// Whether the headers alone say that the mail is none of ours: that a server
/// sent it back, that somebody passed it on without attaching anything, or
/// that it went to many.
pub(super) fn settled_by_headers(
    head: Option<&Message<'_>>,
    wordings: &Wordings,
) -> Option<Ignored> {
    let Some(head) = head else {
        return Some(Ignored::NotAMail);
    };
    if is_bounce(head) {
        return Some(Ignored::Bounce);
    }
    let subject = subject(head);
    let can_carry = head
        .content_type()
        .is_some_and(|ct| !ct.ctype().eq_ignore_ascii_case("text"));
    if !can_carry && is_reply_or_forward(&subject) {
        return Some(Ignored::Quoted);
    }
    // A distribution list that a company keeps for its administrators sets
    // this header too, and beside it one that says where members write.
    let has = |name: &HeaderName<'_>| head.headers().iter().any(|field| field.name == *name);
    let is_bulk = has(&HeaderName::ListUnsubscribe) && !has(&HeaderName::ListPost);
    (is_bulk && !wordings.announce(&subject)).then_some(Ignored::Bulk)
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
pub(super) fn is_reply_or_forward(subject: &str) -> bool {
    let mut rest = subject.trim_start();
    while let Some((_, behind)) = rest
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
    {
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

/// Whether a field that may stand once stands in the mail more than once, or
/// not by its exact name.
///
/// mail-parser 0.11.9 lets the last one win, other programs the first: such a
/// mail shows different things to different readers (RFC 5322, section 3.6 and
/// RFC 2045 allow each once). It also takes `Date :` and `Da te:` for `Date`,
/// while a signature covers the field that is written right, so one that is
/// not would stand outside of every signature.
pub(super) fn has_ambiguous_headers(raw: &[u8], mail: &Message<'_>) -> bool {
    const ONCE: [HeaderName<'static>; 7] = [
        HeaderName::From,
        HeaderName::Subject,
        HeaderName::Date,
        HeaderName::MimeVersion,
        HeaderName::ContentType,
        HeaderName::ContentTransferEncoding,
        HeaderName::ContentDisposition,
    ];
    let stands_twice = |part: &MessagePart<'_>, wanted: &HeaderName<'_>| {
        let same = part.headers.iter().filter(|field| field.name == *wanted);
        same.count() > 1
    };
    let is_misspelt = |field: &Header<'_>| {
        ONCE.contains(&field.name) && !is_spelt_exactly(raw, field, field.name.as_str())
    };
    // Of an attachment it does not matter what it is.
    let is_shown = |part: &&MessagePart<'_>| {
        let is_binary = matches!(part.body, PartType::Binary(_) | PartType::InlineBinary(_));
        !is_binary
    };
    mail.parts.iter().filter(is_shown).any(|part| {
        ONCE.iter().any(|wanted| stands_twice(part, wanted)) || part.headers.iter().any(is_misspelt)
    })
}

/// Whether a field has this name in the mail, and not only one that mail-parser
/// 0.11.9 takes for it.
pub fn is_spelt_exactly(raw: &[u8], field: &Header<'_>, name: &str) -> bool {
    raw.get(field.offset_field as usize..field.offset_start as usize)
        .and_then(|written| written.strip_suffix(b":"))
        .is_some_and(|written| written.eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a CR stands without its LF. For a signature it is not there (RFC
/// 6376 knows CRLF only, and mail-auth 0.13.3 skips it), and for a reader it is a
/// line end, so a signed line could be cut with it. Mail has none of them, not
/// even in attachments, so they are looked for everywhere.
pub(super) fn has_bare_cr(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', raw).any(|at| raw.get(at.saturating_add(1)) != Some(&b'\n'))
}

pub(super) fn renditions(mail: &Message<'_>) -> Renditions {
    let mut made = Renditions::default();
    let unseen = structure::inside_digests(mail);
    let beside = shown_beside(mail);
    let mut show = |parts: &[u32]| {
        let parts = parts.iter().chain(&beside).copied();
        let seen = parts.filter(|id| !unseen.contains(id));
        rendition(mail, seen, &mut made)
    };
    let texts = show(&mail.text_body);
    let htmls = (mail.html_body != mail.text_body).then(|| show(&mail.html_body));
    made.shown.push(texts);
    made.shown.extend(htmls);
    made.shown.extend(other_texts(mail));
    made
}

/// Texts of kinds that some mail readers show in place of the others: enriched
/// text, AMP. Each is a rendition of its own, so that it must not disagree.
fn other_texts<'m>(mail: &'m Message<'_>) -> impl Iterator<Item = Rendition> + 'm {
    let ids = mail.attachments.iter();
    ids.filter_map(|id| mail.parts.get(*id as usize))
        .filter_map(|part| {
            let kind = part.content_type()?;
            let subtype = kind.subtype()?;
            let is_other = kind.ctype() == "text" && !matches!(subtype, "plain" | "html");
            let PartType::Text(source) = &part.body else {
                return None;
            };
            if !is_other || is_attached(part) {
                return None;
            }
            let mut made = Rendition::default();
            if subtype.contains("html") && !is_too_complex(source, tags_in(source)) {
                push(&mut made.visible, &html::render(source).visible);
            } else {
                push(&mut made.visible, source);
            }
            Some(made)
        })
}

/// Texts that mail-parser 0.11.9 takes for attachments and that mail readers
/// show below the others: those with a name, and those that it could not decode.
fn shown_beside(mail: &Message<'_>) -> Vec<u32> {
    let is_shown = |part: &MessagePart<'_>| {
        let is_text = part.content_type().is_none_or(|ct| {
            ct.ctype() == "text" && matches!(ct.subtype(), Some("plain" | "html"))
        });
        let has_name = part
            .content_type()
            .is_some_and(|ct| ct.has_attribute("name"));
        is_text && !is_attached(part) && (has_name || part.is_encoding_problem)
    };
    let ids = mail.attachments.iter().copied();
    ids.filter(|id| mail.parts.get(*id as usize).is_some_and(is_shown))
        .collect()
}

/// Whether a part says that it is for a click and not for the eye.
fn is_attached(part: &MessagePart<'_>) -> bool {
    part.content_disposition()
        .is_some_and(ContentType::is_attachment)
}

fn rendition(
    mail: &Message<'_>,
    parts: impl Iterator<Item = u32>,
    about: &mut Renditions,
) -> Rendition {
    let mut made = Rendition::default();
    let mut tags = 0_usize;
    for part in parts.filter_map(|id| mail.parts.get(id as usize)) {
        let decoded = decode::text(part, &mail.raw_message);
        about.broken |= decoded.is_none();
        let (source, is_html) = match (&part.body, &decoded) {
            (PartType::Html(source), decoded) => (decoded.as_ref().unwrap_or(source), true),
            (PartType::Text(source), decoded) => (decoded.as_ref().unwrap_or(source), false),
            (
                PartType::Binary(_)
                | PartType::InlineBinary(_)
                | PartType::Message(_)
                | PartType::Multipart(_),
                _,
            ) => continue,
        };
        if !is_html {
            push(&mut made.visible, &flowed(part, source));
            continue;
        }
        tags = tags.saturating_add(tags_in(source));
        if is_too_complex(source, tags) {
            about.too_complex = true;
            made.links
                .push_str(wording::help_page_in(source).unwrap_or_default());
        } else {
            let seen = html::render(source);
            about.too_complex |= seen.too_complex;
            push(&mut made.visible, &seen.visible);
            push(&mut made.hidden, &seen.hidden);
            made.links.push_str(&seen.links);
        }
    }
    made
}

fn push(out: &mut String, shown: &str) {
    out.push_str(&text::normalise(shown));
    out.push('\n');
}

fn tags_in(html: &str) -> usize {
    html.bytes().filter(|b| *b == b'<').count()
}

/// Whether HTML is not rendered; `tags` counts those of the parts before it too.
fn is_too_complex(html: &str, tags: usize) -> bool {
    tags > MAX_TAGS || has_huge_tag(html)
}

/// Whether a tag has more attributes than are looked at, read as a browser
/// does: what is in quotation marks does not end it.
fn has_huge_tag(html: &str) -> bool {
    let mut bytes = html.bytes().peekable();
    let (mut in_tag, mut quote, mut words) = (false, None, 0_usize);
    while let Some(byte) = bytes.next() {
        if !in_tag {
            let begins = |next: Option<&u8>| {
                next.is_some_and(|next| next.is_ascii_alphabetic() || *next == b'/')
            };
            in_tag = byte == b'<' && begins(bytes.peek());
            (quote, words) = (None, 0);
        } else if let Some(mark) = quote {
            if byte == mark {
                quote = None;
                words = words.saturating_add(1);
            }
        } else {
            match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'>' => in_tag = false,
                b'/' | b'=' => words = words.saturating_add(1),
                _ if byte.is_ascii_whitespace() => words = words.saturating_add(1),
                _ => {}
            }
        }
        if words > MAX_ATTRIBUTES {
            return true;
        }
    }
    false
}

/// The text of a part without the line ends that `format=flowed` added.
fn flowed<'t>(part: &MessagePart<'_>, text: &'t str) -> Cow<'t, str> {
    let says = |name: &str, value: &str| {
        part.content_type()
            .and_then(|ct| ct.attribute(name))
            .is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    if says("format", "flowed") {
        text::unflow(text, says("delsp", "yes")).into()
    } else {
        text.into()
    }
}
