//! The worker: the one place where anything changes (invariant 7).
//!
//! It owns the vault and the journal and runs on a thread of its own, since
//! both block. Whoever wants something done hands it a piece of work and waits
//! for the answer; two never run at once. With no daemon running, a command
//! opens a worker itself and does the same work through the same methods.
//!
//! The order of a new token is what makes a crash harmless (invariant 1): the
//! account's document, then the entry that others read, then what the sinks are
//! to be told with outcome and cursor (`desk`). Whatever is cut off, the mail is
//! looked at again, its token is then known, and `start_up` makes up for what
//! was missed.

mod accounts;
mod desk;
mod held;
mod logins;
mod mails;
mod names;
mod outbox;
mod prints;
mod secrets;
mod settling;
mod standing;
mod tell;
mod thread;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{Timestamp, civil};
use ring::hmac;
use tokio::sync::{Notify, watch};

use super::board::{Board, Kept, Stands, Unsettled};
use super::elsewhere::Elsewhere;
use super::state::{self, StateError};
use crate::config::{self, Config, SecretSource};
use crate::journal::{self, Cursor, Journal, Kind, Place};
use crate::judge::Judgement;
use crate::rotation::Event;
use crate::secret::Secret;
use crate::vault::Vault;

use logins::Said;
pub use names::SecretName;
pub(super) use outbox::{DeliveryJob, Undelivered};
pub use thread::Handle;
pub(super) use thread::start;

/// Owns the vault and the journal.
pub struct Worker {
    config: Arc<Config>,
    vault: Vault,
    journal: Journal,
    board: Arc<Board>,
    elsewhere: Elsewhere,
    /// How the accounts stand, by their usernames, as they were when something
    /// of them last changed.
    standing: BTreeMap<String, Stands>,
    /// Accounts that could not be read, or whose document or entry could not be
    /// written: they are tried again. With what is wrong with that one alone.
    unsettled: BTreeMap<String, Option<Unsettled>>,
    /// The key of the keyed hashes, once it was read.
    print_key: Option<hmac::Key>,
    /// When something is to be done for an account.
    due: BTreeMap<String, Timestamp>,
    /// The accounts for which a login is under way, and what Salesforce has said
    /// where that could not be written down yet.
    logins: BTreeMap<String, Option<Said>>,
    /// What is being handed to whom (sink and username), and what is left alone
    /// because it could not be written down what came of it: until when.
    under_way: BTreeMap<(String, String), Timestamp>,
    /// Accounts that a look may bring more tokens for: until when it is waited for.
    settling: BTreeMap<settling::Key, Timestamp>,
    /// When it was last looked what is due.
    looked: Timestamp,
    /// Rung where something may be due.
    bell: Arc<Notify>,
    /// Told where mails that were held are to be looked at again.
    again: watch::Sender<()>,
}

/// A mail that was looked at.
pub struct Report {
    /// Where it is.
    pub place: Place,
    /// When the server received it (INTERNALDATE).
    pub received: Timestamp,
    /// What is to be thought of it.
    pub content: Content,
    /// Where the cursor goes when the outcome is durable.
    pub cursor: Option<Cursor>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What is to be thought of a mail.
pub enum Content {
    /// It was fetched and judged.
    Judged(Box<Judgement>),
    /// Reading it went wrong.
    Unreadable,
    /// The server does not hand it out.
    Unfetchable,
    /// It waited, and is there no more.
    Gone,
    /// It is larger than a notice could be, and was not fetched. `announced`
    /// says that its subject is that of a token mail.
    TooLarge {
        /// Its subject speaks of a security token.
        announced: bool,
    },
}

/// What became of a mail.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The outcome itself.
    pub kind: Kind,
    /// A stable code, where there is a reason.
    pub reason: Option<String>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Whose token it brought.
    pub username: Option<String>,
    /// The mail's `Message-ID`, where it was read.
    pub message_id: Option<String>,
}

impl Worker {
    /// Opens vault and journal.
    pub fn open(config: Arc<Config>, board: Arc<Board>) -> Result<Self, StateError> {
        let (vault, journal) = state::open(&config)?;
        Ok(Self {
            config,
            vault,
            journal,
            board,
            elsewhere: Elsewhere::default(),
            standing: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            print_key: None,
            due: BTreeMap::new(),
            logins: BTreeMap::new(),
            under_way: BTreeMap::new(),
            settling: BTreeMap::new(),
            looked: Timestamp::MIN,
            bell: Arc::default(),
            again: watch::Sender::new(()),
        })
    }

    /// Makes the vault and its key, where they are not there yet: the first write
    /// does, and the key of the fingerprints is wanted in any case.
    pub fn make_vault(&mut self) -> Result<(), StateError> {
        self.fingerprint(&Secret::new(String::new()), false)?;
        Ok(())
    }

    /// Finishes what a crash or a change of passwords has left undone. What is
    /// wrong with one account keeps none of the others from being watched.
    pub fn start_up(&mut self) -> Result<(), StateError> {
        self.compare_vault()?;
        let config = Arc::clone(&self.config);
        // None is known to be well yet.
        let usernames = config.accounts.iter().map(|a| (a.username.clone(), None));
        self.unsettled.extend(usernames);
        self.reconcile_all(&config.accounts.iter().collect::<Vec<_>>())?;
        self.expire_held(Timestamp::now())?;
        self.tell_board()
    }

    /// Brings accounts to where their tokens and passwords say that they are. One
    /// that cannot be kept keeps none of the others from it.
    fn reconcile_all(&mut self, accounts: &[&config::Account]) -> Result<(), StateError> {
        let now = Timestamp::now();
        let mut desk = match self.desk(accounts.iter().copied()) {
            Ok(desk) => desk,
            Err(error) => {
                for account in accounts {
                    self.unsettle(&account.username);
                }
                return Err(error);
            }
        };
        let mut outcome = Ok(());
        for account in accounts {
            match self.let_happen(&mut desk, account, Event::Reconcile, now) {
                Ok(_) => {}
                // Its problem is on the board.
                Err(error) if error.is_of_one_account() => {}
                Err(error) => {
                    self.unsettle(&account.username);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome.and(self.clear(desk, &[], now))
    }

    /// An account is to be tried again.
    fn unsettle(&mut self, username: &str) {
        self.unsettled.entry(username.to_owned()).or_default();
    }

    /// What is kept for an account cannot be used. It is told of once, and tried
    /// again.
    fn cannot_use(&mut self, username: &str, error: &StateError) {
        let (error, hint) = (crate::chain(error), error.hint());
        let told = self.unsettled.entry(username.to_owned()).or_default();
        if told.as_ref().is_none_or(|told| told.error != error) {
            tracing::error!(
                event = "account.unreadable",
                username,
                error,
                hint,
                "an account cannot be kept"
            );
        }
        *told = Some(Unsettled { error, hint });
    }

    /// A vault that was put back from a copy lacks what mails have brought since,
    /// and the cursors are behind those.
    fn compare_vault(&mut self) -> Result<(), StateError> {
        let Some(generation) = self.vault.generation().filter(|now| *now > 0) else {
            return Ok(());
        };
        let noted = self.journal.vault_generation()?;
        if generation < noted {
            tracing::error!(
                event = "vault.went-back",
                generation,
                noted,
                hint = "run `tokenwatch resync --since all` too if it is older than `since`, and set again the passwords that were changed",
                "the vault is older than it was; the mailboxes are looked through again"
            );
            self.journal.look_again(generation)?;
        }
        Ok(())
    }

    /// Notes that the vault was written.
    fn note_vault(&mut self) -> Result<(), StateError> {
        if let Some(generation) = self.vault.generation() {
            self.journal.note_vault(generation)?;
        }
        Ok(())
    }

    /// Tries again what did not go well; with `everything`, also looks whether
    /// a password that is kept elsewhere has changed. Mails that were held for
    /// too long go.
    pub fn tidy(&mut self, everything: bool) -> Result<(), StateError> {
        let config = Arc::clone(&self.config);
        let is_due = |account: &&config::Account| {
            let elsewhere = account.password != SecretSource::Vault;
            self.unsettled.contains_key(&account.username) || (everything && elsewhere)
        };
        let due: Vec<_> = config.accounts.iter().filter(is_due).collect();
        let mut outcome = self.reconcile_all(&due);
        outcome = outcome.and(self.expire_held(Timestamp::now()));
        self.tell_board()?;
        outcome
    }

    fn tell_board(&self) -> Result<(), StateError> {
        let count = |kind| self.journal.count(kind, |place| self.watches(place));
        self.board.keep(Kept {
            accounts: self.standing.values().cloned().collect(),
            sinks: self.sinks()?,
            held: count(Kind::Held)?,
            undecided: count(Kind::Undecided)?,
            unsettled: self.unsettled.clone(),
        });
        Ok(())
    }

    /// Whether a folder of a mailbox is configured. Mails of others wait for
    /// nobody.
    fn watches(&self, (mailbox, folder): (&str, &str)) -> bool {
        let mailbox = self.config.mailbox(mailbox);
        mailbox.is_some_and(|mailbox| mailbox.folders.iter().any(|known| known == folder))
    }

    /// Up to where a folder was read.
    pub fn cursor(&self, mailbox: &str, folder: &str) -> Result<Option<Cursor>, StateError> {
        Ok(self.journal.cursor(mailbox, folder)?)
    }

    /// Moves a folder's cursor over mails that are none of our business.
    pub fn move_cursor(
        &mut self,
        mailbox: &str,
        folder: &str,
        cursor: Cursor,
    ) -> Result<(), StateError> {
        Ok(self.journal.move_cursor(mailbox, folder, cursor)?)
    }

    /// Everything in a folder has been looked at, as it was at this modification
    /// sequence where the server has one.
    pub fn caught_up(
        &mut self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
        mod_seq: Option<u64>,
    ) -> Result<(), StateError> {
        let now = Timestamp::now();
        let caught_up = self
            .journal
            .caught_up(mailbox, folder, uid_validity, mod_seq, now);
        Ok(caught_up?)
    }

    /// The mails of a folder with which `after` is still to be done.
    pub fn waiting_for_after(
        &self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
    ) -> Result<Vec<(u32, journal::After)>, StateError> {
        let waiting = self
            .journal
            .waiting_for_after(mailbox, folder, uid_validity);
        Ok(waiting?)
    }

    /// So far `after` was done with a mail.
    pub fn after(&mut self, place: &Place, after: journal::After) -> Result<(), StateError> {
        Ok(self.journal.after(place, after)?)
    }

    /// A look through the whole folder begins, at what was received since a day.
    /// Where its server went back, the mails from a UID on are others.
    pub fn look_back(
        &mut self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
        since: Option<civil::Date>,
        forget_from: Option<u32>,
    ) -> Result<(), StateError> {
        let begun = self
            .journal
            .look_back(mailbox, folder, uid_validity, since, forget_from);
        Ok(begun?)
    }

    /// The mails of a folder whose sender could not be judged yet.
    pub fn undecided(
        &self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
    ) -> Result<Vec<u32>, StateError> {
        let open = self.journal.undecided(mailbox, folder, uid_validity)?;
        Ok(open.into_iter().map(|(uid, _)| uid).collect())
    }
}

#[cfg(test)]
mod tests;
