//! Another key for the file vault.
//!
//! In four steps, each durable, so that a crash between any two leaves a vault
//! that the key in its place opens. Run again, it begins anew.

use age::x25519::Identity;

use super::{FileError, FileOptions, FileStore};
use crate::vault::VaultError;

/// What has been made so far.
pub(super) struct Rekeying<'a> {
    store: &'a FileStore,
    old: Identity,
    new: Identity,
}

/// Gives the vault another key; with `key = "passphrase"` another passphrase
/// is asked for. No other process may have the vault open.
pub(in crate::vault) fn rekey(options: FileOptions) -> Result<(), VaultError> {
    let store = FileStore::take_up(options)?;
    let rekeying = Rekeying::first(&store)?;
    rekeying.second()?;
    rekeying.third()?;
    Ok(rekeying.fourth()?)
}

impl<'a> Rekeying<'a> {
    /// The new key lies beside the old one.
    pub(super) fn first(store: &'a FileStore) -> Result<Self, VaultError> {
        if !store.keys.can_be_made() {
            return Err(FileError::KeyProvided(store.keys.path().to_owned()).into());
        }
        if !store.path.exists() {
            return Err(FileError::NoVault(store.path.clone()).into());
        }
        let missing = || FileError::KeyMissing(store.keys.path().to_owned());
        let old = store.keys.identity()?.ok_or_else(missing)?;
        store.prove()?;
        store.keys.prepare()?;
        let new = store.keys.make_aside()?;
        Ok(Self { store, old, new })
    }

    /// Both open the vault.
    pub(super) fn second(&self) -> Result<(), FileError> {
        self.store.seal(
            self.store.load()?,
            &[self.old.to_public(), self.new.to_public()],
        )
    }

    /// The new key is in the place of the old one.
    pub(super) fn third(&self) -> Result<(), FileError> {
        self.store.keys.put_in_place(&self.new)
    }

    /// The new key alone opens the vault.
    pub(super) fn fourth(&self) -> Result<(), FileError> {
        self.store.seal(self.store.load()?, &[self.new.to_public()])
    }
}
