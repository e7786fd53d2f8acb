//! What can go wrong between us and a provider.

use std::fmt;
use std::io;

use oauth2::{ErrorResponseType, RequestTokenError, StandardErrorResponse};

use crate::http::HttpError;

/// There is no access token now.
#[derive(Debug, thiserror::Error)]
pub enum OauthError {
    /// An address in the configuration cannot be used.
    #[error("the {which} {why}")]
    Endpoint {
        /// Which one.
        which: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The provider has no such way to sign in, or its address is not known.
    #[error("there is no {0} for this provider")]
    NoEndpoint(&'static str),
    /// There is no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The provider is out of order, or has too much to do.
    #[error("the provider is out of order at the moment ({0})")]
    Unavailable(Code),
    /// The answer is not what RFC 6749 says.
    #[error("the provider's answer {0}")]
    Unintelligible(&'static str),
    /// The provider does not want this of us: the application is not known to
    /// it, not allowed this, or asks for too much.
    #[error("the provider refuses this application ({0})")]
    Refused(Code),
    /// The refresh token is dead.
    #[error("the provider wants somebody to sign in again ({0})")]
    SignInAgain(Code),
    /// The person said no, or the provider did for him.
    #[error("the sign-in was denied")]
    Denied,
    /// Nobody signed in in time.
    #[error("nobody signed in in time")]
    Expired,
    /// The browser came back with another's answer.
    #[error("the browser came back with an answer to another sign-in")]
    WrongState,
    /// There is no port for the browser to come back to.
    #[error("cannot listen on port {port} for the browser")]
    Listen {
        /// The port, 0 for any.
        port: u16,
        /// What the system answered.
        source: io::Error,
    },
}

/// How an error is to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The network or the provider: trying again may help.
    Transient,
    /// A person must sign in; until then there is no use in trying again.
    SignIn,
    /// A person must change the configuration, here or at the provider.
    Person,
}

/// A provider's word for what is wrong: the error code of RFC 6749, section
/// 5.2, where it is a plain word, or a status of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code(String);

/// An error of the crate, for either kind of its answers.
pub(super) type RequestError<T> = RequestTokenError<OauthError, StandardErrorResponse<T>>;

impl OauthError {
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

    fn meaning(&self) -> (Class, &'static str, &'static str) {
        const SETTINGS: &str = "oauth-configuration";
        const SIGN_IN: &str = "oauth-sign-in";
        const UNREACHABLE: &str = "oauth-unreachable";
        const PASSES: &str =
            "the daemon tries again by itself; see the provider's status page if it stays so";
        match self {
            Self::Endpoint { .. } => (
                Class::Person,
                SETTINGS,
                "see the addresses of the provider: https, or http on this machine alone",
            ),
            Self::NoEndpoint(_) => (
                Class::Person,
                SETTINGS,
                "sign in the other way, or name the address that the provider documents",
            ),
            Self::Http(HttpError::Proxy(_) | HttpError::Client(_)) => (
                Class::Person,
                SETTINGS,
                "see `proxy`: http, https, socks5 or socks5h, a host and a port",
            ),
            Self::Http(HttpError::Unreachable { .. } | HttpError::Lost { .. }) => (
                Class::Transient,
                UNREACHABLE,
                "see that the network and the proxy let us through to the provider",
            ),
            Self::Unintelligible(_) | Self::Http(HttpError::TooLarge { .. }) => (
                Class::Transient,
                UNREACHABLE,
                "see that the addresses of the provider are right, and that no proxy answers in its place",
            ),
            Self::Http(HttpError::Deadline(_)) | Self::Unavailable(_) => {
                (Class::Transient, UNREACHABLE, PASSES)
            }
            Self::Refused(_) => (
                Class::Person,
                "oauth-refused",
                "see the application's id, secret (it may have run out), scopes and allowed ways to sign in at the provider",
            ),
            Self::SignInAgain(_) => (
                Class::SignIn,
                SIGN_IN,
                "sign in again with `tokenwatch login NAME`",
            ),
            Self::Denied => (
                Class::SignIn,
                SIGN_IN,
                "sign in as a user who may read the mailbox and agree; an administrator may have to allow the application",
            ),
            Self::Expired => (
                Class::SignIn,
                SIGN_IN,
                "run `tokenwatch login NAME` again and follow it at once",
            ),
            Self::WrongState => (
                Class::SignIn,
                SIGN_IN,
                "run `tokenwatch login NAME` again and use the address that it prints",
            ),
            Self::Listen { .. } => (
                Class::Person,
                "oauth-listen",
                "name another port, or end what listens on this one",
            ),
        }
    }

    /// An error of the crate. Its own words and what it could not parse are left behind.
    pub(super) fn from_request<T>(error: RequestTokenError<Self, StandardErrorResponse<T>>) -> Self
    where
        T: ErrorResponseType + fmt::Display + AsRef<str> + 'static,
    {
        match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(answer) => Self::from_code(answer.error().as_ref()),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                Self::Unintelligible("is not of OAuth 2")
            }
        }
    }

    /// What an error code means: RFC 6749 (4.1.2.1 and 5.2), RFC 8628 (3.5), `OpenID` Connect
    /// (3.1.2.6), and Microsoft's word for a refusal.
    pub(super) fn from_code(code: &str) -> Self {
        match code {
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {
                Self::SignInAgain(Code::of(code))
            }
            "temporarily_unavailable" | "server_error" | "slow_down" => {
                Self::Unavailable(Code::of(code))
            }
            "access_denied" | "authorization_declined" => Self::Denied,
            "expired_token" => Self::Expired,
            _ => Self::Refused(Code::of(code)),
        }
    }
}

impl Code {
    fn of(code: &str) -> Self {
        let plain = code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if plain && (1..=64).contains(&code.len()) {
            Self(code.to_owned())
        } else {
            Self("a code that is no plain word".into())
        }
    }

    pub(super) fn of_status(status: u16) -> Self {
        Self(format!("HTTP status {status}"))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
