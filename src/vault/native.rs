//! The desktop's Secret Service.

use std::collections::HashMap;
use std::sync::Arc;

use keyring_core::{CredentialStore, Entry};
use zbus_secret_service_keyring_store::Store;
use zbus_secret_service_keyring_store::cred::Wrapper;

use super::VaultError;

/// Connects to the service. It may be gone and come back later, so each time
/// anew.
pub(super) fn open() -> Result<Arc<CredentialStore>, VaultError> {
    match Store::new() {
        Ok(store) => Ok(store),
        Err(_) => Err(VaultError::NoSecretService),
    }
}

/// Whether something of `service` is in the collection that lasts until its
/// owner logs out.
pub(super) fn is_in_session(store: &CredentialStore, service: &str) -> Result<bool, VaultError> {
    let entries = store.search(&HashMap::from([("service", service)]))?;
    Ok(entries.iter().any(|entry| {
        // The path of an object is /org/freedesktop/secrets/collection/NAME/ITEM.
        entry
            .as_any()
            .downcast_ref::<Wrapper>()
            .is_some_and(|item| item.get_path().split('/').any(|part| part == "session"))
    }))
}

/// Label and path of an item. Others may have made it, so its label can be anything.
pub(super) fn item(entry: &Entry) -> Option<String> {
    let item = entry.as_any().downcast_ref::<Wrapper>()?;
    let label = item.get_label().unwrap_or_default();
    Some(format!("{label:?} ({})", item.get_path()))
}
