//! One conversation with the IMAP test server: the commands, and the wire.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::imap_mailbox::{Set, View};
use super::imap_query::{self, Item, Key, Refusal, Token};
use super::{Era, Idling, State};

/// An answer of this size is written before more of it is made.
const BATCH: usize = 256 * 1024;

/// The longest line and the longest literal; a client that needs more is broken.
const MAX_INPUT: usize = 64 * 1024;

/// Commands that change flags or mails, or let others change them.
const TOUCHING: [&str; 7] = [
    "SELECT", "STORE", "COPY", "MOVE", "EXPUNGE", "APPEND", "CLOSE",
];

/// A connection's conversation, over whatever stream it runs.
pub struct Session<S> {
    state: Arc<State>,
    phase: Phase,
    wire: Wire<S>,
}

/// The states of a connection (RFC 3501, section 3).
enum Phase {
    NotAuthenticated,
    Authenticated,
    Selected(View),
    Logout,
}

/// Why a command, or the conversation, went no further.
enum Stop {
    /// The tagged answer without its tag.
    Refused(Refusal),
    /// The last word on the connection.
    Bye(&'static str),
    Gone,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// The tagged answer to a command, without its tag.
type Answer = Result<&'static str, Stop>;

const OK: Answer = Ok("OK done");

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub fn new(stream: S, state: Arc<State>, era: u64) -> Self {
        Self {
            phase: Phase::NotAuthenticated,
            wire: Wire {
                stream,
                era,
                eras: state.era.subscribe(),
                input: Vec::new(),
                out: Vec::new(),
            },
            state,
        }
    }

    pub async fn run(mut self) {
        if let Err(Stop::Bye(reason)) = self.converse().await {
            self.wire.say(format_args!("* BYE {reason}"));
        }
        // The client may be gone already, and then nobody is left to be told.
        if self.wire.flush().await.is_ok() {
            self.wire.stream.shutdown().await.ok();
        }
    }

    async fn converse(&mut self) -> Result<(), Stop> {
        let capabilities = self.state.capabilities();
        self.wire
            .say(format_args!("* OK [CAPABILITY {capabilities}] ready"));
        while !matches!(self.phase, Phase::Logout) {
            self.wire.flush().await?;
            let command = self.wire.command().await?;
            self.state.record(&command);
            let (tag, words) = imap_query::split_tag(&command);
            let answer = match imap_query::tokenize(words) {
                Ok(words) => self.execute(&words).await,
                Err(refusal) => Err(refusal.into()),
            };
            match answer {
                Ok(answer) | Err(Stop::Refused(answer)) => {
                    self.wire.say(format_args!("{tag} {answer}"));
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// A command, and then the news of the mailbox, which so comes before the
    /// tagged answer.
    async fn execute(&mut self, words: &[Token]) -> Answer {
        let (by_uid, name, arguments) = match words {
            [Token::Atom(uid), name, arguments @ ..] if uid.eq_ignore_ascii_case("UID") => {
                (true, name.keyword()?, arguments)
            }
            [name, arguments @ ..] => (false, name.keyword()?, arguments),
            [] => return Err("BAD a command is missing".into()),
        };
        let answer = self.perform(&name, by_uid, arguments).await;
        self.catch_up(by_uid || !matches!(name.as_str(), "FETCH" | "SEARCH" | "STORE"));
        answer
    }

    async fn perform(&mut self, name: &str, by_uid: bool, arguments: &[Token]) -> Answer {
        let fresh = matches!(self.phase, Phase::NotAuthenticated);
        let touching = TOUCHING.contains(&name);
        if touching {
            self.state.flags_touched.store(true, Relaxed);
        }
        match name {
            "FETCH" => self.fetch(by_uid, arguments).await,
            "SEARCH" => self.search(by_uid, arguments),
            _ if touching && name != "SELECT" => Err("NO [NOPERM] nothing can be changed".into()),
            _ if by_uid => Err("BAD not a command with UIDs".into()),
            "CAPABILITY" => {
                let capabilities = self.state.capabilities();
                self.wire.say(format_args!("* CAPABILITY {capabilities}"));
                OK
            }
            "NOOP" => OK,
            "ID" => {
                self.wire.say(r#"* ID ("name" "imap-test-server")"#);
                OK
            }
            "LOGOUT" => {
                self.wire.say("* BYE logging out");
                self.phase = Phase::Logout;
                OK
            }
            "LOGIN" if fresh => match arguments {
                [user, password] => self.log_in(user.text()?, password.text()?),
                _ => Err("BAD a user and a password belong here".into()),
            },
            "AUTHENTICATE" if fresh => self.authenticate(arguments).await,
            "EXAMINE" | "SELECT" if !fresh => self.open(arguments),
            "UNSELECT" => {
                self.phase.view()?;
                self.phase = Phase::Authenticated;
                OK
            }
            "STATUS" if !fresh => self.status(arguments),
            "LIST" if !fresh => self.list(arguments),
            "IDLE" if !fresh && self.state.options.idle => self.idle().await,
            _ => Err("BAD not a command, or not one for this state".into()),
        }
    }

    async fn authenticate(&mut self, arguments: &[Token]) -> Answer {
        let (mechanism, initial) = match arguments {
            [mechanism] => (mechanism, None),
            [mechanism, initial] => (mechanism, Some(initial.text()?)),
            _ => return Err("BAD a mechanism belongs here".into()),
        };
        if mechanism.keyword()? != "PLAIN" {
            return Err("NO only PLAIN is known".into());
        }
        let response = if let Some(initial) = initial {
            initial.as_bytes().to_vec()
        } else {
            self.wire.say("+ ");
            self.wire.flush().await?;
            self.wire.line().await?
        };
        if response == b"*" {
            return Err("BAD cancelled".into());
        }
        let response = STANDARD.decode(response).map_err(|_| "BAD not base64")?;
        let response = String::from_utf8(response).map_err(|_| "BAD not UTF-8")?;
        match response.split('\0').collect::<Vec<_>>()[..] {
            ["", user, password] => self.log_in(user, password),
            [identity, user, password] if identity == user => self.log_in(user, password),
            _ => Err("NO [AUTHORIZATIONFAILED] not a login as oneself".into()),
        }
    }

    fn log_in(&mut self, user: &str, password: &str) -> Answer {
        let options = &self.state.options;
        let right = user == options.user && password == options.password;
        if right && !self.state.refuse_logins.load(Relaxed) {
            self.state.logins.fetch_add(1, Relaxed);
            self.phase = Phase::Authenticated;
            Ok("OK logged in")
        } else {
            self.state.failed_logins.fetch_add(1, Relaxed);
            Err("NO [AUTHENTICATIONFAILED] wrong user or password".into())
        }
    }

    /// SELECT and EXAMINE alike, because nothing can be changed here: RFC 3501
    /// lets SELECT answer that the mailbox is read-only.
    fn open(&mut self, arguments: &[Token]) -> Answer {
        // A mailbox that cannot be opened leaves none open.
        self.phase = Phase::Authenticated;
        let [name] = arguments else {
            return Err("BAD a mailbox belongs here".into());
        };
        inbox(name)?;
        let view = View::of(&self.state.mailbox.lock().unwrap());
        let wire = &mut self.wire;
        wire.say(r"* FLAGS (\Answered \Flagged \Deleted \Seen \Draft)");
        wire.say(format_args!("* {} EXISTS", view.mails.len()));
        wire.say("* 0 RECENT");
        wire.say(format_args!(
            "* OK [UIDVALIDITY {}] valid",
            view.uid_validity
        ));
        wire.say(format_args!("* OK [UIDNEXT {}] next", view.uid_next));
        wire.say("* OK [PERMANENTFLAGS ()] none");
        self.phase = Phase::Selected(view);
        Ok("OK [READ-ONLY] done")
    }

    fn status(&mut self, arguments: &[Token]) -> Answer {
        let [name, Token::List(items)] = arguments else {
            return Err("BAD a mailbox and a list of items belong here".into());
        };
        inbox(name)?;
        let mut values = Vec::new();
        let mailbox = self.state.mailbox.lock().unwrap();
        for item in items {
            let item = item.keyword()?;
            let value = match item.as_str() {
                "MESSAGES" | "UNSEEN" => mailbox.mails.len(),
                "RECENT" => 0,
                "UIDNEXT" => mailbox.uid_next as usize,
                "UIDVALIDITY" => mailbox.uid_validity as usize,
                _ => return Err("BAD not a known status item".into()),
            };
            values.push(format!("{item} {value}"));
        }
        let values = values.join(" ");
        self.wire.say(format_args!("* STATUS INBOX ({values})"));
        OK
    }

    fn list(&mut self, arguments: &[Token]) -> Answer {
        let [reference, pattern] = arguments else {
            return Err("BAD a reference and a pattern belong here".into());
        };
        let pattern = [reference.text()?, pattern.text()?].concat();
        if pattern.is_empty() {
            self.wire.say(r#"* LIST (\Noselect) "/" """#);
        } else if imap_query::pattern_matches(pattern.as_bytes(), b"INBOX") {
            self.wire.say(r#"* LIST (\HasNoChildren) "/" INBOX"#);
        }
        OK
    }

    async fn idle(&mut self) -> Answer {
        let state = Arc::clone(&self.state);
        // Subscribed before the first look, so that no change falls in between.
        let mut changed = state.changed.subscribe();
        let idling = Idling::enter(&state, self.wire.era);
        self.wire.say("+ idling");
        let line = loop {
            self.catch_up(true);
            self.wire.flush().await?;
            tokio::select! {
                biased;
                line = self.wire.line() => break line?,
                rung = changed.changed() => rung.expect("the state holds the sender"),
            }
        };
        drop(idling);
        state.record(&line);
        if line.eq_ignore_ascii_case(b"DONE") {
            OK
        } else {
            Err("BAD only DONE ends an IDLE".into())
        }
    }

    fn search(&mut self, by_uid: bool, arguments: &[Token]) -> Answer {
        let view = self.phase.view()?;
        let key = Key::search(arguments, view.last())?;
        if self.state.refuse_search.load(Relaxed) {
            return Err("NO not now".into());
        }
        let candidates = match key.uids() {
            Some(set) => view.with_uids(set),
            None => (1..=view.mails.len()).collect(),
        };
        let out = &mut self.wire.out;
        out.extend(b"* SEARCH");
        for number in candidates {
            let mail = &view.mails[number - 1];
            if key.matches(number, mail) {
                let found = if by_uid { mail.uid as usize } else { number };
                write!(out, " {found}").unwrap();
            }
        }
        out.extend(b"\r\n");
        OK
    }

    async fn fetch(&mut self, by_uid: bool, arguments: &[Token]) -> Answer {
        let view = self.phase.view()?;
        let [set, items] = arguments else {
            return Err("BAD a set and items belong here".into());
        };
        let numbers = if by_uid {
            view.with_uids(&Set::uids(&set.keyword()?, view.last())?)
        } else {
            let set = Set::numbers(&set.keyword()?, view.last())?;
            set.ranges().flat_map(|(low, high)| low..=high).collect()
        };
        let mut items = Item::parse(items)?;
        if by_uid && !items.contains(&Item::Uid) {
            items.insert(0, Item::Uid);
        }
        if items.iter().any(Item::sets_seen) {
            self.state.flags_touched.store(true, Relaxed);
        }
        for number in numbers {
            write!(self.wire.out, "* {number} FETCH ").unwrap();
            for (position, item) in items.iter().enumerate() {
                self.wire.out.push(if position == 0 { b'(' } else { b' ' });
                item.answer(&view.mails[number - 1], &mut self.wire.out);
            }
            self.wire.say(")");
            if self.wire.out.len() > BATCH {
                self.wire.flush().await?;
            }
        }
        OK
    }

    fn catch_up(&mut self, may_renumber: bool) {
        if let Phase::Selected(view) = &mut self.phase {
            let mailbox = self.state.mailbox.lock().unwrap();
            view.catch_up(&mailbox, may_renumber, &mut self.wire.out);
        }
    }
}

impl Phase {
    fn view(&self) -> Result<&View, Refusal> {
        if let Self::Selected(view) = self {
            return Ok(view);
        }
        Err("BAD no mailbox is selected")
    }
}

fn inbox(name: &Token) -> Result<(), Refusal> {
    if name.text()?.eq_ignore_ascii_case("INBOX") {
        Ok(())
    } else {
        Err("NO [NONEXISTENT] there is only INBOX")
    }
}

/// Lines and literals over a stream.
struct Wire<S> {
    stream: S,
    era: u64,
    eras: watch::Receiver<Era>,
    /// What has arrived and has not been read.
    input: Vec<u8>,
    /// What has been said and has not been sent.
    out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn say(&mut self, line: impl Display) {
        write!(self.out, "{line}\r\n").unwrap();
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        self.stream.flush().await
    }

    /// A command with its literals, without the last CRLF.
    async fn command(&mut self) -> Result<Vec<u8>, Stop> {
        let mut command = Vec::new();
        loop {
            let line = self.line().await?;
            command.extend_from_slice(&line);
            let Some((length, waits)) = imap_query::announced_literal(&line) else {
                return Ok(command);
            };
            if length > MAX_INPUT {
                return Err(Stop::Bye("the literal is too long"));
            }
            if waits {
                self.say("+ go on");
                self.flush().await?;
            }
            while self.input.len() < length {
                self.fill().await?;
            }
            command.extend(b"\r\n");
            command.extend(self.input.drain(..length));
        }
    }

    /// A line without its CRLF. A bare LF stays, for the tokenizer to refuse.
    /// It can be cancelled, because what has arrived waits in `input`.
    async fn line(&mut self) -> Result<Vec<u8>, Stop> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                if line.ends_with(b"\r\n") {
                    line.truncate(end - 1);
                }
                return Ok(line);
            }
            if self.input.len() > MAX_INPUT {
                return Err(Stop::Bye("the line is too long"));
            }
            self.fill().await?;
        }
    }

    /// Waits for more input. A kick is obeyed here alone, so that its BYE never
    /// falls into the middle of an answer.
    async fn fill(&mut self) -> Result<(), Stop> {
        self.input.reserve(4096);
        tokio::select! {
            biased;
            _ = self.eras.wait_for(|now| now.kicks(self.era)) => Err(Stop::Bye("kicked")),
            read = self.stream.read_buf(&mut self.input) => match read? {
                0 => Err(Stop::Gone),
                _ => Ok(()),
            },
        }
    }
}
