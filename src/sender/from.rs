//! The `From` header: exactly one, and in it exactly one address (RFC 5322,
//! section 3.6.2). Mail readers disagree about anything else, so anything else
//! is refused: a group, a route, a list, no address.
//!
//! mail-parser is lenient and takes an address out of almost everything, so
//! the field is read here, by the grammar of section 3.4. Beyond it, because
//! the real mail has it: an unquoted display name may be the address itself.

use std::iter::Peekable;
use std::str::Chars;

use mail_parser::{HeaderName, Message};

use super::Distrust;

/// How long a field may be. Real ones have some dozens of characters.
const MAX_LENGTH: usize = 2000;

/// The address, its domain in lower case. The local part is compared as it
/// stands (RFC 5321, section 2.4).
pub(super) fn address(mail: &Message<'_>, raw: &[u8]) -> Result<String, Distrust> {
    let mut headers = mail
        .headers()
        .iter()
        .filter(|header| header.name == HeaderName::From);
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(Distrust::FromMalformed);
    };
    let field = raw.get(header.offset_field as usize..header.offset_end as usize);
    field
        .filter(|field| field.len() <= MAX_LENGTH)
        .map(String::from_utf8_lossy)
        .and_then(|field| {
            // mail-parser 0.11.9 takes `Fr om` for `From`; a signature does not.
            let (name, value) = field.split_once(':')?;
            name.trim_end()
                .eq_ignore_ascii_case("from")
                .then(|| mailbox(value))?
        })
        .ok_or(Distrust::FromMalformed)
}

/// What stands behind the `@`.
pub(super) fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// An address for a person to read: what could be taken for another letter is
/// written by its number.
pub(super) fn shown(address: &str) -> String {
    address
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() {
                c.to_string()
            } else {
                c.escape_unicode().to_string()
            }
        })
        .collect()
}

/// A token of the grammar, comments and white space gone.
#[derive(Debug, PartialEq)]
enum Token {
    /// A dot-atom, or what stands unquoted in a display name.
    Atom(String),
    Quoted(String),
    At,
    Open,
    Close,
}

/// `mailbox` of RFC 5322, section 3.4: `address` or `name <address>`.
fn mailbox(value: &str) -> Option<String> {
    let tokens = tokens(value)?;
    let Some(open) = tokens.iter().position(|token| *token == Token::Open) else {
        return addr_spec(&tokens);
    };
    let (name, rest) = tokens.split_at(open);
    let (Token::Close, inner) = rest.get(1..)?.split_last()? else {
        return None;
    };
    let address = addr_spec(inner)?;
    // `support@salesforce.com <support@salesforce.com>`: one address, twice.
    let names_an_address = name.contains(&Token::At);
    (!names_an_address || addr_spec(name).as_ref() == Some(&address)).then_some(address)
}

fn addr_spec(tokens: &[Token]) -> Option<String> {
    let [
        Token::Atom(local) | Token::Quoted(local),
        Token::At,
        Token::Atom(domain),
    ] = tokens
    else {
        return None;
    };
    (is_dot_atom(local) && is_dot_atom(domain))
        .then(|| format!("{local}@{}", domain.to_ascii_lowercase()))
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| {
        !atom.is_empty()
            && atom.chars().all(|c| {
                c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
            })
    })
}

/// `None` where something is not closed, and for all that lists, groups,
/// routes and literals are made with.
fn tokens(value: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '(' => comment(&mut chars)?,
            '"' => tokens.push(Token::Quoted(quoted(&mut chars)?)),
            '@' => tokens.push(Token::At),
            '<' => tokens.push(Token::Open),
            '>' => tokens.push(Token::Close),
            ',' | ':' | ';' | ')' | '\\' => return None,
            c if c.is_control() => return None,
            c => {
                let mut atom = String::from(c);
                while let Some(next) =
                    chars.next_if(|c| !c.is_control() && !" \t\r\n()\"@<>,:;\\".contains(*c))
                {
                    atom.push(next);
                }
                tokens.push(Token::Atom(atom));
            }
        }
    }
    Some(tokens)
}

fn comment(chars: &mut Peekable<Chars<'_>>) -> Option<()> {
    let mut depth = 1_usize;
    while depth > 0 {
        match chars.next()? {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            '\\' => {
                chars.next()?;
            }
            _ => {}
        }
    }
    Some(())
}

fn quoted(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::{Mail, Wordings};

    fn from(headers: &str) -> Result<String, Distrust> {
        let raw = format!("{headers}\r\nSubject: x\r\n\r\n");
        let mail = Mail::parse(raw.as_bytes(), &Wordings::default());
        address(mail.parsed().unwrap(), raw.as_bytes())
    }

    #[test]
    fn one_address_is_taken_whatever_stands_around_it() {
        for header in [
            "From: support@salesforce.com",
            "from : support@salesforce.com",
            "From: support@salesforce.com <support@salesforce.com>",
            "From: support@SALESFORCE.com <support@salesforce.com>",
            "From: \"Salesforce, Inc.\" <support@SALESFORCE.com>",
            "From: (a (nested \\) one) comment) support@salesforce.com (b)",
            "From: Salesforce.com Support\r\n <support@salesforce.com>",
            "From: =?utf-8?B?U2FsZXNmb3JjZQ==?= =?utf-8?Q?_Support?= <support@salesforce.com>",
            "From: [EXTERNAL] Sälesforce <support@salesforce.com>",
            "From: <\"support\"@salesforce.com>",
            "From: \"evil@example.net\" <support@salesforce.com>",
        ] {
            assert_eq!(
                from(header).as_deref(),
                Ok("support@salesforce.com"),
                "{header}"
            );
        }
    }

    #[test]
    fn a_display_name_is_no_address() {
        for header in [
            "From: \"support@salesforce.com\" <evil@example.net>",
            "From: (support@salesforce.com) evil@example.net",
            "From: =?utf-8?Q?support=40salesforce.com?= <evil@example.net>",
        ] {
            assert_eq!(from(header).as_deref(), Ok("evil@example.net"), "{header}");
        }
    }

    #[test]
    fn letters_that_look_alike_are_others_and_are_shown_as_such() {
        let homograph = from("From: support@\u{455}alesforce.com").unwrap();
        assert_ne!(homograph, "support@salesforce.com");
        assert_eq!(shown(&homograph), "support@\\u{455}alesforce.com");
    }

    #[test]
    fn anything_but_one_address_is_refused() {
        for header in [
            "From: a@b.c, support@salesforce.com",
            "From: support@salesforce.com,",
            "From: support@salesforce.com\r\nFrom: evil@example.net",
            "From: support@salesforce.com\r\nFr om: evil@example.net",
            "Fr om: support@salesforce.com",
            "From: team: support@salesforce.com;",
            "From: <@relay.example:support@salesforce.com>",
            "From: nobody",
            "From: =?utf-8?Q?support=40salesforce.com?=",
            "From: (support@salesforce.com)",
            "From: \"support@salesforce.com\"",
            "From:",
            "From: <>",
            "To: a@b.c",
            "From: <support@salesforce.com> <evil@example.net>",
            "From: <support@salesforce.com> evil",
            "From: evil@example.net <support@salesforce.com>",
            "From: support@salesforce.com (unclosed",
            "From: \"unclosed <support@salesforce.com>",
            "From: <support@salesforce.com",
            "From: support @salesforce. com",
            "From: support@[127.0.0.1]",
            "From: support@salesforce.com@evil.example",
            "From: .support@salesforce.com",
            "From: support@salesforce..com",
            "From: support@salesforce.com\0",
        ] {
            assert!(from(header).is_err(), "{header}: {:?}", from(header));
        }
    }
}
