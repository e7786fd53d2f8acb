//! What the control API says where it does not do what was asked: always the same JSON.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::held::HeldError;
use super::state::StateError;
use crate::api::ErrorBody;

/// An answer that is an error.
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) body: ErrorBody,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            body: ErrorBody {
                error: error.to_string(),
                causes: crate::causes(&error).collect(),
                hint: Some(error.hint()),
                exit_code: 1,
            },
        }
    }
}

impl From<HeldError> for Failure {
    fn from(error: HeldError) -> Self {
        let status = match &error {
            HeldError::NotHeld(_) => StatusCode::NOT_FOUND,
            HeldError::Inbox { .. } => StatusCode::BAD_GATEWAY,
            HeldError::State(_) | HeldError::Daemon(_) => StatusCode::INTERNAL_SERVER_ERROR,
            HeldError::Gone(_)
            | HeldError::Renumbered { .. }
            | HeldError::Unfetchable(_)
            | HeldError::NoNotice { .. }
            | HeldError::UnknownAccount(_)
            | HeldError::NotTaken { .. }
            | HeldError::Changed(_) => StatusCode::CONFLICT,
        };
        Self {
            status,
            body: ErrorBody {
                error: error.to_string(),
                causes: crate::causes(&error).collect(),
                hint: error.hint(),
                exit_code: error.exit_code(),
            },
        }
    }
}

pub(super) fn bad_request(error: impl Into<String>, hint: &str, exit_code: u8) -> Failure {
    Failure {
        status: StatusCode::BAD_REQUEST,
        body: ErrorBody {
            error: error.into(),
            causes: Vec::new(),
            hint: Some(hint.to_owned()),
            exit_code,
        },
    }
}

/// Every refusal is an [`ErrorBody`], also those that the router and its extractors make: an
/// address or a method that there is not, a query that cannot be read, a body that is too large.
pub(super) async fn in_our_words(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_ours = content_type.is_some_and(|kind| kind == "application/json");
    if !status.is_client_error() || is_ours {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, 1024).await.unwrap_or_default();
    let (error, hint, exit_code) = match status {
        StatusCode::NOT_FOUND => (
            "there is no such thing here",
            "GET /v1/status, POST /v1/resync, /healthz and /metrics are for everybody",
            1,
        ),
        StatusCode::METHOD_NOT_ALLOWED => (
            "this cannot be done with what is there",
            "the header `allow` says what can be",
            2,
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (
            "the request is too large",
            "a request, and a secret, has 64 KiB at most",
            65,
        ),
        _ => (
            "the request cannot be understood",
            "README.md says what can be asked for",
            2,
        ),
    };
    let mut ours = Failure {
        status,
        body: ErrorBody {
            error: error.to_owned(),
            // Of a body nothing is said here: the handlers read those themselves.
            causes: std::str::from_utf8(&said)
                .ok()
                .filter(|said| !said.is_empty())
                .map(str::to_owned)
                .into_iter()
                .collect(),
            hint: Some(hint.to_owned()),
            exit_code,
        },
    }
    .into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        ours.headers_mut().insert(header::ALLOW, allow.clone());
    }
    ours
}

/// What was asked for, whatever the request calls it; nothing at all is what there is by default.
pub(super) fn asked<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Failure> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Failure {
        status: StatusCode::BAD_REQUEST,
        body: ErrorBody {
            error: "the request is not the JSON that is wanted here".to_owned(),
            causes: vec![error.to_string()],
            hint: Some("send an object, or nothing for the defaults".to_owned()),
            exit_code: 65,
        },
    })
}
