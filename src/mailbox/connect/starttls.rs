//! STARTTLS (RFC 3501, section 6.2.1): the one talk in clear.
//!
//! Bytes are read one at a time, so that nothing which was sent in clear can be
//! taken for what was sent under TLS, and what stands behind the answer is
//! somebody's try to do just that (RFC 8314, appendix A; CVE-2011-0411 and its
//! kin). Greeting and answers are believed in one respect only: whether to go
//! on to TLS. What they say of the server is asked again under it.

use std::io;
use std::mem::MaybeUninit;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::MailboxError;
use super::super::error::clean;
use super::super::guard::Excess;

const DOING: &str = "STARTTLS";

/// The longest line, in bytes.
const LINE: usize = 4096;

/// The most that may be said in clear, in bytes.
const ALL: usize = 16 * 1024;

/// Asks for TLS. When this returns, the server's next byte is one of TLS.
pub(super) async fn ask(tcp: &mut TcpStream) -> Result<(), MailboxError> {
    let mut left = ALL;
    let greeting = line(tcp, &mut left).await?;
    said_goodbye(&greeting)?;
    // After PREAUTH there is no way to TLS: who sends it wants us in clear.
    if behind(&greeting, "* OK").is_none() {
        return Err(MailboxError::NotImap(clean(&greeting)));
    }
    tcp.write_all(b"s1 STARTTLS\r\n").await.map_err(failed)?;
    loop {
        let answer = line(tcp, &mut left).await?;
        said_goodbye(&answer)?;
        if behind(&answer, "s1 OK").is_some() {
            return nothing_waits(tcp);
        }
        if behind(&answer, "s1 ").is_some() {
            return Err(MailboxError::NoStartTls);
        }
    }
}

/// Asks the kernel itself, for the runtime may not know yet of what has come.
fn nothing_waits(tcp: &TcpStream) -> Result<(), MailboxError> {
    match SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => Err(MailboxError::Lost(DOING)),
        Ok(_) => Err(MailboxError::StartTlsInjection),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: io::Error) -> MailboxError {
    MailboxError::from_stream(DOING, error)
}

fn said_goodbye(line: &str) -> Result<(), MailboxError> {
    match behind(line, "* BYE") {
        Some(words) => Err(MailboxError::Bye(clean(words))),
        None => Ok(()),
    }
}

/// What stands behind the first words of a line; case does not count.
fn behind<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    let (first, rest) = line.split_at_checked(words.len())?;
    first.eq_ignore_ascii_case(words).then_some(rest)
}

/// One line in clear, without its end; `left` is what may still come in all.
async fn line(tcp: &mut TcpStream, left: &mut usize) -> Result<String, MailboxError> {
    let mut line = Vec::new();
    loop {
        *left = left
            .checked_sub(1)
            .ok_or(MailboxError::Excess(Excess::Command(ALL)))?;
        match tcp.read_u8().await.map_err(failed)? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim().to_owned()),
            _ if line.len() >= LINE => return Err(Excess::Line(LINE).into()),
            byte => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that has said all of this, packet by packet, before it is
    /// asked; what it hears is returned too.
    async fn asked(packets: &[&[u8]]) -> (Result<(), MailboxError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        theirs.set_nodelay(true).unwrap();
        for packet in packets {
            theirs.write_all(packet).await.unwrap();
        }
        let answer = ask(&mut ours).await;
        drop(ours);
        let mut heard = Vec::new();
        // What was not read makes the end of the connection a reset.
        theirs.read_to_end(&mut heard).await.ok();
        (answer, heard)
    }

    #[tokio::test]
    async fn the_answer_may_come_behind_untagged_lines() {
        let (answer, heard) = asked(&[
            b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n",
            b"* CAPABILITY IMAP4rev1\r\n* NO be quick\r\nS1 ok go on\r\n",
        ])
        .await;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(heard, b"s1 STARTTLS\r\n");
    }

    #[tokio::test]
    async fn whatever_stands_behind_the_answer_is_an_injection() {
        let greeting: &[u8] = b"* OK hi\r\n";
        let same: &[&[u8]] = &[greeting, b"s1 OK go on\r\n* 1 EXISTS\r\n"];
        let later: &[&[u8]] = &[greeting, b"s1 OK go on\r\n", b"x"];
        for packets in [same, later] {
            let (answer, _) = asked(packets).await;
            let error = answer.unwrap_err();
            assert!(
                matches!(error, MailboxError::StartTlsInjection),
                "{error:?}"
            );
            assert_eq!(error.code(), "mailbox-tls");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_want_is_named() {
        let goodbye =
            |error: &MailboxError| matches!(error, MailboxError::Bye(words) if words == "too many");
        let (answer, heard) = asked(&[b"* BYE too many\r\n"]).await;
        assert!(goodbye(&answer.unwrap_err()));
        assert!(heard.is_empty(), "it was not asked");
        let (answer, _) = asked(&[b"* OK hi\r\n* bye too many\r\n"]).await;
        assert!(goodbye(&answer.unwrap_err()));
        for greeting in [&b"* PREAUTH come in\r\n"[..], b"220 smtp.example.com\r\n"] {
            let (answer, heard) = asked(&[greeting]).await;
            assert!(matches!(answer.unwrap_err(), MailboxError::NotImap(_)));
            assert!(heard.is_empty(), "it was not asked");
        }
        for answer in [&b"s1 NO not here\r\n"[..], b"s1 BAD what\r\n"] {
            let (answer, _) = asked(&[b"* OK hi\r\n", answer]).await;
            assert!(matches!(answer.unwrap_err(), MailboxError::NoStartTls));
        }
    }

    #[tokio::test]
    async fn a_server_that_never_comes_to_the_point_is_bounded() {
        let lines = b"* OK still here\r\n".repeat(2000);
        let (answer, _) = asked(&[&lines]).await;
        let error = answer.unwrap_err();
        assert!(
            matches!(error, MailboxError::Excess(Excess::Command(ALL))),
            "{error:?}"
        );
        let (answer, _) = asked(&[&[b'x'; 2 * LINE]]).await;
        let error = answer.unwrap_err();
        assert!(
            matches!(error, MailboxError::Excess(Excess::Line(LINE))),
            "{error:?}"
        );
    }
}
