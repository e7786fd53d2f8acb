//! An HTTPS request that says that there is a new credential, signed as Standard Webhooks 1.0.0
//! has it: HMAC-SHA-256 over `id.timestamp.body`, in `webhook-signature`. The secret itself is in
//! the body only where the configuration says so.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hyper::body::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Request, StatusCode, Url};
use ring::hmac;
use zeroize::Zeroizing;

use super::render::{self, Object};
use super::template::{self, Template};
use super::{Body, Credential, Delivered, Secrets, SinkError, WebhookOptions};
use crate::http::{Answer, Http, HttpError};
use crate::secret::Secret;

/// A receiver that asks for more patience is asked again all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What stands before a key in Base64.
const PREFIX: &str = "whsec_";

/// These are ours, or say where the request ends.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// What is sent, and whereto.
#[derive(Debug)]
pub(super) struct Webhook {
    way: Way,
    method: Method,
    template: Option<Template>,
    content_type: HeaderValue,
    include_secret: bool,
    signed: bool,
}

impl Webhook {
    pub(super) fn new(options: &WebhookOptions) -> Result<Self, SinkError> {
        let variables = if options.include_secret {
            template::OF_A_SECRET_REQUEST
        } else {
            template::OF_A_REQUEST
        };
        let content_type = options.content_type.as_deref();
        Ok(Self {
            way: Way::new(options)?,
            method: if options.put {
                Method::PUT
            } else {
                Method::POST
            },
            template: match &options.body {
                Body::Template(path) => Some(Template::read(path, variables)?),
                Body::Json | Body::Kv2 => None,
            },
            content_type: HeaderValue::from_str(content_type.unwrap_or("application/json"))
                .map_err(|_| SinkError::Header(CONTENT_TYPE.to_string()))?,
            include_secret: options.include_secret,
            signed: options.signed,
        })
    }

    /// Asks once, and takes any success for an answer.
    pub(super) async fn send(
        &self,
        credential: &Credential,
        secrets: &Secrets,
    ) -> Result<Delivered, SinkError> {
        let body = self.body(credential)?;
        let mut request = self.way.request(&self.method, credential, secrets)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        let now = Timestamp::now().as_second().to_string();
        headers.insert("webhook-id", plain("webhook-id", &credential.id)?);
        headers.insert("webhook-timestamp", plain("webhook-timestamp", &now)?);
        if self.signed {
            let key = secrets.key.as_ref();
            let key = key.ok_or_else(|| SinkError::NoSecret("the signature".to_owned()))?;
            let signature = signature(key, &[credential.id.as_bytes(), now.as_bytes(), &body])?;
            headers.insert("webhook-signature", plain("webhook-signature", &signature)?);
        }
        match self.way.ask(request, body).await {
            // It has arrived; what else is said is nothing to us.
            Err(SinkError::Http(HttpError::TooLarge { status, .. })) if status.is_success() => {}
            answer => self.way.judge(&answer?)?,
        }
        Ok(Delivered::New)
    }

    fn body(&self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, SinkError> {
        let body = if let Some(template) = &self.template {
            template.render(credential)?
        } else {
            let object = Object::of(credential);
            render::json(&Object {
                kind: Some("credential.updated"),
                password: object.password.filter(|_| self.include_secret),
                id: Some(&credential.id),
                ..object
            })
        };
        Ok(body.into_bytes())
    }
}

/// The way to a receiver, and what every request to it says.
pub(super) struct Way {
    /// With `{username}` in it, where each account has its own.
    url: String,
    host: String,
    headers: Vec<HeaderName>,
    timeout: Duration,
    http: Http,
}

impl Way {
    pub(super) fn new(options: &WebhookOptions) -> Result<Self, SinkError> {
        let url = address(&options.url, "a")?;
        // Nobody but the configuration says whom the secrets go to.
        if url.origin() != address(&options.url, "b")?.origin() {
            return Err(SinkError::Url("has the username in its host"));
        }
        let usable = |name: &String| {
            HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !RESERVED.contains(&name.as_str()))
                .ok_or_else(|| SinkError::Header(name.clone()))
        };
        Ok(Self {
            url: options.url.clone(),
            host: url.host_str().unwrap_or_default().to_owned(),
            headers: options
                .headers
                .iter()
                .map(usable)
                .collect::<Result<_, _>>()?,
            timeout: options.timeout,
            http: options.http.clone(),
        })
    }

    pub(super) fn host(&self) -> String {
        self.host.clone()
    }

    /// A request for this account, with the header fields that hold secrets.
    pub(super) fn request(
        &self,
        method: &Method,
        credential: &Credential,
        secrets: &Secrets,
    ) -> Result<Request, SinkError> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let username = render::encoded(&credential.username, is_plain);
        let mut request = Request::new(method.clone(), address(&self.url, &username)?);
        *request.timeout_mut() = Some(self.timeout);
        for name in &self.headers {
            let mut given = secrets.headers.iter();
            let (_, secret) = given
                .find(|(given, _)| given == name.as_str())
                .ok_or_else(|| SinkError::NoSecret(format!("the header field {name}")))?;
            let mut value = plain(name.as_str(), secret.expose())?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    /// Asks once. The body is wiped when it was sent.
    pub(super) async fn ask(
        &self,
        mut request: Request,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer, SinkError> {
        if !body.is_empty() {
            *request.body_mut() = Some(Bytes::from_owner(body).into());
        }
        Ok(self.http.ask(request).await?)
    }

    /// What an answer comes to.
    pub(super) fn judge(&self, answer: &Answer) -> Result<(), SinkError> {
        let (host, status) = (self.host(), answer.status.as_u16());
        let passes = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if answer.status.is_success() {
            Ok(())
        } else if answer.status.is_server_error() || passes.contains(&answer.status) {
            Err(SinkError::Busy {
                host,
                status,
                retry_after: retry_after(&answer.headers, Timestamp::now()),
            })
        } else {
            Err(SinkError::Refused { host, status })
        }
    }
}

/// The address may hold a secret of its own, as many a webhook's does.
impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", self.host)
    }
}

fn address(url: &str, username: &str) -> Result<Url, SinkError> {
    let url = Url::parse(&url.replace("{username}", username))
        .map_err(|_| SinkError::Url("is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(SinkError::Url("has more in it than an address"));
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        ("http", Some(host)) if is_loopback(host) => Ok(url),
        _ => Err(SinkError::Url("is not https")),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn plain(name: &str, value: &str) -> Result<HeaderValue, SinkError> {
    HeaderValue::from_str(value).map_err(|_| SinkError::Header(name.to_owned()))
}

fn signature(key: &Secret, parts: &[&[u8]; 3]) -> Result<String, SinkError> {
    let key = match key.expose().strip_prefix(PREFIX) {
        Some(encoded) => STANDARD_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or(SinkError::SigningKey)?,
        None => key.expose().as_bytes().to_vec(),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &Zeroizing::new(key));
    let mut context = hmac::Context::with_key(&key);
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            context.update(b".");
        }
        context.update(part);
    }
    Ok(format!("v1,{}", STANDARD.encode(context.sign())))
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new();
        let date = date.parse_timestamp(text).ok()?;
        Duration::try_from(date.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}
