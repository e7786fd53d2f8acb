//! The language of the IMAP test server: words, search keys and fetch items
//! (RFC 3501, section 9). Nothing here touches a socket.
//!
//! An error is the tagged answer without its tag, `BAD …` or `NO …`. The parser
//! is as strict as the grammar where leniency would hide a client's bug: one
//! space between words, 8-bit characters only in literals, no number zero.

use std::borrow::Cow;
use std::io::Write;
use std::slice;
use std::str::FromStr;

use jiff::civil::Date;
use mail_parser::parsers::MessageStream;

use super::imap_mailbox::{Last, Mail, Set, field_value};

pub type Refusal = &'static str;

/// How deep parentheses may nest; they are parsed by recursion.
const MAX_DEPTH: usize = 32;

/// One word of a command.
#[derive(Debug, PartialEq)]
pub enum Token {
    /// A bare word. The section of `BODY[...]` belongs to it.
    Atom(String),
    /// A quoted string or a literal.
    Text(String),
    List(Vec<Self>),
}

impl Token {
    /// The value of an astring.
    pub fn text(&self) -> Result<&str, Refusal> {
        match self {
            Self::Atom(text) | Self::Text(text) => Ok(text),
            Self::List(_) => Err("BAD a list where a string belongs"),
        }
    }

    /// A bare word in upper case: the name of a command, a key or an item.
    pub fn keyword(&self) -> Result<String, Refusal> {
        match self {
            Self::Atom(word) => Ok(word.to_ascii_uppercase()),
            Self::Text(_) | Self::List(_) => Err("BAD a bare word is missing"),
        }
    }
}

/// The tag of a command, `*` if there is none, and the rest.
pub fn split_tag(command: &[u8]) -> (&str, &[u8]) {
    let length = command.iter().position(|byte| *byte == b' ');
    let (tag, rest) = command.split_at(length.unwrap_or(command.len()));
    let valid = !tag.is_empty() && tag.iter().all(u8::is_ascii_alphanumeric);
    let tag = str::from_utf8(tag).ok().filter(|_| valid);
    (tag.unwrap_or("*"), rest.strip_prefix(b" ").unwrap_or(rest))
}

/// The words of a command, its literals included, without the last CRLF.
pub fn tokenize(command: &[u8]) -> Result<Vec<Token>, Refusal> {
    let mut lexer = Lexer { rest: command };
    let tokens = lexer.tokens(0)?;
    match lexer.rest {
        b"" => Ok(tokens),
        _ => Err("BAD one space belongs between words"),
    }
}

/// The length in `{length}` or `{length+}` at the end of a line, and whether
/// the client waits to be told to go on.
pub fn announced_literal(line: &[u8]) -> Option<(usize, bool)> {
    let line = line.strip_suffix(b"}")?;
    let start = line.iter().rposition(|byte| *byte == b'{')? + 1;
    let length = str::from_utf8(&line[start..]).ok()?;
    let at_once = length.strip_suffix('+');
    Some((decimal(at_once.unwrap_or(length))?, at_once.is_none()))
}

struct Lexer<'a> {
    rest: &'a [u8],
}

impl<'a> Lexer<'a> {
    fn tokens(&mut self, depth: usize) -> Result<Vec<Token>, Refusal> {
        if depth > MAX_DEPTH {
            return Err("BAD the parentheses nest too deep");
        }
        let mut tokens = Vec::new();
        loop {
            tokens.push(match self.rest.first() {
                Some(b'(') => self.list(depth)?,
                Some(b'"') => self.quoted()?,
                Some(b'{') => self.literal()?,
                _ => self.atom()?,
            });
            if !self.skip(b" ") {
                return Ok(tokens);
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Token, Refusal> {
        self.take(1);
        if self.skip(b")") {
            return Ok(Token::List(Vec::new()));
        }
        let tokens = self.tokens(depth + 1)?;
        if !self.skip(b")") {
            return Err("BAD a parenthesis is not closed");
        }
        Ok(Token::List(tokens))
    }

    fn quoted(&mut self) -> Result<Token, Refusal> {
        self.take(1);
        let mut text = String::new();
        loop {
            match (self.take(1), self.rest.first()) {
                (b"\"", _) => return Ok(Token::Text(text)),
                (b"\\", Some(byte @ (b'"' | b'\\'))) => {
                    text.push(char::from(*byte));
                    self.take(1);
                }
                ([b'\\' | b'\r' | b'\n' | 0 | 128..] | [], _) => {
                    return Err("BAD not a quoted string");
                }
                (byte, _) => text.extend(byte.iter().copied().map(char::from)),
            }
        }
    }

    fn literal(&mut self) -> Result<Token, Refusal> {
        let line = self.rest.split(|byte| *byte == b'\r').next();
        let announcement = self.take(line.map_or(0, <[u8]>::len));
        let literal = announced_literal(announcement).filter(|_| self.skip(b"\r\n"));
        let (length, _) = literal.ok_or("BAD not a literal")?;
        let text = str::from_utf8(self.take(length)).map_err(|_| "BAD a literal must be UTF-8")?;
        Ok(Token::Text(text.to_owned()))
    }

    fn atom(&mut self) -> Result<Token, Refusal> {
        let ends = |byte: &u8| !byte.is_ascii_graphic() || b"(){\"".contains(byte);
        let mut length = self.rest.iter().position(ends).unwrap_or(self.rest.len());
        // The section of a fetch item has spaces and parentheses of its own.
        let word = self.rest[..length].to_ascii_uppercase();
        if word.starts_with(b"BODY") && word.contains(&b'[') {
            let close = self.rest.iter().position(|byte| *byte == b']');
            length = close.ok_or("BAD a section is not closed")? + 1;
            let behind = &self.rest[length..];
            if behind.first() == Some(&b'<') {
                let end = behind.iter().position(|byte| *byte == b'>');
                length += end.ok_or("BAD a part is not closed")? + 1;
            }
        }
        match str::from_utf8(self.take(length)) {
            Ok(word) if !word.is_empty() => Ok(Token::Atom(word.to_owned())),
            _ => Err("BAD a word is missing, or has 8-bit characters"),
        }
    }

    /// The next bytes, fewer at the end.
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn skip(&mut self, expected: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

/// What SEARCH asks of a mail.
pub enum Key {
    /// Every one of these; `ALL` is the one with none.
    And(Vec<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Numbers(Set),
    Uids(Set),
    Since(Date),
    Before(Date),
    SentSince(Date),
    /// The name of a field, and in lower case what its value contains.
    Header(String, String),
    Larger(usize),
    Smaller(usize),
}

impl Key {
    /// The arguments of SEARCH.
    pub fn search(tokens: &[Token], last: Last) -> Result<Self, Refusal> {
        match tokens {
            [Token::Atom(name), charset, keys @ ..] if name.eq_ignore_ascii_case("CHARSET") => {
                match charset.text()?.to_ascii_uppercase().as_str() {
                    "US-ASCII" | "UTF-8" => Self::every(keys, last),
                    _ => Err("NO [BADCHARSET (US-ASCII UTF-8)] not a known charset"),
                }
            }
            keys => Self::every(keys, last),
        }
    }

    fn every(tokens: &[Token], last: Last) -> Result<Self, Refusal> {
        let mut rest = tokens.iter();
        let mut keys = vec![Self::next(&mut rest, last)?];
        while !rest.as_slice().is_empty() {
            keys.push(Self::next(&mut rest, last)?);
        }
        // What looks into a mail comes last, so that few mails are looked into.
        keys.sort_by_key(Self::reads_header);
        Ok(Self::And(keys))
    }

    fn next(tokens: &mut slice::Iter<Token>, last: Last) -> Result<Self, Refusal> {
        let token = tokens.next().ok_or("BAD a search key is missing")?;
        if let Token::List(keys) = token {
            return Self::every(keys, last);
        }
        let name = token.keyword()?;
        let mut text = || {
            tokens
                .next()
                .ok_or("BAD a search key lacks its argument")?
                .text()
        };
        let date = |text| Date::strptime("%d-%b-%Y", text).map_err(|_| "BAD not a date");
        let size = |text| decimal(text).ok_or("BAD not a size");
        Ok(match name.as_str() {
            "ALL" => Self::And(Vec::new()),
            "OR" => {
                let one = Self::next(tokens, last)?;
                Self::Or(Box::new(one), Box::new(Self::next(tokens, last)?))
            }
            "NOT" => Self::Not(Box::new(Self::next(tokens, last)?)),
            "UID" => Self::Uids(Set::uids(text()?, last)?),
            "SINCE" => Self::Since(date(text()?)?),
            "BEFORE" => Self::Before(date(text()?)?),
            "SENTSINCE" => Self::SentSince(date(text()?)?),
            "FROM" | "SUBJECT" => Self::Header(name, text()?.to_lowercase()),
            "HEADER" => Self::Header(text()?.to_owned(), text()?.to_lowercase()),
            "LARGER" => Self::Larger(size(text()?)?),
            "SMALLER" => Self::Smaller(size(text()?)?),
            set if set.starts_with(|c: char| c == '*' || c.is_ascii_digit()) => {
                Self::Numbers(Set::numbers(set, last)?)
            }
            _ => return Err("BAD not a known search key"),
        })
    }

    /// UIDs that a mail must have to match, if the key says so outright.
    pub fn uids(&self) -> Option<&Set> {
        if let Self::And(keys) = self {
            return keys.iter().find_map(Self::uids);
        }
        if let Self::Uids(set) = self {
            Some(set)
        } else {
            None
        }
    }

    fn reads_header(&self) -> bool {
        match self {
            Self::And(keys) => keys.iter().any(Self::reads_header),
            Self::Or(one, other) => one.reads_header() || other.reads_header(),
            Self::Not(key) => key.reads_header(),
            Self::SentSince(_) | Self::Header(..) => true,
            Self::Numbers(_)
            | Self::Uids(_)
            | Self::Since(_)
            | Self::Before(_)
            | Self::Larger(_)
            | Self::Smaller(_) => false,
        }
    }

    pub fn matches(&self, number: usize, mail: &Mail) -> bool {
        match self {
            Self::And(keys) => keys.iter().all(|key| key.matches(number, mail)),
            Self::Or(one, other) => one.matches(number, mail) || other.matches(number, mail),
            Self::Not(key) => !key.matches(number, mail),
            Self::Numbers(set) => set.contains(number),
            Self::Uids(set) => set.contains(mail.uid as usize),
            Self::Since(day) => mail.received_utc().date() >= *day,
            Self::Before(day) => mail.received_utc().date() < *day,
            Self::SentSince(day) => mail.sent().is_some_and(|sent| sent >= *day),
            Self::Header(name, part) => mail.values(name).any(|value| {
                let value = MessageStream::new(value).parse_unstructured();
                let value = value.as_text().unwrap_or_default();
                value.to_lowercase().contains(part)
            }),
            Self::Larger(size) => mail.raw.len() > *size,
            Self::Smaller(size) => mail.raw.len() < *size,
        }
    }
}

/// What FETCH wants of a mail.
#[derive(Debug, PartialEq)]
pub enum Item {
    Uid,
    Flags,
    InternalDate,
    Size,
    Body {
        section: Section,
        peek: bool,
        /// `<first.count>`: a part of it (RFC 3501, section 6.4.5).
        partial: Option<(usize, usize)>,
    },
}

/// What is in the brackets of `BODY[...]`.
#[derive(Debug, PartialEq)]
pub enum Section {
    Whole,
    Header,
    Fields(Vec<String>),
}

impl Item {
    /// One item, or several in parentheses.
    pub fn parse(token: &Token) -> Result<Vec<Self>, Refusal> {
        let items = match token {
            Token::List(items) if items.is_empty() => return Err("BAD a fetch item is missing"),
            Token::List(items) => items,
            Token::Atom(_) | Token::Text(_) => slice::from_ref(token),
        };
        let item = |item: &Token| Self::one(&item.keyword()?).ok_or("BAD not a known fetch item");
        items.iter().map(item).collect()
    }

    fn one(text: &str) -> Option<Self> {
        Some(match text {
            "UID" => Self::Uid,
            "FLAGS" => Self::Flags,
            "INTERNALDATE" => Self::InternalDate,
            "RFC822.SIZE" => Self::Size,
            body => {
                let (body, partial) = body.rsplit_once(']')?;
                let (name, section) = body.split_once('[')?;
                let peek = name == "BODY.PEEK";
                let section = Section::parse(section).filter(|_| peek || name == "BODY")?;
                let partial = match partial {
                    "" => None,
                    part => {
                        let part = part.strip_prefix('<')?.strip_suffix('>')?;
                        let (first, count) = part.split_once('.')?;
                        Some((decimal(first)?, decimal(count)?))
                    }
                };
                Self::Body {
                    section,
                    peek,
                    partial,
                }
            }
        })
    }

    /// Whether a mail so fetched counts as seen (RFC 3501, section 6.4.5).
    pub fn sets_seen(&self) -> bool {
        matches!(self, Self::Body { peek: false, .. })
    }

    pub fn answer(&self, mail: &Mail, out: &mut Vec<u8>) {
        match self {
            Self::Uid => write!(out, "UID {}", mail.uid),
            Self::Flags => write!(out, "FLAGS ()"),
            Self::InternalDate => {
                let date = mail.received_utc().strftime("%e-%b-%Y %H:%M:%S +0000");
                write!(out, "INTERNALDATE \"{date}\"")
            }
            Self::Size => write!(out, "RFC822.SIZE {}", mail.raw.len()),
            Self::Body {
                section, partial, ..
            } => {
                let (label, bytes) = section.of(mail);
                let (origin, bytes) = match *partial {
                    None => (String::new(), &bytes[..]),
                    Some((first, count)) => {
                        let first_byte = first.min(bytes.len());
                        let end = first_byte.saturating_add(count).min(bytes.len());
                        (format!("<{first}>"), &bytes[first_byte..end])
                    }
                };
                write!(out, "BODY[{label}]{origin} {{{}}}\r\n", bytes.len())
                    .and_then(|()| out.write_all(bytes))
            }
        }
        .expect("a Vec takes every byte");
    }
}

impl Section {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Whole,
            "HEADER" => Self::Header,
            fields => {
                let names = fields.strip_prefix("HEADER.FIELDS (")?.strip_suffix(')')?;
                let name = |name: &str| name.trim_matches('"').to_owned();
                Self::Fields(names.split(' ').map(name).collect())
            }
        })
    }

    fn of<'a>(&self, mail: &'a Mail) -> (String, Cow<'a, [u8]>) {
        match self {
            Self::Whole => (String::new(), Cow::Borrowed(&mail.raw)),
            Self::Header => ("HEADER".to_owned(), Cow::Borrowed(mail.header())),
            Self::Fields(names) => {
                let wanted =
                    |field: &&[u8]| names.iter().any(|name| field_value(field, name).is_some());
                let mut fields = mail.fields().filter(wanted).collect::<Vec<_>>().concat();
                fields.extend(b"\r\n");
                (
                    format!("HEADER.FIELDS ({})", names.join(" ")),
                    fields.into(),
                )
            }
        }
    }
}

/// Whether a pattern of LIST matches a mailbox's name. There is no hierarchy,
/// so `%` is `*`.
pub fn pattern_matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([b'*' | b'%', rest @ ..], _) => {
            (0..=name.len()).any(|skipped| pattern_matches(rest, &name[skipped..]))
        }
        ([wanted, pattern @ ..], [byte, name @ ..]) => {
            wanted.eq_ignore_ascii_case(byte) && pattern_matches(pattern, name)
        }
        _ => pattern.is_empty() && name.is_empty(),
    }
}

/// A number in the grammar's sense: digits alone, where `parse` takes a plus.
pub fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
