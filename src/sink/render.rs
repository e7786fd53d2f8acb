//! What a receiver reads: the formats of files, and buffers that are wiped.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{Credential, SinkError};

/// A buffer that wipes what it held, and what it grew out of.
#[derive(Default)]
pub(super) struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// What was written, still to be wiped.
    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    fn push(&mut self, text: &str) {
        let needed = self.0.len().saturating_add(text.len());
        self.grow(needed);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A `Vec` that grows by itself leaves its old memory as it was.
    fn grow(&mut self, needed: usize) {
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.saturating_mul(2));
            larger.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(larger);
        }
    }
}

impl Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.grow(self.0.len().saturating_add(bytes.len()));
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A credential as JSON has it. What is left out is not there.
#[derive(Serialize)]
pub(super) struct Object<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    pub(super) username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<&'a str>,
    pub(super) version: u64,
    pub(super) fingerprint: &'a str,
    pub(super) received: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
}

impl<'a> Object<'a> {
    /// Everything but the delivery's own id, which changes without the credential.
    pub(super) fn of(credential: &'a Credential) -> Self {
        Self {
            kind: None,
            username: &credential.username,
            password: Some(credential.secret.expose()),
            version: credential.version,
            fingerprint: &credential.fingerprint,
            received: credential.received.map(|received| received.to_string()),
            id: None,
        }
    }
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Wiped {
    let mut out = Wiped::default();
    // Nothing in a credential is a map with keys that are no text, and a buffer takes all.
    serde_json::to_writer(&mut out, value).unwrap_or_default();
    out
}

/// The credential as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Wiped {
    let mut out = json(value);
    out.push("\n");
    out
}

/// Password and token, and nothing else.
pub(super) fn raw(credential: &Credential) -> Wiped {
    let mut out = Wiped::default();
    out.push(credential.secret.expose());
    out
}

/// Two assignments that systemd (`EnvironmentFile=`), sh and compose read alike.
///
/// Single quotes are literal for all three, but none of them can hold a single quote, and
/// compose takes a backslash before the last quote for an escape; such a value stands in double
/// quotes, escaped as POSIX has it (Shell Command Language, section 2.2.3). systemd knows no
/// value of several quoted pieces, as a shell does. One thing has no spelling that all three
/// read: a grave accent together with a single quote or a last backslash. Of such a value compose
/// keeps the backslash.
///
/// # Errors
///
/// [`SinkError::Unfit`] for a control character, and for what systemd takes for no text.
pub(super) fn env(credential: &Credential) -> Result<Wiped, SinkError> {
    assignments(credential, "env", |value, out| {
        if is_plain(value) {
            out.push(value);
        } else if !value.contains('\'') && !value.ends_with('\\') {
            out.push("'");
            out.push(value);
            out.push("'");
        } else {
            out.push("\"");
            for part in value.split_inclusive(ESCAPED) {
                let before = part.strip_suffix(ESCAPED).unwrap_or(part);
                let escaped = part.get(before.len()..).unwrap_or_default();
                out.push(before);
                if !escaped.is_empty() {
                    out.push("\\");
                    out.push(escaped);
                }
            }
            out.push("\"");
        }
    })
}

/// The same two as `docker run --env-file` reads them: whatever stands behind the first `=`.
///
/// # Errors
///
/// [`SinkError::Unfit`] for a control character: there is no escape.
pub(super) fn docker_env(credential: &Credential) -> Result<Wiped, SinkError> {
    assignments(credential, "docker-env", |value, out| out.push(value))
}

/// What has a meaning of its own between double quotes.
const ESCAPED: [char; 4] = ['"', '\\', '$', '`'];

fn assignments(
    credential: &Credential,
    format: &'static str,
    write: impl Fn(&str, &mut Wiped),
) -> Result<Wiped, SinkError> {
    let mut out = Wiped::default();
    for (name, value) in [
        ("SALESFORCE_USERNAME=", credential.username.as_str()),
        ("SALESFORCE_PASSWORD=", credential.secret.expose()),
    ] {
        if value.chars().any(is_no_text) {
            return Err(SinkError::Unfit(format));
        }
        out.push(name);
        write(value, &mut out);
        out.push("\n");
    }
    Ok(out)
}

/// systemd passes over a value with a byte order mark or a noncharacter in it (systemd.exec(5),
/// `EnvironmentFile=`).
fn is_no_text(c: char) -> bool {
    let number = u32::from(c);
    c.is_control()
        || c == '\u{feff}'
        || (0xfdd0..=0xfdef).contains(&number)
        || number & 0xfffe == 0xfffe
}

/// Means itself wherever it stands, without quotes.
fn is_plain(value: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&b);
    !value.is_empty() && value.bytes().all(is_plain)
}

/// A word of sh that stands for this text.
pub(super) fn shell(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// A name for a file or a segment of a URL: what is not among these stands there by its bytes
/// (RFC 3986, section 2.1), so that no username leaves its folder or meets another's name.
pub(super) fn encoded(username: &str, is_plain: fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(username.len());
    for (at, byte) in username.bytes().enumerate() {
        if is_plain(byte) && !(at == 0 && byte == b'.') {
            out.push(char::from(byte));
        } else {
            // A text takes whatever is written to it.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}
