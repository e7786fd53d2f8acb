//! The secrets that people set, and those that are kept for mailboxes.

use std::sync::Arc;

use super::super::secrets::SecretError;
use super::super::state::StateError;
use super::desk::Desk;
use super::{SecretName, Worker};
use crate::INTERNAL_SERVICE;
use crate::config::SecretSource;
use crate::secret::Secret;

impl Worker {
    /// Sets a secret; the Salesforce password of an account completes a token
    /// that waits for it.
    pub fn set_secret(&mut self, name: &SecretName, secret: &Secret) -> Result<(), StateError> {
        self.will_unsettle(name);
        self.vault
            .write(INTERNAL_SERVICE, &name.to_string(), secret)?;
        tracing::info!(event = "secret.set", name = %name, "a secret was set");
        self.after_secret(name)
    }

    /// Removes a secret; `false` where there was none. With the password of an
    /// account goes the credential that holds it.
    pub fn remove_secret(&mut self, name: &SecretName) -> Result<bool, StateError> {
        self.will_unsettle(name);
        // The credential first: it holds the password, and a crash between the
        // two must leave nothing of it that the name does not show.
        if let SecretName::Account(username) = name
            && let Some(account) = self.config.account(username)
            && account.password == SecretSource::Vault
        {
            self.vault
                .remove(&self.config.vault.service, &account.username)?;
            // When it comes back every sink is told again, whatever it has kept.
            for sink in self.config.sinks_of(username) {
                self.journal
                    .forget_parcel((&sink.name, &account.username))?;
            }
        }
        let removed = self.vault.remove(INTERNAL_SERVICE, &name.to_string())?;
        if removed {
            tracing::info!(event = "secret.removed", name = %name, "a secret was removed");
        }
        self.after_secret(name)?;
        Ok(removed)
    }

    /// Whatever of it is written, and of what follows from it, will be made up
    /// for.
    fn will_unsettle(&mut self, name: &SecretName) {
        if let SecretName::Account(username) = name
            && let Some(account) = self.config.account(username)
        {
            let username = account.username.clone();
            self.unsettle(&username);
        }
    }

    fn after_secret(&mut self, name: &SecretName) -> Result<(), StateError> {
        self.note_vault()?;
        if let SecretName::Account(username) = name
            && let Some(account) = self.config.account(username).cloned()
        {
            self.reconcile(&account)?;
        }
        self.tell_board()
    }

    /// The names of all secrets that were set.
    pub fn secret_names(&self) -> Result<Vec<String>, StateError> {
        let mut names = self.vault.users(INTERNAL_SERVICE)?;
        names.retain(|name| SecretName::parse(name).is_some());
        Ok(names)
    }

    /// A secret that the vault has, or has not.
    pub(in crate::daemon) fn secret(
        &self,
        name: &SecretName,
    ) -> Result<Option<Secret>, StateError> {
        Ok(self.vault.read(INTERNAL_SERVICE, &name.to_string())?)
    }

    /// The password of an account that is kept elsewhere. With the first one those
    /// of all accounts on the desk are read, once and at the same time.
    pub(super) fn look_elsewhere(
        &self,
        desk: &mut Desk,
        source: &SecretSource,
    ) -> Result<Option<Secret>, Arc<SecretError>> {
        desk.elsewhere.entry(source.clone()).or_default();
        let unread = desk.elsewhere.iter().filter(|(_, read)| read.is_none());
        let unread = unread.map(|(source, _)| source.clone()).collect();
        for (source, read) in self.elsewhere.read_all(unread) {
            desk.elsewhere.insert(source, Some(read));
        }
        let read = desk.elsewhere.get(source).cloned().flatten();
        read.unwrap_or(Ok(None))
    }

    /// A person may have mended what did not answer when a password was read.
    pub(in crate::daemon) fn ask_again(&mut self) {
        self.elsewhere.forget();
    }

    /// Keeps many secrets at once. What follows from them is for `start_up`.
    pub fn keep_all(
        &mut self,
        secrets: impl Iterator<Item = (SecretName, Secret)>,
    ) -> Result<(), StateError> {
        let entry = |(name, secret): (SecretName, Secret)| {
            (INTERNAL_SERVICE.to_owned(), name.to_string(), secret)
        };
        Ok(self.vault.write_all(secrets.map(entry).collect())?)
    }

    /// Keeps a secret that nobody has typed in.
    pub fn keep(&mut self, name: &SecretName, secret: &Secret) -> Result<(), StateError> {
        let kept = self
            .vault
            .write(INTERNAL_SERVICE, &name.to_string(), secret);
        Ok(kept?)
    }
}
