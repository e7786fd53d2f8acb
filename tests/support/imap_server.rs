//! A small IMAP server in the process, for tests, benches and the demo.
//!
//! It speaks the part of `IMAP4rev1` (RFC 3501) that a reader of one inbox needs,
//! with IDLE, ID, LITERAL+, SASL-IR and UNSELECT, and TLS under a CA of its own.
//! What it speaks it means: each session has its own view of the mailbox and
//! hears of an expunged mail only where sequence numbers may change, `n:*`
//! always finds the last mail, and a syntax error is `BAD`. The test holds the
//! other end: it delivers and expunges mails, breaks connections, refuses
//! logins, and asks what the clients have said.
//!
//! Deliberately absent: every mailbox but INBOX, every way to change a mail
//! (such commands are refused, and remembered), flags, MIME parts, ENVELOPE,
//! STARTTLS, and time-outs.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "every target that includes this file uses a part of it"
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "imap_mailbox.rs"]
mod imap_mailbox;
#[path = "imap_query.rs"]
mod imap_query;
#[path = "imap_session.rs"]
mod imap_session;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::authority::Certified;
use imap_mailbox::Mailbox;
use imap_session::Session;

/// The server. All clones are one server, and it ends with the last of them.
#[derive(Clone)]
pub struct ImapServer {
    state: Arc<State>,
    port: u16,
    ca_pem: Arc<str>,
    /// The listener's task, which owns the connections' tasks: dropped, it ends
    /// them all.
    _tasks: Arc<JoinSet<()>>,
}

/// What the server offers, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    pub idle: bool,
    /// TLS from the first byte, or none at all.
    pub tls: bool,
    /// Where it listens: 127.0.0.1, or the end of a line of the test's own.
    pub address: IpAddr,
    pub user: String,
    pub password: String,
}

/// INBOX at a moment.
pub struct Inbox {
    pub uid_validity: u32,
    pub uid_next: u32,
    /// The mails with their UIDs.
    pub mails: Vec<(u32, Arc<[u8]>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle: true,
            tls: true,
            address: Ipv4Addr::LOCALHOST.into(),
            user: "ops@example.com".to_owned(),
            password: "mailbox-pass".to_owned(),
        }
    }
}

impl ImapServer {
    /// Listens on a free port of its address, on the current runtime.
    pub async fn start(options: Options) -> Self {
        let listener = TcpListener::bind((options.address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ca_pem, acceptor) = certify(options.address);
        let tls = options.tls.then_some(acceptor);
        let state = Arc::new(State::new(options));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, tls, Arc::clone(&state)));
        Self {
            state,
            port,
            ca_pem: ca_pem.into(),
            _tasks: Arc::new(tasks),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The CA to trust. The certificate is for `localhost`, 127.0.0.1 and its address.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Puts a mail into INBOX and returns its UID. Idling clients hear of it at
    /// once, others with the answer to their next command.
    pub fn deliver(&self, raw: &[u8]) -> u32 {
        self.deliver_at(raw, Timestamp::now())
    }

    /// Like `deliver`, with this INTERNALDATE.
    pub fn deliver_at(&self, raw: &[u8], received: Timestamp) -> u32 {
        self.state.change(|inbox| inbox.add(raw.into(), received))
    }

    /// Takes a mail away, as another client would. An unknown UID is no error.
    pub fn expunge(&self, uid: u32) {
        self.state.change(|inbox| inbox.expunge(uid));
    }

    /// Makes INBOX a new mailbox with the same mails, numbered from 1, and kicks
    /// every connection, because none can be told in any other way.
    pub fn reset_uidvalidity(&self) {
        self.state.change(Mailbox::renew);
        self.kick();
    }

    /// Says `* BYE` on every connection and closes it.
    pub fn kick(&self) {
        self.state.end_era(false);
    }

    /// Drops every connection without a word, not even TLS's goodbye.
    pub fn cut(&self) {
        self.state.resets.store(false, Relaxed);
        self.state.end_era(true);
    }

    /// Drops every connection with an RST, as a firewall does that has
    /// forgotten them.
    pub fn reset(&self) {
        self.state.resets.store(true, Relaxed);
        self.state.end_era(true);
    }

    /// Takes no connections until it is told to take them again. The kernel
    /// still does, so clients wait for a greeting.
    pub fn stop_accepting(&self, stop: bool) {
        self.state.accepting.send_replace(!stop);
    }

    /// INBOX as it is now.
    pub fn inbox(&self) -> Inbox {
        let mailbox = self.state.mailbox.lock().unwrap();
        let mails = mailbox.mails.iter();
        Inbox {
            uid_validity: mailbox.uid_validity,
            uid_next: mailbox.uid_next,
            mails: mails.map(|mail| (mail.uid, mail.raw.clone())).collect(),
        }
    }

    /// Answers every login with `NO [AUTHENTICATIONFAILED]`.
    pub fn refuse_logins(&self, refuse: bool) {
        self.state.refuse_logins.store(refuse, Relaxed);
    }

    /// Answers every SEARCH with `NO`.
    pub fn refuse_search(&self, refuse: bool) {
        self.state.refuse_search.store(refuse, Relaxed);
    }

    /// How many logins have succeeded.
    pub fn logins(&self) -> usize {
        self.state.logins.load(Relaxed)
    }

    /// How many logins have failed.
    pub fn failed_logins(&self) -> usize {
        self.state.failed_logins.load(Relaxed)
    }

    /// Every command so far with its tag, and every line that ended an IDLE.
    /// The arguments of LOGIN and AUTHENTICATE are masked.
    pub fn commands(&self) -> Vec<String> {
        self.state.commands.lock().unwrap().clone()
    }

    /// How many connections are in IDLE. Kicked or cut ones count no longer as
    /// soon as `kick` or `cut` has returned.
    pub fn idling(&self) -> usize {
        self.state.idling.borrow().connections
    }

    /// Waits until at least `n` connections are in IDLE, or with zero until
    /// none is.
    pub async fn wait_idling(&self, n: usize) {
        let mut idling = self.state.idling.subscribe();
        let reached = |now: &Idlers| now.connections == n || n > 0 && now.connections > n;
        let waited = idling.wait_for(reached).await;
        waited.expect("the state holds the sender");
    }

    /// Whether any client has sent SELECT, STORE, COPY, MOVE, EXPUNGE, APPEND,
    /// CLOSE, or a FETCH of `BODY[` without PEEK.
    pub fn flags_touched(&self) -> bool {
        self.state.flags_touched.load(Relaxed)
    }
}

/// TLS with a certificate for this address, and the CA that has signed it.
pub fn certify(address: IpAddr) -> (String, TlsAcceptor) {
    let certified = Certified::new(Some(address));
    let certificate = CertificateDer::from_pem_slice(certified.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();

    // The provider is named because a process may have several and no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key)
        .unwrap();
    (certified.authority, TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until it is dropped, and they with it.
async fn listen(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    let mut accepting = state.accepting.subscribe();
    loop {
        let accepted = async {
            accepting.wait_for(|accepting| *accepting).await.ok();
            listener.accept().await
        };
        tokio::select! {
            // An error here is that of one connection which is gone already.
            accepted = accepted => if let Ok((tcp, _)) = accepted {
                let era = state.era.borrow().now;
                connections.spawn(serve(tcp, tls.clone(), Arc::clone(&state), era));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either side ends it.
async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>, era: u64) {
    let mut eras = state.era.subscribe();
    // The same socket once more: a close that does not linger is an RST.
    let socket = tcp.as_fd().try_clone_to_owned().unwrap();
    let socket = TcpSocket::from_std_stream(socket.into());
    let cut = async {
        drop(eras.wait_for(|now| now.cuts(era)).await);
        if state.resets.load(Relaxed) {
            socket.set_zero_linger().ok();
        }
    };
    let state = Arc::clone(&state);
    let talk = async {
        tcp.set_nodelay(true).ok();
        if let Some(tls) = tls {
            // A client that does not trust the CA ends the handshake.
            if let Ok(stream) = tls.accept(tcp).await {
                Session::new(stream, state, era).run().await;
            }
        } else {
            Session::new(tcp, state, era).run().await;
        }
    };
    tokio::select! { biased; () = cut => {}, () = talk => {} }
}

/// What the handles and the sessions share.
struct State {
    options: Options,
    mailbox: Mutex<Mailbox>,
    /// Rings when the mailbox has changed.
    changed: watch::Sender<()>,
    era: watch::Sender<Era>,
    idling: watch::Sender<Idlers>,
    accepting: watch::Sender<bool>,
    /// A cut is an RST.
    resets: AtomicBool,
    refuse_logins: AtomicBool,
    refuse_search: AtomicBool,
    logins: AtomicUsize,
    failed_logins: AtomicUsize,
    commands: Mutex<Vec<String>>,
    flags_touched: AtomicBool,
}

/// A kick or a cut ends an era, and every connection ends with the era in which
/// it was accepted: so exactly those connections are hit that were there,
/// however late their tasks hear of it.
#[derive(Default)]
struct Era {
    now: u64,
    /// Connections of earlier eras than this are cut, others are kicked.
    cut_before: u64,
}

impl Era {
    fn cuts(&self, connection: u64) -> bool {
        connection < self.cut_before
    }

    fn kicks(&self, connection: u64) -> bool {
        connection < self.now && !self.cuts(connection)
    }
}

/// The connections of an era that are in IDLE.
#[derive(Default)]
struct Idlers {
    era: u64,
    connections: usize,
}

impl State {
    fn new(options: Options) -> Self {
        Self {
            options,
            mailbox: Mutex::new(Mailbox::new()),
            changed: watch::Sender::default(),
            era: watch::Sender::default(),
            idling: watch::Sender::default(),
            accepting: watch::Sender::new(true),
            resets: AtomicBool::default(),
            refuse_logins: AtomicBool::default(),
            refuse_search: AtomicBool::default(),
            logins: AtomicUsize::default(),
            failed_logins: AtomicUsize::default(),
            commands: Mutex::default(),
            flags_touched: AtomicBool::default(),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Mailbox) -> T) -> T {
        let result = change(&mut self.mailbox.lock().unwrap());
        self.changed.send_replace(());
        result
    }

    fn end_era(&self, cut: bool) {
        self.era.send_modify(|era| {
            era.now += 1;
            if cut {
                era.cut_before = era.now;
            }
            // In here, so that two threads change both in the same order.
            self.idling.send_replace(Idlers {
                era: era.now,
                connections: 0,
            });
        });
    }

    fn capabilities(&self) -> &'static str {
        if self.options.idle {
            "IMAP4rev1 IDLE ID LITERAL+ SASL-IR AUTH=PLAIN"
        } else {
            "IMAP4rev1 ID LITERAL+ SASL-IR AUTH=PLAIN"
        }
    }

    fn record(&self, command: &[u8]) {
        let command = String::from_utf8_lossy(command);
        let (tag, rest) = command.split_once(' ').unwrap_or((&command, ""));
        let (name, _) = rest.split_once(' ').unwrap_or((rest, ""));
        let line = match name.to_ascii_uppercase().as_str() {
            "LOGIN" | "AUTHENTICATE" => format!("{tag} {name} ***"),
            _ => command.into_owned(),
        };
        self.commands.lock().unwrap().push(line);
    }
}

/// A connection in IDLE: counted until it is dropped, or its era ends.
struct Idling<'a> {
    state: &'a State,
    era: u64,
}

impl<'a> Idling<'a> {
    fn enter(state: &'a State, era: u64) -> Self {
        state.idling.send_if_modified(|idlers| {
            idlers.connections += usize::from(idlers.era == era);
            idlers.era == era
        });
        Self { state, era }
    }
}

impl Drop for Idling<'_> {
    fn drop(&mut self) {
        self.state.idling.send_if_modified(|idlers| {
            idlers.connections -= usize::from(idlers.era == self.era);
            idlers.era == self.era
        });
    }
}
