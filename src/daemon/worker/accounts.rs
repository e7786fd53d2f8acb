//! The accounts: events go to the rotation, and its actions on the desk: the
//! account's document, the entry that others read, and what the sinks are to be
//! told, in that order.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::errands::CheckJob;
use super::super::secrets::SecretError;
use super::super::state::StateError;
use super::desk::{Change, Desk};
use super::standing::stands;
use super::{Outcome, SecretName, Worker};
use crate::INTERNAL_SERVICE;
use crate::api::{AccountState, AccountStatus, VersionLine};
use crate::config::{self, SecretSource, Verify};
use crate::journal::Kind;
use crate::rotation::{self, Account, Action, Event, Label, Reception, Rules};
use crate::secret::Secret;

/// Why a mail is held whose account cannot be used. When it can, the mail is looked
/// at again.
pub(super) const UNREADABLE: &str = "account-unreadable";

impl Worker {
    /// Hands a trusted notice to the rotation, and puts what follows on the desk.
    /// It is made when the account is known to be usable, so that what is wrong
    /// with the account is what is told.
    pub(super) fn take(
        &mut self,
        desk: &mut Desk,
        configured: &config::Account,
        notice: impl FnOnce(&mut Self) -> Result<Event, StateError>,
        taken_before: bool,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Outcome, StateError> {
        match self.taken(desk, configured, notice, taken_before, dry_run, now) {
            // What is wrong with one account must not stop the others' mails.
            Err(error) if error.is_of_one_account() => {
                let username = &configured.username;
                self.cannot_use(username, &error);
                Ok(Outcome::because(Kind::Held, UNREADABLE, crate::chain(&error)).of(username))
            }
            taken => taken,
        }
    }

    fn taken(
        &mut self,
        desk: &mut Desk,
        configured: &config::Account,
        notice: impl FnOnce(&mut Self) -> Result<Event, StateError>,
        taken_before: bool,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Outcome, StateError> {
        let account = self.all_of(desk, &configured.username)?;
        let event = notice(self)?;
        let password = self.password(desk, configured, dry_run)?;
        let source = match &event {
            Event::Notice { source, .. } => Some(source.clone()),
            Event::Reconcile | Event::Due | Event::Answered { .. } | Event::RollBack => None,
        };
        let step = account.step(event, password.print(), &self.rules(configured), now);
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
        if !dry_run {
            self.carry_out(desk, account, step, configured, &password)?;
        }
        Ok(Outcome {
            kind,
            reason: None,
            detail: None,
            username: Some(configured.username.clone()),
            message_id: None,
        })
    }

    /// Lets something happen to an account, and makes it durable.
    pub(super) fn happen(
        &mut self,
        configured: &config::Account,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<CheckJob>, StateError> {
        let mut desk = self.desk([configured])?;
        let job = self.let_happen(&mut desk, configured, event, now)?;
        self.write_down(&mut desk)?;
        let noted = self.note_down(desk, &[], now);
        let Some(job) = job else {
            return noted.map(|()| None);
        };
        // The vault has the login: it counts, so it is made. What the journal lacks
        // is made up for with its answer, and the board says so until then.
        self.logins.insert(configured.username.clone(), None);
        if let Err(error) = noted {
            tracing::error!(event = "account.unnoted", username = %configured.username,
                error = %crate::chain(&error), hint = error.hint(),
                "a login begins that the journal does not know of yet");
        }
        Ok(Some(job))
    }

    /// Lets something happen to an account, on the desk. Of one that cannot be
    /// used nothing is put there, and it is tried again.
    pub(super) fn let_happen(
        &mut self,
        desk: &mut Desk,
        configured: &config::Account,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<CheckJob>, StateError> {
        let happened = self.happens(desk, configured, event, now);
        if let Err(error) = &happened
            && error.is_of_one_account()
        {
            self.cannot_use(&configured.username, error);
        }
        happened
    }

    fn happens(
        &mut self,
        desk: &mut Desk,
        configured: &config::Account,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<CheckJob>, StateError> {
        let account = self.all_of(desk, &configured.username)?;
        let password = self.password(desk, configured, false)?;
        if let Password::Unreadable(error) = &password {
            let told = self.standing.get(&configured.username);
            if told.is_none_or(|told| told.status.state != AccountState::PasswordMissing) {
                tracing::error!(event = "secret.unreadable", username = %configured.username,
                    error = %crate::chain(error), hint = error.hint(),
                    "the Salesforce password cannot be read");
            }
        }
        let step = account.step(event, password.print(), &self.rules(configured), now);
        let job = step
            .actions
            .contains(&Action::Check)
            .then(|| job(configured, &step.account, &password))
            .flatten();
        self.carry_out(desk, account, step, configured, &password)?;
        Ok(job)
    }

    /// The rules of an account for now. While Salesforce is being asked, or what it
    /// said is not durable yet, nobody is given what it may have said no to.
    fn rules(&self, configured: &config::Account) -> Rules {
        let mut rules = rules(configured);
        if self.logins.contains_key(&configured.username) {
            rules.release_unverified_after = SignedDuration::MAX;
        }
        rules
    }

    fn carry_out(
        &mut self,
        desk: &mut Desk,
        before: Account,
        step: rotation::Step,
        configured: &config::Account,
        password: &Password,
    ) -> Result<(), StateError> {
        let username = &configured.username;
        let service = self.config.vault.service.clone();
        let mut document = None;
        if step.actions.contains(&Action::Store) {
            let written = rotation::to_document(&step.account);
            document = Some(written.map_err(|source| StateError::Document {
                username: username.clone(),
                source,
            })?);
        }
        let mut entry = None;
        if step.actions.contains(&Action::Publish)
            && let Some(composite) = composite(&step.account, password)
        {
            let wanted = self.wanted(username, &composite)?;
            let known = self.look_up(desk, &service, username)?;
            entry = Some((wanted, known.as_ref() != Some(&composite), composite));
        }
        // Nothing fails from here on, so that all of it is on the desk or nothing.
        if let Some(document) = document {
            desk.write(INTERNAL_SERVICE, &document_name(username), document);
        }
        let mut publishes = false;
        if let Some((wanted, is_another, composite)) = entry {
            desk.wants.push((username.clone(), wanted));
            publishes = is_another;
            if publishes {
                desk.write(&service, username, composite);
            }
        }
        desk.changes.push(Change {
            before,
            step,
            configured: configured.clone(),
            password: password.print().map(str::to_owned),
            publishes,
        });
        Ok(())
    }

    /// Brings the account to where its token and its password say that it is.
    pub(super) fn reconcile(&mut self, configured: &config::Account) -> Result<(), StateError> {
        self.happen(configured, Event::Reconcile, Timestamp::now())?;
        Ok(())
    }

    /// Makes the previous version current again, and says which that is.
    /// `None` where there is none, or no password to go with it.
    pub fn roll_back(&mut self, username: &str) -> Result<Option<u64>, StateError> {
        let config = Arc::clone(&self.config);
        let Some(configured) = config.account(username) else {
            return Ok(None);
        };
        let mut desk = self.desk([configured])?;
        let account = self.account(&mut desk, &configured.username)?;
        let password = self.password(&mut desk, configured, false)?;
        let previous = account.labelled(Label::Previous);
        let Some(previous) = previous.filter(|_| password.print().is_some()) else {
            return Ok(None);
        };
        self.happen(configured, Event::RollBack, Timestamp::now())?;
        tracing::warn!(event = "credential.rolled-back", username = %configured.username,
            version = previous.id, "a person wants the previous token back");
        self.tell_board()?;
        Ok(Some(previous.id))
    }

    /// The account, where all that is kept for it can be used, whether or not it is
    /// needed now: what is well is tried no more, and its mails are looked at again.
    fn all_of(&mut self, desk: &mut Desk, username: &str) -> Result<Account, StateError> {
        let account = self.account(desk, username)?;
        let service = self.config.vault.service.clone();
        self.look_up(desk, &service, username)?;
        self.key_is_there()?;
        Ok(account)
    }

    pub(super) fn account(&self, desk: &mut Desk, username: &str) -> Result<Account, StateError> {
        match self.look_up(desk, INTERNAL_SERVICE, &document_name(username))? {
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
        desk: &mut Desk,
        account: &config::Account,
        dry_run: bool,
    ) -> Result<Password, StateError> {
        let name = SecretName::Account(account.username.clone()).to_string();
        let found = if account.password == SecretSource::Vault {
            self.look_up(desk, INTERNAL_SERVICE, &name)?
        } else {
            match self.look_elsewhere(desk, &account.password) {
                Ok(found) => found,
                Err(error) => return Ok(Password::Unreadable(error)),
            }
        };
        let Some(password) = found else {
            return Ok(Password::Missing);
        };
        let print = self.print("password", &password, dry_run)?;
        Ok(Password::Known { password, print })
    }

    /// How the accounts stand.
    pub fn credentials(&mut self) -> Result<Vec<AccountStatus>, StateError> {
        let found = self.each_credential()?;
        let status = |(username, status): (String, Result<AccountStatus, _>)| {
            status.unwrap_or_else(|_| AccountStatus::unreadable(username))
        };
        Ok(found.into_iter().map(status).collect())
    }

    /// How the accounts stand, or what is wrong with that one alone.
    pub(in crate::daemon) fn each_credential(&mut self) -> Result<Each, StateError> {
        let config = Arc::clone(&self.config);
        let now = Timestamp::now();
        let mut desk = self.desk(&config.accounts)?;
        let mut stand = |configured: &config::Account| {
            let account = self.all_of(&mut desk, &configured.username)?;
            let password = self.password(&mut desk, configured, true)?;
            Ok::<_, StateError>(stands(configured, &account, password.print(), now).status)
        };
        let mut each = Vec::new();
        for configured in &config.accounts {
            let stands = match stand(configured) {
                Err(error) if !error.is_of_one_account() => return Err(error),
                stands => stands,
            };
            each.push((configured.username.clone(), stands));
        }
        Ok(each)
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
        let account = self.account(&mut Desk::default(), username)?;
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

/// Each account by itself.
type Each = Vec<(String, Result<AccountStatus, StateError>)>;

/// An account's Salesforce password, and its keyed hash.
enum Password {
    Known { password: Secret, print: String },
    Missing,
    Unreadable(Arc<SecretError>),
}

impl Password {
    fn print(&self) -> Option<&str> {
        match self {
            Self::Known { print, .. } => Some(print),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

/// The login that a step wants.
fn job(configured: &config::Account, account: &Account, password: &Password) -> Option<CheckJob> {
    let Password::Known { password, print } = password else {
        return None;
    };
    let version = account.newest()?;
    Some(CheckJob {
        account: configured.clone(),
        token: version.fingerprint.clone(),
        password: print.clone(),
        both: password.followed_by(version.token.as_ref()?),
    })
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

/// Under which name the account's document is kept.
pub(super) fn document_name(username: &str) -> String {
    format!("document/{}", username.to_lowercase())
}
