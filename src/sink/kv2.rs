//! An entry of a key-value store of version 2, as `HashiCorp` Vault and `OpenBao` have it, by
//! check-and-set: what is written counts only if nobody else wrote since we looked.
//!
//! The entry is ours alone: a write replaces all that stands in it.

use reqwest::{Method, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::render;
use super::webhook::Way;
use super::{Credential, Delivered, Secrets, SinkError, WebhookOptions};

/// The way to the store.
#[derive(Debug)]
pub(super) struct Kv2(Way);

/// What is written.
#[derive(Serialize)]
struct Write<'a> {
    options: CheckAndSet,
    data: Pair<'a>,
}

#[derive(Serialize)]
struct CheckAndSet {
    /// The version that is replaced; 0 where there must be none.
    cas: u64,
}

#[derive(Serialize)]
struct Pair<'a> {
    username: &'a str,
    password: &'a str,
}

/// What is read.
#[derive(Deserialize)]
struct Read<D> {
    data: Entry<D>,
}

#[derive(Deserialize)]
struct Entry<D> {
    data: Option<D>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

#[derive(Deserialize)]
struct Held {
    username: Zeroizing<String>,
    password: Zeroizing<String>,
}

/// What stands in the store.
struct Found {
    version: u64,
    is_ours: bool,
}

impl Kv2 {
    pub(super) fn new(options: &WebhookOptions) -> Result<Self, SinkError> {
        Way::new(options).map(Self)
    }

    /// Looks, and writes if it has to.
    pub(super) async fn put(
        &self,
        credential: &Credential,
        secrets: &Secrets,
    ) -> Result<Delivered, SinkError> {
        let found = self.look(credential, secrets).await?;
        if found.is_ours {
            return Ok(Delivered::Already);
        }
        let request = self.0.request(&Method::POST, credential, secrets)?;
        let write = Write {
            options: CheckAndSet { cas: found.version },
            data: Pair {
                username: &credential.username,
                password: credential.secret.expose(),
            },
        };
        let answer = self
            .0
            .ask(request, render::json(&write).into_bytes())
            .await?;
        // A version that is not the last one is told by this status, as is much else; whether it
        // was that shows when we look again.
        if answer.status == StatusCode::BAD_REQUEST
            && self.look(credential, secrets).await?.version != found.version
        {
            return Err(SinkError::Conflict(self.0.host()));
        }
        self.0.judge(&answer)?;
        Ok(Delivered::New)
    }

    /// An entry that was deleted is not found, and still has a version.
    async fn look(&self, credential: &Credential, secrets: &Secrets) -> Result<Found, SinkError> {
        let request = self.0.request(&Method::GET, credential, secrets)?;
        let answer = self.0.ask(request, Zeroizing::default()).await?;
        let is_missing = answer.status == StatusCode::NOT_FOUND;
        if !is_missing {
            self.0.judge(&answer)?;
        }
        let body = Zeroizing::new(answer.body);
        let version = match read::<IgnoredAny>(&body) {
            Some(entry) => entry.metadata.version,
            None if is_missing => 0,
            None => return Err(SinkError::NotKv2(self.0.host())),
        };
        let held = read::<Held>(&body).and_then(|entry| entry.data);
        Ok(Found {
            version,
            is_ours: held.is_some_and(|held| {
                *held.username == credential.username
                    && *held.password == credential.secret.expose()
            }),
        })
    }
}

fn read<D: DeserializeOwned>(body: &[u8]) -> Option<Entry<D>> {
    serde_json::from_slice::<Read<D>>(body)
        .ok()
        .map(|read| read.data)
}
