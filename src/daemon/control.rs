//! The control API: HTTP/1.1 over a Unix socket.
//!
//! Who may call is settled by the kernel's word on who is at the other end:
//! root and the daemon's own user may do everything. Anyone else who gets as
//! far as the socket, which its mode allows the group alone, may read the
//! status and ask for a resync; secrets are not for them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::callers::{self, Peer};
use super::check::Doctor;
use super::held::{self, HeldError};
use super::looking::Tools;
use super::metrics;
use super::refusal::{Failure, asked, bad_request, in_our_words};
use super::resync::Resync;
use super::sign_in::SignIn;
use super::socket::Listener;
use super::state::StateError;
use super::worker::{Handle, SecretName, Worker};
use super::{DaemonError, SecretError, secret_of};
use crate::api::{
    AcceptRequest, Acceptance, ErrorBody, Health, HeldLine, ResyncRequest, STATE_DIR_HEADER,
    SignInEvent, Status,
};
use crate::config::{self, Config, Oauth2};

/// Serves until it is stopped.
pub(super) async fn serve(listener: Listener, rooms: Rooms) {
    let (socket, place) = listener.into_parts();
    let stop = rooms.stop.clone();
    callers::serve(socket, router(rooms), stop).await;
    place.leave().await;
}

/// What the API reaches.
#[derive(Clone)]
pub(super) struct Rooms {
    pub(super) config: Arc<Config>,
    pub(super) worker: Handle,
    pub(super) board: Arc<Board>,
    pub(super) resync: Resync,
    pub(super) tools: Tools,
    pub(super) stop: CancellationToken,
}

fn router(rooms: Rooms) -> Router {
    let state_dir = rooms.config.state_dir.clone();
    let for_owners = Router::new()
        .route("/v1/check", get(check))
        .route("/v1/login/{mailbox}", post(login))
        .route("/v1/held", get(held_mails))
        .route("/v1/held/{id}", delete(drop_held))
        .route("/v1/held/{id}/accept", post(accept_held))
        .route("/v1/secrets", get(secret_names))
        .route("/v1/secrets/{*name}", put(set_secret).delete(remove_secret))
        .route("/v1/credentials", get(credentials))
        .route("/v1/credentials/{username}", get(credential))
        .route("/v1/credentials/{username}/history", get(history))
        .route("/v1/credentials/{username}/rollback", post(roll_back))
        .layer(middleware::from_fn(owners_only));
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/resync", post(resync))
        .route("/healthz", get(healthz))
        .route("/metrics", get(show_metrics))
        .merge(for_owners)
        .layer(DefaultBodyLimit::max(64 * 1024))
        .layer(middleware::map_response(in_our_words))
        .layer(middleware::map_response(move |response| {
            std::future::ready(sign(response, &state_dir))
        }))
        .with_state(rooms)
}

/// Says which daemon this is.
fn sign(mut response: Response, state_dir: &Path) -> Response {
    use std::os::unix::ffi::OsStrExt;
    if let Ok(value) = HeaderValue::from_bytes(state_dir.as_os_str().as_bytes()) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(STATE_DIR_HEADER), value);
    }
    response
}

async fn owners_only(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    if peer.is_owner() {
        return next.run(request).await;
    }
    Failure {
        status: StatusCode::FORBIDDEN,
        body: ErrorBody {
            error: "this is for root and the daemon's own user".to_owned(),
            causes: Vec::new(),
            hint: Some("run it with sudo, or as the daemon's user".to_owned()),
            exit_code: 77,
        },
    }
    .into_response()
}

async fn status(State(rooms): State<Rooms>) -> Json<Status> {
    Json(rooms.board.status())
}

async fn healthz(State(rooms): State<Rooms>) -> (StatusCode, &'static str) {
    match rooms.board.status().state {
        Health::Healthy => (StatusCode::OK, "healthy\n"),
        Health::Starting => (StatusCode::OK, "starting\n"),
        Health::Degraded => (StatusCode::SERVICE_UNAVAILABLE, "degraded\n"),
    }
}

async fn show_metrics(State(rooms): State<Rooms>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = metrics::render(&rooms.board.status());
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

async fn resync(State(rooms): State<Rooms>, body: Bytes) -> Result<Response, Failure> {
    let request: ResyncRequest = asked(&body)?;
    let (events, lines) = mpsc::channel(64);
    let plan = rooms.resync.join(&request, events).map_err(|error| {
        bad_request(
            error.to_string(),
            "`tokenwatch status` names the mailboxes; --since takes 30d, 2026-01-01 or all",
            2,
        )
    })?;
    if let Some(plan) = plan {
        // It goes on when the caller has gone, and ends with the daemon.
        let run = rooms.resync.clone().run(plan);
        let stop = rooms.stop.clone();
        rooms
            .tools
            .tasks
            .spawn(async move { stop.run_until_cancelled(run).await });
    }
    if request.no_wait {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    Ok(ndjson(lines))
}

#[derive(serde::Deserialize)]
struct CheckWanted {
    #[serde(default)]
    offline: bool,
}

async fn check(State(rooms): State<Rooms>, Query(wanted): Query<CheckWanted>) -> Response {
    let (lines, received) = mpsc::channel(16);
    let doctor = Doctor::new(Arc::clone(&rooms.config), rooms.tools.clone());
    let stop = rooms.stop.clone();
    rooms.tools.tasks.spawn(async move {
        stop.run_until_cancelled(doctor.examine(lines, wanted.offline))
            .await
    });
    ndjson(received)
}

#[derive(serde::Deserialize)]
struct LoginWanted {
    #[serde(default)]
    browser: bool,
}

async fn login(
    State(rooms): State<Rooms>,
    UrlPath(mailbox): UrlPath<String>,
    Query(wanted): Query<LoginWanted>,
) -> Result<Response, Failure> {
    let found = SignIn::find(&rooms.config, &mailbox).map_err(|error| {
        let hint = "restart the daemon if its configuration has changed";
        bad_request(error.to_string(), hint, 78)
    })?;
    let (mailbox, oauth2) = (found.0.clone(), found.1.clone());
    let (events, received) = mpsc::channel(16);
    let (stop, tasks) = (rooms.stop.clone(), rooms.tools.tasks.clone());
    tasks.spawn(async move {
        let signing_in = sign_in(&rooms, &mailbox, &oauth2, wanted.browser, &events);
        let ended = tokio::select! {
            ended = signing_in => ended,
            () = events.closed() => return,
            () = stop.cancelled() => return,
        };
        let event = match ended {
            Ok(()) => SignInEvent::Done,
            Err(body) => SignInEvent::Failed(body),
        };
        // Who asked may have gone.
        events.send(event).await.unwrap_or_default();
    });
    Ok(ndjson(received))
}

async fn sign_in(
    rooms: &Rooms,
    mailbox: &config::Mailbox,
    oauth2: &Oauth2,
    in_browser: bool,
    events: &mpsc::Sender<SignInEvent>,
) -> Result<(), ErrorBody> {
    let signing_in = async {
        let prepared = SignIn::prepare(mailbox, oauth2, &rooms.tools).await?;
        prepared.run(in_browser, events).await
    };
    let refresh = signing_in.await.map_err(|error| {
        let (hint, exit_code) = (error.hint(&mailbox.name), error.exit_code());
        let error = DaemonError::sign_in(&mailbox.name, error);
        ErrorBody {
            error: error.to_string(),
            causes: crate::causes(&error).collect(),
            hint: Some(hint),
            exit_code,
        }
    })?;
    if let Some(refresh) = refresh {
        let name = SecretName::Oauth(mailbox.name.clone());
        let stored = rooms.change_secret(&name, {
            let name = name.clone();
            move |worker| worker.set_secret(&name, &refresh)
        });
        stored.await.map_err(|error| Failure::from(error).body)?;
    }
    Ok(())
}

impl Rooms {
    /// Changes a secret, and lets those try again whose login it is for.
    async fn change_secret<T: Send + 'static>(
        &self,
        name: &SecretName,
        change: impl FnOnce(&mut Worker) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (worker, tools, name) = (self.worker.clone(), self.tools.clone(), name.clone());
        // It is not left half done by a caller who goes.
        let changing = self.tools.tasks.spawn(async move {
            let changed = tools.tokens.change(&name, worker.run(change)).await?;
            if let Some(mailbox) = name.mailbox() {
                tools.doors.gate(mailbox).open();
            }
            Ok(changed)
        });
        changing.await.unwrap_or(Err(StateError::Stopped))
    }
}

/// One JSON object a line, each sent as it comes.
fn ndjson<T: serde::Serialize + Send + 'static>(lines: mpsc::Receiver<T>) -> Response {
    let lines = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Some((Ok::<_, io::Error>(Bytes::from(text)), lines))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(lines)).into_response()
}

async fn secret_names(State(rooms): State<Rooms>) -> Result<Json<Vec<String>>, Failure> {
    Ok(Json(
        rooms.worker.run(|worker| worker.secret_names()).await?,
    ))
}

fn secret_name(name: &str) -> Result<SecretName, Failure> {
    SecretName::parse(name).ok_or_else(|| {
        bad_request(
            format!("{name:?} is no name of a secret"),
            "the names are mailbox/NAME, account/USERNAME, oauth/NAME, client/NAME and sink/NAME",
            2,
        )
    })
}

async fn set_secret(
    State(rooms): State<Rooms>,
    UrlPath(name): UrlPath<String>,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let name = secret_name(&name)?;
    let secret = std::str::from_utf8(&body)
        .ok()
        .and_then(secret_of)
        .ok_or_else(|| {
            let hint = SecretError::Unusable.hint();
            bad_request("this can be no secret", hint, 65)
        })?;
    let set = name.clone();
    rooms
        .change_secret(&name, move |worker| worker.set_secret(&set, &secret))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_secret(
    State(rooms): State<Rooms>,
    UrlPath(name): UrlPath<String>,
) -> Result<StatusCode, Failure> {
    let name = secret_name(&name)?;
    let gone = name.clone();
    let removed = rooms
        .change_secret(&name, move |worker| worker.remove_secret(&gone))
        .await?;
    Ok(if removed {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    })
}

async fn credentials(State(rooms): State<Rooms>) -> Result<Response, Failure> {
    Ok(Json(rooms.worker.run(Worker::credentials).await?).into_response())
}

async fn credential(
    State(rooms): State<Rooms>,
    UrlPath(username): UrlPath<String>,
) -> Result<Response, Failure> {
    let get = move |worker: &mut Worker| worker.credential(&username);
    Ok(match rooms.worker.run(get).await? {
        // The socket is where a secret may leave by; it is the one way.
        Some(secret) => secret.expose().to_owned().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn roll_back(
    State(rooms): State<Rooms>,
    UrlPath(username): UrlPath<String>,
) -> Result<Response, Failure> {
    let roll_back = move |worker: &mut Worker| worker.roll_back(&username);
    Ok(match rooms.worker.run(roll_back).await? {
        Some(version) => Json(version).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn history(
    State(rooms): State<Rooms>,
    UrlPath(username): UrlPath<String>,
) -> Result<Response, Failure> {
    let lines = rooms
        .worker
        .run(move |worker| worker.history(&username))
        .await?;
    Ok(Json(lines).into_response())
}

async fn held_mails(State(rooms): State<Rooms>) -> Result<Json<Vec<HeldLine>>, Failure> {
    Ok(Json(rooms.worker.run(|worker| worker.held()).await?))
}

async fn accept_held(
    State(rooms): State<Rooms>,
    UrlPath(id): UrlPath<i64>,
    body: Bytes,
) -> Result<Json<Acceptance>, Failure> {
    let request: AcceptRequest = asked(&body)?;
    let accepted = held::accept(&rooms.config, &rooms.tools, id, request.confirm).await;
    Ok(Json(accepted?))
}

async fn drop_held(
    State(rooms): State<Rooms>,
    UrlPath(id): UrlPath<i64>,
) -> Result<StatusCode, Failure> {
    if rooms.worker.run(move |worker| worker.drop_held(id)).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(HeldError::NotHeld(id).into())
    }
}
