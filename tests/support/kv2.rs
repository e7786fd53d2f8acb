//! A key-value store of version 2 as `HashiCorp` Vault and `OpenBao` have it, mounted at `secret/`:
//! versions, check-and-set, deleted entries, a token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// What it says of a `cas` that is not the current version.
const MISMATCH: &str = "check-and-set parameter did not match the current version";

#[derive(Clone)]
pub struct Kv2(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    token: String,
    sealed: bool,
    entries: HashMap<String, Vec<Version>>,
    /// What somebody else writes just before the next write.
    between: Option<Value>,
    writes: usize,
}

#[derive(Clone)]
struct Version {
    data: Value,
    deleted: bool,
}

impl Kv2 {
    pub fn new(token: &str) -> Self {
        Self(Arc::new(Mutex::new(Store {
            token: token.to_owned(),
            ..Store::default()
        })))
    }

    pub fn router(&self) -> Router {
        let routes = get(read).post(write).put(write).delete(delete);
        Router::new()
            .route("/v1/secret/data/{*path}", routes)
            .fallback(async || (StatusCode::NOT_FOUND, Json(json!({"errors": []}))))
            .with_state(self.clone())
    }

    /// The versions of an entry, as they were written.
    pub fn versions(&self, path: &str) -> Vec<Value> {
        let store = self.0.lock().unwrap();
        let versions = store.entries.get(path).into_iter().flatten();
        versions.map(|version| version.data.clone()).collect()
    }

    /// How many writes were tried.
    pub fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    pub fn seal(&self, sealed: bool) {
        self.0.lock().unwrap().sealed = sealed;
    }

    /// Somebody else writes this just before the next write.
    pub fn between(&self, data: Value) {
        self.0.lock().unwrap().between = Some(data);
    }

    /// Deletes the newest version, as `kv delete` does.
    pub fn delete(&self, path: &str) {
        let mut store = self.0.lock().unwrap();
        let newest = store.entries.get_mut(path).and_then(|all| all.last_mut());
        newest.unwrap().deleted = true;
    }
}

impl Store {
    fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        if self.sealed {
            return Some(errors(StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed"));
        }
        let given = headers.get("x-vault-token").map(HeaderValue::as_bytes);
        (given != Some(self.token.as_bytes()))
            .then(|| errors(StatusCode::FORBIDDEN, "permission denied"))
    }
}

fn errors(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "errors": [text] }))).into_response()
}

fn envelope(data: &Value) -> Json<Value> {
    Json(json!({
        "request_id": "3f0b1c5e-0000-0000-0000-000000000000", "lease_id": "", "renewable": false,
        "lease_duration": 0, "data": data, "wrap_info": null, "warnings": null, "auth": null,
    }))
}

fn metadata(version: usize, deleted: bool) -> Value {
    json!({
        "created_time": "2026-11-24T15:00:00.000000000Z", "custom_metadata": null,
        "deletion_time": if deleted { "2026-11-24T16:00:00.000000000Z" } else { "" },
        "destroyed": false, "version": version,
    })
}

async fn read(
    State(kv2): State<Kv2>,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, usize>>,
    headers: HeaderMap,
) -> Response {
    let store = kv2.0.lock().unwrap();
    if let Some(refused) = store.refuses(&headers) {
        return refused;
    }
    let versions = store.entries.get(&path).map_or(&[][..], Vec::as_slice);
    let wanted = query.get("version").copied().unwrap_or(0);
    let number = if wanted == 0 { versions.len() } else { wanted };
    match number.checked_sub(1).and_then(|at| versions.get(at)) {
        None => (StatusCode::NOT_FOUND, Json(json!({"errors": []}))).into_response(),
        Some(version) if version.deleted => {
            let data = json!({"data": null, "metadata": metadata(number, true)});
            (StatusCode::NOT_FOUND, envelope(&data)).into_response()
        }
        Some(version) => {
            let data = json!({"data": version.data, "metadata": metadata(number, false)});
            envelope(&data).into_response()
        }
    }
}

async fn write(
    State(kv2): State<Kv2>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let mut store = kv2.0.lock().unwrap();
    if let Some(refused) = store.refuses(&headers) {
        return refused;
    }
    store.writes += 1;
    let Ok(body) = serde_json::from_str::<Value>(&body) else {
        return errors(StatusCode::BAD_REQUEST, "failed to parse JSON input");
    };
    if !body["data"].is_object() {
        return errors(StatusCode::BAD_REQUEST, "no data provided");
    }
    let between = store.between.take();
    let versions = store.entries.entry(path).or_default();
    let write = |data: &Value| Version {
        data: data.clone(),
        deleted: false,
    };
    versions.extend(between.as_ref().map(write));
    let current = versions.len() as u64;
    match body["options"]["cas"].as_u64() {
        Some(cas) if cas == current => {}
        _ => return errors(StatusCode::BAD_REQUEST, MISMATCH),
    }
    versions.push(write(&body["data"]));
    envelope(&metadata(versions.len(), false)).into_response()
}

async fn delete(State(kv2): State<Kv2>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refused) = kv2.0.lock().unwrap().refuses(&headers) {
        return refused;
    }
    kv2.delete(&path);
    StatusCode::NO_CONTENT.into_response()
}
