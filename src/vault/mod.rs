//! Where secrets are kept: a keyring-core store behind one seam.
//!
//! Every store blocks, and the Secret Service may block for ever (a locked
//! collection waits for a person), so all calls run on one thread of their
//! own, each with a deadline. While a call that timed out has not come back,
//! further ones fail at once instead of queueing behind it.
//!
//! The store is held as an explicit value, never as the process-wide default.
//! Deliberately absent: what the entries mean. This room knows a service, a
//! user and a secret.

mod error;
mod file;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keyring_core::CredentialStore;
use zeroize::Zeroizing;

use crate::secret::Secret;

pub use error::{Class, FileError, VaultError};

/// How long a call to the store may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Which store is opened.
#[derive(Clone, Debug)]
pub enum Options {
    /// The encrypted file.
    File {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: Key,
    },
    /// The desktop's Secret Service.
    #[cfg(feature = "native")]
    Native,
}

/// Where the key of the encrypted file comes from.
#[derive(Clone, Debug)]
pub enum Key {
    /// A file of mode 0600, made on the first write where it is missing.
    Made(PathBuf),
    /// A file that somebody else provides, such as a systemd credential.
    Provided(PathBuf),
}

/// An open vault. Clones share it.
#[derive(Clone)]
pub struct Vault {
    jobs: mpsc::Sender<Job>,
    stuck: Arc<AtomicBool>,
}

type Job = Box<dyn FnOnce(&CredentialStore) + Send>;

impl Vault {
    /// Opens the store; nothing is written yet. A file vault is locked against
    /// other processes until the last clone is dropped.
    pub fn open(options: Options) -> Result<Self, VaultError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, result) = mpsc::sync_channel(1);
        let stuck = Arc::new(AtomicBool::new(false));
        let free = Arc::clone(&stuck);
        std::thread::Builder::new()
            .name("vault".into())
            .spawn(move || {
                let store = match open_store(options) {
                    Ok(store) => store,
                    Err(error) => {
                        // The receiver is gone only after its deadline.
                        opened.send(Err(error)).unwrap_or_default();
                        return;
                    }
                };
                if opened.send(Ok(())).is_err() {
                    return;
                }
                for job in queue {
                    job(store.as_ref());
                    free.store(false, Ordering::Release);
                }
            })
            .map_err(VaultError::Thread)?;
        result
            .recv_timeout(DEADLINE)
            .unwrap_or(Err(VaultError::TimedOut))?;
        Ok(Self { jobs, stuck })
    }

    /// Reads a secret; `None` where there is none.
    pub fn read(&self, service: &str, user: &str) -> Result<Option<Secret>, VaultError> {
        let (service, user) = (service.to_owned(), user.to_owned());
        self.call(move |store| {
            let entry = store.build(&service, &user, None)?;
            match entry.get_secret() {
                Ok(bytes) => {
                    let bytes = Zeroizing::new(bytes);
                    let text =
                        std::str::from_utf8(&bytes).map_err(|_| VaultError::NotText { user })?;
                    Ok(Some(Secret::new(text.to_owned())))
                }
                Err(keyring_core::Error::NoEntry) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Writes a secret; when this returns, it is durable.
    pub fn write(&self, service: &str, user: &str, secret: &Secret) -> Result<(), VaultError> {
        let (service, user, secret) = (service.to_owned(), user.to_owned(), secret.clone());
        self.call(move |store| {
            let entry = store.build(&service, &user, None)?;
            Ok(entry.set_secret(secret.expose().as_bytes())?)
        })
    }

    /// Writes secrets in this order, each by its service and user; when this
    /// returns, they are durable.
    pub fn write_all(&self, secrets: Vec<(String, String, Secret)>) -> Result<(), VaultError> {
        for (service, user, secret) in secrets {
            self.write(&service, &user, &secret)?;
        }
        Ok(())
    }

    /// Removes a secret; `false` where there was none.
    pub fn remove(&self, service: &str, user: &str) -> Result<bool, VaultError> {
        let (service, user) = (service.to_owned(), user.to_owned());
        self.call(
            move |store| match store.build(&service, &user, None)?.delete_credential() {
                Ok(()) => Ok(true),
                Err(keyring_core::Error::NoEntry) => Ok(false),
                Err(error) => Err(error.into()),
            },
        )
    }

    /// The users that have a secret under `service`, in order.
    pub fn users(&self, service: &str) -> Result<Vec<String>, VaultError> {
        let service = service.to_owned();
        self.call(move |store| {
            let wanted = HashMap::from([("service", service.as_str())]);
            let mut users: Vec<String> = store
                .search(&wanted)?
                .iter()
                .filter_map(keyring_core::Entry::get_specifiers)
                .filter(|(found, _)| *found == service)
                .map(|(_, user)| user)
                .collect();
            users.sort();
            Ok(users)
        })
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CredentialStore) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        if self.stuck.load(Ordering::Acquire) {
            return Err(VaultError::Stuck);
        }
        let (answer, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |store| {
            // Nobody waits any more after the deadline; the work was done all the same.
            answer.send(work(store)).unwrap_or_default();
        });
        self.jobs.send(job).map_err(|_| VaultError::Stopped)?;
        match result.recv_timeout(DEADLINE) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.stuck.store(true, Ordering::Release);
                // It may have come in between, and then nobody clears the mark.
                match result.try_recv() {
                    Ok(late) => {
                        self.stuck.store(false, Ordering::Release);
                        late
                    }
                    Err(_) => Err(VaultError::TimedOut),
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(VaultError::Stopped),
        }
    }
}

fn open_store(options: Options) -> Result<Arc<CredentialStore>, VaultError> {
    match options {
        Options::File { path, key } => Ok(file::FileStore::open(path, key)?),
        #[cfg(feature = "native")]
        Options::Native => {
            // keyring chooses the store and makes it the process-wide default;
            // it is taken from there once and held from then on.
            if keyring::v1::Entry::store_status().is_err() {
                return Err(VaultError::NoSecretService);
            }
            keyring_core::get_default_store().ok_or(VaultError::NoSecretService)
        }
    }
}

#[cfg(test)]
mod tests;
