//! The sign-in in a browser on this machine (RFC 8252), with PKCE (RFC 7636).
//!
//! The provider sends the browser back to a port on loopback. Anybody on this machine can connect
//! to it: what counts is a request with our `state`, and what it brings is of no use without the
//! verifier that never left this process. A code with another `state` ends the sign-in and is not
//! used; whatever brings no code is answered and forgotten.

use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use oauth2::{AuthorizationCode, CsrfToken, PkceCodeChallenge, RedirectUrl};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Client, OauthError, Tokens};
use crate::http::Http;

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How long the browser may take to read our last page.
const LAST_PAGE: Duration = Duration::from_millis(500);

/// What a person has to be told.
#[derive(Clone, Debug)]
pub struct BrowserPrompt {
    /// The page to open.
    pub url: String,
    /// The port on this machine that the browser comes back to. Where it runs
    /// elsewhere, `ssh -L PORT:127.0.0.1:PORT` leads it here.
    pub port: u16,
    /// How long we wait.
    pub expires_in: Duration,
}

impl Client {
    /// Listens on loopback, hands the page to open to `tell`, and waits until
    /// the browser comes back. Without a port any free one is taken.
    ///
    /// # Errors
    ///
    /// [`OauthError::Denied`], [`OauthError::Expired`] after ten minutes,
    /// [`OauthError::WrongState`], [`OauthError::Listen`], [`OauthError::NoEndpoint`] where there
    /// is no page to open, and whatever keeps the provider from being asked.
    pub async fn sign_in_by_browser(
        &self,
        http: &Http,
        port: Option<u16>,
        tell: impl FnOnce(BrowserPrompt) + Send,
    ) -> Result<Tokens, OauthError> {
        let client = self.protocol()?;
        let by_name = self.endpoints.redirect_by_name;
        let port = port.unwrap_or(0);
        let listener = Loopback::bind(port, by_name)
            .await
            .map_err(|source| OauthError::Listen { port, source })?;
        let port = listener.port;
        let host = if by_name { "localhost" } else { "127.0.0.1" };
        let redirect = RedirectUrl::new(format!("http://{host}:{port}"))
            .map_err(|_| OauthError::NoEndpoint("address for the browser"))?;

        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client
            .authorize_url(CsrfToken::new_random)
            .map_err(|_| OauthError::NoEndpoint("authorization endpoint"))?
            .add_scopes(self.scopes())
            .set_pkce_challenge(challenge)
            .set_redirect_uri(Cow::Borrowed(&redirect));
        for (name, value) in &self.endpoints.authorization_extra {
            request = request.add_extra_param(name, value);
        }
        let (url, state) = request.url();
        tell(BrowserPrompt {
            url: url.to_string(),
            port,
            expires_in: PATIENCE,
        });
        let code = tokio::time::timeout(PATIENCE, listener.code(&state))
            .await
            .map_err(|_| OauthError::Expired)??;
        let request = client
            .exchange_code(code)
            .set_pkce_verifier(verifier)
            .set_redirect_uri(Cow::Borrowed(&redirect));
        Tokens::of(request.request_async(http).await)
    }
}

/// What the browser brings (RFC 6749, sections 4.1.2 and 4.1.2.1).
#[derive(Deserialize)]
struct Brought {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

/// A port on loopback. `localhost` may be either address, so both are ours.
struct Loopback {
    v4: TcpListener,
    v6: Option<TcpListener>,
    port: u16,
}

impl Loopback {
    async fn bind(port: u16, by_name: bool) -> io::Result<Self> {
        // Where any port will do, one that somebody else has on the other address will not.
        let mut tries = if port == 0 { 16_u8 } else { 1 };
        loop {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            let port = v4.local_addr()?.port();
            if !by_name {
                return Ok(Self { v4, v6: None, port });
            }
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
                Ok(v6) => {
                    return Ok(Self {
                        v4,
                        v6: Some(v6),
                        port,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tries = tries.saturating_sub(1);
                    if tries == 0 {
                        return Err(error);
                    }
                }
                // A machine without IPv6.
                Err(_) => return Ok(Self { v4, v6: None, port }),
            }
        }
    }

    /// Serves until the browser brings a code, or word that there is none.
    async fn code(self, state: &CsrfToken) -> Result<AuthorizationCode, OauthError> {
        let (sender, mut answers) = mpsc::channel(1);
        let router = Router::new().route("/", get(callback)).with_state(sender);
        let stop = CancellationToken::new();
        let serving = axum::serve(self, router)
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future();
        tokio::pin!(serving);
        let brought = tokio::select! {
            // It serves until it is told to stop.
            _ = &mut serving => None,
            brought = answers.recv() => brought,
        };
        // The browser gets its page, but who else is connected does not hold us up.
        stop.cancel();
        tokio::time::timeout(LAST_PAGE, serving).await.ok();
        let brought: Brought = brought.ok_or(OauthError::Expired)?;
        if brought.state.as_ref() != Some(state.secret()) {
            return Err(OauthError::WrongState);
        }
        match brought {
            Brought {
                error: Some(error), ..
            } => Err(OauthError::from_code(&error)),
            Brought {
                code: Some(code), ..
            } => Ok(AuthorizationCode::new(code)),
            Brought { .. } => Err(OauthError::Unintelligible("brings no code")),
        }
    }
}

impl Listener for Loopback {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let Some(v6) = &mut self.v6 else {
            return Listener::accept(&mut self.v4).await;
        };
        tokio::select! {
            accepted = Listener::accept(&mut self.v4) => accepted,
            accepted = Listener::accept(v6) => accepted,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.v4.local_addr()
    }
}

/// One request. Only one that brings something of a sign-in ends the wait.
async fn callback(
    State(answers): State<mpsc::Sender<Brought>>,
    Query(brought): Query<Brought>,
) -> impl IntoResponse {
    const HEADERS: [(header::HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    if brought.code.is_none() && brought.error.is_none() {
        let page = "tokenwatch waits here for a sign-in.\n";
        return (StatusCode::NOT_FOUND, HEADERS, page);
    }
    // A second answer, while the first is dealt with, is too late.
    answers.try_send(brought).ok();
    let page =
        "That is all here. Close this page and look at the terminal where tokenwatch runs.\n";
    (StatusCode::OK, HEADERS, page)
}
