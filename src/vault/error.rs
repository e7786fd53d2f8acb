//! What can go wrong with a vault.
//!
//! keyring-core's errors are never passed on as they are: the `Debug` of two
//! of them prints the secret's bytes.

use std::io;
use std::path::PathBuf;

use linux_keyutils::KeyError;

use super::AskError;

/// A call to the vault failed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file vault failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The passphrase of the vault's key could not be had.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The store has locked itself, or denies access.
    #[error("the credential store denies access")]
    NoAccess,
    /// The store failed. Its message is kept back, for it may hold a secret.
    #[error("the credential store failed ({0})")]
    Store(&'static str),
    /// There is no Secret Service on this machine, or no session bus.
    #[error("no Secret Service answers")]
    NoSecretService,
    /// The kernel has no keyrings, or a container's rules keep them from us.
    #[error("the kernel's keyring cannot be used here")]
    NoKeyutils,
    /// The store takes no more, or nothing as long as this.
    #[error("the credential store has no room for it")]
    NoRoom,
    /// The store that is moved to has another secret under the same name.
    #[error("the new store has another secret for {user} ({service}) already")]
    Differs {
        /// The entry's service.
        service: String,
        /// The entry's user.
        user: String,
    },
    /// What was written to the store that is moved to is not found there.
    #[error("{0} could not be read back from the new store")]
    NotMoved(String),
    /// The store did not answer in time.
    #[error("the credential store did not answer within 10 s")]
    TimedOut,
    /// An earlier call has not come back yet.
    #[error("the credential store still hangs in an earlier call")]
    Stuck,
    /// The thread of the vault is gone.
    #[error("the vault has stopped")]
    Stopped,
    /// The thread of the vault could not be started.
    #[error("the vault's thread does not start")]
    Thread(#[source] io::Error),
    /// What is stored is no text.
    #[error("what is stored for {user} ({service}) is no text")]
    NotText {
        /// The entry's service.
        service: String,
        /// The entry's user.
        user: String,
    },
    /// Another program has stored an item that answers to the same name.
    #[error("the credential store has {} items for {user} ({service}): {}", items.len(), items.join(", "))]
    Ambiguous {
        /// The entry's service.
        service: String,
        /// The entry's user.
        user: String,
        /// The label and the place of each.
        items: Vec<String>,
    },
}

/// The encrypted file failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system said no.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Another process has the vault open.
    #[error("another process holds {0}")]
    Locked(PathBuf),
    /// The vault is there and its key is not.
    #[error("the vault's key {0} is missing")]
    KeyMissing(PathBuf),
    /// The key file holds no key.
    #[error("{0} holds no age identity (AGE-SECRET-KEY-…)")]
    KeyMalformed(PathBuf),
    /// The key is somebody else's to change.
    #[error("the vault's key {0} is a systemd credential, which is not changed from here")]
    KeyProvided(PathBuf),
    /// There is nothing to give another key to.
    #[error("there is no vault {0} yet")]
    NoVault(PathBuf),
    /// The passphrase does not open the key, or the key was changed.
    #[error("the passphrase does not open {0}")]
    WrongPassphrase(PathBuf),
    /// The key does not open the vault.
    #[error("the key does not open {0}")]
    WrongKey(PathBuf),
    /// The vault is not what was written, or was tampered with.
    #[error("{0} is damaged")]
    Damaged(PathBuf),
    /// Others than the owner may read the file.
    #[error("{path} can be read by others (mode {mode:04o})")]
    Insecure {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is larger than a vault ever is.
    #[error("{0} is too large for a vault")]
    TooLarge(PathBuf),
    /// The vault is not what it was a moment ago, but older, or gone.
    #[error("{0} is older than it was a moment ago, or gone")]
    WentBack(PathBuf),
    /// The vault was written by a newer tokenwatch.
    #[error("{0} was written by a newer version")]
    NewerFormat(PathBuf),
}

/// How an error is to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Trying again may help.
    Transient,
    /// A person must act, and the configuration or permissions are wrong.
    Permission,
    /// A person must act.
    Person,
}

impl VaultError {
    /// Whether it is one entry that cannot be used, and the store is well.
    pub fn is_of_one_entry(&self) -> bool {
        matches!(self, Self::NotText { .. } | Self::Ambiguous { .. })
    }

    /// How the error is to be met.
    pub fn class(&self) -> Class {
        match self {
            Self::TimedOut | Self::Stuck | Self::Stopped | Self::Thread(_) => Class::Transient,
            Self::NoAccess => Class::Permission,
            Self::Store(_)
            | Self::Ask(_)
            | Self::NoSecretService
            | Self::NoKeyutils
            | Self::NoRoom
            | Self::Differs { .. }
            | Self::NotMoved(_)
            | Self::NotText { .. }
            | Self::Ambiguous { .. } => Class::Person,
            Self::File(error) => error.class(),
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File(error) => error.hint(),
            Self::NoAccess => "unlock the keyring, or set `backend = \"file\"` in [vault]",
            Self::NoSecretService => {
                "on a machine without a desktop, set `backend = \"file\"` in [vault]"
            }
            Self::Ask(error) => error.hint(),
            Self::NoKeyutils => {
                "a container needs keyctl(2) and add_key(2) let through; or set `backend = \"file\"` in [vault]"
            }
            Self::NoRoom => {
                "the kernel keeps about 19 KB for a user (sysctl kernel.keys.maxbytes); `tokenwatch vault move --to file` has room"
            }
            Self::Differs { .. } => {
                "see which is the right one; `--replace` takes that of the store that is in use now"
            }
            Self::NotMoved(_) => "nothing was removed: the store that was in use before is whole",
            Self::TimedOut | Self::Stuck => "see whether the keyring waits for its password",
            Self::NotText { .. } => {
                "another program has written over it: put the item back from a backup, or set the secret again"
            }
            Self::Ambiguous { .. } => {
                "remove the item that tokenwatch has not made; its own has the label keyring:USER@SERVICE. Seahorse shows them, and `busctl --user call org.freedesktop.secrets PATH org.freedesktop.Secret.Item Delete` removes one"
            }
            Self::Store(_) | Self::Stopped | Self::Thread(_) => "run `tokenwatch check`",
        }
    }
}

impl FileError {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Permission
            }
            Self::Io { .. } | Self::Locked(_) => Class::Transient,
            Self::Insecure { .. } => Class::Permission,
            Self::KeyProvided(_)
            | Self::NoVault(_)
            | Self::WrongPassphrase(_)
            | Self::KeyMissing(_)
            | Self::KeyMalformed(_)
            | Self::WrongKey(_)
            | Self::Damaged(_)
            | Self::TooLarge(_)
            | Self::WentBack(_)
            | Self::NewerFormat(_) => Class::Person,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk; nothing is lost, and it is tried again"
            }
            Self::Io { .. } => "see that the state folder exists, is writable, and is yours",
            Self::Locked(_) => "stop the other tokenwatch, or use the one that runs",
            Self::KeyMissing(_) | Self::WrongKey(_) | Self::KeyMalformed(_) => {
                "put the right key back from your backup; without it the vault cannot be opened"
            }
            Self::KeyProvided(_) => {
                "stop the daemon, put your copy of the key into a file of mode 0600, set `key = \"file:PATH\"`, run this, encrypt the new key with systemd-creds, and set `key` back"
            }
            Self::NoVault(_) => "the first `tokenwatch secret set` makes it, and its key",
            Self::WrongPassphrase(_) => {
                "try again; without the passphrase the vault opens for the keys in `recipients` alone"
            }
            Self::Damaged(_) => {
                "put vault and key back from the same backup, and then run `tokenwatch resync --since all`"
            }
            Self::Insecure { .. } => "run `chmod 600` on it, and think about who has read it",
            Self::TooLarge(_) => "this is no vault: see what `path` in [vault] points to",
            Self::WentBack(_) => {
                "put it back; if an older one is meant, stop the daemon first, and run `tokenwatch resync --since all` afterwards"
            }
            Self::NewerFormat(_) => "install the newer tokenwatch again",
        }
    }
}

impl VaultError {
    /// What a store says of this entry.
    pub(super) fn of_entry(error: keyring_core::Error, service: String, user: String) -> Self {
        if let keyring_core::Error::Ambiguous(items) = error {
            let items = items.iter().map(item).collect();
            return Self::Ambiguous {
                service,
                user,
                items,
            };
        }
        error.into()
    }
}

/// By what a person tells an item from another.
fn item(entry: &keyring_core::Entry) -> String {
    #[cfg(feature = "native")]
    if let Some(item) = super::native::item(entry) {
        return item;
    }
    format!("{:?}", entry.get_specifiers().unwrap_or_default())
}

impl From<keyring_core::Error> for VaultError {
    fn from(error: keyring_core::Error) -> Self {
        use keyring_core::Error;
        match error {
            Error::PlatformFailure(inner) => match inner.downcast::<FileError>() {
                Ok(file) => Self::File(*file),
                Err(inner) => inner
                    .downcast::<KeyError>()
                    .map_or(Self::Store("platform failure"), |key| (*key).into()),
            },
            Error::NoStorageAccess(_) => Self::NoAccess,
            Error::NoEntry => Self::Store("no entry"),
            Error::BadEncoding(_) => Self::Store("bad encoding"),
            Error::BadDataFormat(..) => Self::Store("bad data"),
            Error::BadStoreFormat(_) => Self::Store("bad store"),
            Error::TooLong(..) => Self::NoRoom,
            Error::Invalid(..) => Self::Store("invalid name"),
            Error::Ambiguous(_) => Self::Store("more than one entry"),
            Error::NoDefaultStore => Self::NoSecretService,
            Error::NotSupportedByStore(_) => Self::Store("not supported"),
            _ => Self::Store("unknown"),
        }
    }
}
