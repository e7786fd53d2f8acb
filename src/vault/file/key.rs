//! The key of the file vault: an age identity (X25519).
//!
//! It is a file of its own, a file that somebody else provides, or a file that
//! a passphrase opens: then it is asked for once, when the vault is opened,
//! because scrypt takes half a second and 256 MiB.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use age::DecryptError;
use age::secrecy::{ExposeSecret, SecretString};
use age::x25519::Identity;
use zeroize::Zeroizing;

use super::FileError;
use super::disk::{beside, put_in_place, read_any, read_private, replace};
use crate::secret::Secret;
use crate::vault::{Ask, Key, Question, VaultError};

/// log2 of scrypt's N for a key that is made: what the age tool uses, too. The
/// library's own choice goes by the machine's speed, and a key that was made on
/// a fast machine would be refused on a slow one.
const WORK: u8 = 18;

/// log2 of the largest N that is worked through: 1 GiB. A file that asks for
/// more was not made by us, and the kernel would kill us over it.
const MOST_WORK: u8 = 20;

/// Where the identity is.
pub(super) enum Keys {
    /// In a file, which is read each time.
    Plain { path: PathBuf, made: bool },
    /// In memory, from a file that a passphrase opens.
    Locked {
        path: PathBuf,
        ask: Ask,
        identity: Mutex<Option<Identity>>,
        /// What the next identity is locked with, once a person was asked.
        next: Mutex<Option<Secret>>,
    },
}

impl Keys {
    /// Takes the key up. A person is asked here, where nobody waits with a
    /// deadline.
    pub(super) fn open(key: Key) -> Result<Self, VaultError> {
        Ok(match key {
            Key::Made(path) => Self::Plain { path, made: true },
            Key::Provided(path) => Self::Plain { path, made: false },
            Key::Passphrase { path, ask } => {
                let identity = match read_private(&path)? {
                    Some(sealed) => Some(unlock(&path, &sealed, &ask(Question::Unlock, &path)?)?),
                    None => None,
                };
                Self::Locked {
                    path,
                    ask,
                    identity: Mutex::new(identity),
                    next: Mutex::new(None),
                }
            }
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Plain { path, .. } | Self::Locked { path, .. } => path,
        }
    }

    /// Whether an identity that is made here is kept here.
    pub(super) fn can_be_made(&self) -> bool {
        match self {
            Self::Plain { made, .. } => *made,
            Self::Locked { .. } => true,
        }
    }

    /// The identity; `None` where there is none yet.
    pub(super) fn identity(&self) -> Result<Option<Identity>, FileError> {
        let (path, read) = match self {
            Self::Plain { path, made: true } => (path, read_private(path)?),
            // systemd hands credentials out as 0400, or 0440 for a group of
            // its own; their protection is the folder's.
            Self::Plain { path, made: false } => (path, read_any(path)?),
            Self::Locked { identity, .. } => {
                return Ok(identity
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone());
            }
        };
        read.map(|bytes| parse(path, &Zeroizing::new(bytes)))
            .transpose()
    }

    /// Asks a person for what an identity that is made next needs.
    pub(super) fn prepare(&self) -> Result<(), VaultError> {
        if let Self::Locked {
            path, ask, next, ..
        } = self
        {
            let passphrase = ask(Question::New, path)?;
            *next.lock().unwrap_or_else(PoisonError::into_inner) = Some(passphrase);
        }
        Ok(())
    }

    /// Makes an identity and keeps it in the key's own place.
    pub(super) fn make(&self) -> Result<Identity, FileError> {
        let identity = Identity::generate();
        replace(self.path(), &self.sealed(&identity)?)?;
        self.took(&identity);
        Ok(identity)
    }

    /// Makes an identity and keeps it beside the one that counts.
    pub(super) fn make_aside(&self) -> Result<Identity, FileError> {
        let identity = Identity::generate();
        replace(&self.aside(), &self.sealed(&identity)?)?;
        Ok(identity)
    }

    /// The one that was kept aside counts from now on.
    pub(super) fn put_in_place(&self, identity: &Identity) -> Result<(), FileError> {
        put_in_place(&self.aside(), self.path())?;
        self.took(identity);
        Ok(())
    }

    fn aside(&self) -> PathBuf {
        beside(self.path(), ".next")
    }

    fn took(&self, new: &Identity) {
        if let Self::Locked { identity, .. } = self {
            *identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(new.clone());
        }
    }

    fn sealed(&self, identity: &Identity) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let text = Zeroizing::new(format!(
            "# tokenwatch: the key of the vault. Whoever has it can read every secret in it.\n{}\n",
            identity.to_string().expose_secret()
        ));
        let next = match self {
            Self::Plain { .. } => return Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Self::Locked { next, .. } => next,
        };
        let next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let passphrase = next
            .as_ref()
            .ok_or_else(|| FileError::KeyMissing(self.path().to_owned()))?;
        let mut recipient =
            age::scrypt::Recipient::new(SecretString::from(passphrase.expose().to_owned()));
        recipient.set_work_factor(WORK);
        age::encrypt(&recipient, text.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| FileError::KeyMalformed(self.path().to_owned()))
    }
}

fn unlock(path: &Path, sealed: &[u8], passphrase: &Secret) -> Result<Identity, FileError> {
    let mut lock = age::scrypt::Identity::new(SecretString::from(passphrase.expose().to_owned()));
    lock.set_max_work_factor(MOST_WORK);
    let plain = age::decrypt(&lock, sealed).map_err(|error| {
        // Another passphrase and a changed file look the same to scrypt.
        if matches!(
            error,
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed
        ) {
            FileError::WrongPassphrase(path.to_owned())
        } else {
            FileError::KeyMalformed(path.to_owned())
        }
    })?;
    parse(path, &Zeroizing::new(plain))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Identity, FileError> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| {
            text.lines()
                .map(str::trim)
                .find(|line| !line.is_empty() && !line.starts_with('#'))
        })
        .and_then(|line| line.parse().ok())
        .ok_or_else(|| FileError::KeyMalformed(path.to_owned()))
}
