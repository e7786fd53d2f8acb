//! What can go wrong with a mailbox.
//!
//! A server's own words are shown, cut and cleaned, except where it answers a
//! login: there it may repeat what was sent. The parser's errors are never
//! shown, for they quote what it was parsing, and that may be a token mail.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::guard::Excess;

/// A mailbox cannot be watched now.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    /// No connection to the server.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// What the system answered.
        source: io::Error,
    },
    /// The proxy cannot be reached, or does not let us through.
    #[error("no way through the proxy {proxy}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// What it answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The proxy's URL is none. It may hold a password, so it is not shown.
    #[error("the URL of the proxy cannot be understood")]
    ProxyUrl,
    /// The certificates that are to be trusted cannot be read.
    #[error("cannot read the certificates in {path}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The name cannot stand in a certificate.
    #[error("{0} is no host name")]
    HostName(String),
    /// TLS could not be agreed on, or the certificate is not trusted.
    #[error("no TLS with {host}")]
    Tls {
        /// The server.
        host: String,
        /// What rustls says.
        source: io::Error,
    },
    /// What the server says is no TLS.
    #[error("{host} does not speak TLS on this port")]
    NotTls {
        /// The server.
        host: String,
        /// What rustls says.
        source: io::Error,
    },
    /// The server's certificate is not the one that was pinned.
    #[error("{host} has another certificate than the pinned one: its SHA-256 is {found}")]
    Pin {
        /// The server.
        host: String,
        /// The SHA-256 of its certificate, in hex.
        found: String,
    },
    /// Something stood in clear behind the answer to STARTTLS.
    #[error("something was sent in clear behind the answer to STARTTLS")]
    StartTlsInjection,
    /// The server does not do STARTTLS.
    #[error("the server does not offer STARTTLS")]
    NoStartTls,
    /// The first line was no greeting of an IMAP server.
    #[error("this is no IMAP server, or it does not want us: {0}")]
    NotImap(String),
    /// The server refused name or password.
    #[error("the server refused the login{}", code.as_ref().map(|c| format!(" [{c}]")).unwrap_or_default())]
    LoginRefused {
        /// The response code (RFC 5530).
        code: Option<String>,
    },
    /// The server refused the access token.
    #[error("the server refused the access token{}", code.as_ref().map(|c| format!(" [{c}]")).unwrap_or_default())]
    TokenRefused {
        /// The response code (RFC 5530).
        code: Option<String>,
    },
    /// The server hung up instead of answering the login, or was silent.
    #[error("the server hung up during the login, or did not answer it in time")]
    LoginDropped,
    /// The server cannot check logins now (RFC 5530, `UNAVAILABLE` and kin).
    #[error("the server cannot log anyone in at the moment [{0}]")]
    LoginUnavailable(String),
    /// There is no way to log in with a password.
    #[error("the server offers no login by password")]
    NoPasswordLogin,
    /// There is no way to log in with an access token.
    #[error("the server offers neither OAUTHBEARER nor XOAUTH2")]
    NoBearerLogin,
    /// The password cannot be sent over IMAP.
    #[error("user or password holds a character that cannot be sent")]
    Unsendable,
    /// The folder is not there.
    #[error("the server has no folder {0:?} for us")]
    NoFolder(String),
    /// The server said NO or BAD.
    #[error("the server refused {doing}: {text}")]
    Refused {
        /// What was asked for.
        doing: &'static str,
        /// Its words.
        text: String,
    },
    /// The server said BYE.
    #[error("the server said goodbye: {0}")]
    Bye(String),
    /// The connection ended.
    #[error("the connection was lost during {0}")]
    Lost(&'static str),
    /// Reading or writing failed.
    #[error("the connection failed during {doing}")]
    Io {
        /// What was going on.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("no answer to {0} in time")]
    Deadline(&'static str),
    /// The server sent more than any mail is worth.
    #[error("the server goes too far")]
    Excess(#[from] Excess),
    /// The answer is no IMAP.
    #[error("the answer to {0} cannot be understood")]
    Unparsable(&'static str),
    /// The server fails over one mail.
    #[error("the server does not hand out the mail with UID {uid}")]
    Stumbled {
        /// Its UID.
        uid: u32,
        /// What it said.
        source: Box<Self>,
    },
    /// The answer about so many mails cannot be used, and one of them is to
    /// blame for it.
    #[error("the server's answer about {mails} mails cannot be used")]
    Garbled {
        /// How many there are.
        mails: usize,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// The connection ended before these mails were answered for: the line's
    /// fault, or that of one of them, at which the server hangs up.
    #[error("no end to the answer about {}", mails_from(*.uid, *.mails))]
    CutOff {
        /// The UID of the first.
        uid: u32,
        /// How many there are.
        mails: usize,
        /// How it ended.
        source: Box<Self>,
    },
    /// A list leaves mails out that are there.
    #[error("the server's list leaves out mails that are there")]
    Gaps,
    /// SEARCH failed in a way that may not be the connection's fault.
    #[error("the server fails at SEARCH")]
    Search(#[source] Box<Self>),
    /// A mail is to be moved, and the server has no way to do it.
    #[error("the server can move no mail")]
    NoMove,
    /// Something is missing from an answer.
    #[error("the answer to {doing} lacks {what}")]
    Lacking {
        /// What was asked for.
        doing: &'static str,
        /// What is missing.
        what: &'static str,
    },
}

/// What most faults of a network or a server come to.
const PASSES: &str = "the daemon tries again by itself; see the server if it stays so";

/// What a connection comes to that ends over one mail.
const OVER_A_MAIL: &str = "the daemon tries again by itself; if it is this mail each time, look at it with a mail program: after ten minutes it is passed over, and asked for again later";

/// How an error is to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The network or the server: trying again may help.
    Transient,
    /// The login was refused: trying again may lock somebody out.
    Login,
    /// A person must act; trying again does no harm.
    Person,
}

impl MailboxError {
    /// How the error is to be met.
    pub fn class(&self) -> Class {
        self.meaning().0
    }

    /// A stable code for `status`.
    pub fn code(&self) -> &'static str {
        self.meaning().1
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        self.meaning().2
    }

    /// Whether the answer cannot be used, and the connection is lost for it: the
    /// next one would give the same.
    pub fn is_garbage(&self) -> bool {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "all others leave the connection as it is, or say nothing of the answer"
        )]
        match self {
            Self::Excess(_) | Self::Unparsable(_) => true,
            Self::Stumbled { source, .. } | Self::Garbled { source, .. } | Self::Search(source) => {
                source.is_garbage()
            }
            _ => false,
        }
    }

    /// Whether the connection ended by itself, which may be anybody's fault.
    pub(super) fn ends_the_line(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::Bye(_) | Self::Io { .. } | Self::Deadline(_)
        )
    }

    fn meaning(&self) -> (Class, &'static str, &'static str) {
        const TLS: &str = "mailbox-tls";
        const REFUSED: &str = "mailbox-login-refused";
        const LOST: &str = "mailbox-lost";
        const PORT_AND_TLS: &str = "see that `port` and `tls` of the mailbox belong together: \"implicit\" with 993, \"starttls\" with 143";
        match self {
            Self::Connect { .. } => (
                Class::Transient,
                "mailbox-unreachable",
                "see that `host` and `port` are right and that the network lets us through",
            ),
            Self::Proxy { .. } => (
                Class::Transient,
                "mailbox-unreachable",
                "see `proxy`: its host and port, its user and password, and that it lets us through to this server and port",
            ),
            Self::ProxyUrl => (
                Class::Person,
                "mailbox-unreachable",
                "see `proxy`: http://, socks5:// or socks5h:// with host and port, and user:password@ before them where the proxy asks for it",
            ),
            Self::CaFile { .. } => (
                Class::Person,
                TLS,
                "see what `ca-file` points to: it must be PEM",
            ),
            Self::HostName(_) => (Class::Person, TLS, "see `host` of the mailbox"),
            Self::Tls { .. } => (
                Class::Transient,
                TLS,
                "if the server's certificate is signed by your own authority, name that in `ca-file`",
            ),
            Self::NotTls { .. } => (Class::Transient, TLS, PORT_AND_TLS),
            Self::Pin { .. } => (
                Class::Person,
                TLS,
                "a renewed certificate needs a new `tls-pin`; before you trust it, look at it from another network: openssl s_client -connect HOST:PORT </dev/null | openssl x509 -noout -fingerprint -sha256 (with -starttls imap on port 143)",
            ),
            Self::StartTlsInjection => (
                Class::Transient,
                TLS,
                "somebody on the way, or a broken server, speaks where only TLS may; use `tls = \"implicit\"` with port 993",
            ),
            Self::NoStartTls => (Class::Person, TLS, "use `tls = \"implicit\"` with port 993"),
            Self::NotImap(_) => (Class::Transient, LOST, PORT_AND_TLS),
            Self::LoginRefused { .. } => (
                Class::Login,
                REFUSED,
                "set the right password with `tokenwatch secret set mailbox/NAME`; some providers want an app password",
            ),
            Self::NoPasswordLogin => (
                Class::Person,
                REFUSED,
                "this provider wants another way to log in: `auth = \"oauth2\"`",
            ),
            Self::NoBearerLogin => (
                Class::Person,
                REFUSED,
                "use `auth = \"password\"`, or the provider's own IMAP server",
            ),
            Self::NoMove => (
                Class::Person,
                "mailbox-after-failed",
                "use `after = \"mark-seen\"` or `flag:KEYWORD`: this server has neither MOVE nor UIDPLUS",
            ),
            Self::TokenRefused { .. } => (
                Class::Login,
                REFUSED,
                "see that `user` is the mailbox of who has signed in, and that IMAP is allowed for it; then `tokenwatch login NAME`",
            ),
            Self::CutOff { mails: 1, .. } => (Class::Transient, LOST, OVER_A_MAIL),
            Self::Search(source) | Self::Garbled { source, .. } | Self::CutOff { source, .. } => {
                source.meaning()
            }
            Self::Unsendable => (Class::Person, REFUSED, "set a password without line ends"),
            Self::NoFolder(_) => (
                Class::Person,
                "mailbox-folder-missing",
                "see `folders` of the mailbox; names are case-sensitive",
            ),
            Self::Stumbled { .. } => (
                Class::Transient,
                "mailbox-mail-unfetchable",
                "look at that mail with a mail program; the daemon waits for ten minutes, passes it over, and asks for it again later",
            ),
            Self::LoginDropped
            | Self::LoginUnavailable(_)
            | Self::Refused { .. }
            | Self::Bye(_)
            | Self::Lost(_)
            | Self::Io { .. }
            | Self::Deadline(_)
            | Self::Excess(_)
            | Self::Unparsable(_)
            | Self::Gaps
            | Self::Lacking { .. } => (Class::Transient, LOST, PASSES),
        }
    }

    /// An error of the stream under the parser. The parser's own errors come
    /// this way too.
    pub(super) fn from_stream(doing: &'static str, error: io::Error) -> Self {
        if let Some(excess) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Excess>())
        {
            return Self::Excess(*excess);
        }
        let kind = error.kind();
        if kind == io::ErrorKind::UnexpectedEof {
            Self::Lost(doing)
        } else if kind == io::ErrorKind::Other {
            Self::Unparsable(doing)
        } else {
            Self::Io {
                doing,
                source: error,
            }
        }
    }
}

fn mails_from(uid: u32, mails: usize) -> String {
    match mails {
        1 => format!("the mail with UID {uid}"),
        _ => format!("{mails} mails from UID {uid} on"),
    }
}

/// A server's words, on one line and not too many.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect::<String>()
        .trim()
        .to_owned()
}
