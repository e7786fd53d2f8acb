//! The worker's second half: the accounts. It hands events to the rotation and
//! carries its actions out: the account's document, then the entry that others
//! read, in that order.

use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::super::secrets::{self, SecretError};
use super::super::state::StateError;
use super::{Outcome, SecretName, Worker};
use crate::INTERNAL_SERVICE;
use crate::api::{AccountState, AccountStatus, VersionLine};
use crate::config::{self, SecretSource};
use crate::journal::Kind;
use crate::rotation::{self, Account, Action, Event, Label, Reception};
use crate::secret::Secret;

/// The key of the fingerprints, in the vault.
const FINGERPRINT_KEY: &str = "fingerprint-key";

impl Worker {
    /// Hands a trusted notice to the rotation and carries its actions out.
    pub(super) fn take(
        &mut self,
        configured: &config::Account,
        event: Event,
        taken_before: bool,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Outcome, StateError> {
        let account = match self.account(&configured.username) {
            // What is wrong with one account must not stop the others' mails.
            Err(error @ (StateError::Document { .. } | StateError::Vanished(_))) => {
                return Ok(Outcome::because(
                    Kind::Held,
                    "account-unreadable",
                    crate::chain(&error),
                )
                .of(&configured.username));
            }
            account => account?,
        };
        let password = self.password(configured)?;
        let source = match &event {
            Event::Notice { source, .. } => Some(source.clone()),
            Event::Reconcile => None,
        };
        let step = account.step(event, password.known().is_some(), now);
        if !dry_run {
            self.carry_out(&step, configured, &password)?;
            if step.reception == Some(Reception::Duplicate) {
                // This mail may have been cut off between document and entry.
                self.settle(configured, &step.account, &password, now)?;
            }
        }
        // A crash between the vault and the journal: this mail brought the
        // token that is known now.
        let brought_it = step
            .account
            .versions
            .iter()
            .any(|version| Some(&version.source) == source.as_ref());
        let kind = match step.reception {
            Some(Reception::Duplicate) if brought_it && !taken_before => Kind::Updated,
            Some(Reception::Updated) => Kind::Updated,
            Some(Reception::Duplicate) | None => Kind::Duplicate,
            Some(Reception::Older) => Kind::Older,
        };
        Ok(Outcome {
            kind,
            reason: None,
            detail: None,
            username: Some(configured.username.clone()),
            message_id: None,
        })
    }

    fn carry_out(
        &mut self,
        step: &rotation::Step,
        configured: &config::Account,
        password: &Password,
    ) -> Result<(), StateError> {
        if step.actions.is_empty() {
            return Ok(());
        }
        // Until it is done: what fails here in the middle is tried again.
        self.unsettled.insert(configured.username.clone());
        for action in &step.actions {
            match action {
                Action::Store => self.store(&step.account)?,
                Action::Publish => self.publish(&step.account, configured, password)?,
            }
        }
        self.unsettled.remove(&configured.username);
        self.stands(configured, &step.account, password);
        if step.actions.contains(&Action::Store)
            && let Some(version) = step.account.newest()
        {
            let pending = version.label == Label::Pending;
            let (event, message) = if pending {
                (
                    "credential.pending",
                    "a new token is kept; the Salesforce password is missing",
                )
            } else {
                ("credential.updated", "the credential is up to date")
            };
            if pending {
                tracing::warn!(event, username = %configured.username, version = version.id,
                    fingerprint = %version.fingerprint, proof = %version.proof, "{message}");
            } else {
                tracing::info!(event, username = %configured.username, version = version.id,
                    fingerprint = %version.fingerprint, proof = %version.proof, "{message}");
            }
        }
        Ok(())
    }

    /// Writes the entry that others read, where it is not what it should be.
    fn publish(
        &self,
        account: &Account,
        configured: &config::Account,
        password: &Password,
    ) -> Result<(), StateError> {
        let token = account
            .labelled(Label::Current)
            .and_then(|version| version.token.as_ref());
        if let (Some(password), Some(token)) = (password.known(), token) {
            let composite = password.followed_by(token);
            let service = &self.config.vault.service;
            let user = &configured.username;
            if self.vault.read(service, user)?.as_ref() != Some(&composite) {
                self.vault.write(service, user, &composite)?;
                tracing::info!(event = "credential.published", username = %user,
                    "the entry that others read was written");
            }
        }
        Ok(())
    }

    pub(super) fn reconcile(&mut self, configured: &config::Account) -> Result<(), StateError> {
        let account = self.account(&configured.username)?;
        let password = self.password(configured)?;
        if let Password::Unreadable(error) = &password {
            let told = self.standing.get(&configured.username);
            if told.is_none_or(|told| told.state != AccountState::PasswordMissing) {
                tracing::error!(event = "secret.unreadable", username = %configured.username,
                    error = %crate::chain(error), hint = error.hint(),
                    "the Salesforce password cannot be read");
            }
        }
        self.settle(configured, &account, &password, Timestamp::now())
    }

    /// Brings the account to where its token and its password say that it is.
    fn settle(
        &mut self,
        configured: &config::Account,
        account: &Account,
        password: &Password,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let known = password.known().is_some();
        let step = account.step(Event::Reconcile, known, now);
        self.carry_out(&step, configured, password)?;
        // It is settled also where nothing was to be done.
        self.unsettled.remove(&configured.username);
        self.stands(configured, &step.account, password);
        Ok(())
    }

    fn stands(&mut self, configured: &config::Account, account: &Account, password: &Password) {
        let standing = standing(configured, account, password.known().is_some());
        self.standing.insert(configured.username.clone(), standing);
    }

    fn account(&self, username: &str) -> Result<Account, StateError> {
        match self
            .vault
            .read(INTERNAL_SERVICE, &document_name(username))?
        {
            Some(document) => {
                rotation::from_document(&document).map_err(|source| StateError::Document {
                    username: username.to_owned(),
                    source,
                })
            }
            // A store that hides what it has (a locked collection) must not be
            // taken for one that has nothing.
            None if self.journal.has_taken(username)? => {
                Err(StateError::Vanished(username.to_owned()))
            }
            None => Ok(Account::new(username)),
        }
    }

    fn store(&self, account: &Account) -> Result<(), StateError> {
        let document = rotation::to_document(account).map_err(|source| StateError::Document {
            username: account.username.clone(),
            source,
        })?;
        let name = document_name(&account.username);
        Ok(self.vault.write(INTERNAL_SERVICE, &name, &document)?)
    }

    fn password(&self, account: &config::Account) -> Result<Password, StateError> {
        let name = SecretName::Account(account.username.clone()).to_string();
        match secrets::read(&account.password, &name, &self.vault) {
            Ok(Some(password)) => Ok(Password::Known(password)),
            Ok(None) => Ok(Password::Missing),
            Err(SecretError::Vault(error)) => Err(error.into()),
            Err(error) => Ok(Password::Unreadable(error)),
        }
    }

    /// A keyed hash of a token. The key is made with the first one, but not for
    /// a dry run, where nothing is known that it could be compared with.
    pub(super) fn fingerprint(&self, token: &Secret, dry_run: bool) -> Result<String, StateError> {
        let key = if let Some(key) = self.vault.read(INTERNAL_SERVICE, FINGERPRINT_KEY)? {
            key
        } else {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            SystemRandom::new()
                .fill(bytes.as_mut())
                .map_err(|_| StateError::Random)?;
            let key = Secret::new(hex(bytes.as_ref()));
            if !dry_run {
                self.vault.write(INTERNAL_SERVICE, FINGERPRINT_KEY, &key)?;
            }
            key
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
        let tag = hmac::sign(&key, token.expose().as_bytes());
        Ok(hex(tag.as_ref().get(..8).unwrap_or_default()))
    }

    /// How the accounts stand.
    pub fn credentials(&self) -> Result<Vec<AccountStatus>, StateError> {
        self.config
            .accounts
            .iter()
            .map(|configured| {
                let account = self.account(&configured.username)?;
                let password = self.password(configured)?;
                Ok(standing(configured, &account, password.known().is_some()))
            })
            .collect()
    }

    /// Password and token as one, for who logs in to Salesforce.
    pub fn credential(&self, username: &str) -> Result<Option<Secret>, StateError> {
        // The entry is kept under the configuration's way of writing the name.
        let user = self
            .config
            .account(username)
            .map_or(username, |account| &account.username);
        Ok(self.vault.read(&self.config.vault.service, user)?)
    }

    /// All versions of an account's token, the newest first.
    pub fn history(&self, username: &str) -> Result<Vec<VersionLine>, StateError> {
        let account = self.account(username)?;
        let line = |version: &rotation::Version| VersionLine {
            version: version.id,
            label: version.label.word().to_owned(),
            fingerprint: version.fingerprint.clone(),
            source: format!(
                "{}/{};UIDVALIDITY={}/;UID={}",
                version.source.mailbox,
                version.source.folder,
                version.source.uid_validity,
                version.source.uid
            ),
            message_id: version.source.message_id.clone(),
            proof: version.proof.clone(),
            originated: version.source.originated,
            received: version.source.received,
            stored: version.stored,
        };
        Ok(account.versions.iter().rev().map(line).collect())
    }

    /// Sets a secret; the Salesforce password of an account completes a token
    /// that waits for it.
    pub fn set_secret(&mut self, name: &SecretName, secret: &Secret) -> Result<(), StateError> {
        self.vault
            .write(INTERNAL_SERVICE, &name.to_string(), secret)?;
        tracing::info!(event = "secret.set", name = %name, "a secret was set");
        self.after_secret(name)
    }

    /// Removes a secret; `false` where there was none. With the password of an
    /// account goes the credential that holds it.
    pub fn remove_secret(&mut self, name: &SecretName) -> Result<bool, StateError> {
        // The credential first: it holds the password, and a crash between the
        // two must leave nothing of it that the name does not show.
        if let SecretName::Account(username) = name
            && let Some(account) = self.config.account(username)
            && account.password == SecretSource::Vault
        {
            self.vault
                .remove(&self.config.vault.service, &account.username)?;
        }
        let removed = self.vault.remove(INTERNAL_SERVICE, &name.to_string())?;
        if removed {
            tracing::info!(event = "secret.removed", name = %name, "a secret was removed");
        }
        self.after_secret(name)?;
        Ok(removed)
    }

    fn after_secret(&mut self, name: &SecretName) -> Result<(), StateError> {
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

    /// A secret that a mailbox logs in with, from where the configuration says
    /// it is.
    pub fn login_secret(
        &self,
        source: &SecretSource,
        name: &SecretName,
    ) -> Result<Option<Secret>, StateError> {
        Ok(secrets::read(source, &name.to_string(), &self.vault)?)
    }

    /// Keeps a secret that nobody has typed in.
    pub fn keep(&mut self, name: &SecretName, secret: &Secret) -> Result<(), StateError> {
        let kept = self
            .vault
            .write(INTERNAL_SERVICE, &name.to_string(), secret);
        Ok(kept?)
    }
}

/// An account's Salesforce password.
enum Password {
    Known(Secret),
    Missing,
    Unreadable(SecretError),
}

impl Password {
    fn known(&self) -> Option<&Secret> {
        match self {
            Self::Known(password) => Some(password),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

/// How an account stands. A token that is still pending waits for a password,
/// even where that is there by now.
fn standing(
    configured: &config::Account,
    account: &Account,
    password_known: bool,
) -> AccountStatus {
    let newest = account.newest();
    let state = match newest.map(|version| version.label) {
        Some(Label::Current) if password_known => AccountState::Current,
        None if password_known => AccountState::NoToken,
        Some(Label::Pending | Label::Current | Label::Previous | Label::Superseded) | None => {
            AccountState::PasswordMissing
        }
    };
    AccountStatus {
        username: configured.username.clone(),
        state,
        token_received: newest.map(|version| version.source.received),
        version: newest.map(|version| version.id),
        verified: None,
        fingerprint: newest.map(|version| version.fingerprint.clone()),
    }
}

fn document_name(username: &str) -> String {
    format!("document/{}", username.to_lowercase())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|nibble| DIGITS.get(usize::from(nibble)))
        .collect()
}
