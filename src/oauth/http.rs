//! HTTPS to a provider.
//!
//! One request is one connection: a token is renewed once an hour, and an idle connection would
//! only be there to break. No redirect is followed, for the body holds secrets. An answer has a
//! deadline and a bound, and is handed on unread.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use oauth2::url::Url;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::{NoProxy, Proxy, redirect};
use rustls::ClientConfig;

use super::OauthError;
use super::error::Code;

/// How long a request may take, from the look-up of the name to the last byte.
const DEADLINE: Duration = Duration::from_secs(30);

/// The largest answer, in bytes. Microsoft's tokens come to about 4 KiB.
const ANSWER: usize = 64 * 1024;

/// The way to a provider: TLS and, where there is one, a proxy. Cloning is cheap.
#[derive(Clone)]
pub struct Http(reqwest::Client);

impl Http {
    /// The proxy is a URL: `http`, `https`, `socks5` or `socks5h`, with a name and a password where
    /// it wants them. What is on this machine is reached without it. The environment's proxies
    /// are not looked at.
    ///
    /// # Errors
    ///
    /// [`OauthError::Proxy`] where the proxy's address cannot be used.
    pub fn new(tls: ClientConfig, proxy: Option<&str>) -> Result<Self, OauthError> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("tokenwatch/", env!("CARGO_PKG_VERSION")))
            .timeout(DEADLINE)
            .redirect(redirect::Policy::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .no_proxy();
        let builder = match proxy {
            None => builder,
            Some(url) => builder.proxy(usable(url)?),
        };
        builder.build().map(Self).map_err(OauthError::Client)
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, OauthError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let failed = |error: reqwest::Error| {
            if error.is_timeout() {
                OauthError::Deadline(host.clone())
            } else {
                OauthError::Unreachable {
                    host: host.clone(),
                    source: error.without_url(),
                }
            }
        };
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut answer = self.0.execute(request).await.map_err(failed)?;
        let status = answer.status();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(OauthError::Unavailable(Code::of_status(status.as_u16())));
        }
        if status.is_redirection() {
            return Err(OauthError::Unintelligible("sends us elsewhere"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > ANSWER {
                return Err(OauthError::Unintelligible("is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = HttpResponse::new(body);
        *response.status_mut() = status;
        // The crate looks at the type of an answer that is a success.
        response.headers_mut().extend(answer.headers().clone());
        Ok(response)
    }
}

/// reqwest takes a proxy of any scheme, and goes past one that it does not speak.
fn usable(proxy: &str) -> Result<Proxy, OauthError> {
    let url = Url::parse(proxy).map_err(|_| OauthError::Proxy("is no URL"))?;
    if !["http", "https", "socks5", "socks5h"].contains(&url.scheme()) {
        return Err(OauthError::Proxy("has a scheme that we do not speak"));
    }
    let proxy = Proxy::all(url).map_err(|_| OauthError::Proxy("cannot be used"))?;
    Ok(proxy.no_proxy(NoProxy::from_string("localhost,127.0.0.0/8,::1")))
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = OauthError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, OauthError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.ask(request))
    }
}

/// The client's own `Debug` shows its proxies.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}
