//! Salesforce's `login()` and `logout()` in the process, over HTTP or HTTPS on loopback.
//!
//! It knows who may log in with which password and token, answers as the real one does (the order
//! of elements, prefixes, a fault as status 500), and locks a user out after ten logins that it
//! refused, with the same words as for a wrong password. The test holds the other end: it changes
//! passwords and tokens, orders answers and faults of the line, and asks who logged in with what.
//!
//! Deliberately absent: every other call, sessions that end by time, My Domain.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;
use super::imap_server::certify;

/// So many logins in a row are refused, then the user is locked out.
const LOCK_OUT: u32 = 10;

/// The server. All clones are one server, and it ends with the last of them.
#[derive(Clone)]
pub struct Salesforce {
    state: Arc<State>,
    url: Arc<str>,
    ca_pem: Arc<str>,
    /// The listener's task, which owns the connections' tasks.
    _tasks: Arc<JoinSet<()>>,
}

/// What happens to a login instead of what ought to.
#[derive(Clone, Debug)]
pub enum Order {
    /// A fault with this exception code, whatever was sent.
    Fault(&'static str),
    /// The login counts, and the password has expired.
    Expired,
    /// An answer of somebody else's: status and body.
    Answer(u16, String),
    /// The next connection, whatever it is for, is closed before a byte of it is read.
    CloseAtOnce,
    /// The login counts, and the connection is closed without a word of the answer.
    CloseUnanswered,
    /// The login counts, and the connection is closed in the middle of the answer.
    CloseHalfAnswered,
    /// The login counts, and there is never an answer.
    Stall,
    /// The login counts, and its answer comes when the test lets it go.
    Hold,
}

/// One login that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub at: Timestamp,
    pub username: String,
    /// Password and token, as they were sent.
    pub password: String,
    /// What came of it: `works`, `password-expired`, an exception code, or the order's name.
    pub outcome: String,
}

struct State {
    inside: Mutex<Inside>,
    attempts: watch::Sender<usize>,
    /// Answers that are held may go.
    may_go: watch::Sender<bool>,
    /// How many logouts there were that are never answered; `None`: all are.
    stalled: watch::Sender<Option<usize>>,
    base: Mutex<String>,
}

#[derive(Default)]
struct Inside {
    /// By username in lower case: passwords with their tokens that work.
    valid: HashMap<String, HashSet<String>>,
    refused: HashMap<String, u32>,
    orders: VecDeque<Order>,
    standing: Option<Order>,
    attempts: Vec<Attempt>,
    connections: usize,
    sessions: HashSet<String>,
    opened: usize,
    logouts: usize,
}

impl Salesforce {
    /// Over HTTP.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// Over HTTPS, by an authority of its own.
    pub async fn start_tls() -> Self {
        Self::listen(Some(certify(Ipv4Addr::LOCALHOST.into()))).await
    }

    async fn listen(tls: Option<(String, TlsAcceptor)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        let (ca_pem, acceptor) = tls.unzip();
        let state = Arc::new(State {
            inside: Mutex::default(),
            attempts: watch::Sender::new(0),
            may_go: watch::Sender::new(false),
            stalled: watch::Sender::new(None),
            base: Mutex::new(url.clone()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, acceptor, Arc::clone(&state)));
        Self {
            state,
            url: url.into(),
            ca_pem: ca_pem.unwrap_or_default().into(),
            _tasks: Arc::new(tasks),
        }
    }

    /// What `login-url` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority to trust; empty without TLS.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// From now on sessions are said to be at this address (a scheme, a host, a port).
    pub fn send_sessions_to(&self, base: &str) {
        base.clone_into(&mut self.state.base.lock().unwrap());
    }

    /// From now on this password works with this token, and with no other.
    pub fn set(&self, username: &str, password: &str, token: &str) {
        let pair = HashSet::from([format!("{password}{token}")]);
        self.inside(|inside| inside.valid.insert(username.to_lowercase(), pair));
    }

    /// What an administrator does for a user who is locked out.
    pub fn unlock(&self, username: &str) {
        self.inside(|inside| inside.refused.remove(&username.to_lowercase()));
    }

    pub fn is_locked_out(&self, username: &str) -> bool {
        self.inside(|inside| inside.is_locked_out(&username.to_lowercase()))
    }

    /// One login goes this way; several orders are taken in turn.
    pub fn order(&self, order: Order) {
        self.inside(|inside| inside.orders.push_back(order));
    }

    /// Every login goes this way that has no order of its own; `None` ends it.
    pub fn order_always(&self, order: Option<Order>) {
        self.inside(|inside| inside.standing = order);
    }

    /// The answers that are held go.
    pub fn let_go(&self) {
        self.state.may_go.send_replace(true);
    }

    /// From now on no logout is answered.
    pub fn stall_logouts(&self) {
        self.state.stalled.send_replace(Some(0));
    }

    /// Waits until somebody waits for the answer to a logout.
    pub async fn wait_for_a_stalled_logout(&self) {
        let mut stalled = self.state.stalled.subscribe();
        let reached = stalled.wait_for(|now| *now > Some(0));
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.expect("a logout in time").unwrap();
    }

    /// All logins that were read, the oldest first.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.inside(|inside| inside.attempts.clone())
    }

    /// How often this pair was tried.
    pub fn attempts_with(&self, username: &str, password_and_token: &str) -> usize {
        let attempts = self.attempts();
        let same = attempts.iter().filter(|attempt| {
            attempt.username.to_lowercase() == username.to_lowercase()
                && attempt.password == password_and_token
        });
        same.count()
    }

    /// Waits until so many logins were read.
    pub async fn wait_for_attempts(&self, count: usize) {
        let mut attempts = self.state.attempts.subscribe();
        let reached = attempts.wait_for(|now| *now >= count);
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.expect("as many logins in time").unwrap();
    }

    /// How often anybody connected, for whatever it was.
    pub fn connections(&self) -> usize {
        self.inside(|inside| inside.connections)
    }

    /// Sessions that were opened, that were ended by a logout, and that are still open.
    pub fn sessions(&self) -> [usize; 3] {
        self.inside(|inside| [inside.opened, inside.logouts, inside.sessions.len()])
    }

    fn inside<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.state.inside.lock().unwrap())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        {
            let mut inside = state.inside.lock().unwrap();
            inside.connections += 1;
            if inside.closes_at_once() {
                continue;
            }
        }
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            match tls {
                None => serve(stream, &state).await,
                // Who does not trust us goes away.
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, &state).await,
                    Err(_) => None,
                },
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One request, for every answer says that the connection ends; `None` where it broke.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> Option<()> {
    let request = Request::read(&mut stream).await?;
    let (status, body, order) = state.answer(&request);
    let reason = if status == 200 { "OK" } else { "X" };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/xml; charset=UTF-8\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = answer.as_bytes();
    match order {
        Some(Order::CloseUnanswered) => return Some(()),
        Some(Order::CloseHalfAnswered) => {
            let half = &answer[..answer.len() - body.len() / 2];
            stream.write_all(half).await.ok()?;
        }
        Some(Order::Stall) => std::future::pending().await,
        Some(Order::Hold) => {
            let mut may_go = state.may_go.subscribe();
            may_go.wait_for(|may_go| *may_go).await.ok()?;
            stream.write_all(answer).await.ok()?;
        }
        _ => stream.write_all(answer).await.ok()?,
    }
    stream.shutdown().await.ok()
}

struct Request {
    path: String,
    action: String,
    body: String,
}

impl Request {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut whole = Vec::new();
        loop {
            if let Some(request) = Self::parse(&whole) {
                return Some(request);
            }
            let read = stream.read_buf(&mut whole);
            let read = tokio::time::timeout(Duration::from_secs(60), read).await;
            if read.ok()?.ok()? == 0 {
                return None;
            }
        }
    }

    /// `None` while it is not whole.
    fn parse(whole: &[u8]) -> Option<Self> {
        let (head, body) = std::str::from_utf8(whole).ok()?.split_once("\r\n\r\n")?;
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        let length: usize = field("content-length")?.parse().unwrap();
        let is_whole = body.len() >= length;
        assert_eq!(
            field("content-type").as_deref(),
            Some("text/xml; charset=UTF-8")
        );
        is_whole.then(|| Self {
            path: head.split(' ').nth(1).unwrap().to_owned(),
            action: field("soapaction").unwrap_or_default(),
            body: body.to_owned(),
        })
    }

    /// The text of the one element of this name.
    fn value(&self, name: &str) -> Option<String> {
        let mut reader = Reader::from_str(&self.body);
        let (mut value, mut is_inside) = (None, false);
        loop {
            match reader.read_event().ok()? {
                Event::Start(tag) if tag.local_name().as_ref() == name => {
                    (value, is_inside) = (Some(String::new()), true);
                }
                Event::End(_) => is_inside = false,
                Event::Text(text) if is_inside => value.as_mut()?.push_str(&text),
                Event::GeneralRef(reference) if is_inside => {
                    let value = value.as_mut()?;
                    match reference.resolve_char_ref().ok()? {
                        Some(character) => value.push(character),
                        None => value.push_str(resolve_xml_entity(&reference)?),
                    }
                }
                Event::Eof => return value,
                Event::Start(_)
                | Event::Empty(_)
                | Event::Text(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::GeneralRef(_) => {}
            }
        }
    }
}

impl State {
    /// Status and body, and the order that was followed.
    fn answer(&self, request: &Request) -> (u16, String, Option<Order>) {
        let version = request.path.strip_prefix("/services/Soap/u/");
        let version = version.and_then(|rest| rest.split('/').next()?.parse::<f32>().ok());
        match (version, request.action.trim_matches('"')) {
            (None, _) => (404, "<html>no such page</html>".into(), None),
            (Some(version), _) if version > 64.0 => {
                (500, fault("UNSUPPORTED_API_VERSION", "version"), None)
            }
            (_, "login") => self.log_in(request),
            (_, "logout") if self.stalled.borrow().is_some() => {
                let count = |stalled: &mut Option<usize>| *stalled = stalled.map(|n| n + 1);
                self.stalled.send_modify(count);
                (200, String::new(), Some(Order::Stall))
            }
            (_, "logout") => {
                let session = request.value("sessionId").unwrap_or_default();
                let mut inside = self.inside.lock().unwrap();
                if inside.sessions.remove(&session) {
                    inside.logouts += 1;
                    (200, LOGGED_OUT.to_owned(), None)
                } else {
                    (500, fault("INVALID_SESSION_ID", &session), None)
                }
            }
            _ => (500, fault("UNKNOWN_EXCEPTION", "no such call"), None),
        }
    }

    fn log_in(&self, request: &Request) -> (u16, String, Option<Order>) {
        let username = request.value("username").expect("a username");
        let password = request.value("password").expect("a password");
        let user = username.to_lowercase();
        let base = self.base.lock().unwrap().clone();
        let mut inside = self.inside.lock().unwrap();
        let order = inside.orders.pop_front().or(inside.standing.clone());
        let is_right = inside
            .valid
            .get(&user)
            .is_some_and(|valid| valid.contains(&password));
        let (status, body, outcome) = match &order {
            Some(Order::Fault(code)) => {
                // What it says besides the code repeats what it is about.
                let body = fault(code, &format!("{username} {password}"));
                (500, body, (*code).to_owned())
            }
            Some(Order::Answer(status, body)) => (*status, body.clone(), status.to_string()),
            _ if !is_right || inside.is_locked_out(&user) => {
                *inside.refused.entry(user).or_default() += 1;
                (500, fault("INVALID_LOGIN", REFUSED), "INVALID_LOGIN".into())
            }
            Some(Order::Expired) => {
                inside.refused.remove(&user);
                let body = inside.opens_session(&username, &base, true);
                (200, body, "password-expired".into())
            }
            _ => {
                inside.refused.remove(&user);
                let body = inside.opens_session(&username, &base, false);
                (200, body, "works".into())
            }
        };
        inside.attempts.push(Attempt {
            at: Timestamp::now(),
            username,
            password,
            outcome,
        });
        self.attempts.send_replace(inside.attempts.len());
        (status, body, order)
    }
}

impl Inside {
    fn is_locked_out(&self, user: &str) -> bool {
        self.refused
            .get(user)
            .is_some_and(|count| *count >= LOCK_OUT)
    }

    fn closes_at_once(&mut self) -> bool {
        let is_next = matches!(self.orders.front(), Some(Order::CloseAtOnce));
        if is_next {
            self.orders.pop_front();
        }
        is_next || matches!(self.standing, Some(Order::CloseAtOnce)) && self.orders.is_empty()
    }

    /// The answer to a login that works.
    fn opens_session(&mut self, username: &str, base: &str, expired: bool) -> String {
        self.opened += 1;
        let session = format!("{SESSION}{:04}", self.opened);
        self.sessions.insert(session.clone());
        let username = quick_xml::escape::escape(username);
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><loginResponse><result><metadataServerUrl>{base}/services/Soap/m/64.0/00D000000000001</metadataServerUrl><passwordExpired>{expired}</passwordExpired><sandbox>false</sandbox><serverUrl>{base}/services/Soap/u/64.0/00D000000000001</serverUrl><sessionId>{session}</sessionId><userId>005000000000001AAA</userId><userInfo><organizationName>A &amp; B</organizationName><roleId xsi:nil="true"/><sessionSecondsValid>7200</sessionSecondsValid><userName>{username}</userName></userInfo></result></loginResponse></soapenv:Body></soapenv:Envelope>"#
        )
    }
}

/// What every session's ID begins with.
pub const SESSION: &str = "00D000000000001!AQEAQ.sessionOfTheTests";

const REFUSED: &str = "Invalid username, password, security token; or user locked out.";

const LOGGED_OUT: &str = r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com"><soapenv:Body><logoutResponse/></soapenv:Body></soapenv:Envelope>"#;

/// A fault as Salesforce writes it.
pub fn fault(code: &str, message: &str) -> String {
    let message = quick_xml::escape::escape(message);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:sf="urn:fault.partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault><faultcode>{code}</faultcode><faultstring>{code}: {message}</faultstring><detail><sf:LoginFault xsi:type="sf:LoginFault"><sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>{message}</sf:exceptionMessage></sf:LoginFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"#
    )
}
