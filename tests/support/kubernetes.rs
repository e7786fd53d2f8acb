//! As much of a Kubernetes API server as `kubectl apply --server-side` of a Secret asks for: what
//! there is (discovery), and one PATCH (KEP-555).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Kubernetes(Arc<Mutex<Cluster>>);

struct Cluster {
    token: String,
    /// By namespace and name: the object, and who manages it.
    secrets: HashMap<(String, String), (Value, String)>,
}

impl Kubernetes {
    pub fn new(token: &str) -> Self {
        Self(Arc::new(Mutex::new(Cluster {
            token: token.to_owned(),
            secrets: HashMap::new(),
        })))
    }

    pub fn router(&self) -> Router {
        let versions = json!({"kind": "APIVersions", "versions": ["v1"]});
        let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []});
        let resources = json!({
            "kind": "APIResourceList", "groupVersion": "v1",
            "resources": [{
                "name": "secrets", "singularName": "secret", "namespaced": true, "kind": "Secret",
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }],
        });
        let says = |value: Value| get(async move || Json(value));
        Router::new()
            .route("/api", says(versions))
            .route("/apis", says(groups))
            .route("/api/v1", says(resources))
            .route(
                "/api/v1/namespaces/{namespace}/secrets/{name}",
                patch(apply),
            )
            .fallback(async || status(StatusCode::NOT_FOUND, "NotFound"))
            .with_state(self.clone())
    }

    /// A Secret, as it is kept.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        let cluster = self.0.lock().unwrap();
        cluster.secrets.get(&key).map(|(object, _)| object.clone())
    }

    /// Somebody else has made it.
    pub fn is_managed_by(&self, namespace: &str, name: &str, manager: &str, object: Value) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut cluster = self.0.lock().unwrap();
        cluster.secrets.insert(key, (object, manager.to_owned()));
    }
}

fn status(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

async fn apply(
    State(kubernetes): State<Kubernetes>,
    Path((namespace, name)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let mut cluster = kubernetes.0.lock().unwrap();
    let header = |name: &str| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    };
    if header("authorization") != format!("Bearer {}", cluster.token) {
        return status(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    if header("content-type") != "application/apply-patch+yaml" {
        return status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType");
    }
    // JSON is YAML, and what kubectl sends.
    let object: Value = match serde_json::from_str(&body) {
        Ok(object) => object,
        Err(_) => return status(StatusCode::BAD_REQUEST, "BadRequest"),
    };
    let is_it = object["apiVersion"] == "v1"
        && object["kind"] == "Secret"
        && object["metadata"]["name"] == name.as_str();
    let Some(manager) = query.get("fieldManager").filter(|_| is_it) else {
        return status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    };
    let key = (namespace, name);
    let code = match cluster.secrets.get(&key) {
        Some((_, other)) if other != manager && query.get("force").is_none_or(|f| f != "true") => {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        Some(_) => StatusCode::OK,
        None => StatusCode::CREATED,
    };
    let mut kept = object.clone();
    kept["metadata"]["namespace"] = key.0.clone().into();
    kept["metadata"]["resourceVersion"] = "1".into();
    kept["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001".into();
    cluster.secrets.insert(key, (kept.clone(), manager.clone()));
    (code, Json(kept)).into_response()
}
