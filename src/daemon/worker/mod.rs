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

mod accounts;
mod desk;
mod held;
mod names;
mod outbox;
mod prints;
mod secrets;
mod standing;
mod tell;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::hmac;
use tokio::sync::Notify;

use super::board::{Board, Kept, Stands};
use super::state::{self, StateError};
use crate::config::{After, Config, SecretSource};
use crate::journal::{self, Cursor, Journal, Kind, Place, Record};
use crate::judge::{Finding, Judgement};
use crate::notice::{Envelope, NotANotice, Notice};
use crate::rotation::{Event, Source};
use crate::secret::Secret;
use crate::sender::Verdict;
use crate::vault::Vault;

use desk::Desk;
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
    /// How the accounts stand, by their usernames, as they were when something
    /// of them last changed.
    standing: BTreeMap<String, Stands>,
    /// Accounts that could not be read, or whose document or entry could not be
    /// written: they are tried again.
    unsettled: BTreeSet<String>,
    /// The key of the keyed hashes, once it was read.
    print_key: Option<hmac::Key>,
    /// When something is to be done for an account.
    due: BTreeMap<String, Timestamp>,
    /// What is being handed to whom (sink and username), and what is left alone
    /// because it could not be written down what came of it: until when.
    under_way: BTreeMap<(String, String), Timestamp>,
    /// When it was last looked what is due.
    looked: Timestamp,
    /// Rung where something may be due.
    bell: Arc<Notify>,
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

impl Report {
    fn envelope(&self) -> Option<&Envelope> {
        match &self.content {
            Content::Judged(judgement) => Some(&judgement.envelope),
            Content::TooLarge { .. }
            | Content::Unreadable
            | Content::Unfetchable
            | Content::Gone => None,
        }
    }

    fn notice(&self) -> Option<&Notice> {
        match &self.content {
            Content::Judged(judgement) => match &judgement.finding {
                Finding::Notice(notice, _) => Some(notice),
                Finding::NotANotice(_) => None,
            },
            Content::TooLarge { .. }
            | Content::Unreadable
            | Content::Unfetchable
            | Content::Gone => None,
        }
    }
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

impl Outcome {
    fn because(kind: Kind, reason: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            reason: Some(reason.to_owned()),
            detail: Some(detail.into()),
            username: None,
            message_id: None,
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
            print_key: None,
            due: BTreeMap::new(),
            under_way: BTreeMap::new(),
            looked: Timestamp::MIN,
            bell: Arc::default(),
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
        let config = Arc::clone(&self.config);
        let now = Timestamp::now();
        let mut desk = self.desk(&config.accounts)?;
        for account in &config.accounts {
            match self.let_happen(&mut desk, account, Event::Reconcile, now) {
                Err(error @ (StateError::Document { .. } | StateError::Vanished(_))) => {
                    tracing::error!(event = "account.unreadable", username = %account.username,
                        error = %crate::chain(&error), hint = error.hint(),
                        "an account cannot be kept");
                    self.unsettled.insert(account.username.clone());
                }
                happened => drop(happened?),
            }
        }
        self.clear(desk, &[], now)?;
        self.expire_held(Timestamp::now())?;
        self.tell_board()
    }

    /// Tries again what did not go well; with `everything`, also looks whether
    /// a password that is kept elsewhere has changed. Mails that were held for
    /// too long go.
    pub fn tidy(&mut self, everything: bool) -> Result<(), StateError> {
        let config = Arc::clone(&self.config);
        let mut outcome = Ok(());
        for account in &config.accounts {
            let elsewhere = account.password != SecretSource::Vault;
            if self.unsettled.contains(&account.username) || (everything && elsewhere) {
                let reconciled = self.reconcile(account);
                if reconciled.is_err() {
                    self.unsettled.insert(account.username.clone());
                }
                outcome = outcome.and(reconciled);
            }
        }
        outcome = outcome.and(self.expire_held(Timestamp::now()));
        self.tell_board()?;
        outcome
    }

    // --- mails -----------------------------------------------------------

    /// Takes a mail in. When this returns, its outcome and all that it brought
    /// are durable.
    pub fn receive(&mut self, report: Report) -> Result<Outcome, StateError> {
        let mut outcomes = self.receive_all(vec![report])?;
        outcomes.pop().ok_or(StateError::Stopped)
    }

    /// Takes mails in, in this order. When this returns, their outcomes and all
    /// that they brought are durable; where it fails, none was taken in.
    pub fn receive_all(&mut self, reports: Vec<Report>) -> Result<Vec<Outcome>, StateError> {
        let now = Timestamp::now();
        let config = Arc::clone(&self.config);
        let accounts = reports.iter().filter_map(|report| {
            let notice = report.notice()?;
            config.account(notice.username.as_str())
        });
        let mut desk = self.desk(accounts)?;
        let mut outcomes = Vec::with_capacity(reports.len());
        let mut records = Vec::new();
        let mut known_before = Vec::new();
        for report in reports {
            let known = self.journal.outcome(&report.place)?;
            let outcome = self.conclude_on(&mut desk, &report, known, now)?;
            if !report.dry_run {
                records.push(self.record_of(report, &outcome));
                known_before.push(known);
            }
            outcomes.push(outcome);
        }
        if records.is_empty() {
            return Ok(outcomes);
        }
        self.clear(desk, &records, now)?;
        for (((record, _), outcome), known) in records.iter().zip(&outcomes).zip(known_before) {
            log(record, outcome, known == Some(outcome.kind));
        }
        self.tell_board()?;
        Ok(outcomes)
    }

    /// What becomes of a mail, with what became of it before.
    fn conclude_on(
        &mut self,
        desk: &mut Desk,
        report: &Report,
        known: Option<Kind>,
        now: Timestamp,
    ) -> Result<Outcome, StateError> {
        let mut outcome = self.decide(desk, report, known, now)?;
        if let Some(known) = known.filter(|known| known.is_settled() && !outcome.kind.is_settled())
        {
            // Its key may be gone from the DNS since: that undoes nothing.
            outcome = Outcome {
                kind: known,
                reason: None,
                detail: Some("it was taken when it came in".to_owned()),
                username: outcome.username,
                message_id: None,
            };
        }
        if !outcome.kind.is_settled()
            && let Some(why) = self.journal.was_put_away(&report.place)?
        {
            // Nobody is to be asked twice.
            outcome = Outcome {
                username: outcome.username,
                ..Outcome::because(Kind::Ignored, why.code(), why.detail())
            };
        }
        outcome.message_id = report.envelope().and_then(|it| it.message_id.clone());
        Ok(outcome)
    }

    fn record_of(&self, report: Report, outcome: &Outcome) -> (Record, Option<Cursor>) {
        let mailbox = self.config.mailbox(&report.place.mailbox);
        let record = Record {
            after: mailbox.is_some_and(|mailbox| mailbox.after != After::Nothing),
            kind: outcome.kind,
            reason: outcome.reason.clone(),
            detail: outcome.detail.clone(),
            username: outcome.username.clone(),
            sender: report.envelope().and_then(|it| it.from.clone()),
            message_id: outcome.message_id.clone(),
            received: report.received,
            place: report.place,
        };
        (record, report.cursor)
    }

    fn decide(
        &mut self,
        desk: &mut Desk,
        report: &Report,
        known: Option<Kind>,
        now: Timestamp,
    ) -> Result<Outcome, StateError> {
        let judgement = match &report.content {
            Content::Judged(judgement) => judgement,
            Content::Gone => {
                let detail = "it waited, and is there no more";
                return Ok(Outcome::because(Kind::Ignored, "gone", detail));
            }
            Content::Unfetchable => {
                let kind = self.held_or_undecided(&report.place, now)?;
                let detail = "the server does not hand the mail out";
                return Ok(Outcome::because(kind, "unfetchable", detail));
            }
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
                let kind = self.held_or_undecided(&report.place, now)?;
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
                    let event = self.event(report, judgement, notice, verdict.to_string())?;
                    let taken_before = known.is_some_and(Kind::is_settled);
                    self.take(desk, &account, event, taken_before, report.dry_run, now)
                }
            },
        }
    }

    /// A mail that cannot be judged now waits, and is held when it has waited
    /// for as long as is waited.
    fn held_or_undecided(&self, place: &Place, now: Timestamp) -> Result<Kind, StateError> {
        let undecided =
            self.journal
                .undecided(&place.mailbox, &place.folder, place.uid_validity)?;
        let since = undecided.iter().find(|(uid, _)| *uid == place.uid);
        let has_waited = since.is_some_and(|(_, since)| {
            // A clock that was set back has waited for nothing.
            Duration::try_from(now.duration_since(*since))
                .is_ok_and(|waited| waited >= self.config.trust.undecided_for)
        });
        Ok(if has_waited {
            Kind::Held
        } else {
            Kind::Undecided
        })
    }

    fn event(
        &mut self,
        report: &Report,
        judgement: &Judgement,
        notice: &Notice,
        proof: String,
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
            proof,
        })
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

    /// Everything in a folder has been looked at as it was at this modification
    /// sequence.
    pub fn caught_up(
        &mut self,
        mailbox: &str,
        folder: &str,
        uid_validity: u32,
        mod_seq: u64,
    ) -> Result<(), StateError> {
        let caught_up = self
            .journal
            .caught_up(mailbox, folder, uid_validity, mod_seq);
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

/// One line an outcome. What was told before is told again at debug only.
fn log(record: &Record, outcome: &Outcome, again: bool) {
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                event = format!("notice.{}", outcome.kind.word()),
                mailbox = record.place.mailbox,
                folder = record.place.folder,
                uid = record.place.uid,
                message_id = record.message_id,
                sender = record.sender,
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
        Kind::Undecided => line!(warn, "a mail waits: it cannot be judged now"),
        Kind::Updated => line!(info, "a mail brought a new token"),
        Kind::Duplicate => line!(info, "a mail brought a token that is known"),
        Kind::Older => line!(info, "a mail brought a token older than the one in use"),
        Kind::Ignored => line!(info, "a mail is no token mail"),
    }
}

#[cfg(test)]
mod tests;
