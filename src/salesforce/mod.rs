//! Checks a credential by one real login at Salesforce.
//!
//! The login is the `login()` of Salesforce's Partner SOAP API, over HTTPS. Each
//! [`log_in`] is one attempt and never more, because Salesforce counts those that
//! it refuses and locks the user out. What comes of it is an [`Answer`], which
//! above all tells whether Salesforce may have looked at the password. The
//! session that a login opens is to be closed again ([`Login::log_out`]), but
//! that is a second step: nobody has to wait for it to know the answer.
//!
//! **Invariant:** of what Salesforce answers only a known exception code, or a
//! plain word that was not sent, is ever logged. Its messages may repeat what
//! they are about.
//!
//! Deliberately absent: whether and when to try, a second try, what an answer
//! means for the credential. That is `rotation`'s.

mod answer;
mod endpoint;
mod soap;
#[cfg(test)]
mod tests;

use std::time::Duration;

use hyper::body::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Request, Url};
use zeroize::Zeroizing;

pub use answer::Answer;
pub use endpoint::{Endpoint, EndpointError, LAST_API_VERSION};

use crate::http::{Http, HttpError};
use crate::secret::Secret;
use soap::Session;

/// How long the end of a session may take.
const LOGOUT: Duration = Duration::from_secs(10);

/// A login that was made.
#[must_use = "the session that it has opened is to be closed"]
pub struct Login {
    /// What came of it.
    pub answer: Answer,
    /// What it has opened.
    session: Option<Session>,
}

/// Logs in once. It takes half a minute at most.
///
/// Dropping it before the end is safe and leaves the attempt without an answer; a session that was
/// just opened then ends by Salesforce's own clock.
pub async fn log_in(
    http: &Http,
    endpoint: &Endpoint,
    username: &str,
    password_and_token: &Secret,
) -> Login {
    let host = endpoint.host();
    let login = soap::login(username, password_and_token);
    let (status, body) = match ask(http, endpoint.url().clone(), "login", login).await {
        Ok(answered) => answered,
        Err(error) => {
            let answer = without_an_answer(&error);
            tracing::info!(
                event = "salesforce.login",
                host,
                answer = answer.word(),
                error = crate::chain(&error),
                "a login at Salesforce is without an answer"
            );
            let session = None;
            return Login { answer, session };
        }
    };
    let reply = soap::reply(status, &body);
    let code = reply.code.as_ref();
    tracing::info!(
        event = "salesforce.login",
        host,
        answer = reply.answer.word(),
        status,
        code = code.map(|code| code.shown(password_and_token)),
        "Salesforce has answered a login"
    );
    Login {
        answer: reply.answer,
        session: reply.session,
    }
}

impl Login {
    /// Closes the session that the login has opened, where it has. It takes ten seconds at most.
    pub async fn log_out(self, http: &Http, endpoint: &Endpoint) {
        let Some(session) = self.session else {
            return;
        };
        let logging_out = log_out(http, endpoint, &session);
        if tokio::time::timeout(LOGOUT, logging_out).await.is_err() {
            tracing::debug!(
                event = "salesforce.logout",
                host = endpoint.host(),
                "no answer to a logout in time"
            );
        }
    }
}

/// What the answer to a login means: its status (HTTP) and its body. [`log_in`] does no more with
/// it.
pub fn read(status: u16, body: &[u8]) -> Answer {
    soap::reply(status, body).answer
}

/// Ends the session at the server that it is on. Where that does not work nothing is lost: it ends
/// by itself after some hours.
async fn log_out(http: &Http, endpoint: &Endpoint, session: &Session) {
    let Some(url) = endpoint.of_session(&session.server_url) else {
        tracing::debug!(
            event = "salesforce.logout",
            "the session's server is none that a secret may go to"
        );
        return;
    };
    let host = url.host_str().unwrap_or_default().to_owned();
    match ask(http, url, "logout", soap::logout(&session.id)).await {
        Ok((status, _)) => {
            tracing::debug!(
                event = "salesforce.logout",
                host,
                status,
                "logged out again"
            );
        }
        Err(error) => tracing::debug!(
            event = "salesforce.logout",
            host,
            error = crate::chain(&error),
            "cannot log out"
        ),
    }
}

/// Sends a document, and gives status and body of what comes back. The buffers that are ours are
/// wiped; those of TLS and the socket live for this one connection.
async fn ask(
    http: &Http,
    url: Url,
    action: &'static str,
    document: Zeroizing<String>,
) -> Result<(u16, Zeroizing<Vec<u8>>), HttpError> {
    let mut request = Request::new(Method::POST, url);
    let headers = request.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/xml; charset=UTF-8"),
    );
    headers.insert("SOAPAction", HeaderValue::from_static(action));
    *request.body_mut() = Some(Body::from(Bytes::from_owner(document)));
    let answer = http.ask(request).await?;
    Ok((answer.status.as_u16(), Zeroizing::new(answer.body)))
}

/// Whether Salesforce may have seen a login that it did not answer.
fn without_an_answer(error: &HttpError) -> Answer {
    match error {
        HttpError::Unreachable { .. } | HttpError::Proxy(_) | HttpError::Client(_) => {
            Answer::Unreachable
        }
        HttpError::Lost { .. } | HttpError::Deadline(_) | HttpError::TooLarge { .. } => {
            Answer::Unknown
        }
    }
}
