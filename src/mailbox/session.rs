//! The command layer: one command, its answers, its tag.
//!
//! async-imap parses what the server says; everything else is done here,
//! because its own commands take a lost connection for "no mail", a refused
//! SEARCH for an empty one, and a closed stream for a wake-up. In this layer a
//! command has succeeded when its tagged OK was read, and the end of the stream
//! is [`MailboxError::Lost`], always.
//!
//! Only commands that leave a mailbox as it is are known here: EXAMINE and
//! BODY.PEEK (invariant 8).
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of imap-proto are open: what was not asked for is passed over"
)]

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_imap::Client;
use async_imap::imap_proto::{
    AttributeValue, Capability, MailboxDatum, Outcome, Response, ResponseCode, Status,
};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::MailboxError;
use super::connect::{self, Line, Roots, Security, Server};
use super::error::clean;
use super::guard::{Guard, Limits};
use super::wire::{folder_name, head, is_passing, response_code, uid_of};

/// How long the server may be silent within one command.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one command may take in all.
const DEADLINE: Duration = Duration::from_secs(600);
/// How long the server may take to end IDLE.
const DONE: Duration = Duration::from_secs(15);
/// An IDLE that a server ends sooner is none.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
/// How much of a mail's headers is looked at before it is fetched, in bytes.
const HEAD: usize = 16 * 1024;

/// A connection that is logged in.
pub struct Session {
    client: Client<Guard<Box<dyn Line>>>,
    tags: u32,
    pub(super) capabilities: BTreeSet<String>,
    /// How many mails the folder has.
    exists: u32,
    /// How many of them a look has covered.
    covered: u32,
    /// More mails came since this was last asked.
    news: bool,
    /// The server's last words, if it has said BYE.
    bye: Option<String>,
}

/// A folder as EXAMINE shows it.
#[derive(Clone, Copy, Debug)]
pub struct Folder {
    /// UIDVALIDITY (RFC 3501, section 2.3.1.1).
    pub uid_validity: u32,
    /// The UID that the next mail gets, where the server says so.
    pub uid_next: Option<u32>,
    /// How many mails there are.
    pub exists: u32,
}

/// What is looked at before a mail is fetched.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its sequence number: the mails of a folder are 1 to EXISTS.
    pub sequence: u32,
    /// Its UID.
    pub uid: u32,
    /// Its size in bytes, as the server counts.
    pub size: u32,
    /// INTERNALDATE: when the server received it; `None` where it cannot be read.
    pub received: Option<Timestamp>,
    /// Its `From` and `Subject` fields; `None` where the server says NIL.
    pub fields: Option<Vec<u8>>,
}

/// Why IDLE ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// New mail was announced.
    News,
    /// It is time to renew IDLE.
    Renew,
}

impl Session {
    /// Connects and reads the greeting.
    pub async fn connect(server: &Server, roots: &Roots) -> Result<Self, MailboxError> {
        let line = connect::line(server, roots).await?;
        let limits = Limits::for_mails_up_to(server.max_mail_size);
        let mut session = Self {
            client: Client::new(Guard::new(line, limits)),
            tags: 0,
            capabilities: BTreeSet::new(),
            exists: 0,
            covered: 0,
            news: false,
            bye: None,
        };
        // STARTTLS has used the greeting up, and what was said before TLS is
        // forgotten (RFC 3501, section 6.2.1).
        if server.security != Security::StartTls {
            session.greeting().await?;
        }
        if session.capabilities.is_empty() {
            session.command("CAPABILITY", "CAPABILITY", |_| {}).await?;
        }
        Ok(session)
    }

    async fn greeting(&mut self) -> Result<(), MailboxError> {
        let mut unwanted = Some("no greeting".to_owned());
        let heard = self.hear("the greeting", SILENCE, "", |response| {
            if let Response::Data { status, outcome } = response {
                unwanted = (*status != Status::Ok).then(|| clean(&words(outcome)));
            }
        });
        match (heard.await, unwanted) {
            (Err(MailboxError::Bye(words)), _) => Err(MailboxError::NotImap(words)),
            (Err(error), _) => Err(error),
            (Ok(_), Some(unwanted)) => Err(MailboxError::NotImap(unwanted)),
            (Ok(_), None) => Ok(()),
        }
    }

    /// Whether the server pushes news (RFC 2177).
    pub fn can_idle(&self) -> bool {
        self.can("IDLE")
    }

    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// Opens a folder for reading only.
    pub async fn examine(&mut self, folder: &str) -> Result<Folder, MailboxError> {
        const DOING: &str = "EXAMINE";
        let (mut uid_validity, mut uid_next, mut exists) = (None, None, None);
        let line = format!("EXAMINE {}", folder_name(folder)?);
        let tag = self.send(DOING, &line).await?;
        let answer = self
            .until_done(DOING, &tag, |response| match response {
                Response::Data { outcome, .. } => match outcome.code {
                    Some(ResponseCode::UidValidity(n)) => uid_validity = Some(n),
                    Some(ResponseCode::UidNext(n)) => uid_next = Some(n),
                    _ => {}
                },
                Response::MailboxData(MailboxDatum::Exists(n)) => exists = Some(*n),
                _ => {}
            })
            .await?;
        if let Answer::Refused(words) = answer {
            return Err(match response_code(&words) {
                Some(code) if is_passing(&code) => MailboxError::Refused {
                    doing: DOING,
                    text: clean(&words),
                },
                _ => MailboxError::NoFolder(folder.to_owned()),
            });
        }
        let lacking = |what| MailboxError::Lacking { doing: DOING, what };
        // Without UIDVALIDITY no UID means anything; RFC 3501 demands it.
        let uid_validity = uid_validity
            .filter(|n| *n > 0)
            .ok_or_else(|| lacking("UIDVALIDITY"))?;
        let exists = exists.ok_or_else(|| lacking("EXISTS"))?;
        self.exists = exists;
        // A look through the folder covers what is there now.
        self.covered = exists;
        self.news = false;
        Ok(Folder {
            uid_validity,
            uid_next: uid_next.filter(|n| *n > 0),
            exists,
        })
    }

    /// The UIDs that match `keys`, in order; `None` where the server refuses
    /// to search.
    pub async fn search(&mut self, keys: &str) -> Result<Option<Vec<u32>>, MailboxError> {
        const DOING: &str = "SEARCH";
        let mut found: Option<Vec<u32>> = None;
        let tag = self.send(DOING, &format!("UID SEARCH {keys}")).await?;
        let answer = self
            .until_done(DOING, &tag, |response| {
                if let Response::MailboxData(MailboxDatum::Search(uids)) = response {
                    found.get_or_insert_default().extend(uids);
                }
            })
            .await?;
        match (answer, found) {
            (Answer::Refused(_), _) => Ok(None),
            // OK without any answer is no answer.
            (Answer::Ok, None) => Ok(None),
            (Answer::Ok, Some(mut uids)) => {
                uids.sort_unstable();
                uids.dedup();
                Ok(Some(uids))
            }
        }
    }

    /// All UIDs of a set, in order.
    pub async fn uids(&mut self, set: &str) -> Result<Vec<u32>, MailboxError> {
        let mut uids = BTreeSet::new();
        self.command("FETCH", &format!("UID FETCH {set} (UID)"), |response| {
            if let Response::Fetch(_, items) = response {
                uids.extend(uid_of(items));
            }
        })
        .await?;
        Ok(uids.into_iter().collect())
    }

    /// The heads of a set of UIDs, each handed on as it comes in.
    pub async fn heads(
        &mut self,
        set: &str,
        mut each: impl FnMut(Head),
    ) -> Result<(), MailboxError> {
        let line = format!(
            "UID FETCH {set} (UID RFC822.SIZE INTERNALDATE \
             BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]<0.{HEAD}>)"
        );
        let mut lacking = None;
        self.command("FETCH", &line, |response| {
            if let Response::Fetch(sequence, items) = response {
                match head(*sequence, items) {
                    Some(Ok(head)) => each(head),
                    Some(Err(what)) => lacking = Some(what),
                    // News of a flag, which nobody asked for.
                    None => {}
                }
            }
        })
        .await?;
        match lacking {
            Some(what) => Err(MailboxError::Lacking {
                doing: "FETCH",
                what,
            }),
            None => Ok(()),
        }
    }

    /// A mail, at most `limit` bytes of it; `None` where it is gone.
    pub async fn body(&mut self, uid: u32, limit: u32) -> Result<Option<Vec<u8>>, MailboxError> {
        let mut body = None;
        let line = format!("UID FETCH {uid} (UID BODY.PEEK[]<0.{limit}>)");
        self.command("FETCH", &line, |response| {
            if let Response::Fetch(_, items) = response
                && uid_of(items) == Some(uid)
            {
                body = body.take().or_else(|| {
                    items.iter().find_map(|item| match item {
                        AttributeValue::BodySection {
                            section: None,
                            data: Some(data),
                            ..
                        } => Some(data.to_vec()),
                        _ => None,
                    })
                });
            }
        })
        .await?;
        if body.is_none() && self.uids(&uid.to_string()).await?.contains(&uid) {
            return Err(MailboxError::Lacking {
                doing: "FETCH",
                what: "the mail",
            });
        }
        Ok(body)
    }

    /// Lets a server without IDLE tell its news.
    pub async fn poll(&mut self) -> Result<(), MailboxError> {
        self.command("NOOP", "NOOP", |_| {}).await?;
        self.news = false;
        Ok(())
    }

    /// How many mails the folder has, as far as the server has said.
    pub fn exists(&self) -> u32 {
        self.exists
    }

    /// How many of them, the first ones, have been looked at.
    pub(super) fn covered(&self) -> u32 {
        self.covered
    }

    /// So many have been looked at.
    pub(super) fn cover(&mut self, mails: u32) {
        self.covered = mails.min(self.exists);
    }

    /// Waits for news, at most for `renew` (RFC 2177). `Ok(None)`: the server
    /// refuses IDLE.
    pub async fn idle(&mut self, renew: Duration) -> Result<Option<Wake>, MailboxError> {
        const DOING: &str = "IDLE";
        // Announced during an earlier command: there is nothing to wait for.
        if std::mem::take(&mut self.news) {
            return Ok(Some(Wake::News));
        }
        let tag = self.send(DOING, DOING).await?;
        if self.until_continue(DOING, &tag).await?.is_some() {
            return Ok(None);
        }
        let begun = Instant::now();
        // What comes between IDLE and `+` is noted like everything else.
        while !self.news {
            let patience = renew.saturating_sub(begun.elapsed());
            match self.hear(DOING, patience, &tag, |_| {}).await {
                Ok(Heard::Untagged | Heard::Continue) => {}
                // The server has ended IDLE by itself. Some do so at once,
                // always: that is no IDLE, and would be a busy loop.
                Ok(Heard::Done(_)) if begun.elapsed() < SHORTEST_IDLE && !self.news => {
                    return Ok(None);
                }
                Ok(Heard::Done(_)) => return Ok(Some(self.wake())),
                Err(MailboxError::Deadline(_)) => break,
                Err(error) => return Err(error),
            }
        }
        self.write(DOING, "DONE", "").await?;
        match tokio::time::timeout(DONE, self.until_done(DOING, &tag, |_| {})).await {
            Ok(answer) => answer?,
            Err(_) => return Err(MailboxError::Deadline("DONE")),
        };
        Ok(Some(self.wake()))
    }

    fn wake(&mut self) -> Wake {
        if std::mem::take(&mut self.news) {
            Wake::News
        } else {
            Wake::Renew
        }
    }

    /// Ends the session politely, if the server plays along.
    pub async fn log_out(mut self) {
        let farewell = self.command("LOGOUT", "LOGOUT", |_| {});
        if tokio::time::timeout(Duration::from_secs(2), farewell)
            .await
            .is_err()
        {
            tracing::debug!(event = "mailbox.logout", "the server did not answer LOGOUT");
        }
    }

    /// Sends one command, hands each untagged answer on, and succeeds when the
    /// tagged OK was read.
    pub(super) async fn command(
        &mut self,
        doing: &'static str,
        line: &str,
        each: impl FnMut(&Response<'_>),
    ) -> Result<(), MailboxError> {
        let tag = self.send(doing, line).await?;
        match self.until_done(doing, &tag, each).await? {
            Answer::Ok => Ok(()),
            Answer::Refused(words) => Err(MailboxError::Refused {
                doing,
                text: clean(&words),
            }),
        }
    }

    pub(super) async fn send(
        &mut self,
        doing: &'static str,
        line: &str,
    ) -> Result<String, MailboxError> {
        self.tags = self.tags.wrapping_add(1);
        let tag = format!("t{}", self.tags);
        self.client.get_mut().begin_command();
        tracing::debug!(event = "imap.command", doing, tag, "asking the server");
        self.write(doing, &tag, line).await?;
        Ok(tag)
    }

    /// Writes one line. It goes past async-imap, whose own writing would log
    /// it, password and all.
    pub(super) async fn write(
        &mut self,
        doing: &'static str,
        first: &str,
        rest: &str,
    ) -> Result<(), MailboxError> {
        let mut line = Zeroizing::new(String::with_capacity(
            first.len().saturating_add(rest.len()).saturating_add(3),
        ));
        line.push_str(first);
        if !rest.is_empty() {
            line.push(' ');
            line.push_str(rest);
        }
        line.push_str("\r\n");
        let stream = self.client.get_mut();
        let writing = async {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await
        };
        match tokio::time::timeout(SILENCE, writing).await {
            Ok(written) => written.map_err(|error| MailboxError::from_stream(doing, error)),
            Err(_) => Err(MailboxError::Deadline(doing)),
        }
    }

    pub(super) async fn until_done(
        &mut self,
        doing: &'static str,
        tag: &str,
        mut each: impl FnMut(&Response<'_>),
    ) -> Result<Answer, MailboxError> {
        let begun = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            if let Heard::Done(answer) = self.hear(doing, SILENCE.min(left), tag, &mut each).await?
            {
                return Ok(answer);
            }
        }
    }

    /// Reads until the server asks for more; `Some` are its words where it refuses.
    pub(super) async fn until_continue(
        &mut self,
        doing: &'static str,
        tag: &str,
    ) -> Result<Option<String>, MailboxError> {
        let begun = Instant::now();
        loop {
            let left = SILENCE.saturating_sub(begun.elapsed());
            match self.hear(doing, left, tag, |_| {}).await? {
                Heard::Untagged => {}
                Heard::Continue => return Ok(None),
                Heard::Done(Answer::Refused(words)) => return Ok(Some(words)),
                // OK without having asked for the rest: out of step.
                Heard::Done(Answer::Ok) => return Err(MailboxError::Unparsable(doing)),
            }
        }
    }

    /// The next response: noted, then handed to `each` where it is untagged.
    async fn hear(
        &mut self,
        doing: &'static str,
        patience: Duration,
        tag: &str,
        mut each: impl FnMut(&Response<'_>),
    ) -> Result<Heard, MailboxError> {
        // The parser panics at some answers, such as `INTERNALDATE NIL`.
        let reading = AssertUnwindSafe(self.client.read_response()).catch_unwind();
        let response = tokio::time::timeout(patience, reading)
            .await
            .map_err(|_| MailboxError::Deadline(doing))?
            .map_err(|_| MailboxError::Unparsable(doing))?
            .map_err(|error| MailboxError::from_stream(doing, error))?
            .ok_or(MailboxError::Lost(doing))?;
        self.note(response.parsed());
        // Some servers say BYE and leave the line open.
        if let Some(words) = self.bye.take() {
            return Err(MailboxError::Bye(words));
        }
        match response.parsed() {
            Response::Continue(_) => Ok(Heard::Continue),
            Response::Done {
                tag: done,
                status,
                outcome,
            } if done.0 == tag => Ok(Heard::Done(match status {
                Status::Ok => Answer::Ok,
                _ => Answer::Refused(words(outcome)),
            })),
            // An answer to nothing that was asked: the two of us are out of step.
            Response::Done { .. } => Err(MailboxError::Unparsable(doing)),
            untagged => {
                each(untagged);
                Ok(Heard::Untagged)
            }
        }
    }

    /// Keeps what the server says by the way.
    fn note(&mut self, response: &Response<'_>) {
        match response {
            Response::MailboxData(MailboxDatum::Exists(n)) => {
                self.news |= *n > self.exists;
                self.exists = *n;
            }
            Response::Expunge(sequence) => {
                self.exists = self.exists.saturating_sub(1);
                if *sequence <= self.covered {
                    self.covered = self.covered.saturating_sub(1);
                }
            }
            Response::Capabilities(list) => self.learn_capabilities(list),
            Response::Data { status, outcome } => {
                if *status == Status::Bye {
                    self.bye = Some(clean(&words(outcome)));
                }
                self.learn(outcome);
            }
            Response::Done { outcome, .. } => self.learn(outcome),
            _ => {}
        }
    }

    fn learn(&mut self, outcome: &Outcome<'_>) {
        if let Some(ResponseCode::Capabilities(list)) = &outcome.code {
            self.learn_capabilities(list);
        }
    }

    fn learn_capabilities(&mut self, list: &[Capability<'_>]) {
        self.capabilities = list
            .iter()
            .map(|capability| match capability {
                Capability::Imap4rev1 => "IMAP4REV1".to_owned(),
                Capability::Auth(way) => format!("AUTH={}", way.to_ascii_uppercase()),
                Capability::Atom(word) => word.to_ascii_uppercase(),
            })
            .collect();
    }
}

/// What was heard.
enum Heard {
    Untagged,
    /// The server wants more.
    Continue,
    /// The command is done.
    Done(Answer),
}

/// What a tagged answer says.
pub(super) enum Answer {
    Ok,
    /// NO or BAD, and the server's words.
    Refused(String),
}

fn words(outcome: &Outcome<'_>) -> String {
    outcome
        .information
        .as_deref()
        .unwrap_or_default()
        .to_owned()
}
