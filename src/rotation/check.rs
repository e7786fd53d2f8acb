//! When a credential may be tried by a real login, and what follows from the
//! answer.
//!
//! Invariant 6, *no lock-out*: a pair of token and password is tried once. A
//! server that could not be reached is tried again with back-off. A refusal is
//! final until the token or the password changes, but for one second try, five
//! minutes later, where the mail was younger than fifteen: new tokens take a
//! while to be accepted everywhere. A login is noted as one that counts before
//! it begins, so that a crash in the middle of it counts; and what may have been
//! counted as failed is bounded a day, whatever else is asked.

use jiff::{SignedDuration, Timestamp};

use super::{Account, Label, Version};

/// A mail is young for so long: its token may not be accepted everywhere yet.
const YOUNG: SignedDuration = SignedDuration::from_mins(15);

/// So long after the first try follows the second. A login that has not been
/// answered by then never will be.
const SECOND_TRY: SignedDuration = SignedDuration::from_mins(5);

/// How long failed logins are counted.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How many pairs are remembered, a bound on the document. The oldest of those
/// that were not counted go first.
const MAX_TRIALS: usize = 200;

/// How an account's credential is checked.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// It is, by a login, before it comes into use.
    pub check: bool,
    /// For so long nobody is given a credential that cannot be checked; then it
    /// is released unverified, for the one before it is dead anyway.
    pub release_unverified_after: SignedDuration,
    /// So many logins a day may fail.
    pub failures_a_day: u32,
}

/// What Salesforce says to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The credential works.
    Works,
    /// Wrong password, wrong token or a user who is locked out: which, it does
    /// not say.
    Refused,
    /// The credential is right, and the password has expired.
    PasswordExpired,
    /// The user or the organisation is locked.
    Locked,
    /// Not from this network, or not now.
    Restricted,
    /// This organisation does not offer the check.
    NotAvailable,
    /// It was asked too often; the credential was not looked at.
    RateLimited,
    /// It was not reached; the credential was not looked at.
    Unreachable,
    /// No login could be made, because of what is configured; the credential was
    /// not looked at.
    NotMade,
    /// The answer was lost: the credential may have been looked at.
    Unknown,
}

impl Answer {
    /// The word for documents and scripts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Refused => "refused",
            Self::PasswordExpired => "password-expired",
            Self::Locked => "locked",
            Self::Restricted => "restricted",
            Self::NotAvailable => "not-available",
            Self::RateLimited => "rate-limited",
            Self::Unreachable => "unreachable",
            Self::NotMade => "not-made",
            Self::Unknown => "unknown",
        }
    }

    /// The credential was not looked at, so that the login did not count.
    fn counts_for_nothing(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unreachable | Self::NotMade)
    }

    /// Nobody is to be given a credential of which this was said.
    fn bars(self) -> bool {
        matches!(self, Self::Refused | Self::PasswordExpired | Self::Locked)
    }
}

/// What is known of logins with one pair of token and password.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Trial {
    /// The token's keyed hash.
    pub token: String,
    /// The password's.
    pub password: String,
    /// When the first login began.
    pub begun: Timestamp,
    /// When the last one did.
    pub last: Timestamp,
    /// When those began that Salesforce may have counted: two at most.
    pub counted: Vec<Timestamp>,
    /// How many in a row did not reach it.
    pub unreached: u32,
    /// Salesforce has said no to it.
    pub barred: bool,
    /// What it said last; `None` while it is asked, and for ever where the
    /// record of its answer was lost in a crash.
    pub answer: Option<Answer>,
}

impl Trial {
    /// Nobody knows yet what the last login brings.
    fn is_under_way(&self, now: Timestamp) -> bool {
        self.answer.is_none() && !is_over(self.last, SECOND_TRY, now)
    }

    /// What is known of the last login that is not under way any more.
    fn outcome(&self) -> Answer {
        self.answer.unwrap_or(Answer::Unknown)
    }

    /// When the pair may be tried again, if ever. What may have been counted is
    /// waited for by the clock that it was noted by, wherever that was.
    fn next_try(&self, originated: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let after_refusal = match self.counted.as_slice() {
            [] => now,
            [first] if first.duration_since(originated) < YOUNG => after(*first, SECOND_TRY),
            _ => return None,
        };
        let silence = |span| {
            if is_over(self.last, span, now) {
                now
            } else {
                after(self.last, span)
            }
        };
        let after_silence = match self.outcome() {
            Answer::Unreachable | Answer::NotMade => silence(self.back_off(10, 300)),
            Answer::RateLimited => silence(self.back_off(60, 3600)),
            Answer::Refused | Answer::Unknown => now,
            Answer::Works
            | Answer::PasswordExpired
            | Answer::Locked
            | Answer::Restricted
            | Answer::NotAvailable => return None,
        };
        Some(after_refusal.max(after_silence))
    }

    /// Doubled with each try, in seconds.
    fn back_off(&self, first: i64, most: i64) -> SignedDuration {
        let doubled = 2_i64.saturating_pow(self.unreached.saturating_sub(1));
        SignedDuration::from_secs(first.saturating_mul(doubled).min(most))
    }
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No token is known.
    NoToken,
    /// The Salesforce password is not known.
    PasswordMissing,
    /// The newest token waits for its check.
    Checking {
        /// What the last login brought, where one was answered.
        answer: Option<Answer>,
        /// When the next step is due.
        next: Option<Timestamp>,
    },
    /// Salesforce has said no to the newest token with this password.
    Refused {
        /// What it said.
        answer: Answer,
        /// It is a token that has never been in use.
        is_new: bool,
        /// When it is tried once more.
        next: Option<Timestamp>,
    },
    /// In use. Where it is checked, what Salesforce said of it last.
    Current {
        /// What it said.
        answer: Option<Answer>,
    },
}

/// What may become of the newest version now.
enum Prospect {
    /// It may be used.
    Release,
    /// It may be tried.
    Try,
    /// Nothing before then; `None`: nothing until something changes.
    Later(Option<Timestamp>),
}

impl Account {
    /// Brings the account as far as it may come. Says whether a login begins.
    pub(super) fn settle(
        &mut self,
        password: Option<&str>,
        rules: &Rules,
        now: Timestamp,
        may_check: bool,
    ) -> bool {
        let (Some(password), Some(newest)) = (password, self.newest()) else {
            return false;
        };
        match self.prospect(newest, password, rules, now) {
            Prospect::Release => self.release(password, now),
            Prospect::Try if may_check => {
                let token = newest.fingerprint.clone();
                self.begin(token, password, now);
                return true;
            }
            Prospect::Try | Prospect::Later(_) => {}
        }
        false
    }

    /// When [`Event::Due`](super::Event::Due) would change something.
    pub fn due(&self, password: Option<&str>, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        let (password, newest) = (password?, self.newest()?);
        match self.prospect(newest, password, rules, now) {
            Prospect::Release if self.is_in_use(newest, password) => None,
            Prospect::Release | Prospect::Try => Some(now),
            Prospect::Later(at) => at,
        }
    }

    /// How the account stands.
    pub fn standing(&self, password: Option<&str>, rules: &Rules, now: Timestamp) -> Standing {
        let Some(password) = password else {
            return Standing::PasswordMissing;
        };
        let Some(newest) = self.newest() else {
            return Standing::NoToken;
        };
        let in_use = self.is_in_use(newest, password);
        if !rules.check {
            // What is not in use yet comes into use with the next event.
            return Standing::Current { answer: None };
        }
        let trial = self.trial(&newest.fingerprint, password);
        let is_under_way = trial.is_some_and(|trial| trial.is_under_way(now));
        let answer = trial.filter(|_| !is_under_way).map(Trial::outcome);
        // One that is being asked, or is to be asked now, waits for nothing.
        let next = self.due(Some(password), rules, now);
        let next = next.filter(|at| *at > now && !is_under_way);
        match trial {
            Some(trial) if trial.barred && answer != Some(Answer::Works) => Standing::Refused {
                answer: answer.filter(|a| a.bars()).unwrap_or(Answer::Refused),
                is_new: newest.label == Label::Pending,
                next,
            },
            _ if in_use => Standing::Current { answer },
            _ => Standing::Checking { answer, next },
        }
    }

    /// Whether a login with the version and the password in use has worked.
    pub fn is_proven(&self, version: &Version) -> bool {
        let password = self.password.as_deref();
        let trial = password.and_then(|password| self.trial(&version.fingerprint, password));
        trial.is_some_and(|trial| trial.answer == Some(Answer::Works))
    }

    fn is_in_use(&self, version: &Version, password: &str) -> bool {
        version.label == Label::Current && self.password.as_deref() == Some(password)
    }

    pub(super) fn trial(&self, token: &str, password: &str) -> Option<&Trial> {
        let mut trials = self.trials.iter();
        trials.find(|trial| trial.token == token && trial.password == password)
    }

    fn prospect(
        &self,
        version: &Version,
        password: &str,
        rules: &Rules,
        now: Timestamp,
    ) -> Prospect {
        if !rules.check {
            return Prospect::Release;
        }
        let Some(trial) = self.trial(&version.fingerprint, password) else {
            return self.within_budget(rules, now);
        };
        if trial.is_under_way(now) {
            return Prospect::Later(Some(after(trial.last, SECOND_TRY)));
        }
        // One that is in use already is tried again only to know how it stands.
        let may_release = !trial.barred && !self.is_in_use(version, password);
        let patience = rules.release_unverified_after;
        let next_try = trial.next_try(version.source.originated, now);
        // A clock that was set back cannot tell how long it has waited: it waits
        // from the next try on, where there is one.
        let begins_anew = trial.begun > now && next_try.is_some_and(|at| at <= now);
        let has_waited = is_over(trial.begun, patience, now) && !begins_anew;
        if trial.answer == Some(Answer::Works) || may_release && has_waited {
            return Prospect::Release;
        }
        let release_at = may_release.then_some(after(trial.begun, patience));
        match next_try {
            Some(at) if at <= now => match self.within_budget(rules, now) {
                Prospect::Later(at) => Prospect::Later(earlier(at, release_at)),
                go @ (Prospect::Release | Prospect::Try) => go,
            },
            at => Prospect::Later(earlier(at, release_at)),
        }
    }

    fn within_budget(&self, rules: &Rules, now: Timestamp) -> Prospect {
        let ends = self
            .failures
            .iter()
            .map(|begun| self.counts_until(*begun, now));
        let counted: Vec<_> = ends.filter(|end| now < *end).collect();
        if counted.len() < usize::try_from(rules.failures_a_day).unwrap_or(usize::MAX) {
            return Prospect::Try;
        }
        Prospect::Later(counted.into_iter().min())
    }

    /// Until when a failed login counts that was noted as begun at this time.
    fn counts_until(&self, begun: Timestamp, now: Timestamp) -> Timestamp {
        let counted = if is_ahead(begun, now) {
            self.set_back.unwrap_or(now)
        } else {
            begun
        };
        after(counted, DAY)
    }

    /// Notes that failed logins lie in the future. They were noted by a clock that
    /// was fast, and count for a day from now on, or this one is slow, and when it
    /// is right again they count from where they are. So nothing is noted over
    /// them: a machine that starts in 1970 would forget what it has failed at today.
    pub(super) fn heed_clock(&mut self, now: Timestamp) {
        let is_behind = self.failures.iter().any(|begun| is_ahead(*begun, now));
        let known = self.set_back.filter(|since| !is_ahead(*since, now));
        self.set_back = is_behind.then_some(known.unwrap_or(now));
    }

    /// Notes a login before it begins.
    fn begin(&mut self, token: String, password: &str, now: Timestamp) {
        let mut failures = std::mem::take(&mut self.failures);
        failures.retain(|begun| now < self.counts_until(*begun, now));
        failures.push(now);
        self.failures = failures;
        let kept = |trial: &Trial| {
            let mut versions = self.versions.iter();
            versions.any(|v| v.token.is_some() && v.fingerprint == trial.token)
        };
        self.trials.retain(kept);
        let mut known = self.trials.iter_mut();
        let known = known.find(|trial| trial.token == token && trial.password == password);
        if let Some(trial) = known {
            trial.begun = trial.begun.min(now);
            trial.last = now;
            trial.counted.push(now);
            trial.answer = None;
            return;
        }
        if self.trials.len() >= MAX_TRIALS {
            // One that was never counted may be tried again; one that was, not.
            let mut known = self.trials.iter();
            let uncounted = known.position(|trial| trial.counted.is_empty());
            self.trials.remove(uncounted.unwrap_or_default());
        }
        self.trials.push(Trial {
            token,
            password: password.to_owned(),
            begun: now,
            last: now,
            counted: vec![now],
            unreached: 0,
            barred: false,
            answer: None,
        });
    }

    /// Notes what a login brought.
    pub(super) fn note(&mut self, token: &str, password: &str, answer: Answer, now: Timestamp) {
        let mut trials = self.trials.iter_mut();
        let Some(trial) = trials.find(|trial| {
            trial.token == token && trial.password == password && trial.answer.is_none()
        }) else {
            return;
        };
        trial.answer = Some(answer);
        trial.barred |= answer.bars();
        trial.unreached = if answer.counts_for_nothing() {
            trial.unreached.saturating_add(1)
        } else {
            0
        };
        if answer.counts_for_nothing() || answer == Answer::Works {
            trial.counted.pop();
            let begun = trial.last;
            if let Some(at) = self.failures.iter().position(|failed| *failed == begun) {
                self.failures.remove(at);
            }
        }
        let mut versions = self.versions.iter_mut();
        if let Some(version) = versions.find(|version| version.fingerprint == token) {
            version.checked = Some((answer, now));
        }
    }
}

fn after(at: Timestamp, span: SignedDuration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// Whether so long a time has passed. Where the clock was set back by more, as
/// far as can be told it has: else what a clock that was years fast has noted
/// would keep everybody waiting for years.
fn is_over(since: Timestamp, span: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since).abs() >= span
}

/// Whether a time lies in the future by more than a clock is put right by now and
/// then.
fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    at > after(now, SECOND_TRY)
}

/// The earlier of two times, where `None` is never.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}
