//! The account as one document: how it is written into the vault and read back.
//!
//! Tokens are written in clear here, for the vault encrypts what it keeps.
//! This is the only place where a token becomes a part of a larger text, and
//! that text is a [`Secret`] itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Account, Answer, Label, Source, Trial, Version};
use crate::secret::Secret;

/// The document cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It was written by a newer version of tokenwatch.
    #[error("the account's document has format {0}, which this version does not know")]
    NewerFormat(u32),
    /// It is damaged. The cause is left out, for it may quote the content.
    #[error("the account's document is damaged")]
    Damaged,
}

/// The second has `password`, `trials` and `failures`; the first is read on.
const FORMAT: u32 = 2;

/// More than a version takes, and more than a trial, in bytes.
const VERSION: usize = 2 * 1024;
const TRIAL: usize = 512;

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    username: String,
    generation: u64,
    versions: Vec<WrittenVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trials: Vec<Trial>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failures: Vec<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_back: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct WrittenVersion {
    id: u64,
    label: WrittenLabel,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Zeroizing<String>>,
    fingerprint: String,
    mailbox: String,
    folder: String,
    uid_validity: u32,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    originated: Timestamp,
    received: Timestamp,
    proof: String,
    stored: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checked: Option<(Answer, Timestamp)>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenLabel {
    Pending,
    Current,
    Previous,
    Superseded,
}

/// Writes an account down.
pub fn to_document(account: &Account) -> Result<Secret, DocumentError> {
    let written = Written {
        format: FORMAT,
        username: account.username.clone(),
        generation: account.generation,
        versions: account.versions.iter().map(WrittenVersion::of).collect(),
        password: account.password.clone(),
        trials: account.trials.clone(),
        failures: account.failures.clone(),
        set_back: account.set_back,
    };
    let versions = account.versions.len().saturating_add(1);
    let room = versions
        .saturating_mul(VERSION)
        .saturating_add(account.trials.len().saturating_mul(TRIAL));
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *bytes, &written).map_err(|_| DocumentError::Damaged)?;
    std::str::from_utf8(&bytes)
        .map(|text| Secret::new(text.to_owned()))
        .map_err(|_| DocumentError::Damaged)
}

/// Reads an account back.
pub fn from_document(document: &Secret) -> Result<Account, DocumentError> {
    let written: Written =
        serde_json::from_str(document.expose()).map_err(|_| DocumentError::Damaged)?;
    if written.format > FORMAT {
        return Err(DocumentError::NewerFormat(written.format));
    }
    Ok(Account {
        username: written.username,
        generation: written.generation,
        versions: written.versions.into_iter().map(Into::into).collect(),
        password: written.password,
        trials: written.trials,
        failures: written.failures,
        set_back: written.set_back,
    })
}

impl WrittenVersion {
    fn of(version: &Version) -> Self {
        let source = version.source.clone();
        Self {
            id: version.id,
            label: match version.label {
                Label::Pending => WrittenLabel::Pending,
                Label::Current => WrittenLabel::Current,
                Label::Previous => WrittenLabel::Previous,
                Label::Superseded => WrittenLabel::Superseded,
            },
            token: version
                .token
                .as_ref()
                .map(|token| Zeroizing::new(token.expose().to_owned())),
            fingerprint: version.fingerprint.clone(),
            mailbox: source.mailbox,
            folder: source.folder,
            uid_validity: source.uid_validity,
            uid: source.uid,
            message_id: source.message_id,
            originated: source.originated,
            received: source.received,
            proof: version.proof.clone(),
            stored: version.stored,
            moved: Some(version.moved),
            checked: version.checked,
        }
    }
}

impl From<WrittenVersion> for Version {
    fn from(written: WrittenVersion) -> Self {
        Self {
            id: written.id,
            label: match written.label {
                WrittenLabel::Pending => Label::Pending,
                WrittenLabel::Current => Label::Current,
                WrittenLabel::Previous => Label::Previous,
                WrittenLabel::Superseded => Label::Superseded,
            },
            token: written
                .token
                .map(|mut token| Secret::new(std::mem::take(&mut *token))),
            fingerprint: written.fingerprint,
            source: Source {
                mailbox: written.mailbox,
                folder: written.folder,
                uid_validity: written.uid_validity,
                uid: written.uid,
                message_id: written.message_id,
                originated: written.originated,
                received: written.received,
            },
            proof: written.proof,
            stored: written.stored,
            moved: written.moved.unwrap_or(written.stored),
            checked: written.checked,
        }
    }
}
