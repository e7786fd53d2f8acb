//! What becomes of a mail: from the judgement to a durable outcome.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::state::StateError;
use super::desk::Desk;
use super::{Content, Outcome, Report, Worker};
use crate::config::After;
use crate::journal::{Cursor, Kind, Place, Record};
use crate::judge::{Finding, Judgement};
use crate::notice::{Envelope, NotANotice, Notice};
use crate::rotation::{Event, Source};
use crate::sender::Verdict;

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

impl Outcome {
    pub(super) fn because(kind: Kind, reason: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            reason: Some(reason.to_owned()),
            detail: Some(detail.into()),
            username: None,
            message_id: None,
        }
    }

    pub(super) fn of(mut self, username: &str) -> Self {
        self.username = Some(username.to_owned());
        self
    }
}

impl Worker {
    /// Takes a mail in. When this returns, its outcome and all that it brought
    /// are durable.
    pub fn receive(&mut self, report: Report) -> Result<Outcome, StateError> {
        let mut outcomes = self.receive_all(vec![report])?;
        outcomes.pop().ok_or(StateError::Stopped)
    }

    /// Takes mails in from a look through one folder that is not through. Where
    /// they bring a token, it is waited for what else it brings, before anybody is
    /// told.
    pub(in crate::daemon) fn receive_some(
        &mut self,
        reports: Vec<Report>,
    ) -> Result<Vec<Outcome>, StateError> {
        let now = Timestamp::now();
        let first = reports.first().filter(|report| !report.dry_run);
        let from = first.map(|report| report.place.clone());
        let outcomes = self.receive_all(reports)?;
        if let Some(from) = from {
            let brought = outcomes.iter().filter(|it| it.kind == Kind::Updated);
            for username in brought.filter_map(|it| it.username.as_ref()) {
                self.may_bring_more(username, (&from.mailbox, &from.folder), now);
            }
        }
        Ok(outcomes)
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
            let known = self.known(&report)?;
            let outcome = self.conclude_on(&mut desk, &report, known, now)?;
            if !report.dry_run {
                records.push(self.record_of(&report, &outcome));
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

    /// What became of a mail before, and not of another that had its number.
    fn known(&self, report: &Report) -> Result<Option<Kind>, StateError> {
        let known = self.journal.outcome(&report.place)?;
        if matches!(known, Some(Kind::Held | Kind::Ignored))
            && !report.dry_run
            && let Some(envelope) = report.envelope()
            && self
                .journal
                .forget_another(&report.place, envelope.message_id.as_deref())?
        {
            return Ok(None);
        }
        Ok(known)
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
                kind: match known {
                    Kind::Updated => Kind::Duplicate,
                    Kind::Duplicate
                    | Kind::Older
                    | Kind::Held
                    | Kind::Undecided
                    | Kind::Ignored => known,
                },
                reason: None,
                detail: Some("it was taken when it came in".to_owned()),
                username: outcome.username,
                message_id: None,
            };
        }
        if !outcome.kind.is_settled()
            && let Some(why) = self.journal.was_put_away(&report.place, now)?
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

    /// What the journal is to know of it.
    pub(super) fn record_of(&self, report: &Report, outcome: &Outcome) -> (Record, Option<Cursor>) {
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
            place: report.place.clone(),
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
                    let event = |worker: &mut Self| {
                        worker.event(report, judgement, notice, verdict.to_string())
                    };
                    let taken_before = known.is_some_and(Kind::is_settled);
                    self.take(desk, &account, event, taken_before, report.dry_run, now)
                }
            },
        }
    }

    /// A mail that cannot be judged now waits, and is held when it has waited
    /// for as long as is waited.
    fn held_or_undecided(&self, place: &Place, now: Timestamp) -> Result<Kind, StateError> {
        let since = self.journal.undecided_since(place)?;
        let has_waited = since.is_some_and(|since| {
            // A clock that was set back has waited for nothing.
            Duration::try_from(now.duration_since(since))
                .is_ok_and(|waited| waited >= self.config.trust.undecided_for)
        });
        Ok(if has_waited {
            Kind::Held
        } else {
            Kind::Undecided
        })
    }

    pub(super) fn event(
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
}

/// One line an outcome. What was told before is told again at debug only.
pub(super) fn log(record: &Record, outcome: &Outcome, again: bool) {
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
