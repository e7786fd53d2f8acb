//! HTTPS, for the rooms that ask somebody something: OAuth 2 providers,
//! Salesforce, webhooks.
//!
//! One request is one connection: we ask seldom, and an idle connection would
//! only be there to break. No redirect is followed, for the bodies hold
//! secrets. An answer has a deadline and a bound, and is handed on unread.

use std::fmt;
use std::time::Duration;

use reqwest::{NoProxy, Proxy, Request, StatusCode, Url, header, redirect};
use rustls::ClientConfig;

/// How long a connection may take, from the look-up of the name on.
const CONNECTING: Duration = Duration::from_secs(15);

/// How long a request may take, from the look-up of the name to the last byte
/// of the answer, where the request itself says nothing else.
const DEADLINE: Duration = Duration::from_secs(30);

/// The largest answer, in bytes. Microsoft's tokens come to about 4 KiB, a
/// login to Salesforce to about 2 KiB.
const ANSWER: usize = 64 * 1024;

/// The way to a server: TLS and, where there is one, a proxy. Cloning is cheap.
#[derive(Clone)]
pub struct Http(reqwest::Client);

/// What a server answered.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: header::HeaderMap,
    /// The content, which may be a secret.
    pub body: Vec<u8>,
}

/// There is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The proxy's address cannot be used. It is not shown: it may hold a password.
    #[error("the address of the proxy {0}")]
    Proxy(&'static str),
    /// The HTTP client cannot be built.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
    /// No connection to the server: it has seen nothing of the request.
    #[error("cannot reach {host}")]
    Unreachable {
        /// The server's host.
        host: String,
        /// What the network or TLS says.
        source: reqwest::Error,
    },
    /// The connection was lost; what the server did with the request is not known.
    #[error("the connection to {host} was lost")]
    Lost {
        /// The server's host.
        host: String,
        /// What the network or TLS says.
        source: reqwest::Error,
    },
    /// No answer in time; what the server did with the request is not known.
    #[error("no answer from {0} in time")]
    Deadline(String),
    /// The answer is larger than any that we know what to do with.
    #[error("the answer of {host} is too large")]
    TooLarge {
        /// The server's host.
        host: String,
        /// The status of the answer.
        status: StatusCode,
    },
}

impl Http {
    /// The proxy is a URL: `http`, `https`, `socks5` or `socks5h`, with a name and a password where
    /// it wants them. What is on this machine is reached without it. The environment's proxies
    /// are not looked at.
    ///
    /// # Errors
    ///
    /// [`HttpError::Proxy`] where the proxy's address cannot be used.
    pub fn new(tls: ClientConfig, proxy: Option<&str>) -> Result<Self, HttpError> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("tokenwatch/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECTING)
            .timeout(DEADLINE)
            .redirect(redirect::Policy::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .no_proxy();
        let builder = match proxy {
            None => builder,
            Some(url) => builder.proxy(usable(url)?),
        };
        builder.build().map(Self).map_err(HttpError::Client)
    }

    /// Asks once.
    pub async fn ask(&self, request: Request) -> Result<Answer, HttpError> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let failed = |error: reqwest::Error| {
            let (is_connect, is_timeout) = (error.is_connect(), error.is_timeout());
            let (host, source) = (host.clone(), error.without_url());
            if is_connect {
                HttpError::Unreachable { host, source }
            } else if is_timeout {
                HttpError::Deadline(host)
            } else {
                HttpError::Lost { host, source }
            }
        };
        let mut answer = self.0.execute(request).await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let length = answer.content_length();
        let length = length.and_then(|length| usize::try_from(length).ok());
        let mut body = Vec::with_capacity(length.unwrap_or(ANSWER).min(ANSWER));
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > ANSWER {
                return Err(HttpError::TooLarge { host, status });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }
}

/// reqwest takes a proxy of any scheme, and goes past one that it does not speak.
fn usable(proxy: &str) -> Result<Proxy, HttpError> {
    let url = Url::parse(proxy).map_err(|_| HttpError::Proxy("is no URL"))?;
    if !["http", "https", "socks5", "socks5h"].contains(&url.scheme()) {
        return Err(HttpError::Proxy("has a scheme that we do not speak"));
    }
    let proxy = Proxy::all(url).map_err(|_| HttpError::Proxy("cannot be used"))?;
    Ok(proxy.no_proxy(NoProxy::from_string("localhost,127.0.0.0/8,::1")))
}

/// The client's own `Debug` shows its proxies.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}
