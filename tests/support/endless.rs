//! A server of as many mails as are wanted, none of which it has: each is made
//! from its number when it is asked for. It speaks IMAP in clear, and only what
//! a reader of one inbox says.
//!
//! Mail number `n` has the UID `n × gap`. Of all mails `TOKENS` are token mails,
//! the last of them the last mail of all.
//!
//! Deliberately absent: whatever changes while somebody looks, and every search
//! key but UID; a search for words finds the token mails.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "every bench that includes this file uses a part of it, and fails by a panic"
)]

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::mail::{TokenMail, token};

/// How many token mails there are.
pub const TOKENS: u32 = 5;

/// Whose token they bring, by word of `mail::RECEIVER`.
pub const USER: &str = "mariana@idalko.com";

/// What is in the inbox.
#[derive(Clone, Copy)]
pub struct Inbox {
    /// How many mails, a multiple of [`TOKENS`].
    pub mails: u32,
    /// The distance from one UID to the next.
    pub gap: u32,
    /// SEARCH is answered with `NO`.
    pub refuses_search: bool,
}

/// The server; dropped, it ends its connections.
pub struct Endless {
    port: u16,
    idling: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Endless {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(inbox: Inbox) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (idlers, idling) = watch::channel(0);
        let idlers = Arc::new(idlers);
        let started = Timestamp::now();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut connection = Connection {
                    stream: BufStream::with_capacity(4096, 1 << 16, stream),
                    inbox,
                    started,
                    idlers: Arc::clone(&idlers),
                };
                // The client may hang up first: that ends the conversation.
                connections.spawn(async move { connection.talk().await.unwrap_or_default() });
            }
        });
        Self {
            port,
            idling,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until somebody has gone into IDLE.
    pub async fn wait_idling(&mut self) {
        self.idling.wait_for(|idlers| *idlers > 0).await.unwrap();
    }
}

struct Connection {
    stream: BufStream<TcpStream>,
    inbox: Inbox,
    started: Timestamp,
    /// How often anybody has gone into IDLE.
    idlers: Arc<watch::Sender<usize>>,
}

impl Connection {
    async fn talk(&mut self) -> io::Result<()> {
        self.say("* OK [CAPABILITY IMAP4rev1 IDLE ID] endless\r\n")
            .await?;
        self.stream.flush().await?;
        let mut line = String::new();
        while self.stream.read_line(&mut line).await? > 0 {
            let (tag, command) = line.trim_end().split_once(' ').unwrap();
            let answer = self.answer(&command.to_ascii_uppercase()).await?;
            self.say(&format!("{tag} {answer}\r\n")).await?;
            self.stream.flush().await?;
            line.clear();
        }
        Ok(())
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await
    }

    /// The untagged answers are written, the tagged one is returned.
    async fn answer(&mut self, command: &str) -> io::Result<&'static str> {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match name {
            "LOGIN" | "NOOP" => {}
            "CAPABILITY" => self.say("* CAPABILITY IMAP4rev1 IDLE ID\r\n").await?,
            "ID" => self.say("* ID NIL\r\n").await?,
            "EXAMINE" => {
                let Inbox { mails, gap, .. } = self.inbox;
                let next = u64::from(mails) * u64::from(gap) + 1;
                self.say(&format!(
                    "* {mails} EXISTS\r\n* OK [UIDVALIDITY 1] the same\r\n\
                     * OK [UIDNEXT {next}] the next\r\n"
                ))
                .await?;
                return Ok("OK [READ-ONLY] look");
            }
            "FETCH" => self.fetch(rest, false).await?,
            "UID" => match rest.split_once(' ') {
                Some(("FETCH", rest)) => self.fetch(rest, true).await?,
                Some(("SEARCH", keys)) => return self.search(keys).await,
                _ => return Ok("BAD what is that?"),
            },
            "IDLE" => {
                self.say("+ idling\r\n").await?;
                self.stream.flush().await?;
                self.idlers.send_modify(|idlers| *idlers += 1);
                self.stream.read_line(&mut String::new()).await?;
            }
            "LOGOUT" => self.say("* BYE until then\r\n").await?,
            _ => return Ok("BAD what is that?"),
        }
        Ok("OK done")
    }

    async fn search(&mut self, keys: &str) -> io::Result<&'static str> {
        if self.inbox.refuses_search {
            return Ok("NO I do not search");
        }
        let words: Vec<&str> = keys.split(' ').collect();
        let set = words.windows(2).find(|pair| pair[0] == "UID");
        let set = set.map_or("1:*", |pair| pair[1]);
        let narrowed = keys.contains("SUBJECT") || keys.contains("FROM");
        self.say("* SEARCH").await?;
        for numbers in self.numbers(set, self.inbox.gap) {
            for n in numbers {
                if !narrowed || self.brings_token(n) {
                    self.say(&format!(" {}", n * self.inbox.gap)).await?;
                }
            }
        }
        self.say("\r\n").await?;
        Ok("OK done")
    }

    async fn fetch(&mut self, rest: &str, by_uid: bool) -> io::Result<()> {
        let unit = if by_uid { self.inbox.gap } else { 1 };
        let (set, items) = rest.split_once(' ').unwrap();
        let inner = items
            .strip_prefix('(')
            .and_then(|items| items.strip_suffix(')'));
        let items = inner.unwrap_or(items);
        for numbers in self.numbers(set, unit) {
            for n in numbers {
                let answer = self.items(n, items, by_uid);
                self.stream.write_all(&answer).await?;
            }
        }
        Ok(())
    }

    /// `* n FETCH (…)` with the items in the order in which they were asked for.
    fn items(&self, n: u32, items: &str, by_uid: bool) -> Vec<u8> {
        let mail = self.mail(n);
        let mut out = format!("* {n} FETCH (").into_bytes();
        if by_uid && !items.split(' ').any(|item| item == "UID") {
            out.extend(format!("UID {} ", n * self.inbox.gap).bytes());
        }
        let mut left = items;
        while !left.is_empty() {
            // The section of BODY[…] and its octets belong to the word.
            let end = left.find(']').filter(|_| left.starts_with("BODY"));
            let begin = end.unwrap_or_default();
            let end = left[begin..].find(' ').map_or(left.len(), |at| begin + at);
            let item = &left[..end];
            left = left[end..].trim_start();
            match item {
                "UID" => out.extend(format!("UID {}", n * self.inbox.gap).bytes()),
                "RFC822.SIZE" => out.extend(format!("RFC822.SIZE {}", mail.len()).bytes()),
                "FLAGS" => out.extend(b"FLAGS ()"),
                "INTERNALDATE" => {
                    let date = Offset::UTC.to_datetime(self.date(n));
                    let date = date.strftime("%d-%b-%Y %H:%M:%S +0000");
                    out.extend(format!("INTERNALDATE \"{date}\"").bytes());
                }
                _ => out.extend(section(item, &mail)),
            }
            out.push(b' ');
        }
        out.pop();
        out.extend(b")\r\n");
        out
    }

    /// The numbers of a set of UIDs (`unit` is the gap) or sequence numbers.
    fn numbers(&self, set: &str, unit: u32) -> Vec<RangeInclusive<u32>> {
        let last = self.inbox.mails * unit;
        let number = |word: &str| {
            if word == "*" {
                last
            } else {
                word.parse().unwrap()
            }
        };
        set.split(',')
            .map(|range| {
                let (a, b) = range.split_once(':').unwrap_or((range, range));
                let (a, b) = (number(a), number(b));
                a.min(b).div_ceil(unit).max(1)..=(a.max(b) / unit).min(self.inbox.mails)
            })
            .collect()
    }

    fn brings_token(&self, n: u32) -> bool {
        n.is_multiple_of(self.inbox.mails / TOKENS)
    }

    /// Spread over the last ten days, so that each token is newer than the one before.
    fn date(&self, n: u32) -> Timestamp {
        let age = u64::from(self.inbox.mails - n) * 864_000 / u64::from(self.inbox.mails);
        self.started - SignedDuration::from_secs(age.try_into().unwrap())
    }

    fn mail(&self, n: u32) -> Vec<u8> {
        if self.brings_token(n) {
            return TokenMail::new(USER, &token(n.into()), self.date(n)).bytes();
        }
        format!(
            "Received: from mail.example.org by mx.example.com; number {n}\r\n\
             From: News of all kinds <news{n}@example.org>\r\n\
             To: ops@example.com\r\n\
             Subject: Issue {n}: what is new, and what is not\r\n\
             Message-ID: <{n}@example.org>\r\n\r\nNothing to see here.\r\n"
        )
        .into_bytes()
    }
}

/// `BODY.PEEK[]<0.9>` and `BODY.PEEK[HEADER.FIELDS (…)]<0.9>` as they are answered.
fn section(item: &str, mail: &[u8]) -> Vec<u8> {
    let item = item.replace(".PEEK", "");
    let (section, octets) = item.split_at(item.find(']').unwrap() + 1);
    let limit = octets.trim_matches(['<', '>']).strip_prefix("0.");
    let limit = limit.map_or(usize::MAX, |limit| limit.parse().unwrap());
    let origin = if octets.is_empty() { "" } else { "<0>" };
    let content = match section.split_once('(') {
        Some((_, names)) => fields(mail, names.trim_end_matches([')', ']'])),
        None if section == "BODY[]" => mail.to_vec(),
        None => panic!("BODY[…] of another kind: {item}"),
    };
    let content = &content[..content.len().min(limit)];
    let mut out = format!("{section}{origin} {{{}}}\r\n", content.len()).into_bytes();
    out.extend(content);
    out
}

/// The fields of these names, and an empty line.
fn fields(mail: &[u8], names: &str) -> Vec<u8> {
    let text = std::str::from_utf8(mail).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let mut out = String::new();
    for line in head.split("\r\n") {
        let name = line.split(':').next().unwrap_or_default();
        if names
            .split(' ')
            .any(|wanted| wanted.eq_ignore_ascii_case(name))
        {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out.push_str("\r\n");
    out.into_bytes()
}
