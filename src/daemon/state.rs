//! The state folder, and the vault and journal in it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::secrets::{self, SecretError};
use crate::config::{Backend, Config, VaultKey};
use crate::journal::{Journal, JournalError};
use crate::rotation::DocumentError;
use crate::vault::{self, Vault, VaultError};

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be made or looked at.
    #[error("cannot use the state folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Root would leave files that the daemon's own user cannot read.
    #[error("the state folder {path} belongs to another user (uid {owner})")]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The vault failed.
    #[error("the vault cannot be used")]
    Vault(#[source] VaultError),
    /// One entry of the vault cannot be used.
    #[error("an entry of the vault cannot be used")]
    Entry(#[source] VaultError),
    /// The journal failed.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// An account's document cannot be read.
    #[error("the state of {username} cannot be read")]
    Document {
        /// The account.
        username: String,
        /// Why.
        source: DocumentError,
    },
    /// The vault has nothing of an account whose tokens were taken.
    #[error("the vault has lost what was kept for {0}")]
    Vanished(String),
    /// The vault has no key of the keyed hashes, and hashes were made with it.
    #[error("the vault has lost the key of the fingerprints")]
    KeyVanished,
    /// A secret that is kept elsewhere cannot be read.
    #[error("a secret cannot be read")]
    Secret(#[from] SecretError),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The worker has stopped.
    #[error("the worker has stopped")]
    Stopped,
}

impl From<VaultError> for StateError {
    fn from(error: VaultError) -> Self {
        if error.is_of_one_entry() {
            Self::Entry(error)
        } else {
            Self::Vault(error)
        }
    }
}

impl StateError {
    /// Whether trying again may help, with nobody having done anything.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Vault(error) => error.class() == vault::Class::Transient,
            Self::Secret(error) => error.is_transient(),
            Self::Journal(_) | Self::Random | Self::Stopped => true,
            Self::Folder { .. }
            | Self::ForeignFolder { .. }
            | Self::Document { .. }
            | Self::Entry(_)
            | Self::Vanished(_)
            | Self::KeyVanished => false,
        }
    }

    /// Whether it is met account by account: it is told of the account in whose
    /// work it arises, which is tried again, and the others go on.
    pub(super) fn is_of_one_account(&self) -> bool {
        match self {
            Self::Entry(_) | Self::Document { .. } | Self::Vanished(_) | Self::KeyVanished => true,
            Self::Folder { .. }
            | Self::ForeignFolder { .. }
            | Self::Vault(_)
            | Self::Journal(_)
            | Self::Secret(_)
            | Self::Random
            | Self::Stopped => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Folder { path, .. } => format!(
                "make {} writable for this user, or set `state-dir`",
                path.display()
            ),
            Self::ForeignFolder { owner, .. } => {
                format!("run the command as that user: `sudo -u '#{owner}' tokenwatch …`")
            }
            Self::Vault(error) | Self::Entry(error) => error.hint().to_owned(),
            Self::Journal(error) => error.hint().to_owned(),
            Self::Document { .. } => {
                "put the vault back from a backup, or update tokenwatch".to_owned()
            }
            Self::Vanished(_) | Self::KeyVanished => {
                "unlock or put back the vault; to start afresh, stop the daemon and move journal.db away"
                    .to_owned()
            }
            Self::Secret(error) => error.hint().to_owned(),
            Self::Random | Self::Stopped => "start it again, and look at the log".to_owned(),
        }
    }
}

/// Opens everything; nothing is made but the folder and the journal.
pub(super) fn open(config: &Config) -> Result<(Vault, Journal), StateError> {
    folder(&config.state_dir)?;
    let vault = Vault::open(vault_options(config, config.vault.backend)?)?;
    let journal = Journal::open(&config.state_dir.join("journal.db"))?;
    Ok((vault, journal))
}

fn folder(path: &Path) -> Result<(), StateError> {
    let failed = |source| StateError::Folder {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let about = std::fs::metadata(path).map_err(failed)?;
    let owner = about.uid();
    if rustix::process::geteuid().is_root() && owner != 0 {
        return Err(StateError::ForeignFolder {
            path: path.to_owned(),
            owner,
        });
    }
    close(path, about.permissions());
    Ok(())
}

/// Whoever may write to the folder can put another vault in the place of ours.
fn close(path: &Path, mut permissions: Permissions) {
    let mode = permissions.mode();
    if mode & 0o002 == 0 {
        return;
    }
    permissions.set_mode(mode & !0o007);
    // A volume may belong to somebody else, and is not ours to close.
    let mended = std::fs::set_permissions(path, permissions).is_ok();
    tracing::warn!(
        event = "state.open",
        path = %path.display(),
        mended,
        "everybody could write to the state folder"
    );
}

/// Keeps every daemon away from the state, for a command that changes the vault
/// as a whole.
pub fn keep_out(config: &Config) -> Result<Journal, StateError> {
    folder(&config.state_dir)?;
    Ok(Journal::open(&config.state_dir.join("journal.db"))?)
}

/// What opens the store `backend`.
pub fn vault_options(config: &Config, backend: Backend) -> Result<vault::Options, StateError> {
    match backend {
        Backend::File => Ok(vault::Options::File(file_options(config)?)),
        Backend::Keyutils => Ok(vault::Options::Keyutils),
        #[cfg(feature = "native")]
        Backend::Native => Ok(vault::Options::Native),
        #[cfg(not(feature = "native"))]
        Backend::Native => Err(VaultError::NoSecretService.into()),
    }
}

/// What opens the encrypted file.
pub fn file_options(config: &Config) -> Result<vault::FileOptions, StateError> {
    let vault = &config.vault;
    Ok(vault::FileOptions {
        path: vault.path.clone(),
        key: match &vault.key {
            VaultKey::File(path) => vault::Key::Made(path.clone()),
            VaultKey::Credential(id) => vault::Key::Provided(secrets::credential(id)?),
            VaultKey::Passphrase(path) => vault::Key::Passphrase {
                path: path.clone(),
                ask: vault::ask,
            },
        },
        recipients: vault.recipients.clone(),
    })
}
