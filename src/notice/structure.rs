//! Takes a mail apart with mail-parser, around what its version 0.11.9 gets
//! wrong; each of these has a test below.
//!
//! * A boundary counts for it wherever it stands, also in the middle of a line
//!   and as the beginning of a longer one: such strings are spoiled before it
//!   sees them, as RFC 2046 (section 5.1.1) has boundaries in lines of their own.
//! * It goes into mails that are attached to mails without an end, and some of
//!   that by recursion: a mail of 200 KB could overflow the stack. So it is
//!   not shown that a part is a mail; one level of them is handed out as it came.
//! * Of a multipart that its writer left open it does not decode the last part.
//! * Its work grows with the square of some numbers: of borders, declared
//!   boundaries, continued parameters. They are counted first.

use std::borrow::Cow;

use mail_parser::{Encoding, Message, MessageParser, MimeHeaders, PartType};

/// How many multiparts are taken apart. Mails that were forwarded through
/// several gateways have five.
const MAX_MULTIPARTS: usize = 32;

/// How many lines may begin as a border between parts does, how many boundaries
/// may be declared, and how many parameters of a field may be continued (RFC
/// 2231). mail-parser's work grows with the square of each.
const MAX_BORDERS: usize = 2000;
const MAX_DECLARED: usize = 200;
const MAX_CONTINUED: usize = 200;

/// How long a declaration of a boundary may be, in octets; RFC 2046 allows 70.
const MAX_BOUNDARY: usize = 200;

/// The types that mail-parser would go into.
const NESTED: [&[u8]; 3] = [b"rfc822", b"global", b"digest"];

/// What a spoiled string has in the place of a letter: it is in no username
/// and in no token, so where text was spoiled by mistake nothing is read.
const SPOILED: u8 = 0x01;

/// The headers alone.
pub(super) fn head(raw: &[u8]) -> Option<Message<'_>> {
    MessageParser::default()
        .parse_headers(raw)
        .filter(|mail| !mail.headers().is_empty())
}

/// The whole mail; `None` where it has more parts than are taken apart, or
/// parts whose borders are not certain.
pub(super) fn whole(raw: &[u8]) -> Option<Message<'_>> {
    let mut bytes = Cow::Borrowed(raw);
    spoil_nested(&mut bytes);
    // Each turn can bring parts to light that had been cut off before.
    for _ in 0..4 {
        let parser = MessageParser::default();
        let mail = match &bytes {
            Cow::Borrowed(raw) => parser.parse(*raw)?,
            Cow::Owned(bytes) => parser.parse(bytes)?.into_owned(),
        };
        let boundaries = boundaries(&mail)?;
        if boundaries.is_empty() {
            return Some(mail);
        }
        let borders = Borders::of(&bytes, &boundaries);
        if borders.are_true() {
            return Some(mail);
        }
        borders.mend(bytes.to_mut());
    }
    None
}

/// The delimiters of all multiparts; `None` where they are too many.
fn boundaries(mail: &Message<'_>) -> Option<Vec<Vec<u8>>> {
    let found: Vec<Vec<u8>> = mail
        .parts
        .iter()
        .filter_map(|part| part.content_type()?.attribute("boundary"))
        .filter(|boundary| !boundary.is_empty())
        .map(|boundary| format!("--{boundary}").into_bytes())
        .take(MAX_MULTIPARTS.saturating_add(1))
        .collect();
    // Of two boundaries of which one begins like the other, RFC 2046 and the
    // mail readers of today see different ones.
    let is_begun_by = |boundary: &Vec<u8>| {
        let begins = |other: &Vec<u8>| other != boundary && boundary.starts_with(other);
        found.iter().any(begins)
    };
    (found.len() <= MAX_MULTIPARTS && !found.iter().any(is_begun_by)).then_some(found)
}

/// What is wrong with the borders between the parts.
struct Borders {
    /// Where a boundary stands that is none: not in a line of its own.
    false_ones: Vec<usize>,
    /// What multiparts lack that their writer left open, innermost first: mail
    /// readers show their last part, and mail-parser does not decode it.
    missing: Vec<u8>,
}

impl Borders {
    fn of(bytes: &[u8], boundaries: &[Vec<u8>]) -> Self {
        let mut false_ones = Vec::new();
        let mut closed = vec![false; boundaries.len()];
        for at in dashes(bytes) {
            let found = bytes.get(at..).unwrap_or_default();
            for (boundary, closed) in boundaries.iter().zip(&mut closed) {
                if let Some(behind) = found.strip_prefix(boundary.as_slice()) {
                    if begins_line(bytes, at) && ends_line(behind) {
                        *closed |= behind.starts_with(b"--");
                    } else {
                        false_ones.push(at);
                    }
                }
            }
        }
        let open = boundaries
            .iter()
            .zip(closed)
            .rev()
            .filter(|(_, closed)| !closed);
        let missing = open.map(|(boundary, _)| [b"\n", boundary.as_slice(), b"--\n"].concat());
        Self {
            false_ones,
            missing: missing.collect::<Vec<_>>().concat(),
        }
    }

    fn are_true(&self) -> bool {
        self.false_ones.is_empty() && self.missing.is_empty()
    }

    fn mend(&self, bytes: &mut Vec<u8>) {
        spoil(bytes, &self.false_ones);
        // Only where the true borders are known it is known what is missing.
        if self.false_ones.is_empty() {
            bytes.extend_from_slice(&self.missing);
        }
    }
}

/// Where `--` stands, also within longer rows.
fn dashes(bytes: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'-', bytes).filter(|at| bytes.get(at.saturating_add(1)) == Some(&b'-'))
}

/// Whether the mail can be taken apart in bounded time.
pub(super) fn is_bounded(raw: &[u8]) -> bool {
    let (mut borders, mut declared, mut continued) = (0_usize, 0_usize, 0_usize);
    for at in memchr::memchr2_iter(b'\n', b'=', raw) {
        let (before, behind) = raw.split_at(at);
        if behind.starts_with(b"\n--") {
            borders = borders.saturating_add(1);
        } else if behind.starts_with(b"=") {
            // `name=`, `name*0=`, `name*12*=`, with blanks between (RFC 2231).
            let name = before.trim_ascii_end();
            let of_name = |b: &u8| b.is_ascii_digit() || *b == b'*' || b.is_ascii_whitespace();
            let number = name.iter().rev().take_while(|b| of_name(b)).count();
            let (name, number) = name.split_at(name.len().saturating_sub(number));
            if number.contains(&b'*') {
                continued = continued.saturating_add(1);
            }
            if ends_with_boundary(name) {
                declared = declared.saturating_add(1);
                if memchr::memchr(b'\n', behind).unwrap_or(behind.len()) > MAX_BOUNDARY {
                    return false;
                }
            }
        }
    }
    borders <= MAX_BORDERS && declared <= MAX_DECLARED && continued <= MAX_CONTINUED
}

fn ends_with_boundary(text: &[u8]) -> bool {
    const NAME: &[u8] = b"boundary";
    text.get(text.len().saturating_sub(NAME.len())..)
        .is_some_and(|end| end.eq_ignore_ascii_case(NAME))
}

/// The header section, up to the empty line that ends it.
pub(super) fn header_section(raw: &[u8]) -> &[u8] {
    let end = memchr::memchr_iter(b'\n', raw).find(|at| {
        let next = raw.get(at.saturating_add(1)..).unwrap_or_default();
        next.starts_with(b"\n") || next.starts_with(b"\r\n")
    });
    end.and_then(|end| raw.get(..end)).unwrap_or(raw)
}

/// A letter of `…/rfc822` goes, wherever mail-parser would take it for the
/// subtype of a part.
fn spoil_nested(bytes: &mut Cow<'_, [u8]>) {
    let mut spots = Vec::new();
    for at in memchr::memchr2_iter(b'/', b')', bytes) {
        let behind = bytes.get(at.saturating_add(1)..).unwrap_or_default();
        let skipped = behind
            .iter()
            .take_while(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\\'))
            .count();
        let word = behind.get(skipped..).unwrap_or_default();
        for nested in NESTED {
            let is_it = word
                .get(..nested.len())
                .is_some_and(|word| word.eq_ignore_ascii_case(nested));
            let ends = word
                .get(nested.len())
                .is_none_or(|next| next.is_ascii_whitespace() || b";(\"\\".contains(next));
            if is_it && ends {
                spots.push(at.saturating_add(skipped).saturating_add(nested.len()));
            }
        }
    }
    if !spots.is_empty() {
        spoil(bytes.to_mut(), &spots);
    }
}

fn begins_line(bytes: &[u8], at: usize) -> bool {
    at.checked_sub(1)
        .is_none_or(|before| bytes.get(before) == Some(&b'\n'))
}

/// Whether only what may stand behind a boundary is left of the line.
fn ends_line(behind: &[u8]) -> bool {
    let behind = behind.strip_prefix(b"--").unwrap_or(behind);
    let mut rest = behind
        .iter()
        .skip_while(|b| matches!(b, b' ' | b'\t' | b'\r'));
    rest.next().is_none_or(|b| *b == b'\n')
}

fn spoil(bytes: &mut [u8], spots: &[usize]) {
    for at in spots {
        if let Some(byte) = bytes.get_mut(*at) {
            *byte = SPOILED;
        }
    }
}

/// The mails that are attached, one level deep, as they came. `raw` are the
/// bytes of the mail as they were before anything was spoiled.
pub(super) fn attached_mails<'m>(
    mail: &'m Message<'_>,
    raw: &'m [u8],
) -> impl Iterator<Item = Vec<u8>> + 'm {
    let in_digests = inside_digests(mail);
    mail.parts.iter().enumerate().filter_map(move |(id, part)| {
        let is_mail = match part.content_type() {
            Some(ct) => {
                ct.ctype() == "message" && matches!(ct.subtype(), Some("rfc82\u{1}" | "globa\u{1}"))
            }
            // What a digest holds is mails, where nothing else is said (RFC 2046,
            // section 5.1.5).
            None => u32::try_from(id).is_ok_and(|id| in_digests.contains(&id)),
        };
        if !is_mail || part.is_encoding_problem {
            return None;
        }
        match (&part.body, part.encoding) {
            (PartType::Multipart(_) | PartType::Message(_), _) => None,
            (_, Encoding::None) => {
                // The end may be one that was added here.
                let end = raw.len().min(part.offset_end as usize);
                raw.get(part.offset_body as usize..end).map(<[u8]>::to_vec)
            }
            (PartType::Binary(decoded) | PartType::InlineBinary(decoded), _) => {
                Some(decoded.to_vec())
            }
            (PartType::Text(text) | PartType::Html(text), _) => Some(text.as_bytes().to_vec()),
        }
    })
}

/// The parts of digests: each is a mail of somebody else.
pub(super) fn inside_digests(mail: &Message<'_>) -> Vec<u32> {
    let mut inside: Vec<u32> = Vec::new();
    for (id, part) in mail.parts.iter().enumerate() {
        let is_digest = part
            .content_type()
            .is_some_and(|ct| ct.subtype() == Some("diges\u{1}"));
        let is_inside = u32::try_from(id).is_ok_and(|id| inside.contains(&id));
        if let PartType::Multipart(children) = &part.body
            && (is_digest || is_inside)
        {
            inside.extend(children);
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn bodies(mail: &str) -> Vec<String> {
        let whole = whole(mail.as_bytes()).unwrap();
        let shown = whole.text_bodies();
        shown
            .map(|part| part.text_contents().unwrap_or_default().trim().to_owned())
            .collect()
    }

    #[test]
    fn a_boundary_counts_in_a_line_of_its_own_only() {
        let mail = "Content-Type: multipart/mixed; boundary=b\n\n\
            --b\n\none --b two\n--bc\nthree --b--\n--b  \n\nfour\n--b--\n";
        assert_eq!(
            bodies(mail),
            [
                "one \u{1}-b two\n\u{1}-bc\nthree \u{1}-b--".to_owned(),
                "four".to_owned()
            ]
        );
        assert_eq!(bodies(&mail.replace('\n', "\r\n")).len(), 2);
    }

    #[test]
    fn a_multipart_that_was_left_open_is_read_to_its_end() {
        let mail = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\
            Content-Type: multipart/mixed; boundary=c\n\n--c\n\n\ntwo\n--c\n\n\nthree";
        assert_eq!(bodies(mail), ["one", "two", "three"]);
        let whole = whole(mail.as_bytes()).unwrap();
        assert!(whole.parts.iter().all(|part| !part.is_encoding_problem));
    }

    #[test]
    fn boundaries_that_begin_alike_are_not_told_apart() {
        let mail = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
            Content-Type: multipart/mixed; boundary=bb\n\n\
            --bb\n\none\n--bb\n\ntwo\n--bb--\n--b\n\nthree\n--b--\n";
        assert!(whole(mail.as_bytes()).is_none());
        assert_eq!(bodies(&mail.replace("bb", "c")), ["one", "two", "three"]);
    }

    /// Each level of these is a call of a function in mail-parser, or in the
    /// code that drops what it made.
    #[test]
    fn mails_in_mails_do_not_overflow_the_stack() {
        let levels = 60_000;
        let plain = "Content-Type: message/rfc822\n\n".repeat(levels) + "Subject: x\n\ny\n";
        let base64 = STANDARD.encode(&plain);
        let header = "Content-Transfer-Encoding: base64\nContent-Type:";
        let digest = "Content-Type: multipart/digest; boundary=b\n\n--b\n\n";
        for mail in [
            format!("{plain}z"),
            format!("{header} message/rfc822\n\n{base64}"),
            format!("{header} MESSAGE/\\ \"Global\" ;\n\n{base64}"),
            format!("{header} message/(x)rfc822\n\n{base64}"),
            digest.repeat(1000),
        ] {
            let whole = whole(mail.as_bytes()).unwrap();
            let is_nested = |part: &mail_parser::MessagePart<'_>| part.is_message();
            assert!(!whole.parts.iter().any(is_nested));
        }
        let multiparts = "Content-Type: multipart/mixed; boundary=b\n\n--b\n";
        assert!(!is_bounded(multiparts.repeat(levels).as_bytes()));
        assert!(whole(multiparts.repeat(100).as_bytes()).is_none());
    }

    #[test]
    fn what_takes_the_square_of_its_size_is_not_taken_apart() {
        let boundary = "Content-Type: multipart/mixed; boundary";
        for mail in [
            "\n--b".repeat(2001),
            "boundary=x ".repeat(201),
            format!("{boundary}={}", "-".repeat(300)),
            format!("{boundary}*0*=\"{}\"", "-".repeat(300)),
            format!("Content-Type: text/plain;{}", " x*1=a;".repeat(201)),
        ] {
            assert!(!is_bounded(mail.as_bytes()), "{}", mail.get(..60).unwrap());
        }
        let text = "The boundary * of it all - --\n".repeat(5000);
        assert!(is_bounded(
            format!("{boundary}=\"=_x\"\n\n{text}").as_bytes()
        ));
    }

    #[test]
    fn an_attached_mail_comes_out_as_it_went_in() {
        let inner = "Subject: x\nContent-Type: message/rfc822\n\n a --b \n";
        let base64 = STANDARD.encode(inner);
        for (encoding, body) in [("7bit", inner), ("base64", base64.as_str())] {
            let mail = format!(
                "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
                 Content-Type: Message/RFC822\nContent-Transfer-Encoding: {encoding}\n\n\
                 {body}\n--b--\n"
            );
            let whole = whole(mail.as_bytes()).unwrap();
            let found: Vec<_> = attached_mails(&whole, mail.as_bytes()).collect();
            assert_eq!(found.len(), 1);
            assert_eq!(
                String::from_utf8_lossy(&found[0]).trim_end(),
                inner.trim_end()
            );
        }
    }
}
