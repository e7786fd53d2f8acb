//! The worker and the sinks: what each is to be told, and what is under way.
//!
//! What is wanted is noted in the journal when the entry that others read is
//! written, and again at every start: a crash between the two loses nothing. It
//! is handed out once at a time for a sink and account, so that what a sink
//! hears of an account is in order. A command or a unit of systemd waits for the
//! files of the account that stand before it in the configuration: it may be what
//! has them read.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::state::StateError;
use super::Worker;
use super::desk::Desk;
use crate::api::{SinkState, SinkStatus};
use crate::config::{Config, Receiver};
use crate::journal::Parcel;
use crate::rotation::Label;
use crate::secret::Secret;
use crate::sink::Credential;

/// The first wait after a failure, and the longest, in seconds.
const WAITS: (i64, i64) = (5, 900);

/// For so long a sink is left alone where it cannot be written down what came
/// of telling it: it will be told again.
const REST: SignedDuration = SignedDuration::from_mins(1);

/// A clock that goes back by less than this was only put right a little.
const SET_BACK: SignedDuration = SignedDuration::from_mins(1);

/// Something that a sink is to be told.
pub(in crate::daemon) struct DeliveryJob {
    pub(in crate::daemon) sink: String,
    pub(in crate::daemon) credential: Credential,
}

/// A sink could not be told.
pub(in crate::daemon) struct Undelivered {
    pub(in crate::daemon) code: &'static str,
    pub(in crate::daemon) error: String,
    pub(in crate::daemon) hint: String,
    /// A person must act.
    pub(in crate::daemon) is_persons: bool,
    /// The receiver has said for how long it is to be left alone.
    pub(in crate::daemon) wait: Option<Duration>,
}

impl Worker {
    /// What the sinks of an account are to be told, as keyed hashes.
    pub(super) fn wanted(
        &mut self,
        username: &str,
        composite: &Secret,
    ) -> Result<Vec<(String, String)>, StateError> {
        let config = std::sync::Arc::clone(&self.config);
        let mut wanted = Vec::new();
        for sink in config.sinks_of(username) {
            // Another path or address is another delivery.
            let print = self.print(&sink.whereabouts(), composite, false)?;
            wanted.push((sink.name.clone(), print));
        }
        Ok(wanted)
    }

    /// What is due, for as many as there is room for.
    pub(in crate::daemon) fn begin_deliveries(
        &mut self,
        now: Timestamp,
        room: usize,
    ) -> Result<Vec<DeliveryJob>, StateError> {
        let all = self.journal.parcels()?;
        let open = Open::of(&all);
        let is_due = |parcel: &&Parcel| {
            parcel.delivered.is_none()
                && parcel.next_try <= now
                && self.settles(&parcel.username).is_none()
                && self
                    .under_way
                    .get(&key(parcel))
                    .is_none_or(|until| *until <= now)
                && !open.holds_up(parcel, &self.config)
        };
        let due = all.iter().filter(is_due).take(room);
        let parcels: Vec<Parcel> = due.cloned().collect();
        let mut desk = self.desk_of(&parcels)?;
        let mut jobs = Vec::new();
        for parcel in parcels {
            let key = key(&parcel);
            match self.take_up(&mut desk, parcel, now) {
                Ok(Some(job)) => {
                    self.under_way.insert(key, Timestamp::MAX);
                    jobs.push(job);
                }
                Ok(None) => {}
                Err(error) if jobs.is_empty() => return Err(error),
                // What was taken up has to be done.
                Err(_) => break,
            }
        }
        Ok(jobs)
    }

    /// A desk with what is kept for the accounts that parcels are of.
    fn desk_of(&self, parcels: &[Parcel]) -> Result<Desk, StateError> {
        let account = |parcel: &Parcel| self.config.account(&parcel.username);
        self.desk(parcels.iter().filter_map(account))
    }

    /// What a parcel has in it. `None` where it is not to be delivered, or not now.
    fn take_up(
        &mut self,
        desk: &mut Desk,
        parcel: Parcel,
        now: Timestamp,
    ) -> Result<Option<DeliveryJob>, StateError> {
        let (sink, username, id) = (
            parcel.sink.clone(),
            parcel.username.clone(),
            parcel.id.clone(),
        );
        match self.job(desk, parcel) {
            // What is wrong with one account keeps nobody from hearing of the others.
            Err(error) if error.is_of_one_account() => {
                self.cannot_use(&username, &error);
                let next_try = now.saturating_add(SignedDuration::from_secs(WAITS.1));
                let told = (crate::chain(&error), error.hint());
                self.journal.not_delivered(
                    (&sink, &username),
                    &id,
                    next_try.unwrap_or(Timestamp::MAX),
                    (&told.0, &told.1),
                )?;
                Ok(None)
            }
            // The sink or the account is configured no more, or there is no
            // credential any more. Where there should be one, somebody has taken
            // it: when it is written again it is noted again whom to tell.
            Ok(None) => {
                self.journal.forget_parcel((&sink, &username))?;
                if self.is_for((&sink, &username)) {
                    self.unsettle(&username);
                }
                Ok(None)
            }
            job => job,
        }
    }

    /// What is due by a clock that was set back is due by this one.
    pub(in crate::daemon) fn heed_clock(&mut self, now: Timestamp) -> Result<(), StateError> {
        self.stop_waiting(now);
        let by = self.looked.duration_since(now);
        self.looked = now;
        if by < SET_BACK {
            return Ok(());
        }
        for due in self.due.values_mut() {
            *due = now.min(*due);
        }
        self.answers_are_due(now);
        for until in self.under_way.values_mut() {
            if *until < Timestamp::MAX {
                *until = now.min(*until);
            }
        }
        Ok(self.journal.try_now(now)?)
    }

    /// What failed is tried now: who starts us has most likely mended it.
    pub(in crate::daemon) fn try_now(&mut self) -> Result<(), StateError> {
        Ok(self.journal.try_now(Timestamp::now())?)
    }

    /// What files were written once, to see whether they are still there. What
    /// becomes of it elsewhere cannot be seen.
    pub(in crate::daemon) fn written_files(&mut self) -> Result<Vec<DeliveryJob>, StateError> {
        let sinks = &self.config.sinks;
        let is_file = |name: &str| {
            let mut sinks = sinks.iter();
            sinks.any(|sink| sink.name == name && matches!(sink.to, Receiver::File { .. }))
        };
        let mut parcels = self.journal.parcels()?;
        parcels.retain(|parcel| parcel.delivered.is_some() && is_file(&parcel.sink));
        let mut desk = self.desk_of(&parcels)?;
        let mut jobs = Vec::new();
        for parcel in parcels {
            match self.job(&mut desk, parcel) {
                // Its problem is on the board.
                Err(error) if error.is_of_one_account() => {}
                job => jobs.extend(job?),
            }
        }
        Ok(jobs)
    }

    /// Whether a sink is to be told of an account under this very name. One that
    /// is written in another way now has its entry, and its parcels, under that
    /// name; what is left under this one is dead.
    fn is_for(&self, (sink, username): (&str, &str)) -> bool {
        let account = self.config.account(username);
        let mut sinks = self.config.sinks_of(username);
        account.is_some_and(|account| account.username == username)
            && sinks.any(|known| known.name == sink)
    }

    fn job(&self, desk: &mut Desk, parcel: Parcel) -> Result<Option<DeliveryJob>, StateError> {
        let username = parcel.username;
        if !self.is_for((&parcel.sink, &username)) {
            return Ok(None);
        }
        let service = &self.config.vault.service;
        let Some(secret) = self.look_up(desk, service, &username)? else {
            return Ok(None);
        };
        let account = self.account(desk, &username)?;
        let current = account.labelled(Label::Current);
        let credential = Credential {
            secret,
            version: current.map(|v| v.id).unwrap_or_default(),
            fingerprint: current.map(|v| v.fingerprint.clone()).unwrap_or_default(),
            received: current.map(|v| v.source.received),
            id: parcel.id,
            username,
        };
        Ok(Some(DeliveryJob {
            sink: parcel.sink,
            credential,
        }))
    }

    /// Takes in what became of a delivery.
    pub(in crate::daemon) fn conclude(
        &mut self,
        (sink, username, id): (&str, &str, &str),
        ended: Result<(), Undelivered>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let key = (sink.to_owned(), username.to_owned());
        let rest = now.saturating_add(REST).unwrap_or(Timestamp::MAX);
        self.under_way.insert(key.clone(), rest);
        match ended {
            Ok(()) => {
                self.journal.delivered((sink, username), id, now)?;
                tracing::info!(event = "sink.delivered", sink, username, "a sink was told");
            }
            Err(failure) => {
                let tries = self.journal.tries((sink, username))?;
                let wait = wait(tries, &failure);
                let next_try = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
                let told = (failure.error.as_str(), failure.hint.as_str());
                self.journal
                    .not_delivered((sink, username), id, next_try, told)?;
                if failure.is_persons {
                    tracing::error!(event = "sink.failed", sink, username, code = failure.code,
                        error = failure.error, hint = failure.hint, next_try = %next_try,
                        "a sink cannot be told: a person must act");
                } else {
                    tracing::warn!(event = "sink.failed", sink, username, code = failure.code,
                        error = failure.error, hint = failure.hint, next_try = %next_try,
                        "a sink could not be told, and is tried again");
                }
            }
        }
        self.under_way.remove(&key);
        self.tell_board()
    }

    /// When something is due next, for an account or a sink.
    pub(in crate::daemon) fn next_errand(&self) -> Result<Option<Timestamp>, StateError> {
        let parcels = self.journal.parcels()?;
        let open = Open::of(&parcels);
        let waits =
            |parcel: &&Parcel| parcel.delivered.is_none() && !open.holds_up(parcel, &self.config);
        let due = |parcel: &Parcel| {
            let until = self.under_way.get(&key(parcel)).copied();
            let settles = self.settles(&parcel.username);
            [until, settles]
                .into_iter()
                .flatten()
                .fold(parcel.next_try, Timestamp::max)
        };
        let parcels = parcels.iter().filter(waits).map(due);
        // Nothing is begun for an account before the login that is under way is over.
        let is_free = |(username, _): &(&String, _)| !self.logins.contains_key(*username);
        let checks = self.due.iter().filter(is_free).map(|(username, due)| {
            let settles = self.settles(username);
            settles.map_or(*due, |settles| settles.max(*due))
        });
        Ok(parcels.chain(checks).chain(self.next_answer()).min())
    }

    /// How many sinks wait for something, and how many credentials for their
    /// check.
    pub(in crate::daemon) fn waiting(&mut self) -> Result<(usize, usize), StateError> {
        let waits = |sink: &SinkStatus| sink.state != SinkState::Delivered;
        let sinks = self.sinks()?.iter().filter(|sink| waits(sink)).count();
        let checks: BTreeSet<_> = self.due.keys().chain(self.logins.keys()).collect();
        Ok((sinks, checks.len()))
    }

    /// A sink has lost what it was told. It is told of what the entry holds, whether
    /// or not that is what the newest token and password make.
    pub(in crate::daemon) fn deliver_again(
        &mut self,
        sink: &str,
        username: &str,
    ) -> Result<(), StateError> {
        self.journal.lost((sink, username), Timestamp::now())?;
        self.bell.notify_one();
        self.tell_board()
    }

    /// Notes when something is to be done for an account.
    pub(super) fn due(&mut self, username: &str, at: Option<Timestamp>) {
        match at {
            Some(at) => self.due.insert(username.to_owned(), at),
            None => self.due.remove(username),
        };
        self.bell.notify_one();
    }

    /// How the sinks stand.
    pub(super) fn sinks(&self) -> Result<Vec<SinkStatus>, StateError> {
        let parcels = self.journal.parcels()?;
        let configured = |parcel: &Parcel| self.is_for((&parcel.sink, &parcel.username));
        let status = |parcel: Parcel| SinkStatus {
            state: match (parcel.delivered, parcel.tries) {
                (Some(_), _) => SinkState::Delivered,
                (None, 0) => SinkState::Waiting,
                (None, _) => SinkState::Failing,
            },
            since: parcel.delivered.unwrap_or(parcel.since),
            attempts: parcel.tries,
            next_attempt: parcel.delivered.is_none().then_some(parcel.next_try),
            last_error: parcel.error,
            hint: parcel.hint,
            name: parcel.sink,
            username: parcel.username,
        };
        Ok(parcels.into_iter().filter(configured).map(status).collect())
    }
}

/// For whom a parcel is: sink and username.
fn key(parcel: &Parcel) -> (String, String) {
    (parcel.sink.clone(), parcel.username.clone())
}

/// What is not delivered yet, by sink and username.
struct Open<'a>(BTreeSet<(&'a str, &'a str)>);

impl<'a> Open<'a> {
    fn of(parcels: &'a [Parcel]) -> Self {
        let open = parcels
            .iter()
            .filter(|parcel| parcel.delivered.is_none())
            .map(|parcel| (parcel.sink.as_str(), parcel.username.as_str()));
        Self(open.collect())
    }

    /// Whether a file has to be written first.
    fn holds_up(&self, parcel: &Parcel, config: &Config) -> bool {
        let sinks = || config.sinks_of(&parcel.username);
        let may_read = sinks().any(|sink| {
            sink.name == parcel.sink
                && matches!(sink.to, Receiver::Command { .. } | Receiver::Systemd { .. })
        });
        may_read
            && sinks()
                .take_while(|sink| sink.name != parcel.sink)
                .filter(|sink| matches!(sink.to, Receiver::File { .. }))
                .any(|sink| {
                    self.0
                        .contains(&(sink.name.as_str(), parcel.username.as_str()))
                })
    }
}

/// Doubled with each failure, and longer where a person must act.
fn wait(tries: u32, failure: &Undelivered) -> SignedDuration {
    let (first, most) = WAITS;
    let factor = if failure.is_persons { 4 } else { 1 };
    let doubled = first.saturating_mul(2_i64.saturating_pow(tries));
    let usual = SignedDuration::from_secs(doubled.min(most).saturating_mul(factor));
    let asked = failure.wait.and_then(|wait| wait.try_into().ok());
    usual.max(asked.unwrap_or_default())
}

pub(super) fn new_id() -> String {
    format!("msg_{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}
