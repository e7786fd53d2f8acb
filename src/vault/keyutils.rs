//! The kernel's keyring of this user: secrets in memory, on no disk.
//!
//! Of the kernel's keyrings the user's own lives longest: it has no time limit
//! and belongs to no session. On older kernels it goes with the user's last
//! process, so the persistent keyring, which stays for three days after it was
//! last used, is kept beside it. A session's keyring is not touched: an entry
//! that was linked there would go on to be found after another session has
//! replaced it.
//!
//! The kernel cannot search by service, so the names are kept in an entry of
//! our own. A name stands there before its entry is made and until it is gone.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use keyring_core::api::{CredentialApi, CredentialPersistence, CredentialStoreApi};
use keyring_core::{Credential, CredentialStore, Entry, Error};
use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use linux_keyutils_keyring_store::Cred;

use super::VaultError;

/// The most that the kernel takes in one key, in octets.
const MAX_LENGTH: usize = 32_767;

/// The names of the entries: service → users.
const NAMES: &str = "tokenwatch:names";

type Names = BTreeMap<String, BTreeSet<String>>;

struct KeyutilsStore {
    user: KeyRing,
    this: Weak<Self>,
}

/// Opens the keyring for the calling thread.
pub(super) fn open() -> Result<Arc<CredentialStore>, VaultError> {
    let ring = |which| KeyRing::from_special_id(which, true);
    let user = ring(KeyRingIdentifier::User)?;
    // A key may be read by who has a way to it from a keyring of his own, and a
    // service has no session from which there is one.
    ring(KeyRingIdentifier::Thread)?.link_keyring(user)?;
    Ok(Arc::new_cyclic(|this| KeyutilsStore {
        user,
        this: Weak::clone(this),
    }))
}

impl From<KeyError> for VaultError {
    fn from(error: KeyError) -> Self {
        // ENOSYS, where the kernel was built without keyrings.
        const NO_SYSTEM_CALL: i32 = 38;
        match error {
            KeyError::QuotaExceeded => Self::NoRoom,
            KeyError::PermissionDenied
            | KeyError::OperationNotSupported
            | KeyError::Unknown(NO_SYSTEM_CALL) => Self::NoKeyutils,
            KeyError::AccessDenied => Self::NoAccess,
            KeyError::BadAddress
            | KeyError::InvalidArguments
            | KeyError::KeyExpired
            | KeyError::KeyRevoked
            | KeyError::KeyRejected
            | KeyError::KeyringDoesNotExist
            | KeyError::KeyDoesNotExist
            | KeyError::OutOfMemory
            | KeyError::InvalidDescription
            | KeyError::InvalidIdentifier
            | KeyError::WriteError
            | KeyError::MissingFileOrDirectory
            | KeyError::Unknown(_) => Self::Store("the kernel's keyring"),
        }
    }
}

impl KeyutilsStore {
    fn credential(&self, description: String) -> Cred {
        Cred {
            session: self.user,
            // Found through the user's keyring from here on; this also begins
            // its three days anew. Some kernels have none.
            persistent: KeyRing::get_persistent(KeyRingIdentifier::User).ok(),
            description,
            specifiers: None,
        }
    }

    fn names(&self) -> keyring_core::Result<Names> {
        match self.credential(NAMES.to_owned()).get_secret() {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| Error::BadStoreFormat("the list of names".to_owned())),
            Err(Error::NoEntry) => Ok(Names::new()),
            Err(error) => Err(error),
        }
    }

    /// Changes the names, where `change` says that it did.
    fn change_names(&self, change: impl FnOnce(&mut Names) -> bool) -> keyring_core::Result<()> {
        let mut names = self.names()?;
        if !change(&mut names) {
            return Ok(());
        }
        let text = serde_json::to_vec(&names)
            .map_err(|_| Error::BadStoreFormat("the list of names".to_owned()))?;
        set(&self.credential(NAMES.to_owned()), &text)
    }
}

fn set(credential: &Cred, secret: &[u8]) -> keyring_core::Result<()> {
    if secret.len() > MAX_LENGTH {
        return Err(Error::TooLong("secret".to_owned(), 32_767));
    }
    credential.set_secret(secret)
}

impl CredentialStoreApi for KeyutilsStore {
    fn vendor(&self) -> String {
        "Linux keyutils, the user's keyring".to_owned()
    }

    fn id(&self) -> String {
        "user keyring".to_owned()
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
        Ok(Entry::new_with_credential(Arc::new(KeyutilsCredential {
            // The form in which the keyring crates write it.
            inner: store.credential(format!("keyring:{user}@{service}")),
            store,
            service: service.to_owned(),
            user: user.to_owned(),
        })))
    }

    fn search(&self, spec: &HashMap<&str, &str>) -> keyring_core::Result<Vec<Entry>> {
        let fits = |key: &str, value: &str| spec.get(key).is_none_or(|wanted| *wanted == value);
        let mut found = Vec::new();
        for (service, users) in &self.names()? {
            for user in users {
                if fits("service", service) && fits("user", user) {
                    let entry = self.build(service, user, None)?;
                    match entry.get_credential() {
                        Ok(_) => found.push(entry),
                        Err(Error::NoEntry) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(found)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn persistence(&self) -> CredentialPersistence {
        CredentialPersistence::UntilReboot
    }

    fn debug_fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyutilsStore")
    }
}

/// One entry of the keyring.
struct KeyutilsCredential {
    store: Arc<KeyutilsStore>,
    inner: Cred,
    service: String,
    user: String,
}

impl CredentialApi for KeyutilsCredential {
    fn set_secret(&self, secret: &[u8]) -> keyring_core::Result<()> {
        self.store.change_names(|names| {
            let users = names.entry(self.service.clone()).or_default();
            users.insert(self.user.clone())
        })?;
        set(&self.inner, secret)
    }

    fn get_secret(&self) -> keyring_core::Result<Vec<u8>> {
        self.inner.get_secret()
    }

    fn delete_credential(&self) -> keyring_core::Result<()> {
        let removed = self.inner.delete_credential();
        // What could not be removed is still there to be found.
        if matches!(removed, Ok(()) | Err(Error::NoEntry)) {
            self.store.change_names(|names| {
                let users = names.get_mut(&self.service);
                users.is_some_and(|users| users.remove(&self.user))
            })?;
        }
        removed
    }

    fn get_credential(&self) -> keyring_core::Result<Option<Arc<Credential>>> {
        self.inner.get_credential()
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        Some((self.service.clone(), self.user.clone()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn debug_fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyutilsCredential({}, {})", self.service, self.user)
    }
}
