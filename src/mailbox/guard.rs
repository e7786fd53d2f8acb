//! A guard between the network and the IMAP parser.
//!
//! The parser trusts the server: it takes half a gigabyte for one literal,
//! needs time that grows with the square of a line's length, and overflows the
//! stack at 400 nested brackets, which ends the process. So the bytes are
//! looked at before it sees them, and a server that goes too far gets a named
//! error and no more of our memory (invariant 9).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

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
    /// Brackets within brackets.
    #[error("brackets are nested deeper than {0}")]
    Nesting(usize),
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
    line: usize,
    depth: usize,
    quote: Quote,
    /// The digits of `{123}` at the place where the line stands.
    size: Size,
    /// Bytes of a literal still to come.
    literal: usize,
    /// The line's first word after `*`, to tell status lines, which hold free
    /// text and never a literal, from data.
    head: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    Escaped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    None,
    Digits(usize),
    Closed(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// Nothing yet.
    Start,
    /// `*` or `* `.
    Untagged,
    /// `* 12 …`, `* SEARCH …`, `* LIST …`: structured.
    Data,
    /// `* OK …` and its kin, `+ …`, a tagged answer: free text.
    Text,
}

impl Scanner {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: 0,
            line: 0,
            depth: 0,
            quote: Quote::Outside,
            size: Size::None,
            literal: 0,
            head: Head::Start,
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
        self.line = self.line.saturating_add(1);
        if self.line > self.limits.line {
            return Err(Excess::Line(self.limits.line));
        }
        if byte == b'\n' {
            return self.end_of_line();
        }
        self.head = match (self.head, byte) {
            (Head::Start, b'*') | (Head::Untagged, b' ') => Head::Untagged,
            (Head::Start, _) => Head::Text,
            // OK, NO, BAD, BYE, PREAUTH; of the data only BODY… could begin
            // so, and that never begins a line.
            (Head::Untagged, b'O' | b'o' | b'N' | b'n' | b'B' | b'b' | b'P' | b'p') => Head::Text,
            (Head::Untagged, _) => Head::Data,
            (head, _) => head,
        };
        if self.head == Head::Text {
            return Ok(());
        }
        match (self.quote, byte) {
            (Quote::Escaped, _) => self.quote = Quote::Inside,
            (Quote::Inside, b'\\') => self.quote = Quote::Escaped,
            (Quote::Inside, b'"') => self.quote = Quote::Outside,
            (Quote::Inside, _) => {}
            (Quote::Outside, b'"') => self.quote = Quote::Inside,
            (Quote::Outside, b'(') => {
                self.depth = self.depth.saturating_add(1);
                if self.depth > self.limits.nesting {
                    return Err(Excess::Nesting(self.limits.nesting));
                }
            }
            (Quote::Outside, b')') => self.depth = self.depth.saturating_sub(1),
            (Quote::Outside, _) => {}
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
        match self.size {
            // The line goes on behind the literal, and so do its brackets.
            Size::Closed(n) if self.quote == Quote::Outside => {
                if n > self.limits.literal {
                    return Err(Excess::Literal(self.limits.literal));
                }
                self.literal = n;
            }
            Size::None | Size::Digits(_) | Size::Closed(_) => {
                self.line = 0;
                self.depth = 0;
                self.head = Head::Start;
            }
        }
        self.quote = Quote::Outside;
        self.size = Size::None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 100,
        literal: 50,
        nesting: 5,
        command: 1000,
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
            "* OK [CAPABILITY IMAP4rev1] ((((((((((( hello {99}\r\nA1 OK done\r\n",
            "* 1 FETCH (UID 3 BODY[HEADER] {9}\r\n(((((((((\r\n FLAGS (\\Seen))\r\n",
            "* LIST (\\HasNoChildren) \"/\" \"a {99}\"\r\n",
            "* LIST () \"/\" \"a\\\"((((((((((\"\r\n",
            &"* SEARCH 1 2 3\r\n".repeat(50),
        ] {
            assert_eq!(scan(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_goes_too_far_is_named() {
        let line = format!("* SEARCH{}", " 1".repeat(60));
        assert_eq!(scan(&line), Err(Excess::Line(100)));
        assert_eq!(
            scan("* 1 FETCH (BODY[] {500000000}\r\n"),
            Err(Excess::Literal(50))
        );
        assert_eq!(
            scan("* 1 FETCH (BODY[] {99999999999999999999999}\r\n"),
            Err(Excess::Literal(50))
        );
        assert_eq!(scan("* 1 FETCH (((((("), Err(Excess::Nesting(5)));
        assert_eq!(
            scan(&"* 1 EXISTS\r\n".repeat(100)),
            Err(Excess::Command(1000))
        );
    }

    #[test]
    fn brackets_and_length_go_on_behind_a_literal() {
        let text = "* 1 FETCH ((( {3}\r\nabc(((";
        assert_eq!(scan(text), Err(Excess::Nesting(5)));
        let text = "* 1 FETCH {2}\r\nab".to_owned() + &" {2}\r\nab".repeat(20);
        assert_eq!(scan(&text), Err(Excess::Line(100)));
    }

    #[test]
    fn a_status_line_cannot_hide_data_in_a_literal_that_is_none() {
        let text = "* OK {40}\r\n* 1 FETCH ((((((((((((((";
        assert_eq!(scan(text), Err(Excess::Nesting(5)));
        let text = "* LIST () \"{40}\r\n* 1 FETCH (((((((((((((((";
        assert_eq!(scan(text), Err(Excess::Nesting(5)));
    }
}
