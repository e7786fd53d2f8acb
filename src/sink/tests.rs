//! What a receiver gets, read back as the receiver reads it.

mod command;
mod file;
mod render;

use super::*;

fn credential(username: &str, secret: &str) -> Credential {
    Credential {
        username: username.into(),
        secret: Secret::new(secret.into()),
        version: 7,
        fingerprint: "0f1e2d3c".into(),
        id: "msg-1".into(),
        received: Some("2026-11-24T15:00:00Z".parse().unwrap()),
    }
}

fn file(path: PathBuf, format: Format) -> FileOptions {
    FileOptions {
        path,
        format,
        mode: 0o600,
        owner: None,
    }
}
