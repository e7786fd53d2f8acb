//! The file vault: one age-encrypted file that implements keyring-core's store.
//!
//! `age -d -i vault.key vault.age` opens it without tokenwatch. It is written
//! whole, once a change: temporary file, fsync, rename, fsync of the folder
//! (invariant 7), mode 0600, under a side-car lock that is held for as long as
//! the vault is open. A wrong key is an error when the vault is opened, not
//! when the first secret is needed.

mod disk;
mod key;
mod rekey;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use age::x25519::{Identity, Recipient};
use keyring_core::api::{CredentialApi, CredentialStoreApi};
use keyring_core::{Credential, Entry, Error};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::FileError;
use super::{FileOptions, VaultError};
use crate::secret::Secret;
use disk::read_private;
use key::Keys;

pub(super) use rekey::rekey;

const FORMAT: u32 = 1;

/// The store. All entries share it.
pub(super) struct FileStore {
    path: PathBuf,
    keys: Keys,
    /// Who else can open what is written from now on.
    recipients: Vec<Recipient>,
    this: Weak<Self>,
    /// Held, not read: dropping it lets the next process in.
    _lock: File,
    /// Serialises read-change-write; the content itself is not kept in memory.
    writing: Mutex<()>,
    /// The newest generation that was seen: while it is open, the vault never
    /// goes back behind it, nor away.
    seen: AtomicU64,
}

/// What is encrypted.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Counts every write, so that a file put back from a backup can be told.
    generation: u64,
    /// service → user → secret
    entries: BTreeMap<String, BTreeMap<String, Zeroizing<String>>>,
}

impl Content {
    /// A bound on its length as JSON, where a byte takes six at most.
    fn size(&self) -> usize {
        let entries = self.entries.iter().flat_map(|(service, users)| {
            let lengths = users
                .iter()
                .map(|(user, secret)| user.len().saturating_add(secret.len()));
            lengths.map(|length| length.saturating_add(service.len()))
        });
        entries
            .fold(64_usize, |sum, length| {
                sum.saturating_add(length).saturating_add(16)
            })
            .saturating_mul(6)
    }
}

impl FileStore {
    /// Locks the vault and takes its key up; a person may be asked for the
    /// key's passphrase.
    pub(super) fn take_up(options: FileOptions) -> Result<Arc<Self>, VaultError> {
        let lock = disk::lock(&options.path.with_extension("lock"))?;
        let keys = Keys::open(options.key)?;
        Ok(Arc::new_cyclic(|this| Self {
            path: options.path,
            keys,
            recipients: options.recipients,
            this: Weak::clone(this),
            _lock: lock,
            writing: Mutex::new(()),
            seen: AtomicU64::new(0),
        }))
    }

    /// The generation that was read or written last.
    pub(super) fn generation(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Looks whether the key opens the vault.
    pub(super) fn prove(&self) -> Result<(), FileError> {
        self.load().map(drop)
    }

    /// Asks a person for what the first write needs, and does so before
    /// anybody waits for that.
    pub(super) fn prepare(&self) -> Result<(), VaultError> {
        if !self.path.exists() && self.keys.identity()?.is_none() {
            self.keys.prepare()?;
        }
        Ok(())
    }

    /// Reads and decrypts; an empty content where there is no file yet.
    fn load(&self) -> Result<Content, FileError> {
        let seen = self.seen.load(Ordering::Acquire);
        let Some(sealed) = read_private(&self.path)? else {
            if seen > 0 {
                return Err(FileError::WentBack(self.path.clone()));
            }
            return Ok(Content::default());
        };
        let identity = self
            .keys
            .identity()?
            .ok_or_else(|| FileError::KeyMissing(self.keys.path().to_owned()))?;
        let plain = age::decrypt(&identity, &sealed).map_err(|error| {
            if matches!(error, age::DecryptError::NoMatchingKeys) {
                FileError::WrongKey(self.path.clone())
            } else {
                FileError::Damaged(self.path.clone())
            }
        })?;
        let plain = Zeroizing::new(plain);
        let content: Content =
            serde_json::from_slice(&plain).map_err(|_| FileError::Damaged(self.path.clone()))?;
        if content.format > FORMAT {
            return Err(FileError::NewerFormat(self.path.clone()));
        }
        if content.generation < seen {
            return Err(FileError::WentBack(self.path.clone()));
        }
        self.seen.store(content.generation, Ordering::Release);
        Ok(content)
    }

    /// Writes all of them, or none.
    pub(super) fn write_all(
        &self,
        secrets: Vec<(String, String, Secret)>,
    ) -> Result<(), FileError> {
        self.change(|content| {
            for (service, user, secret) in secrets {
                let secret = Zeroizing::new(secret.expose().to_owned());
                let users = content.entries.entry(service).or_default();
                users.insert(user, secret);
            }
            true
        })?;
        Ok(())
    }

    /// What there is of these services and users.
    pub(super) fn read_all(
        &self,
        wanted: &[(String, String)],
    ) -> Result<Vec<Option<Secret>>, FileError> {
        let entries = self.load()?.entries;
        let find = |(service, user): &(String, String)| {
            let secret = entries.get(service)?.get(user)?;
            Some(Secret::new(secret.as_str().to_owned()))
        };
        Ok(wanted.iter().map(find).collect())
    }

    fn change(&self, change: impl FnOnce(&mut Content) -> bool) -> Result<bool, FileError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = self.load()?;
        if !change(&mut content) {
            return Ok(false);
        }
        let identity = match self.keys.identity()? {
            Some(identity) => identity,
            None => self.make_key()?,
        };
        self.seal(content, &[identity.to_public()])?;
        Ok(true)
    }

    /// Writes the vault whole, for whoever has one of our keys or one of the
    /// further recipients'.
    fn seal(&self, mut content: Content, ours: &[Recipient]) -> Result<(), FileError> {
        content.format = FORMAT;
        content.generation = content.generation.saturating_add(1);
        let damaged = || FileError::Damaged(self.path.clone());
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(content.size()));
        serde_json::to_writer(&mut *plain, &content).map_err(|_| damaged())?;
        let recipients = ours
            .iter()
            .chain(&self.recipients)
            .map(|recipient| recipient as &dyn age::Recipient);
        let mut sealed = Vec::with_capacity(plain.len());
        age::Encryptor::with_recipients(recipients)
            .map_err(|_| damaged())?
            .wrap_output(&mut sealed)
            .and_then(|mut writer| {
                writer.write_all(&plain)?;
                writer.finish()
            })
            .map_err(|_| damaged())?;
        disk::replace(&self.path, &sealed)?;
        self.seen.store(content.generation, Ordering::Release);
        Ok(())
    }

    /// The first write makes the key. It never replaces one: a vault without
    /// its key was refused when it was opened.
    fn make_key(&self) -> Result<Identity, FileError> {
        let key = self.keys.path();
        if !self.keys.can_be_made() || self.path.exists() {
            return Err(FileError::KeyMissing(key.to_owned()));
        }
        let identity = self.keys.make()?;
        tracing::info!(
            event = "vault.created",
            vault = %self.path.display(),
            key = %key.display(),
            "made a vault and its key; keep a copy of both"
        );
        Ok(identity)
    }
}

/// Whether what the vault at `path` holds is gone after a reboot.
pub(super) fn is_in_memory(path: &Path) -> Result<bool, FileError> {
    disk::is_in_memory(path)
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::PlatformFailure(Box::new(error))
    }
}

impl CredentialStoreApi for FileStore {
    fn vendor(&self) -> String {
        "tokenwatch encrypted file".to_owned()
    }

    fn id(&self) -> String {
        self.path.display().to_string()
    }

    fn build(
        &self,
        service: &str,
        user: &str,
        modifiers: Option<&HashMap<&str, &str>>,
    ) -> keyring_core::Result<Entry> {
        if modifiers.is_some_and(|modifiers| !modifiers.is_empty()) {
            return Err(Error::NotSupportedByStore("modifiers".to_owned()));
        }
        let store = self.this.upgrade().ok_or(Error::NoDefaultStore)?;
        Ok(Entry::new_with_credential(Arc::new(FileCredential {
            store,
            service: service.to_owned(),
            user: user.to_owned(),
        })))
    }

    fn search(&self, spec: &HashMap<&str, &str>) -> keyring_core::Result<Vec<Entry>> {
        let fits = |key: &str, value: &str| spec.get(key).is_none_or(|wanted| *wanted == value);
        let mut found = Vec::new();
        for (service, users) in &self.load()?.entries {
            for user in users.keys() {
                if fits("service", service) && fits("user", user) {
                    found.push(self.build(service, user, None)?);
                }
            }
        }
        Ok(found)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn debug_fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileStore({})", self.path.display())
    }
}

/// One entry of the file.
struct FileCredential {
    store: Arc<FileStore>,
    service: String,
    user: String,
}

impl CredentialApi for FileCredential {
    fn set_secret(&self, secret: &[u8]) -> keyring_core::Result<()> {
        // Text only, so that a person with the key can read the file.
        let text = std::str::from_utf8(secret)
            .map_err(|_| Error::Invalid("secret".to_owned(), "not UTF-8".to_owned()))?;
        self.store.change(|content| {
            content
                .entries
                .entry(self.service.clone())
                .or_default()
                .insert(self.user.clone(), Zeroizing::new(text.to_owned()));
            true
        })?;
        Ok(())
    }

    fn get_secret(&self) -> keyring_core::Result<Vec<u8>> {
        self.store
            .load()?
            .entries
            .get(&self.service)
            .and_then(|users| users.get(&self.user))
            .map(|secret| secret.as_bytes().to_vec())
            .ok_or(Error::NoEntry)
    }

    fn delete_credential(&self) -> keyring_core::Result<()> {
        let removed = self.store.change(|content| {
            content
                .entries
                .get_mut(&self.service)
                .is_some_and(|users| users.remove(&self.user).is_some())
        })?;
        if removed { Ok(()) } else { Err(Error::NoEntry) }
    }

    fn get_credential(&self) -> keyring_core::Result<Option<Arc<Credential>>> {
        self.get_secret().map(|_| None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        Some((self.service.clone(), self.user.clone()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn debug_fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileCredential({}, {})", self.service, self.user)
    }
}

#[cfg(test)]
pub(super) fn replace_for_tests(path: &Path, bytes: &[u8]) {
    disk::replace(path, bytes).unwrap();
}

#[cfg(test)]
mod tests;
