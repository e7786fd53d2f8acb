//! From the octets of a shown part to its text, or the word that some of it
//! was lost.
//!
//! mail-parser 0.11.9 decodes; here is looked after what it passes over: base64
//! that ends without padding loses its last octets, what is no quoted-printable
//! goes on as if it were, an unknown charset is read as UTF-8, and UTF-16
//! without its BOM as little-endian.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::{Encoding, MessagePart, MimeHeaders, PartType};

/// The text of a shown part; `None` where it could not be decoded without loss.
pub(super) fn text<'p>(part: &'p MessagePart<'_>, raw: &[u8]) -> Option<Cow<'p, str>> {
    let text = match &part.body {
        PartType::Text(text) | PartType::Html(text) => text.as_ref(),
        PartType::Binary(_)
        | PartType::InlineBinary(_)
        | PartType::Message(_)
        | PartType::Multipart(_) => return Some("".into()),
    };
    if !has_known_encoding(part) {
        return None;
    }
    // U+FFFD is the sign of bytes that no character stands for.
    if part.is_encoding_problem || text.contains('\u{fffd}') {
        return None;
    }
    let charset = charset(part)?;
    // The line end behind the body is the border's, and may end a soft break.
    let (begin, end) = (part.offset_body as usize, part.offset_end as usize);
    let encoded = raw.get(begin..end)?;
    match part.encoding {
        Encoding::Base64 => {
            let base64 = Base64::of(encoded)?;
            if base64.is_padded && !matches!(charset, Charset::Utf16) {
                return Some(text.into());
            }
            // mail-parser 0.11.9 drops what does not fill a group of four.
            charset.decode(base64.bytes).map(Cow::Owned)
        }
        Encoding::QuotedPrintable
            if !is_quoted_printable(raw.get(begin..raw.len().min(end.saturating_add(2)))?) =>
        {
            None
        }
        Encoding::QuotedPrintable | Encoding::None => match charset {
            // Octets that are not all text lines: base64 is what carries them.
            Charset::Utf16 => None,
            Charset::Unknown if !text.is_ascii() => None,
            Charset::Unknown | Charset::Utf8 | Charset::Known(_) => Some(text.into()),
        },
    }
}

/// Whether its Content-Transfer-Encoding is one of RFC 2045 (section 6.1), or
/// none is named. mail-parser 0.11.9 takes any other for 7bit.
fn has_known_encoding(part: &MessagePart<'_>) -> bool {
    part.content_transfer_encoding().is_none_or(|named| {
        ["7bit", "8bit", "binary", "quoted-printable", "base64"]
            .iter()
            .any(|known| named.trim().eq_ignore_ascii_case(known))
    })
}

/// What is known of a part's charset.
#[derive(Clone, Copy)]
enum Charset {
    /// None is named, or UTF-8.
    Utf8,
    Known(fn(&[u8]) -> String),
    /// UTF-16 in the order that its BOM says.
    Utf16,
    /// mail-parser 0.11.9 reads it as UTF-8.
    Unknown,
}

/// The charset of a part; `None` where two are named, or UTF-7, which no mail
/// reader of today takes for text.
fn charset(part: &MessagePart<'_>) -> Option<Charset> {
    let mut named = part
        .content_type()
        .and_then(|ct| ct.attributes())
        .unwrap_or_default()
        .iter()
        .filter(|attribute| attribute.name.eq_ignore_ascii_case("charset"))
        .map(|attribute| attribute.value.trim().to_ascii_lowercase());
    let (name, None) = (named.next().unwrap_or_default(), named.next()) else {
        return None;
    };
    match name.as_str() {
        "" | "utf-8" | "utf8" => Some(Charset::Utf8),
        "utf-7" | "csutf7" | "unicode-1-1-utf-7" => None,
        "utf-16" | "csutf16" | "unicode" | "csunicode" => Some(Charset::Utf16),
        name => Some(charset_decoder(name.as_bytes()).map_or(Charset::Unknown, Charset::Known)),
    }
}

impl Charset {
    fn decode(self, bytes: Vec<u8>) -> Option<String> {
        let text = match self {
            Self::Utf8 | Self::Unknown => String::from_utf8(bytes).ok()?,
            Self::Known(decoder) => decoder(&bytes),
            Self::Utf16 => {
                let (little, rest) = match bytes.split_at_checked(2)? {
                    ([0xff, 0xfe], rest) => (true, rest),
                    ([0xfe, 0xff], rest) => (false, rest),
                    _ => return None,
                };
                let (units, odd) = rest.as_chunks::<2>();
                let units = units.iter().map(|unit| {
                    if little {
                        u16::from_le_bytes(*unit)
                    } else {
                        u16::from_be_bytes(*unit)
                    }
                });
                let text = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
                odd.is_empty().then_some(text)?
            }
        };
        let is_sure = !matches!(self, Self::Unknown) || text.is_ascii();
        (is_sure && !text.contains('\u{fffd}')).then_some(text)
    }
}

/// What a base64 body holds.
struct Base64 {
    bytes: Vec<u8>,
    /// Its last group of four is whole.
    is_padded: bool,
}

impl Base64 {
    /// Decodes a body; `None` where it was cut, or goes on behind its padding.
    fn of(body: &[u8]) -> Option<Self> {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent)
                .with_decode_allow_trailing_bits(true),
        );
        let digits: Vec<u8> = body
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        Some(Self {
            bytes: LENIENT.decode(&digits).ok()?,
            is_padded: digits.len().is_multiple_of(4),
        })
    }
}

/// Whether each `=` of a body is followed by two hexadecimal digits or by the
/// end of its line (RFC 2045, section 6.7).
fn is_quoted_printable(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some(at) = rest.iter().position(|b| *b == b'=') {
        let behind = rest.get(at.saturating_add(1)..).unwrap_or_default();
        let is_octet = behind
            .get(..2)
            .is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        let mut blanks = behind
            .iter()
            .skip_while(|b| matches!(b, b' ' | b'\t' | b'\r'));
        if !is_octet && blanks.next() != Some(&b'\n') {
            return false;
        }
        rest = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_whole_or_it_is_none() {
        let bytes = |body: &str| Base64::of(body.as_bytes()).map(|found| found.bytes);
        for body in ["YWI=", "YWI", "Y W\r\nI", "YWI=\r\n"] {
            assert_eq!(bytes(body).as_deref(), Some(b"ab".as_slice()), "{body}");
        }
        for body in ["YWJjY", "YWI=YWI=", "YW!I"] {
            assert_eq!(bytes(body), None, "{body}");
        }
    }

    #[test]
    fn quoted_printable_is_told_from_what_is_none() {
        for good in ["a=3D=3db", "a=\nb", "a= \t\r\nb", ""] {
            assert!(is_quoted_printable(good.as_bytes()), "{good:?}");
        }
        for bad in ["a=b", "=ZZ", "=4", "a=", "= x\n"] {
            assert!(!is_quoted_printable(bad.as_bytes()), "{bad:?}");
        }
    }
}
