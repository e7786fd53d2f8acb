//! Where secrets are kept: a keyring-core store behind one seam.
//!
//! Every store blocks, and the Secret Service may block for ever (a locked
//! collection waits for a person), so all calls run on one thread of their
//! own, each with a deadline (`calls`).
//!
//! The store is held as an explicit value, never as the process-wide default.
//! Deliberately absent: what the entries mean. This room knows a service, a
//! user and a secret.

mod ask;
mod calls;
mod error;
mod file;
mod keyutils;
mod lasting;
mod moving;
#[cfg(feature = "native")]
mod native;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use age::x25519::Recipient;
use keyring_core::{CredentialStore, Entry};
use zeroize::Zeroizing;

use crate::secret::Secret;
use calls::Calls;

pub use ask::{Ask, AskError, Question, ask};
pub use error::{Class, FileError, VaultError};
pub use lasting::{Lasting, lasting};

/// Which store is opened.
#[derive(Clone, Debug)]
pub enum Options {
    /// The encrypted file.
    File(FileOptions),
    /// The desktop's Secret Service.
    #[cfg(feature = "native")]
    Native,
    /// The kernel's keyring of this user.
    Keyutils,
}

/// What belongs to the encrypted file.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// Its key.
    pub key: Key,
    /// Who else can open what is written: keys that are kept elsewhere, for the
    /// day on which the vault's own is lost.
    pub recipients: Vec<Recipient>,
}

/// Where the key of the encrypted file comes from.
#[derive(Clone, Debug)]
pub enum Key {
    /// A file of mode 0600, made on the first write where it is missing.
    Made(PathBuf),
    /// A file that somebody else provides, such as a systemd credential.
    Provided(PathBuf),
    /// A file that a passphrase opens, made on the first write where it is
    /// missing.
    Passphrase {
        /// The file.
        path: PathBuf,
        /// How a person is asked.
        ask: Ask,
    },
}

/// An open vault. Clones share it.
#[derive(Clone)]
pub struct Vault {
    calls: Calls,
    /// The file store, of which the first write may need a person's word.
    file: Option<Arc<file::FileStore>>,
}

impl Vault {
    /// Opens the store; nothing is written yet. A file vault is locked against
    /// other processes until the last clone is dropped. Where a passphrase
    /// opens its key, a person is asked for it, for as long as that takes.
    pub fn open(options: Options) -> Result<Self, VaultError> {
        match options {
            Options::File(options) => {
                let file = file::FileStore::take_up(options)?;
                let store = Arc::clone(&file);
                let calls = Calls::start(move || {
                    store.prove()?;
                    Ok(Arc::clone(&store) as Arc<CredentialStore>)
                })?;
                Ok(Self {
                    calls,
                    file: Some(file),
                })
            }
            #[cfg(feature = "native")]
            Options::Native => Ok(Self {
                calls: Calls::start(native::open)?,
                file: None,
            }),
            Options::Keyutils => Ok(Self {
                calls: Calls::start(keyutils::open)?,
                file: None,
            }),
        }
    }

    /// Counts the writes of the encrypted file; 0 where there is none yet, and
    /// `None` for other stores.
    pub fn generation(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.generation())
    }

    /// Reads a secret; `None` where there is none.
    pub fn read(&self, service: &str, user: &str) -> Result<Option<Secret>, VaultError> {
        let (service, user) = (service.to_owned(), user.to_owned());
        self.calls.call(move |store| {
            let entry = store.build(&service, &user, None)?;
            match entry.get_secret() {
                Ok(bytes) => {
                    let bytes = Zeroizing::new(bytes);
                    let text = std::str::from_utf8(&bytes)
                        .map_err(|_| VaultError::NotText { service, user })?;
                    Ok(Some(Secret::new(text.to_owned())))
                }
                Err(keyring_core::Error::NoEntry) => Ok(None),
                Err(error) => Err(VaultError::of_entry(error, service, user)),
            }
        })
    }

    /// Writes a secret; when this returns, it is as durable as the store is.
    pub fn write(&self, service: &str, user: &str, secret: &Secret) -> Result<(), VaultError> {
        if let Some(file) = &self.file {
            file.prepare()?;
        }
        let (service, user, secret) = (service.to_owned(), user.to_owned(), secret.clone());
        self.calls.call(move |store| {
            let entry = store.build(&service, &user, None)?;
            let written = entry.set_secret(secret.expose().as_bytes());
            written.map_err(|error| VaultError::of_entry(error, service, user))
        })
    }

    /// Writes secrets in this order, each by its service and user; when this
    /// returns, they are as durable as the store is. A file has all of them in
    /// one write, or none.
    pub fn write_all(&self, secrets: Vec<(String, String, Secret)>) -> Result<(), VaultError> {
        let Some(file) = &self.file else {
            for (service, user, secret) in secrets {
                self.write(&service, &user, &secret)?;
            }
            return Ok(());
        };
        if secrets.is_empty() {
            return Ok(());
        }
        file.prepare()?;
        let file = Arc::clone(file);
        self.calls.call(move |_| Ok(file.write_all(secrets)?))
    }

    /// Reads the secrets of these services and users, a file only once.
    pub fn read_all(&self, wanted: &[(String, String)]) -> Result<Vec<Option<Secret>>, VaultError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let Some(file) = &self.file else {
            let read = |(service, user): &(String, String)| self.read(service, user);
            return wanted.iter().map(read).collect();
        };
        let (file, wanted) = (Arc::clone(file), wanted.to_owned());
        self.calls.call(move |_| Ok(file.read_all(&wanted)?))
    }

    /// Removes a secret; `false` where there was none.
    pub fn remove(&self, service: &str, user: &str) -> Result<bool, VaultError> {
        let (service, user) = (service.to_owned(), user.to_owned());
        self.calls.call(move |store| {
            match store.build(&service, &user, None)?.delete_credential() {
                Ok(()) => Ok(true),
                Err(keyring_core::Error::NoEntry) => Ok(false),
                Err(error) => Err(VaultError::of_entry(error, service, user)),
            }
        })
    }

    /// The users that have a secret under `service`, in order.
    pub fn users(&self, service: &str) -> Result<Vec<String>, VaultError> {
        let service = service.to_owned();
        self.calls.call(move |store| {
            let wanted = HashMap::from([("service", service.as_str())]);
            let mut users: Vec<String> = store
                .search(&wanted)?
                .iter()
                .filter_map(Entry::get_specifiers)
                .filter(|(found, _)| *found == service)
                .map(|(_, user)| user)
                .collect();
            users.sort();
            Ok(users)
        })
    }
}

/// Gives the file vault another key. What was encrypted to the old one before,
/// such as a backup, is still opened by it.
pub fn rekey(options: FileOptions) -> Result<(), VaultError> {
    file::rekey(options)
}

#[cfg(test)]
mod tests;
