//! The crate's requests, over our way to a server.

use std::pin::Pin;
use std::time::Duration;

use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::Request;

use super::OauthError;
use super::error::Code;
use crate::http::{Http, HttpError};

/// How long a request may take. A stop waits for a renewal that is under way,
/// since its answer may hold the only refresh token that lives.
pub const DEADLINE: Duration = Duration::from_secs(15);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = OauthError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, OauthError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(ask(self, request))
    }
}

async fn ask(http: &Http, request: HttpRequest) -> Result<HttpResponse, OauthError> {
    let mut request =
        Request::try_from(request).map_err(|error| OauthError::Http(HttpError::Client(error)))?;
    *request.timeout_mut() = Some(DEADLINE);
    let answer = http.ask(request).await?;
    let status = answer.status;
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(OauthError::Unavailable(Code::of_status(status.as_u16())));
    }
    if status.is_redirection() {
        return Err(OauthError::Unintelligible("sends us elsewhere"));
    }
    let mut response = HttpResponse::new(answer.body);
    *response.status_mut() = status;
    // The crate looks at the type of an answer that is a success.
    *response.headers_mut() = answer.headers;
    Ok(response)
}
