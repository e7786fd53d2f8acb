//! How things are written on the wire, and read from it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of imap-proto are open: what was not asked for is passed over"
)]

use async_imap::imap_proto::{AttributeValue, MessageSection, SectionPath};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiff::Timestamp;
use jiff::fmt::strtime;
use zeroize::Zeroizing;

use super::session::Head;
use super::{Excess, MailboxError};

/// Tells a refusal from a server that is out of order by the response code.
pub(super) fn login_error(words: &str) -> MailboxError {
    match response_code(words) {
        Some(code) if is_passing(&code) => MailboxError::LoginUnavailable(code),
        code => MailboxError::LoginRefused { code },
    }
}

/// The response code (RFC 5530) in front of a server's words, where the parser
/// leaves those that it does not know.
pub(super) fn response_code(words: &str) -> Option<String> {
    words
        .trim_start()
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map(|(code, _)| {
            code.split(' ')
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase()
        })
        .filter(|code| code.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'))
}

/// Whether a response code says that it is the server's fault, and passes.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "UNAVAILABLE" | "INUSE" | "LIMIT" | "SERVERBUG" | "CONTACTADMIN"
    )
}

/// A quoted string (RFC 3501, section 4.3).
pub(super) fn quoted(text: &str) -> Result<Zeroizing<String>, MailboxError> {
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(MailboxError::Unsendable);
    }
    let mut out = Zeroizing::new(String::with_capacity(
        text.len().saturating_mul(2).saturating_add(2),
    ));
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

/// A folder's name in modified UTF-7 (RFC 3501, section 5.1.3), quoted.
pub(super) fn folder_name(name: &str) -> Result<String, MailboxError> {
    let mut out = String::new();
    let mut foreign: Vec<u8> = Vec::new();
    let flush = |foreign: &mut Vec<u8>, out: &mut String| {
        if !foreign.is_empty() {
            let encoded = STANDARD_NO_PAD.encode(&*foreign);
            out.push('&');
            out.push_str(&encoded.replace('/', ","));
            out.push('-');
            foreign.clear();
        }
    };
    for c in name.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut foreign, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                foreign.extend(unit.to_be_bytes());
            }
        }
    }
    flush(&mut foreign, &mut out);
    quoted(&out)
        .map(|text| text.to_string())
        .map_err(|_| MailboxError::NoFolder(name.to_owned()))
}

pub(super) fn uid_of(items: &[AttributeValue<'_>]) -> Option<u32> {
    items.iter().find_map(|item| match item {
        AttributeValue::Uid(uid) => Some(*uid),
        _ => None,
    })
}

/// `None` where these items are no head at all, an error where a part of it is
/// missing, or its fields have more than `longest` bytes.
pub(super) fn head(
    sequence: u32,
    items: &[AttributeValue<'_>],
    longest: usize,
) -> Option<Result<Head, MailboxError>> {
    let lacks = |what| {
        let doing = "FETCH";
        Some(Err(MailboxError::Lacking { doing, what }))
    };
    let fields = items.iter().find_map(|item| match item {
        AttributeValue::BodySection {
            section: Some(SectionPath::Full(MessageSection::Header)),
            data,
            ..
        } => Some(data.as_deref()),
        _ => None,
    })?;
    if fields.is_some_and(|fields| fields.len() > longest) {
        return Some(Err(Excess::Literal(longest).into()));
    }
    let Some(uid) = uid_of(items) else {
        return lacks("UID");
    };
    let size = items.iter().find_map(|item| match item {
        AttributeValue::Rfc822Size(size) => Some(*size),
        _ => None,
    });
    let Some(size) = size else {
        return lacks("RFC822.SIZE");
    };
    let received = items.iter().find_map(|item| match item {
        AttributeValue::InternalDate(text) => internal_date(text),
        _ => None,
    });
    Some(Ok(Head {
        sequence,
        uid,
        size,
        received,
        fields: fields.map(<[u8]>::to_vec),
    }))
}

/// `" 1-Jul-2026 02:44:25 -0700"` (RFC 3501, section 9, `date-time`).
fn internal_date(text: &str) -> Option<Timestamp> {
    strtime::parse("%d-%b-%Y %H:%M:%S %z", text.trim())
        .ok()?
        .to_timestamp()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_are_modified_utf_7() {
        for (name, sent) in [
            ("INBOX", "\"INBOX\""),
            ("Salesforce/Tokens & more", "\"Salesforce/Tokens &- more\""),
            ("Entwürfe", "\"Entw&APw-rfe\""),
            ("台北", "\"&U,BTFw-\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
        ] {
            assert_eq!(folder_name(name).unwrap(), sent);
        }
    }

    #[test]
    fn internal_dates_are_read() {
        for (text, meant) in [
            ("17-Jul-2026 02:44:25 -0700", "2026-07-17T09:44:25Z"),
            (" 1-Jan-2026 00:00:00 +0000", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(internal_date(text).unwrap().to_string(), meant);
        }
        assert!(internal_date("yesterday").is_none());
    }

    #[test]
    fn a_server_out_of_order_is_no_refusal() {
        assert!(matches!(
            login_error("[UNAVAILABLE] Temporary authentication failure."),
            MailboxError::LoginUnavailable(_)
        ));
        assert!(matches!(
            login_error("[AUTHENTICATIONFAILED] Authentication failed."),
            MailboxError::LoginRefused { code: Some(_) }
        ));
        assert!(matches!(
            login_error("no such user hunter2"),
            MailboxError::LoginRefused { code: None }
        ));
    }
}
