//! The worker: the one place where anything changes (invariant 7).
//!
//! It owns the vault and the journal and runs on a thread of its own, since
//! both block. Whoever wants something done hands it a piece of work and waits
//! for the answer; two never run at once. With no daemon running, a command
//! opens a worker itself and does the same work through the same methods.
//!
//! The order of a new token is what makes a crash harmless (invariant 1): the
//! account's document, then the entry that others read, then outcome and
//! cursor. Whatever is cut off, the mail is looked at again, its token is then
//! known, and `start_up` writes the entry that was missed.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::board::Board;
use super::secrets::{self, SecretError};
use super::state::{self, StateError};
use crate::INTERNAL_SERVICE;
use crate::api::{AccountState, AccountStatus, VersionLine};
use crate::config::{self, Config, SecretSource};
use crate::journal::{Cursor, Journal, Kind, Place, Record};
use crate::judge::{Finding, Judgement};
use crate::notice::{NotANotice, Notice};
use crate::rotation::{self, Account, Action, Event, Label, Reception, Source};
use crate::secret::Secret;
use crate::sender::Verdict;
use crate::vault::Vault;

/// The key of the fingerprints, in the vault.
const FINGERPRINT_KEY: &str = "fingerprint-key";

/// Owns the vault and the journal.
pub struct Worker {
    config: Arc<Config>,
    vault: Vault,
    journal: Journal,
    board: Arc<Board>,
    /// How the accounts stand, by the key of their usernames, as they were
    /// when something of them last changed.
    standing: BTreeMap<String, AccountStatus>,
    /// Accounts whose password could not be read or whose entry could not be
    /// written: they are tried again.
    unsettled: BTreeSet<String>,
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
    Judged(Judgement),
    /// Reading it went wrong.
    Unreadable,
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
}

impl Outcome {
    fn because(kind: Kind, reason: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            reason: Some(reason.to_owned()),
            detail: Some(detail.into()),
            username: None,
        }
    }

    fn of(mut self, username: &str) -> Self {
        self.username = Some(username.to_owned());
        self
    }
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
            standing: BTreeMap::new(),
            unsettled: BTreeSet::new(),
        })
    }

    /// Finishes what a crash or a change of passwords has left undone.
    pub fn start_up(&mut self) -> Result<(), StateError> {
        let config = Arc::clone(&self.config);
        for account in &config.accounts {
            self.reconcile(account)?;
        }
        self.tell_board()
    }

    /// Tries again what did not go well. Called every so often.
    pub fn tidy(&mut self) -> Result<(), StateError> {
        let config = Arc::clone(&self.config);
        for username in std::mem::take(&mut self.unsettled) {
            if let Some(account) = config.account(&username) {
                self.reconcile(account)?;
            }
        }
        self.tell_board()
    }

    // --- mails -----------------------------------------------------------

    /// Takes a mail in. When this returns, its outcome and all that it brought
    /// are durable.
    pub fn receive(&mut self, report: Report) -> Result<Outcome, StateError> {
        let now = Timestamp::now();
        let (message_id, sender) = match &report.content {
            Content::Judged(judgement) => (
                judgement.envelope.message_id.clone(),
                judgement.envelope.from.clone(),
            ),
            Content::TooLarge { .. } | Content::Unreadable => (None, None),
        };
        let known = self.journal.outcome(&report.place)?;
        let mut outcome = self.decide(&report, known, now)?;
        if let Some(known) = known.filter(|known| known.is_settled() && !outcome.kind.is_settled())
        {
            // Its key may be gone from the DNS since: that undoes nothing.
            outcome = Outcome {
                kind: known,
                reason: None,
                detail: Some("it was taken when it came in".to_owned()),
                username: outcome.username,
            };
        }
        if report.dry_run {
            return Ok(outcome);
        }
        let record = Record {
            place: report.place,
            kind: outcome.kind,
            reason: outcome.reason.clone(),
            username: outcome.username.clone(),
            message_id,
            received: report.received,
        };
        self.journal.record(&record, report.cursor, now)?;
        log(
            &record,
            &outcome,
            sender.as_deref(),
            known == Some(outcome.kind),
        );
        self.tell_board()?;
        Ok(outcome)
    }

    fn decide(
        &mut self,
        report: &Report,
        known: Option<Kind>,
        now: Timestamp,
    ) -> Result<Outcome, StateError> {
        let judgement = match &report.content {
            Content::Judged(judgement) => judgement,
            Content::Unreadable => {
                return Ok(Outcome::because(
                    Kind::Held,
                    "internal",
                    "reading it went wrong: please report it",
                ));
            }
            Content::TooLarge { announced } => {
                let kind = if *announced {
                    Kind::Held
                } else {
                    Kind::Ignored
                };
                return Ok(Outcome::because(
                    kind,
                    "too-large",
                    "the mail is larger than `max-mail-size` and was not fetched",
                ));
            }
        };
        let (notice, verdict) = match &judgement.finding {
            Finding::NotANotice(why) => {
                let kind = match why {
                    NotANotice::Ignored(_) => Kind::Ignored,
                    NotANotice::Held(_) => Kind::Held,
                };
                return Ok(Outcome::because(kind, why.code(), why.to_string()));
            }
            Finding::Notice(notice, verdict) => (notice, verdict),
        };
        let username = notice.username.as_str();
        match verdict {
            Verdict::Untrusted(_) => {
                let code = verdict.code().unwrap_or_default();
                Ok(Outcome::because(Kind::Held, code, verdict.to_string()).of(username))
            }
            Verdict::Undecided(_) => {
                let code = verdict.code().unwrap_or_default();
                let kind = if self.has_waited(&report.place, now)? {
                    Kind::Held
                } else {
                    Kind::Undecided
                };
                Ok(Outcome::because(kind, code, verdict.to_string()).of(username))
            }
            Verdict::Trusted(_) => match self.config.account(username).cloned() {
                None => Ok(Outcome::because(
                    Kind::Held,
                    "unknown-account",
                    format!("no [[account]] is configured for {username}"),
                )
                .of(username)),
                Some(account) => {
                    let event = self.event(report, judgement, notice, verdict)?;
                    let taken_before = known.is_some_and(Kind::is_settled);
                    self.take(&account, event, taken_before, report.dry_run, now)
                }
            },
        }
    }

    /// Whether a mail has been undecided for as long as is waited.
    fn has_waited(&self, place: &Place, now: Timestamp) -> Result<bool, StateError> {
        let undecided =
            self.journal
                .undecided(&place.mailbox, &place.folder, place.uid_validity)?;
        let since = undecided.iter().find(|(uid, _)| *uid == place.uid);
        Ok(since.is_some_and(|(_, since)| {
            // A clock that was set back has waited for nothing.
            Duration::try_from(now.duration_since(*since))
                .is_ok_and(|waited| waited >= self.config.trust.undecided_for)
        }))
    }

    fn event(
        &self,
        report: &Report,
        judgement: &Judgement,
        notice: &Notice,
        verdict: &Verdict,
    ) -> Result<Event, StateError> {
        Ok(Event::Notice {
            token: notice.token.clone(),
            fingerprint: self.fingerprint(&notice.token, report.dry_run)?,
            source: Source {
                mailbox: report.place.mailbox.clone(),
                folder: report.place.folder.clone(),
                uid_validity: report.place.uid_validity,
                uid: report.place.uid,
                message_id: judgement.envelope.message_id.clone(),
                originated: judgement.originated(report.received),
                received: report.received,
            },
            proof: verdict.to_string(),
        })
    }

    /// Hands a trusted notice to the rotation and carries its actions out.
    fn take(
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
        })
    }

    fn carry_out(
        &mut self,
        step: &rotation::Step,
        configured: &config::Account,
        password: &Password,
    ) -> Result<(), StateError> {
        // Until it is done: what fails here in the middle is tried again.
        self.unsettled.insert(configured.username.clone());
        for action in &step.actions {
            match action {
                Action::Store => self.store(&step.account)?,
                Action::Publish => self.publish(&step.account, configured, password)?,
            }
        }
        if !matches!(password, Password::Unreadable(_)) {
            self.unsettled.remove(&configured.username);
        }
        self.standing.insert(
            configured.username.clone(),
            standing(configured, &step.account, password.known().is_some()),
        );
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

    // --- accounts --------------------------------------------------------

    fn reconcile(&mut self, configured: &config::Account) -> Result<(), StateError> {
        let account = self.account(&configured.username)?;
        let password = self.password(configured)?;
        if let Password::Unreadable(error) = &password {
            tracing::error!(event = "secret.unreadable", username = %configured.username,
                error = %crate::chain(error), hint = error.hint(),
                "the Salesforce password cannot be read");
        }
        let known = password.known().is_some();
        let step = account.step(Event::Reconcile, known, Timestamp::now());
        self.carry_out(&step, configured, &password)
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
    fn fingerprint(&self, token: &Secret, dry_run: bool) -> Result<String, StateError> {
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

    fn tell_board(&self) -> Result<(), StateError> {
        let standing = self.standing.values().cloned().collect();
        let (held, undecided) = (
            self.journal.count(Kind::Held)?,
            self.journal.count(Kind::Undecided)?,
        );
        self.board.accounts(standing, held, undecided);
        Ok(())
    }

    // --- secrets ---------------------------------------------------------

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

    /// The login password of a mailbox.
    pub fn mailbox_password(
        &self,
        mailbox: &config::Mailbox,
    ) -> Result<Option<Secret>, StateError> {
        let name = SecretName::Mailbox(mailbox.name.clone()).to_string();
        Ok(secrets::read(&mailbox.password, &name, &self.vault)?)
    }

    // --- cursors ---------------------------------------------------------

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

    /// Forgets the cursor of a folder whose server went back behind it.
    pub fn forget_from(
        &mut self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
        uid_next: u32,
    ) -> Result<(), StateError> {
        Ok(self
            .journal
            .forget_from(mailbox, folder, uid_validity, uid_next)?)
    }

    /// A mail that was undecided is there no more.
    pub fn gone(&mut self, place: Place) -> Result<(), StateError> {
        let now = Timestamp::now();
        let record = Record {
            place,
            kind: Kind::Ignored,
            reason: Some("gone".to_owned()),
            username: None,
            message_id: None,
            received: now,
        };
        self.journal.record(&record, None, now)?;
        tracing::info!(
            event = "notice.ignored",
            mailbox = record.place.mailbox,
            folder = record.place.folder,
            uid = record.place.uid,
            reason = "gone",
            "a mail that waited is there no more"
        );
        self.tell_board()
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

/// One line an outcome. What was told before is told again at debug only.
fn log(record: &Record, outcome: &Outcome, sender: Option<&str>, again: bool) {
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                event = format!("notice.{}", outcome.kind.word()),
                mailbox = record.place.mailbox,
                folder = record.place.folder,
                uid = record.place.uid,
                message_id = record.message_id,
                sender,
                username = outcome.username,
                reason = outcome.reason,
                detail = outcome.detail,
                $message
            )
        };
    }
    match outcome.kind {
        _ if again => line!(debug, "a mail was looked at again"),
        Kind::Held => line!(warn, "a mail is held: a person must decide"),
        Kind::Undecided => line!(warn, "a mail waits: its sender cannot be judged now"),
        Kind::Updated => line!(info, "a mail brought a new token"),
        Kind::Duplicate => line!(info, "a mail brought a token that is known"),
        Kind::Older => line!(info, "a mail brought a token older than the one in use"),
        Kind::Ignored => line!(info, "a mail is no token mail"),
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

/// The name of a secret that a person sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretName {
    /// The login password of a mailbox.
    Mailbox(String),
    /// The Salesforce password of an account; usernames have no case.
    Account(String),
}

impl SecretName {
    /// Reads `mailbox/NAME` or `account/USERNAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some(("mailbox", name)) if !name.is_empty() => Some(Self::Mailbox(name.to_owned())),
            Some(("account", name)) if name.contains('@') => Some(Self::Account(name.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mailbox(name) => write!(f, "mailbox/{name}"),
            Self::Account(name) => write!(f, "account/{}", name.to_lowercase()),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The way to a worker on its own thread. The worker ends, and lets go of the
/// vault, when the last handle is dropped.
#[derive(Clone)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
    board: Arc<Board>,
}

/// Puts a worker on its own thread. The receiver hears of its end.
pub(super) fn start(mut worker: Worker) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let (jobs, mut queue) = mpsc::channel::<Job>(64);
    let (ended, end) = oneshot::channel();
    let board = Arc::clone(&worker.board);
    std::thread::Builder::new()
        .name("worker".into())
        .spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                // What is on the disk is whole at any moment, so one piece of
                // work that goes wrong is no reason to stop.
                if catch_unwind(AssertUnwindSafe(|| job(&mut worker))).is_err() {
                    tracing::error!(event = "worker.panicked", "a piece of work went wrong");
                }
            }
            drop(worker);
            // Nobody needs to be there any more.
            ended.send(()).unwrap_or_default();
        })?;
    Ok((Handle { jobs, board }, end))
}

impl Handle {
    /// Has something done, and waits for it. A failure is put on the board.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // Who asked may have gone; the work was done all the same.
            answer.send(work(worker)).unwrap_or(());
        });
        self.jobs.send(job).await.map_err(|_| StateError::Stopped)?;
        let result = result.await.unwrap_or(Err(StateError::Stopped));
        match &result {
            Ok(_) => self.board.worker_is_well(),
            // Where a secret is elsewhere, that is not the storage's fault.
            Err(StateError::Secret(_)) => {}
            Err(error) => self.board.worker_failed(crate::chain(error), error.hint()),
        }
        result
    }
}
