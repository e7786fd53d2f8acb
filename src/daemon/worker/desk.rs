//! What is decided together, and made durable together.
//!
//! The vault is one file for most, and each write of it is a write of all of
//! it. So what several mails bring, or what a start finds for all accounts, is
//! read at once, decided on the desk, and written in one go: the vault first,
//! then the journal, and only then is anything said of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::elsewhere::Shared;
use super::super::state::StateError;
use super::accounts::{UNREADABLE, document_name, rules};
use super::standing::stands;
use super::tell::tell;
use super::{SecretName, Worker};
use crate::INTERNAL_SERVICE;
use crate::config::{self, SecretSource};
use crate::journal::{Cursor, Record};
use crate::rotation::{Account, Step};
use crate::secret::Secret;

/// A service and a user.
type Key = (String, String);

/// What is decided together.
#[derive(Default)]
pub(super) struct Desk {
    /// What the vault has, with what will be there when it is written.
    seen: BTreeMap<Key, Option<Secret>>,
    /// Where else passwords are kept, and what was read there once it was.
    pub(super) elsewhere: BTreeMap<SecretSource, Option<Shared>>,
    writes: Vec<(String, String, Secret)>,
    /// By username, what each sink is to be told, as a keyed hash.
    pub(super) wants: Vec<(String, Vec<(String, String)>)>,
    pub(super) changes: Vec<Change>,
    /// Of a file vault, where it was written: the number of that write.
    generation: Option<u64>,
    /// The usernames, in lower case, of those that can be used again.
    recovered: BTreeSet<String>,
}

/// What happened to an account.
pub(super) struct Change {
    pub(super) before: Account,
    pub(super) step: Step,
    pub(super) configured: config::Account,
    /// The keyed hash of its password, where that is known.
    pub(super) password: Option<String>,
    /// The entry that others read is another one.
    pub(super) publishes: bool,
}

impl Desk {
    /// Has a secret written, after those before it.
    pub(super) fn write(&mut self, service: &str, user: &str, secret: Secret) {
        let key = (service.to_owned(), user.to_owned());
        self.seen.insert(key, Some(secret.clone()));
        let mut writes = self.writes.iter_mut();
        match writes.find(|(s, u, _)| s == service && u == user) {
            Some((_, _, known)) => *known = secret,
            None => self
                .writes
                .push((service.to_owned(), user.to_owned(), secret)),
        }
    }
}

impl Worker {
    /// A desk with all that is kept for these accounts, read at once. Where an
    /// entry cannot be used, each is read when it is asked for, and the error is
    /// that of the account which asks for the bad one.
    pub(super) fn desk<'a>(
        &self,
        accounts: impl IntoIterator<Item = &'a config::Account>,
    ) -> Result<Desk, StateError> {
        // Many mails may be of one account.
        let (mut keys, mut elsewhere) = (BTreeSet::new(), BTreeMap::new());
        let mut add = |service: &str, user: &str| {
            keys.insert((service.to_owned(), user.to_owned()));
        };
        for account in accounts {
            add(INTERNAL_SERVICE, &document_name(&account.username));
            add(&self.config.vault.service, &account.username);
            if account.password == SecretSource::Vault {
                let name = SecretName::Account(account.username.clone());
                add(INTERNAL_SERVICE, &name.to_string());
            } else {
                elsewhere.insert(account.password.clone(), None);
            }
        }
        let keys: Vec<Key> = keys.into_iter().collect();
        let seen = match self.vault.read_all(&keys) {
            Ok(found) => keys.into_iter().zip(found).collect(),
            Err(error) if error.is_of_one_entry() => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Desk {
            seen,
            elsewhere,
            ..Desk::default()
        })
    }

    /// What the vault has, or will have.
    pub(super) fn look_up(
        &self,
        desk: &mut Desk,
        service: &str,
        user: &str,
    ) -> Result<Option<Secret>, StateError> {
        let key = (service.to_owned(), user.to_owned());
        if let Some(seen) = desk.seen.get(&key) {
            return Ok(seen.clone());
        }
        let found = self.vault.read(service, user)?;
        desk.seen.insert(key, found.clone());
        Ok(found)
    }

    /// Makes all of it durable, with the outcomes that go with it, and tells of
    /// it.
    pub(super) fn clear(
        &mut self,
        mut desk: Desk,
        records: &[(Record, Option<Cursor>)],
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.write_down(&mut desk)?;
        self.note_down(desk, records, now)
    }

    /// The first half: what goes into the vault.
    pub(super) fn write_down(&mut self, desk: &mut Desk) -> Result<(), StateError> {
        // Those that were not well can be read now.
        let usernames = desk.changes.iter().map(|c| &c.configured.username);
        desk.recovered = usernames
            .filter(|username| self.unsettled.contains_key(*username))
            .map(|username| username.to_lowercase())
            .collect();
        // Until it is done: what fails here in the middle is tried again.
        for change in &desk.changes {
            self.unsettle(&change.configured.username);
        }
        let has_written = !desk.writes.is_empty();
        self.vault.write_all(std::mem::take(&mut desk.writes))?;
        desk.generation = self.vault.generation().filter(|_| has_written);
        Ok(())
    }

    /// The second: what goes into the journal, and the word that all is done.
    pub(super) fn note_down(
        &mut self,
        desk: Desk,
        records: &[(Record, Option<Cursor>)],
        now: Timestamp,
    ) -> Result<(), StateError> {
        let (wants, generation) = (&desk.wants, desk.generation);
        let recovered = &desk.recovered;
        let (noted, again) = self.journal.together(|journal| {
            let mut noted = false;
            for (username, wanted) in wants {
                noted |= journal.want(username, wanted, super::outbox::new_id, now)?;
            }
            for (record, cursor) in records {
                journal.record(record, *cursor, now)?;
            }
            if let Some(generation) = generation {
                journal.note_vault(generation)?;
            }
            let mut again = 0;
            if !recovered.is_empty() {
                let of = |username: &str| recovered.contains(&username.to_lowercase());
                again = journal.look_again_at_held(UNREADABLE, of, now)?;
            }
            Ok((noted, again))
        })?;
        if again > 0 {
            tracing::info!(
                event = "notice.again",
                mails = again,
                "mails that were held because their account could not be used are looked at again"
            );
            self.again.send_replace(());
        }
        if noted {
            self.bell.notify_one();
        }
        for change in desk.changes {
            let configured = &change.configured;
            let (account, password) = (&change.step.account, change.password.as_deref());
            self.unsettled.remove(&configured.username);
            self.standing.insert(
                configured.username.clone(),
                stands(configured, account, password, now),
            );
            let due = account.due(password, &rules(configured), now);
            self.due(&configured.username, due);
            tell(&change, now);
        }
        Ok(())
    }
}
