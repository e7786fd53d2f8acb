//! OAuth 2: signing in at a provider, and access tokens from then on.
//!
//! The protocol (RFC 6749, 7636, 8252 and 8628) is that of the crate `oauth2`, HTTPS is reqwest
//! over our own TLS. A person signs in once, by device code ([`Client::sign_in_by_device`]) or in a
//! browser ([`Client::sign_in_by_browser`]); what is kept of it is a refresh token, and
//! [`Client::refresh`] makes access tokens of that. A service without a person has
//! [`Client::client_credentials`].
//!
//! **Invariant:** of what a provider answers only the error code of RFC 6749 is ever shown, and
//! only where it is a plain word. Answers hold tokens, and some error pages repeat what was sent.
//!
//! Deliberately absent: where tokens are kept, when they are renewed, a second try. Whoever calls
//! knows how urgent it is.

mod browser;
mod device;
mod error;
mod http;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::url::{Host, Url};
use oauth2::{
    AuthType, AuthUrl, ClientId, ClientSecret, DeviceAuthorizationUrl, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, ErrorResponseType, RefreshToken, Scope, TokenResponse, TokenUrl,
};

pub use browser::BrowserPrompt;
pub use device::DevicePrompt;
pub use error::{Class, Code, OauthError};
pub use http::DEADLINE;

use crate::http::Http;
use crate::secret::Secret;
use error::RequestError;

/// What a mailbox at Google wants to be asked for.
pub const GOOGLE_SCOPES: &[&str] = &["https://mail.google.com/"];

/// What a mailbox at Microsoft wants to be asked for where a person signs in.
pub const MICROSOFT_SCOPES: &[&str] = &[
    "https://outlook.office.com/IMAP.AccessAsUser.All",
    "offline_access",
];

/// What Microsoft wants to be asked for by a service without a person: all
/// that an administrator has granted to it.
pub const MICROSOFT_SERVICE_SCOPES: &[&str] = &["https://outlook.office365.com/.default"];

/// The addresses of a provider, and what is particular about it.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The token endpoint (RFC 6749, section 3.2).
    pub token: String,
    /// The authorization endpoint (RFC 6749, section 3.1), for the sign-in in a browser.
    pub authorization: Option<String>,
    /// The device authorization endpoint (RFC 8628, section 3.1).
    pub device: Option<String>,
    /// What the authorization URL has to say beyond the RFC.
    pub authorization_extra: Vec<(String, String)>,
    /// The browser comes back to `http://localhost:PORT` instead of
    /// `http://127.0.0.1:PORT` (RFC 8252, section 7.3, prefers the address).
    pub redirect_by_name: bool,
}

impl Endpoints {
    /// Google. Its device flow does not give the scope for mail away, so there
    /// is the browser only.
    pub fn google() -> Self {
        let extra = [("access_type", "offline"), ("prompt", "consent")];
        Self {
            token: "https://oauth2.googleapis.com/token".into(),
            authorization: Some("https://accounts.google.com/o/oauth2/v2/auth".into()),
            device: None,
            // Without these there is no refresh token, or only at the very first sign-in.
            authorization_extra: extra
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            redirect_by_name: false,
        }
    }

    /// Microsoft. The tenant is a domain, an id, or `common`, `organizations`, `consumers`.
    pub fn microsoft(tenant: &str) -> Self {
        let tenant: String =
            oauth2::url::form_urlencoded::byte_serialize(tenant.as_bytes()).collect();
        let endpoint =
            |name| format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/{name}");
        Self {
            token: endpoint("token"),
            authorization: Some(endpoint("authorize")),
            device: Some(endpoint("devicecode")),
            authorization_extra: Vec::new(),
            // For an address the port would have to be registered.
            redirect_by_name: true,
        }
    }
}

/// Who we are at a provider, and what we ask for.
#[derive(Clone, Debug)]
pub struct Client {
    /// The provider.
    pub endpoints: Endpoints,
    /// The name under which it knows the application.
    pub client_id: String,
    /// What proves that name; a public client (RFC 6749, section 2.1) has
    /// none. It is sent in the body (`client_secret_post`), which every
    /// provider we know takes.
    pub client_secret: Option<Secret>,
    /// What is asked for at a sign-in.
    pub scopes: Vec<String>,
}

/// What a provider gives out.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token: what the mail server wants to see.
    pub access: Secret,
    /// How long it is good for, from now on, where the provider says so.
    pub expires_in: Option<Duration>,
    /// A refresh token, where the provider sent one. After a refresh it takes
    /// the place of the one that was used, which may be dead already.
    pub refresh: Option<Secret>,
}

/// A client of the crate: the token endpoint is there, the others may be.
type Protocol =
    BasicClient<EndpointMaybeSet, EndpointMaybeSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

impl Client {
    /// A new access token for a refresh token (RFC 6749, section 6). It has
    /// the scopes that the person agreed to at the sign-in.
    ///
    /// # Errors
    ///
    /// [`OauthError::SignInAgain`] where the refresh token is dead, and whatever keeps the
    /// provider from being asked.
    pub async fn refresh(&self, http: &Http, refresh: &Secret) -> Result<Tokens, OauthError> {
        let refresh = RefreshToken::new(refresh.expose().to_owned());
        let client = self.protocol()?;
        let request = client.exchange_refresh_token(&refresh);
        Tokens::of(request.request_async(http).await)
    }

    /// An access token for the application itself (RFC 6749, section 4.4).
    ///
    /// # Errors
    ///
    /// [`OauthError::Refused`] where the provider does not know the application or does not
    /// trust it, and whatever keeps the provider from being asked.
    pub async fn client_credentials(&self, http: &Http) -> Result<Tokens, OauthError> {
        let client = self.protocol()?;
        let request = client.exchange_client_credentials();
        Tokens::of(request.add_scopes(self.scopes()).request_async(http).await)
    }

    /// The crate's client. Its copies of secrets are not wiped; they live for one request.
    fn protocol(&self) -> Result<Protocol, OauthError> {
        let endpoints = &self.endpoints;
        let token = endpoint("token endpoint", &endpoints.token)?;
        let authorization = endpoints.authorization.as_deref();
        let authorization = authorization.map(|url| endpoint("authorization endpoint", url));
        let device = endpoints.device.as_deref();
        let device = device.map(|url| endpoint("device authorization endpoint", url));
        let client = BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(TokenUrl::from_url(token))
            .set_auth_uri_option(authorization.transpose()?.map(AuthUrl::from_url))
            .set_device_authorization_url_option(
                device.transpose()?.map(DeviceAuthorizationUrl::from_url),
            );
        Ok(match &self.client_secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().to_owned())),
            None => client,
        })
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.scopes.iter().cloned().map(Scope::new)
    }
}

impl Tokens {
    fn of<T>(answer: Result<BasicTokenResponse, RequestError<T>>) -> Result<Self, OauthError>
    where
        T: ErrorResponseType + fmt::Display + AsRef<str> + 'static,
    {
        let answer = answer.map_err(OauthError::from_request)?;
        let access = answer.access_token().secret();
        let refresh = answer.refresh_token().map(RefreshToken::secret);
        // RFC 6749, appendices A.12 and A.17, but for the space, which no bearer token has (RFC
        // 6750, section 2.1). SASL puts the token between control characters.
        for token in [Some(access), refresh].into_iter().flatten() {
            if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(OauthError::Unintelligible(
                    "holds a token that cannot be sent",
                ));
            }
        }
        Ok(Self {
            access: Secret::new(access.clone()),
            expires_in: answer.expires_in(),
            refresh: refresh.cloned().map(Secret::new),
        })
    }
}

/// An address that secrets may be sent to: HTTPS, or this machine.
fn endpoint(which: &'static str, text: &str) -> Result<Url, OauthError> {
    let wrong = |why| OauthError::Endpoint { which, why };
    let url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong("has more in it than an address"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(wrong("is not https")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}
