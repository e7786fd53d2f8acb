//! Whether a store survives a reboot.

use std::path::PathBuf;

use super::{Options, VaultError, file};

/// How long a store keeps what it is given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lasting {
    /// Until it is removed.
    #[error("it is kept over a reboot")]
    Kept,
    /// The kernel's keyring.
    #[error("the kernel's keyring is empty after a reboot")]
    Kernel,
    /// A file on a file system in memory.
    #[error("{0} is on a file system in memory, which is empty after a reboot")]
    InMemory(PathBuf),
    /// A collection of the Secret Service that is never stored.
    #[error("entries are in the collection `session`, which is empty after a logout")]
    Session,
}

impl Lasting {
    /// What a person can do about it, where something can be lost.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kept => None,
            Self::Kernel => Some(
                "after a reboot, stop the daemon, move journal.db away, and set the secrets again: the mailboxes are looked through anew then; `tokenwatch vault move --to file` keeps them on the disk",
            ),
            Self::InMemory(_) => {
                Some("set `state-dir`, or `path` in [vault], to a folder on the disk")
            }
            Self::Session => Some(
                "make another collection the default one (in Seahorse: \"Set as default\"), remove the secrets and set them again",
            ),
        }
    }
}

/// How long the store keeps what it is given. `service` is that of the entries
/// that are looked at, where there is more than one place for them.
pub fn lasting(options: &Options, service: &str) -> Result<Lasting, VaultError> {
    // Only a Secret Service has more than one place.
    #[cfg(not(feature = "native"))]
    let _ = service;
    match options {
        Options::File(options) => Ok(if file::is_in_memory(&options.path)? {
            Lasting::InMemory(options.path.clone())
        } else {
            Lasting::Kept
        }),
        Options::Keyutils => Ok(Lasting::Kernel),
        #[cfg(feature = "native")]
        Options::Native => {
            let vault = super::Vault::open(Options::Native)?;
            let service = service.to_owned();
            let in_session = vault
                .calls
                .call(move |store| super::native::is_in_session(store, &service))?;
            Ok(if in_session {
                Lasting::Session
            } else {
                Lasting::Kept
            })
        }
    }
}
