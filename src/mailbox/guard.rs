//! A guard between the network and the IMAP parser.
//!
//! The parser trusts the server: it takes half a gigabyte for one literal,
//! needs time that grows with the square of a line's length, and overflows the
//! stack at 400 nested brackets, which ends the process. So the bytes are
//! looked at before it sees them, and a server that goes too far gets a named
//! error and no more of our memory (invariant 9).
//!
//! The parser is also lenient: what it does not know it skips, quotes, line
//! ends and literals included, so that a second reader of the same bytes could
//! be led to see a literal where the parser sees brackets. The guard therefore
//! does not try to follow. It counts every bracket outside literals, and lets a
//! literal pass in one place only: behind a `BODY[…]` in a FETCH whose items so
//! far are those that we ask for, written as RFC 3501 has them.

use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a server may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The longest line, literals not counted, in bytes.
    pub(super) line: usize,
    /// The largest literal, in bytes.
    pub(super) literal: usize,
    /// The deepest nesting of brackets.
    pub(super) nesting: usize,
    /// The most that one command may bring, in bytes.
    pub(super) command: usize,
}

impl Limits {
    /// Limits for mails of at most `max_mail_size` bytes. Servers count a
    /// mail's size in their own ways, so a literal may be twice that.
    pub(super) fn for_mails_up_to(max_mail_size: u32) -> Self {
        let size = usize::try_from(max_mail_size).unwrap_or(usize::MAX);
        Self {
            line: 256 * 1024,
            literal: size.saturating_mul(2),
            nesting: 32,
            command: 64 * 1024 * 1024,
        }
    }
}

/// How a server went too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// A line that does not end.
    #[error("a line is longer than {0} bytes")]
    Line(usize),
    /// A literal (RFC 3501, section 4.3) larger than any mail that is wanted.
    #[error("a literal is larger than {0} bytes")]
    Literal(usize),
    /// A literal where none was asked for.
    #[error("a literal stands where none belongs")]
    StrayLiteral,
    /// A FETCH whose line ends before its brackets do.
    #[error("a line ends in the middle of an answer")]
    Unbalanced,
    /// Brackets within brackets.
    #[error("brackets are nested deeper than {0}")]
    Nesting(usize),
    /// A list of more mails than any that is asked for.
    #[error("an answer names more than {0} mails")]
    Mails(usize),
    /// An answer that does not end.
    #[error("the answer to one command is larger than {0} bytes")]
    Command(usize),
}

/// The stream with its guard.
#[derive(Debug)]
pub(super) struct Guard<S> {
    inner: S,
    scanner: Scanner,
}

impl<S> Guard<S> {
    pub(super) fn new(inner: S, limits: Limits) -> Self {
        Self {
            inner,
            scanner: Scanner::new(limits),
        }
    }

    /// A new command is about to be sent: its answer is counted from nought.
    pub(super) fn begin_command(&mut self) {
        self.scanner.taken = 0;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let fresh = buf.filled().get(before..).unwrap_or_default();
            if let Err(excess) = self.scanner.scan(fresh) {
                buf.set_filled(before);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, excess)));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Follows the bytes as far as the limits need it.
#[derive(Debug)]
struct Scanner {
    limits: Limits,
    /// Bytes since the command began.
    taken: usize,
    /// Bytes of the line so far, its literals not counted.
    length: usize,
    /// The line's beginning, with `~` for each literal.
    line: Vec<u8>,
    /// Brackets that are open, wherever they stand.
    depth: usize,
    /// The line ends in this, so far: `{123}`.
    size: Size,
    /// Bytes of a literal still to come.
    literal: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    None,
    Digits(usize),
    Closed(usize),
}

/// How much of a line is kept to see whether a literal belongs there. The
/// items of a FETCH before one have some hundred bytes.
const KEPT: usize = 2048;

#[expect(
    clippy::expect_used,
    reason = "the pattern is a constant, and a test uses it"
)]
static LITERAL_BELONGS: LazyLock<Regex> = LazyLock::new(|| {
    const SECTION: &str = r#"(?:HEADER\.FIELDS \("?[A-Z-]+"?(?: "?[A-Z-]+"?)*\))?"#;
    let body = format!(r"BODY\[{SECTION}\](?:<[0-9]+>)?");
    let items = [
        "UID [0-9]+",
        r"RFC822\.SIZE [0-9]+",
        r"MODSEQ \([0-9]+\)",
        r#"INTERNALDATE "[0-9A-Za-z:+ -]+""#,
        r#"FLAGS \([^"(){}]*\)"#,
        &format!(r#"{body} (?:~|NIL|"[^"\\\x00-\x1f\x7f-\xff]*")"#),
    ];
    let pattern = format!(
        r"^(?i-u)\* [0-9]+ FETCH \((?:(?:{}) )*{body} \{{[0-9]+\}}$",
        items.join("|")
    );
    Regex::new(&pattern).expect("a constant pattern")
});

#[expect(
    clippy::expect_used,
    reason = "the pattern is a constant, and a test uses it"
)]
static IS_FETCH: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?i-u)\* [0-9]+ FETCH").expect("a constant pattern"));

impl Scanner {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: 0,
            length: 0,
            line: Vec::new(),
            depth: 0,
            size: Size::None,
            literal: 0,
        }
    }

    fn scan(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        self.taken = self.taken.saturating_add(bytes.len());
        if self.taken > self.limits.command {
            return Err(Excess::Command(self.limits.command));
        }
        while !bytes.is_empty() {
            let in_literal = self.literal.min(bytes.len());
            self.literal = self.literal.saturating_sub(in_literal);
            bytes = bytes.get(in_literal..).unwrap_or_default();
            let Some((&byte, rest)) = bytes.split_first() else {
                break;
            };
            self.byte(byte)?;
            bytes = rest;
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Result<(), Excess> {
        self.length = self.length.saturating_add(1);
        if self.length > self.limits.line {
            return Err(Excess::Line(self.limits.line));
        }
        match byte {
            b'\n' => return self.end_of_line(),
            b'(' => {
                self.depth = self.depth.saturating_add(1);
                if self.depth > self.limits.nesting {
                    return Err(Excess::Nesting(self.limits.nesting));
                }
            }
            b')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.line.len() < KEPT && byte != b'\r' {
            self.line.push(byte);
        }
        self.size = match (self.size, byte) {
            (_, b'{') => Size::Digits(0),
            (Size::Digits(n), b'0'..=b'9') => Size::Digits(
                n.saturating_mul(10)
                    .saturating_add(usize::from(byte.wrapping_sub(b'0'))),
            ),
            (Size::Digits(n), b'+') => Size::Digits(n),
            (Size::Digits(n), b'}') => Size::Closed(n),
            (Size::Closed(n), b'\r') => Size::Closed(n),
            _ => Size::None,
        };
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<(), Excess> {
        let size = std::mem::replace(&mut self.size, Size::None);
        if let Size::Closed(n) = size {
            // The parser may take it for a literal wherever it stands.
            if n > self.limits.literal {
                return Err(Excess::Literal(self.limits.literal));
            }
            if !LITERAL_BELONGS.is_match(&self.line) {
                return Err(Excess::StrayLiteral);
            }
            // The line goes on behind the literal, and so do its brackets.
            self.literal = n;
            let announcement = self.line.iter().rposition(|byte| *byte == b'{');
            self.line.truncate(announcement.unwrap_or_default());
            self.line.push(b'~');
            return Ok(());
        }
        if self.depth > 0 && IS_FETCH.is_match(&self.line) {
            return Err(Excess::Unbalanced);
        }
        self.length = 0;
        self.depth = 0;
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 200,
        literal: 50,
        nesting: 8,
        command: 2000,
    };

    /// Scans in pieces of every size, for the network cuts where it likes.
    fn scan(text: &str) -> Result<(), Excess> {
        let whole = Scanner::new(LIMITS).scan(text.as_bytes());
        for size in 1..8 {
            let mut scanner = Scanner::new(LIMITS);
            let pieces = text
                .as_bytes()
                .chunks(size)
                .try_for_each(|p| scanner.scan(p));
            assert_eq!(pieces, whole, "{text} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn what_servers_send_passes() {
        for text in [
            "* OK [CAPABILITY IMAP4rev1] hello :-( {x}\r\nA1 OK done\r\n",
            "* 1 FETCH (UID 3 BODY[] {11}\r\n(((((((((\r\n FLAGS (\\Seen))\r\n",
            "* 1 FETCH (UID 3 RFC822.SIZE 9 INTERNALDATE \" 1-Jan-2026 00:00:00 +0000\" \
             BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {5}\r\n(((\r\n)\r\n",
            "* 1 FETCH (FLAGS (\\Seen) body[header.fields (\"From\" \"Subject\")]<0> \"\")\r\n",
            "* 1 FETCH (BODY[] {3}\r\n((( BODY[HEADER.FIELDS (FROM)] {2}\r\n(( UID 4)\r\n",
            "* ID (\"name\" \"a (b\")\r\n",
            &"* SEARCH 1 2 3\r\n".repeat(50),
        ] {
            assert_eq!(scan(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_goes_too_far_is_named() {
        let line = format!("* SEARCH{}", " 1".repeat(120));
        assert_eq!(scan(&line), Err(Excess::Line(200)));
        for size in ["500000000", "99999999999999999999999"] {
            for before in [
                "* 1 FETCH (BODY[]",
                "* 1 FETCH (X a\" BODY[]",
                "* OK [BADCHARSET (",
                "+",
                "A1 OK [BADCHARSET (",
            ] {
                let text = format!("{before} {{{size}}}\r\n");
                assert_eq!(scan(&text), Err(Excess::Literal(50)), "{text}");
            }
        }
        assert_eq!(
            scan(&"* 1 EXISTS\r\n".repeat(200)),
            Err(Excess::Command(2000))
        );
    }

    /// Each of these made an earlier guard see a literal or a quoted string
    /// where the parser sees brackets.
    #[test]
    fn no_bracket_is_hidden_from_the_guard() {
        let nested = "(".repeat(20);
        for before in [
            "* 1 FETCH (",
            "* 1 FETCH (X a\" BODYSTRUCTURE ",
            "* 1 FETCH (X (\") BODYSTRUCTURE ",
            "* 1 FETCH (UID \"a BODYSTRUCTURE ",
            "* OK ",
            "OK BODYSTRUCTURE ",
        ] {
            let text = format!("{before}{nested}");
            assert_eq!(scan(&text), Err(Excess::Nesting(8)), "{text}");
        }
        for before in [
            "* 1 FETCH (X a{40}\r\n BODYSTRUCTURE ",
            "* 1 FETCH (X ({40}\r\n) BODYSTRUCTURE ",
            "* 1 FETCH (X a] {40}\r\n b BODYSTRUCTURE ",
            "* 1 FETCH (X BODY[] {40}\r\n b BODYSTRUCTURE ",
            "* 1 FETCH (UID x BODY[] {40}\r\n b BODYSTRUCTURE ",
            "* OK {40}\r\n* 1 FETCH ",
            "* OK [BADCHARSET ({20}\r\n* 1 FETCH (BODY[)] {40}\r\n",
            "* LIST () \"{40}\r\n* 1 FETCH ",
        ] {
            let text = format!("{before}{nested}");
            assert_eq!(scan(&text), Err(Excess::StrayLiteral), "{text}");
        }
        for before in [
            "* 1 FETCH (X a\r\nOK BODYSTRUCTURE ",
            "* 1 FETCH (X \"a\r\n",
        ] {
            let text = format!("{before}{nested}");
            assert_eq!(scan(&text), Err(Excess::Unbalanced), "{text}");
        }
    }

    #[test]
    fn brackets_and_length_go_on_behind_a_literal() {
        let text = "* 1 FETCH (BODY[] {3}\r\nabc(((((((((";
        assert_eq!(scan(text), Err(Excess::Nesting(8)));
        let text = "* 1 FETCH (".to_owned() + &"BODY[] {2}\r\nab ".repeat(30);
        assert_eq!(scan(&text), Err(Excess::Line(200)));
    }
}
