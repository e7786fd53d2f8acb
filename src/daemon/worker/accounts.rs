//! The worker's second half: the accounts. It hands events to the rotation and
//! carries its actions out: the account's document, the entry that others read,
//! and what the sinks are to be told, in that order.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::errands::CheckJob;
use super::super::secrets::{self, SecretError};
use super::super::state::StateError;
use super::standing::stands;
use super::{Outcome, SecretName, Worker};
use crate::INTERNAL_SERVICE;
use crate::api::{AccountState, AccountStatus, VersionLine};
use crate::config::{self, Verify};
use crate::journal::Kind;
use crate::rotation::{self, Account, Action, Answer, Event, Label, Reception, Rules, Standing};
use crate::secret::Secret;

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
        let password = self.password(configured, dry_run)?;
        let source = match &event {
            Event::Notice { source, .. } => Some(source.clone()),
            Event::Reconcile | Event::Due | Event::Answered { .. } | Event::RollBack => None,
        };
        let step = account.step(event, password.print(), &rules(configured), now);
        if !dry_run {
            self.carry_out(&account, &step, configured, &password, now)?;
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

    /// Lets something happen to an account.
    pub(super) fn happen(
        &mut self,
        configured: &config::Account,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<CheckJob>, StateError> {
        let account = self.account(&configured.username)?;
        let password = self.password(configured, false)?;
        if let Password::Unreadable(error) = &password {
            let told = self.standing.get(&configured.username);
            if told.is_none_or(|told| told.status.state != AccountState::PasswordMissing) {
                tracing::error!(event = "secret.unreadable", username = %configured.username,
                    error = %crate::chain(error), hint = error.hint(),
                    "the Salesforce password cannot be read");
            }
        }
        let step = account.step(event, password.print(), &rules(configured), now);
        self.carry_out(&account, &step, configured, &password, now)?;
        if !step.actions.contains(&Action::Check) {
            return Ok(None);
        }
        let newest = step.account.newest();
        let pair = newest.and_then(|version| Some((version, version.token.as_ref()?)));
        let (Some((version, token)), Password::Known { password, print }) = (pair, password) else {
            return Ok(None);
        };
        Ok(Some(CheckJob {
            account: configured.clone(),
            token: version.fingerprint.clone(),
            password: print,
            both: password.followed_by(token),
        }))
    }

    fn carry_out(
        &mut self,
        before: &Account,
        step: &rotation::Step,
        configured: &config::Account,
        password: &Password,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let username = &configured.username;
        // Until it is done: what fails here in the middle is tried again.
        self.unsettled.insert(username.clone());
        let mut writes = Vec::new();
        if step.actions.contains(&Action::Store) {
            let name = document_name(username);
            let document = rotation::to_document(&step.account);
            let document = document.map_err(|source| StateError::Document {
                username: username.clone(),
                source,
            })?;
            writes.push((INTERNAL_SERVICE.to_owned(), name, document));
        }
        let composite = composite(&step.account, password);
        let service = self.config.vault.service.clone();
        let mut publishes = false;
        if step.actions.contains(&Action::Publish)
            && let Some(composite) = &composite
            && self.vault.read(&service, username)?.as_ref() != Some(composite)
        {
            publishes = true;
            writes.push((service, username.clone(), composite.clone()));
        }
        self.vault.write_all(writes)?;
        if step.actions.contains(&Action::Publish)
            && let Some(composite) = &composite
        {
            self.tell_sinks(username, composite, now)?;
        }
        self.unsettled.remove(username);
        let standing = stands(configured, &step.account, password.print(), now);
        self.standing.insert(username.clone(), standing);
        self.due(
            username,
            step.account.due(password.print(), &rules(configured), now),
        );
        tell(before, step, configured, password.print(), now);
        if publishes {
            tracing::info!(event = "credential.published", username = %username,
                "the entry that others read was written");
        }
        Ok(())
    }

    /// Brings the account to where its token and its password say that it is.
    pub(super) fn reconcile(&mut self, configured: &config::Account) -> Result<(), StateError> {
        self.happen(configured, Event::Reconcile, Timestamp::now())?;
        Ok(())
    }

    /// The logins that are due. Each is noted before it is handed out.
    pub(in crate::daemon) fn begin_checks(
        &mut self,
        now: Timestamp,
        room: usize,
    ) -> Result<Vec<CheckJob>, StateError> {
        let config = Arc::clone(&self.config);
        let (mut jobs, mut has_changed) = (Vec::new(), false);
        let is_due = |due: &BTreeMap<String, Timestamp>, username: &str| {
            due.get(username).is_some_and(|due| *due <= now)
        };
        for configured in &config.accounts {
            if jobs.len() >= room || !is_due(&self.due, &configured.username) {
                continue;
            }
            match self.happen(configured, Event::Due, now) {
                Ok(job) => {
                    has_changed = true;
                    jobs.extend(job);
                }
                // Its problem is on the board; those that can be checked are.
                Err(StateError::Document { .. } | StateError::Vanished(_)) => {
                    self.due.remove(&configured.username);
                }
                Err(error) if jobs.is_empty() => return Err(error),
                // What was begun has to be done.
                Err(_) => break,
            }
        }
        if has_changed {
            // What was released without a check, too. The answers tell it again, and
            // what was begun has to be done.
            self.tell_board().unwrap_or_default();
        }
        Ok(jobs)
    }

    /// Takes the answer to a login in.
    pub(in crate::daemon) fn answered(
        &mut self,
        username: &str,
        token: String,
        password: String,
        answer: Answer,
    ) -> Result<(), StateError> {
        let config = Arc::clone(&self.config);
        let Some(configured) = config.account(username) else {
            return Ok(());
        };
        let event = Event::Answered {
            token,
            password,
            answer,
        };
        self.happen(configured, event, Timestamp::now())?;
        self.tell_board()
    }

    /// Makes the previous version current again, and says which that is.
    /// `None` where there is none, or no password to go with it.
    pub fn roll_back(&mut self, username: &str) -> Result<Option<u64>, StateError> {
        let config = Arc::clone(&self.config);
        let Some(configured) = config.account(username) else {
            return Ok(None);
        };
        let account = self.account(&configured.username)?;
        let password = self.password(configured, false)?;
        let previous = account.labelled(Label::Previous);
        let Some(previous) = previous.filter(|_| password.print().is_some()) else {
            return Ok(None);
        };
        tracing::warn!(event = "credential.rolled-back", username = %configured.username,
            version = previous.id, "a person wants the previous token back");
        self.happen(configured, Event::RollBack, Timestamp::now())?;
        self.tell_board()?;
        Ok(Some(previous.id))
    }

    pub(super) fn account(&self, username: &str) -> Result<Account, StateError> {
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

    fn password(
        &mut self,
        account: &config::Account,
        dry_run: bool,
    ) -> Result<Password, StateError> {
        let name = SecretName::Account(account.username.clone()).to_string();
        match secrets::read(&account.password, &name, &self.vault) {
            Ok(Some(password)) => {
                let print = self.print("password", &password, dry_run)?;
                Ok(Password::Known { password, print })
            }
            Ok(None) => Ok(Password::Missing),
            Err(SecretError::Vault(error)) => Err(error.into()),
            Err(error) => Ok(Password::Unreadable(error)),
        }
    }

    /// How the accounts stand.
    pub fn credentials(&mut self) -> Result<Vec<AccountStatus>, StateError> {
        let config = Arc::clone(&self.config);
        let now = Timestamp::now();
        let stand = |configured| {
            let password = self.password(configured, true)?;
            let account = self.account(&configured.username)?;
            Ok(stands(configured, &account, password.print(), now).status)
        };
        config.accounts.iter().map(stand).collect()
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
            moved: version.moved,
            verdict: version.checked.map(|(answer, _)| answer.word().to_owned()),
            checked: version.checked.map(|(_, at)| at),
        };
        Ok(account.versions.iter().rev().map(line).collect())
    }
}

/// An account's Salesforce password, and its keyed hash.
enum Password {
    Known { password: Secret, print: String },
    Missing,
    Unreadable(SecretError),
}

impl Password {
    fn print(&self) -> Option<&str> {
        match self {
            Self::Known { print, .. } => Some(print),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

/// What others are to have now, if anything.
fn composite(account: &Account, password: &Password) -> Option<Secret> {
    let Password::Known { password, print } = password else {
        return None;
    };
    let token = account.released(Some(print))?.token.as_ref()?;
    Some(password.followed_by(token))
}

/// How an account's credential is checked, as the rotation wants it.
pub(super) fn rules(configured: &config::Account) -> Rules {
    Rules {
        check: match configured.verify {
            Verify::Off => false,
            Verify::Soap => true,
        },
        release_unverified_after: SignedDuration::try_from(configured.promote_unverified_after)
            .unwrap_or(SignedDuration::MAX),
        failures_a_day: configured.failed_logins_per_day,
    }
}

/// What has become of an account, for the log.
fn tell(
    before: &Account,
    step: &rotation::Step,
    configured: &config::Account,
    password: Option<&str>,
    now: Timestamp,
) {
    let (username, account) = (&configured.username, &step.account);
    let Some(version) = account.newest() else {
        return;
    };
    let released = account.released(password);
    let was = before.labelled(Label::Current);
    if let Some(current) = released
        && (was.map(|v| v.id) != Some(current.id) || before.password != account.password)
    {
        tracing::info!(event = "credential.updated", username = %username, version = current.id,
            fingerprint = %current.fingerprint, proof = %current.proof,
            "the credential is up to date");
        if rules(configured).check && !account.is_proven(current) {
            tracing::warn!(event = "credential.unverified", username = %username,
                version = current.id,
                "the credential could not be checked, and is used all the same");
        }
    }
    if step.reception == Some(Reception::Updated) && version.label == Label::Pending {
        if password.is_none() {
            tracing::warn!(event = "credential.pending", username = %username,
                version = version.id, fingerprint = %version.fingerprint, proof = %version.proof,
                "a new token is kept; the Salesforce password is missing");
        } else {
            tracing::info!(event = "credential.pending", username = %username,
                version = version.id, fingerprint = %version.fingerprint, proof = %version.proof,
                "a new token is kept, and will be checked before it is used");
        }
    }
    let checked = |account: &Account| account.newest().and_then(|version| version.checked);
    let Some((answer, _)) = checked(account).filter(|_| checked(before) != checked(account)) else {
        return;
    };
    match account.standing(password, &rules(configured), now) {
        Standing::Current {
            answer: Some(Answer::Works),
        } => {
            tracing::info!(event = "credential.verified", username = %username,
                version = version.id, "Salesforce accepts the credential");
        }
        Standing::Refused {
            next: Some(next), ..
        } => tracing::warn!(event = "credential.refused", username = %username,
            version = version.id, answer = answer.word(), next = %next,
            "Salesforce refuses the credential; it is tried once more"),
        Standing::Refused { next: None, .. } => {
            tracing::error!(event = "credential.refused", username = %username,
                version = version.id, answer = answer.word(),
                "Salesforce refuses the credential: a person must act");
        }
        Standing::NoToken
        | Standing::PasswordMissing
        | Standing::Checking { .. }
        | Standing::Current { .. } => {
            let next = account.due(password, &rules(configured), now);
            tracing::warn!(event = "credential.unchecked", username = %username,
                version = version.id, answer = answer.word(),
                next = next.map(tracing::field::display),
                "the credential could not be checked");
        }
    }
}

fn document_name(username: &str) -> String {
    format!("document/{}", username.to_lowercase())
}
