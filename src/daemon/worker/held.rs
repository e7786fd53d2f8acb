//! The worker's part in what a person decides: the mails that are held, and
//! what becomes of them.

use jiff::{SignedDuration, Timestamp};

use super::super::held::HeldError;
use super::super::state::StateError;
use super::accounts::UNREADABLE;
use super::mails::log;
use super::{Content, Outcome, Report, Worker};
use crate::api::{Acceptance, HeldLine, VersionLine};
use crate::config;
use crate::journal::{HeldMail, Kind, Place, PutAway};
use crate::judge::{Finding, Judgement};
use crate::notice::Notice;
use crate::rotation::{Event, Label};
use crate::secret::Secret;
use crate::sender::Verdict;

/// For so long a mail waits for a person.
const PATIENCE: SignedDuration = SignedDuration::from_hours(90 * 24);

impl Worker {
    /// The mails that wait for a person, the newest first.
    pub fn held(&self) -> Result<Vec<HeldLine>, StateError> {
        let held = self.journal.held(None, |place| self.watches(place))?;
        Ok(held.into_iter().map(|mail| self.line(mail)).collect())
    }

    fn line(&self, mail: HeldMail) -> HeldLine {
        let (acceptable, hint) = self.what_to_do(&mail);
        HeldLine {
            id: mail.id,
            mailbox: mail.place.mailbox,
            folder: mail.place.folder,
            uid_validity: mail.place.uid_validity,
            uid: mail.place.uid,
            reason: mail.reason,
            detail: mail.detail,
            sender: mail.sender,
            username: mail.username,
            message_id: mail.message_id,
            received: mail.received,
            held_since: mail.since,
            acceptable,
            hint,
        }
    }

    /// Whether a mail can be accepted, as far as can be told without it, and
    /// what else can be done.
    fn what_to_do(&self, mail: &HeldMail) -> (bool, String) {
        let id = mail.id;
        let Some(username) = &mail.username else {
            return (
                false,
                format!(
                    "it cannot be accepted: look at the mail yourself, reset the token in Salesforce if it is needed, and `tokenwatch held drop {id}`"
                ),
            );
        };
        if self.config.account(username).is_none() {
            return (
                false,
                format!(
                    "add an [[account]] for it and restart the daemon, and it can be accepted; or `tokenwatch held drop {id}`"
                ),
            );
        }
        // Only what is held for that is worth a look into the vault.
        if mail.reason.as_deref() == Some(UNREADABLE)
            && let Err(error) = self.history(username)
        {
            let hint = error.hint();
            return (
                false,
                format!("{hint}; then it is looked at again by itself"),
            );
        }
        (
            true,
            format!(
                "if you know that it is genuine, `tokenwatch held accept {id}`; else `tokenwatch held drop {id}`"
            ),
        )
    }

    fn one_held(&self, id: i64) -> Result<Option<HeldMail>, StateError> {
        let held = self.journal.held(Some(id), |place| self.watches(place))?;
        Ok(held.into_iter().next())
    }

    /// Where a held mail is; `None` where no such mail waits.
    pub(in crate::daemon) fn held_place(&self, id: i64) -> Result<Option<Place>, StateError> {
        Ok(self.one_held(id)?.map(|mail| mail.place))
    }

    /// What accepting a held mail, which was just fetched and judged, will do.
    /// With the `confirm` of an answer that says the same it is done, and
    /// durable when this returns.
    pub(in crate::daemon) fn accept_held(
        &mut self,
        id: i64,
        report: &Report,
        confirm: Option<&str>,
    ) -> Result<Acceptance, HeldError> {
        let now = Timestamp::now();
        let (shown, account, event) = self.foresee(id, report, now)?;
        match confirm {
            None => return Ok(shown),
            Some(confirm) if confirm == shown.confirm => {}
            Some(_) => return Err(HeldError::Changed(id)),
        }
        let mut desk = self.desk([&account])?;
        let mut outcome = self.take(&mut desk, &account, |_| Ok(event), false, false, now)?;
        settled(id, &outcome)?;
        outcome.detail = Some("a person accepted it".to_owned());
        outcome.message_id.clone_from(&shown.message_id);
        let (record, _) = self.record_of(report, &outcome);
        let records = [(record, None)];
        self.clear(desk, &records, now)?;
        let [(record, _)] = records;
        tracing::info!(
            event = "notice.accepted",
            id,
            mailbox = shown.mailbox,
            folder = shown.folder,
            uid = shown.uid,
            username = shown.username,
            sender = shown.sender,
            verdict = shown.detail,
            outcome = outcome.kind.word(),
            "a person accepted a mail that was held"
        );
        log(&record, &outcome, false);
        self.tell_board()?;
        Ok(Acceptance {
            done: true,
            ..shown
        })
    }

    /// What accepting a mail will do, and with what it is done.
    fn foresee(
        &mut self,
        id: i64,
        report: &Report,
        now: Timestamp,
    ) -> Result<(Acceptance, config::Account, Event), HeldError> {
        let held = self.one_held(id)?.ok_or(HeldError::NotHeld(id))?;
        if held.place != report.place {
            return Err(HeldError::Changed(id));
        }
        let (judgement, notice, verdict) = understood(id, report)?;
        // Without UIDVALIDITY a number may mean another mail by now.
        if held.message_id.is_some() && held.message_id != judgement.envelope.message_id {
            return Err(HeldError::Changed(id));
        }
        let username = notice.username.as_str();
        let account = self
            .config
            .account(username)
            .cloned()
            .ok_or_else(|| HeldError::UnknownAccount(username.to_owned()))?;
        let proof = format!("accepted by a person; {verdict}");
        let event = self.event(report, judgement, notice, proof)?;
        let fingerprint = self.fingerprint(&notice.token, false)?;
        let versions = self.history(&account.username)?;
        let outcome = if versions.iter().any(|v| v.fingerprint == fingerprint) {
            // Also where a crash has kept this very mail's outcome from the
            // journal, where it will be the `updated` that it was.
            Kind::Duplicate
        } else {
            let mut desk = self.desk([&account])?;
            let foreseen = event.clone();
            let foreseen = self.take(&mut desk, &account, |_| Ok(foreseen), false, true, now)?;
            settled(id, &foreseen)?;
            foreseen.kind
        };
        let verdict_word = match verdict {
            Verdict::Trusted(_) => "trusted",
            Verdict::Untrusted(_) => "untrusted",
            Verdict::Undecided(_) => "undecided",
        };
        let mut shown = Acceptance {
            id,
            mailbox: held.place.mailbox,
            folder: held.place.folder,
            uid: held.place.uid,
            username: account.username.clone(),
            sender: judgement.envelope.from.clone(),
            verdict: verdict_word.to_owned(),
            reason: verdict.code().map(str::to_owned),
            detail: verdict.to_string(),
            message_id: judgement.envelope.message_id.clone(),
            originated: judgement.originated(report.received),
            received: report.received,
            fingerprint,
            known: newest(versions),
            outcome: outcome.word().to_owned(),
            confirm: String::new(),
            done: false,
        };
        shown.confirm = self.seal(&shown)?;
        Ok((shown, account, event))
    }

    /// A keyed hash of all that a person is shown: the mail, its token, its
    /// sender, and what it would replace. As its key is in the vault, it
    /// outlives the daemon that gave it.
    fn seal(&mut self, shown: &Acceptance) -> Result<String, StateError> {
        let known = shown.known.as_ref();
        let shown = format!(
            "{:?}",
            (
                (shown.id, &shown.mailbox, &shown.folder, shown.uid),
                (&shown.username, &shown.fingerprint, &shown.message_id),
                (&shown.sender, &shown.verdict, &shown.reason),
                (shown.originated, shown.received, &shown.outcome),
                known.map(|known| (known.version, &known.fingerprint)),
            )
        );
        self.print("held", &Secret::new(shown), false)
    }

    /// A held mail waits no more, and is not held again; `false` where no such
    /// mail waits.
    pub fn drop_held(&mut self, id: i64) -> Result<bool, StateError> {
        let Some(mail) = self.one_held(id)? else {
            return Ok(false);
        };
        let now = Timestamp::now();
        let dropped = self.journal.put_away(id, PutAway::Dropped, now)?;
        tracing::info!(
            event = "notice.dropped",
            id,
            mailbox = mail.place.mailbox,
            folder = mail.place.folder,
            uid = mail.place.uid,
            message_id = mail.message_id,
            sender = mail.sender,
            username = mail.username,
            reason = mail.reason,
            "a person dropped a mail that was held"
        );
        self.tell_board()?;
        Ok(dropped)
    }

    /// Puts away what was held for too long.
    pub(super) fn expire_held(&mut self, now: Timestamp) -> Result<(), StateError> {
        let Ok(before) = now.checked_sub(PATIENCE) else {
            return Ok(());
        };
        let expired = self.journal.expire(before, now)?;
        if expired > 0 {
            tracing::warn!(
                event = "notice.expired",
                mails = expired,
                "mails were held for 90 days, and nobody waits for them any more"
            );
        }
        Ok(())
    }
}

/// The one notice in a mail. Where there is none, or several could be meant, a
/// person cannot pick one either (invariant 3).
fn understood(id: i64, report: &Report) -> Result<(&Judgement, &Notice, &Verdict), HeldError> {
    let no_notice = |why: &str| HeldError::NoNotice {
        id,
        why: why.to_owned(),
    };
    match &report.content {
        Content::Judged(judgement) => match &judgement.finding {
            Finding::Notice(notice, verdict) => Ok((judgement, notice, verdict)),
            Finding::NotANotice(why) => Err(no_notice(&why.to_string())),
        },
        Content::Gone => Err(HeldError::Gone(id)),
        Content::Unfetchable => Err(HeldError::Unfetchable(id)),
        Content::Unreadable => Err(no_notice("reading it went wrong")),
        Content::TooLarge { .. } => Err(no_notice("it is larger than `max-mail-size`")),
    }
}

fn settled(id: i64, outcome: &Outcome) -> Result<(), HeldError> {
    if outcome.kind.is_settled() {
        return Ok(());
    }
    let why = outcome.detail.clone();
    let why = why.unwrap_or_else(|| outcome.kind.word().to_owned());
    Err(HeldError::NotTaken { id, why })
}

/// The newest version that is not superseded.
fn newest(versions: Vec<VersionLine>) -> Option<VersionLine> {
    let in_use = [Label::Pending, Label::Current].map(Label::word);
    let is_newest = |version: &VersionLine| in_use.contains(&version.label.as_str());
    versions.into_iter().find(is_newest)
}
