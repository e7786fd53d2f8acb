//! The board: what everybody in the daemon is doing, for `status`.
//!
//! The inbox tasks and the worker write on it, the control API reads it.
//! Nothing here waits for a mail server or a vault, so that `status` answers
//! when they do not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::api::{
    AccountState, AccountStatus, Health, MailboxState, MailboxStatus, Problem, SinkStatus, Status,
};
use crate::config::Config;

/// What a folder's task tells of a failure.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) error: String,
    pub(super) hint: String,
    pub(super) next_attempt: Timestamp,
    /// It is more than a hiccup.
    pub(super) is_problem: bool,
}

/// Who and where a folder is.
pub(super) type Folder = (String, String);

struct Row {
    status: MailboxStatus,
    failure: Option<(Failure, Timestamp)>,
    /// It has been watched at least once.
    reached: bool,
    /// What cannot be done with its mails afterwards, and since when.
    after: Option<(String, Timestamp)>,
    /// How long the server may be silent while it is watched, and polled.
    watched_within: SignedDuration,
    polled_within: SignedDuration,
}

/// What a server may take to answer, beyond the time after which it is asked.
const ANSWER: SignedDuration = SignedDuration::from_secs(30);

impl Row {
    /// The server has been silent for longer than it should have been.
    fn is_silent(&self, now: Timestamp) -> bool {
        let within = match self.status.state {
            MailboxState::Watching => self.watched_within,
            MailboxState::Polling | MailboxState::CatchingUp => self.polled_within,
            MailboxState::Connecting | MailboxState::Authenticating | MailboxState::Waiting => {
                return false;
            }
        };
        let heard = self.status.proof_of_life.unwrap_or(self.status.since);
        now.duration_since(heard) > within.saturating_add(ANSWER)
    }

    /// A clock that was set back leaves a proof of life in the future, which
    /// would last until then: it counts from now on.
    fn not_after(&mut self, now: Timestamp) {
        let heard = &mut self.status.proof_of_life;
        *heard = heard.map(|heard| heard.min(now));
    }

    /// What is wrong with the folder.
    fn problems(&self, now: Timestamp, problems: &mut Vec<Problem>) {
        if self.is_silent(now) {
            problems.push(Problem {
                code: "mailbox-silent".to_owned(),
                title: format!(
                    "the server of mailbox {} ({}) has not been heard for too long",
                    self.status.name, self.status.folder
                ),
                hint: "restart tokenwatch, and report it: it should have reconnected by itself"
                    .to_owned(),
                since: self.status.proof_of_life.unwrap_or(self.status.since),
            });
        }
        problems.extend(self.after.as_ref().map(|(failure, since)| {
            Problem {
                code: "mailbox-after-failed".to_owned(),
                title: format!(
                    "`after` cannot be done in mailbox {} ({}): {failure}",
                    self.status.name, self.status.folder
                ),
                hint:
                    "see `after` of the mailbox, and that the folder is there and may be written to"
                        .to_owned(),
                since: *since,
            }
        }));
        if let Some((failure, since)) = &self.failure
            && failure.is_problem
        {
            problems.push(Problem {
                code: failure.code.to_owned(),
                title: format!(
                    "mailbox {} ({}) is not watched: {}",
                    self.status.name, self.status.folder, failure.error
                ),
                hint: failure.hint.clone(),
                since: *since,
            });
        }
    }
}

/// How an account stands, and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Stands {
    pub(super) status: AccountStatus,
    pub(super) trouble: Option<Trouble>,
}

/// What is wrong with an account.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) code: &'static str,
    pub(super) title: String,
    pub(super) hint: String,
}

/// What is wrong with what is kept for one account.
#[derive(Clone, Debug)]
pub(super) struct Unsettled {
    pub(super) error: String,
    pub(super) hint: String,
}

/// What the worker tells of all that it keeps.
pub(super) struct Kept {
    pub(super) accounts: Vec<Stands>,
    pub(super) sinks: Vec<SinkStatus>,
    pub(super) held: u32,
    pub(super) undecided: u32,
    pub(super) unsettled: BTreeMap<String, Option<Unsettled>>,
}

struct Inner {
    rows: BTreeMap<Folder, Row>,
    accounts: Vec<Stands>,
    sinks: Vec<SinkStatus>,
    held: u32,
    /// Mails whose sender cannot be judged, and since when there are any.
    undecided: Option<(u32, Timestamp)>,
    /// Accounts that could not be read or written, and since when.
    unsettled: BTreeMap<String, (Option<Unsettled>, Timestamp)>,
    /// What is wrong with the vault or the journal.
    worker: Option<Problem>,
    /// Since when there is what trouble with an account.
    trouble_since: BTreeMap<String, (Option<&'static str>, Timestamp)>,
}

/// The board.
pub struct Board {
    inner: Mutex<Inner>,
    /// Since when it is known that no account is configured.
    no_account: Option<Timestamp>,
    changed: watch::Sender<()>,
}

impl Board {
    /// A board with a row for every folder.
    pub fn new(config: &Config) -> Self {
        let now = Timestamp::now();
        let rows = config
            .mailboxes
            .iter()
            .flat_map(|mailbox| mailbox.folders.iter().map(move |folder| (mailbox, folder)))
            .map(|(mailbox, folder)| {
                let status = MailboxStatus {
                    name: mailbox.name.clone(),
                    host: mailbox.host.clone(),
                    folder: folder.clone(),
                    state: MailboxState::Connecting,
                    since: now,
                    proof_of_life: None,
                    last_event: None,
                    last_error: None,
                    next_attempt: None,
                };
                let seconds = |time| SignedDuration::try_from(time).unwrap_or_default();
                let row = Row {
                    status,
                    failure: None,
                    reached: false,
                    after: None,
                    watched_within: seconds(mailbox.idle_renew),
                    polled_within: seconds(mailbox.idle_renew.max(mailbox.poll)),
                };
                ((mailbox.name.clone(), folder.clone()), row)
            })
            .collect();
        Self {
            no_account: config.accounts.is_empty().then_some(now),
            inner: Mutex::new(Inner {
                rows,
                accounts: Vec::new(),
                sinks: Vec::new(),
                held: 0,
                undecided: None,
                unsettled: BTreeMap::new(),
                worker: None,
                trouble_since: BTreeMap::new(),
            }),
            changed: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn change_row(&self, folder: &Folder, change: impl FnOnce(&mut Row, Timestamp)) {
        if let Some(row) = self.lock().rows.get_mut(folder) {
            change(row, Timestamp::now());
        }
        self.changed.send_replace(());
    }

    /// A folder's task goes on to something else.
    pub(super) fn state(&self, folder: &Folder, state: MailboxState) {
        self.change_row(folder, |row, now| {
            if row.status.state != state {
                row.status.state = state;
                row.status.since = now;
            }
            row.status.next_attempt = None;
            if matches!(state, MailboxState::Watching | MailboxState::Polling) {
                row.reached = true;
                row.failure = None;
                row.status.last_error = None;
            }
        });
    }

    /// The server has said something then.
    pub(super) fn alive(&self, folder: &Folder, heard: Timestamp) {
        // It changes nothing that anybody waits for.
        if let Some(row) = self.lock().rows.get_mut(folder) {
            row.not_after(Timestamp::now());
            row.status.proof_of_life = row.status.proof_of_life.max(Some(heard));
        }
    }

    /// Something has become of a mail.
    pub(super) fn event(&self, folder: &Folder) {
        self.change_row(folder, |row, now| row.status.last_event = Some(now));
    }

    /// What `after` says cannot be done with a mail; `None`: it could.
    pub(super) fn after(&self, folder: &Folder, failure: Option<String>) {
        self.change_row(folder, |row, now| {
            let since = row.after.as_ref().map_or(now, |(_, since)| *since);
            row.after = failure.map(|failure| (failure, since));
        });
    }

    /// It failed, and is tried again later.
    pub(super) fn failed(&self, folder: &Folder, failure: Failure) {
        self.change_row(folder, |row, now| {
            row.status.state = MailboxState::Waiting;
            row.status.since = now;
            row.status.last_error = Some(failure.error.clone());
            row.status.next_attempt = Some(failure.next_attempt);
            let since = row.failure.as_ref().map_or(now, |(_, since)| *since);
            row.failure = Some((failure, since));
        });
    }

    /// How the accounts and the sinks stand, and how many mails wait.
    pub(super) fn keep(&self, kept: Kept) {
        let Kept {
            accounts,
            sinks,
            held,
            undecided,
            unsettled,
        } = kept;
        let now = Timestamp::now();
        let mut inner = self.lock();
        for Stands { status, trouble } in &accounts {
            let code = trouble.as_ref().map(|trouble| trouble.code);
            let since = &mut inner.trouble_since;
            let entry = since.entry(status.username.clone()).or_insert((code, now));
            if entry.0 != code {
                *entry = (code, now);
            }
        }
        inner.accounts = accounts;
        inner.sinks = sinks;
        inner.held = held;
        let before = std::mem::take(&mut inner.unsettled);
        let since = |username: &String| before.get(username).map_or(now, |(_, since)| *since);
        inner.unsettled = unsettled
            .into_iter()
            .map(|(username, why)| {
                let since = since(&username);
                (username, (why, since))
            })
            .collect();
        let since = inner.undecided.map_or(now, |(_, since)| since);
        inner.undecided = (undecided > 0).then_some((undecided, since));
        drop(inner);
        self.changed.send_replace(());
    }

    /// The vault and the journal work.
    pub(super) fn worker_is_well(&self) {
        let known = self.lock().worker.take();
        if known.is_some() {
            self.changed.send_replace(());
        }
    }

    /// The vault or the journal failed.
    pub(super) fn worker_failed(&self, title: String, hint: String) {
        let mut inner = self.lock();
        let since = inner
            .worker
            .as_ref()
            .map_or_else(Timestamp::now, |known| known.since);
        inner.worker = Some(Problem {
            code: "storage-failed".to_owned(),
            title,
            hint,
            since,
        });
        drop(inner);
        self.changed.send_replace(());
    }

    /// All of it.
    pub fn status(&self) -> Status {
        let mut inner = self.lock();
        let mut problems: Vec<Problem> = inner.worker.iter().cloned().collect();
        let now = Timestamp::now();
        for row in inner.rows.values_mut() {
            row.not_after(now);
            row.problems(now, &mut problems);
        }
        problems.extend(self.no_account.map(|since| Problem {
            code: "no-account".to_owned(),
            title: "no [[account]] is configured, so every token mail is held".to_owned(),
            hint: "add an [[account]] with the Salesforce username".to_owned(),
            since,
        }));
        problems.extend(unsettled(&inner.unsettled));
        problems.extend(inner.undecided.map(|(count, since)| {
            Problem {
                code: "sender-undecided".to_owned(),
                title: format!("{count} mails cannot be judged now, and wait"),
                hint: "the log says why at `notice.undecided`: most often the DNS does not answer"
                    .to_owned(),
                since,
            }
        }));
        problems.extend(inner.accounts.iter().filter_map(|account| {
            let trouble = account.trouble.as_ref()?;
            Some(Problem {
                code: trouble.code.to_owned(),
                title: trouble.title.clone(),
                hint: trouble.hint.clone(),
                since: inner.trouble_since.get(&account.status.username)?.1,
            })
        }));
        problems.extend(inner.sinks.iter().filter_map(|sink| {
            let error = sink.last_error.as_ref()?;
            Some(Problem {
                code: "sink-failed".to_owned(),
                title: format!(
                    "sink {} was not told of {}: {error}",
                    sink.name, sink.username
                ),
                hint: sink.hint.clone().unwrap_or_default(),
                since: sink.since,
            })
        }));
        let state = if !problems.is_empty() {
            Health::Degraded
        } else if inner.rows.values().all(|row| row.reached) {
            Health::Healthy
        } else {
            Health::Starting
        };
        Status {
            version: 1,
            state,
            mailboxes: inner.rows.values().map(|row| row.status.clone()).collect(),
            accounts: inner.accounts.iter().map(|a| a.status.clone()).collect(),
            sinks: inner.sinks.clone(),
            held: inner.held,
            problems,
        }
    }

    /// One line for `systemctl status`.
    pub(super) fn summary(&self) -> String {
        let inner = self.lock();
        let watched = inner
            .rows
            .values()
            .filter(|row| {
                matches!(
                    row.status.state,
                    MailboxState::Watching | MailboxState::Polling
                )
            })
            .count();
        let current = inner
            .accounts
            .iter()
            .filter(|account| account.status.state == AccountState::Current)
            .count();
        format!(
            "watching {watched} of {} folders; {current} of {} credentials current; {} mails held",
            inner.rows.len(),
            inner.accounts.len(),
            inner.held
        )
    }
}

/// Accounts that could not be read or written: those with a problem of their own
/// each by itself, and together those that share the vault's.
fn unsettled(accounts: &BTreeMap<String, (Option<Unsettled>, Timestamp)>) -> Vec<Problem> {
    let problem = |title, hint: &str, since| Problem {
        code: "account-unsettled".to_owned(),
        title,
        hint: format!("{hint}; it is tried again each minute"),
        since,
    };
    let mut problems = Vec::new();
    let (mut others, mut first) = (Vec::new(), Timestamp::MAX);
    for (username, (why, since)) in accounts {
        if let Some(why) = why {
            let title = format!("what is kept for {username} cannot be used: {}", why.error);
            problems.push(problem(title, &why.hint, *since));
        } else {
            others.push(username.as_str());
            first = first.min(*since);
        }
    }
    if !others.is_empty() {
        let others = others.join(", ");
        let title = format!("what is kept for {others} could not be read or written");
        let hint = "see that the vault is there, unlocked, and the disk not full";
        problems.push(problem(title, hint, first));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenwatch.toml");
        let text = "state-dir = '/s'\n[[mailbox]]\nname='ops'\nhost='h'\nuser='u'\n\
                    idle-renew='10s'\npoll='2m'\n";
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Board::new(&Config::load(Some(&path)).unwrap())
    }

    #[test]
    fn a_server_that_was_not_heard_for_too_long_is_a_problem_until_it_is() {
        let board = board();
        let ops = ("ops".to_owned(), "INBOX".to_owned());
        let ago = |seconds| Timestamp::now() - SignedDuration::from_secs(seconds);
        let is_silent = || {
            let problems = board.status().problems;
            problems
                .iter()
                .any(|problem| problem.code == "mailbox-silent")
        };
        board.alive(&ops, ago(160));
        for (state, within) in [(MailboxState::Watching, 40), (MailboxState::Polling, 150)] {
            board.state(&ops, state);
            assert!(is_silent(), "{state:?}");
            board.alive(&ops, ago(within - 5));
            assert!(!is_silent(), "{state:?}");
            board.alive(&ops, ago(160));
            assert!(!is_silent(), "it was heard since");
            if let Some(row) = board.lock().rows.get_mut(&ops) {
                row.status.proof_of_life = Some(ago(160));
            }
        }
        board.state(&ops, MailboxState::Connecting);
        assert!(!is_silent(), "nobody is listened to");
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_proof_of_life_in_the_future() {
        let board = board();
        let ops = ("ops".to_owned(), "INBOX".to_owned());
        let tomorrow = || Timestamp::now() + SignedDuration::from_hours(24);
        let proof = || board.lock().rows[&ops].status.proof_of_life.unwrap();
        board.alive(&ops, tomorrow());
        board.alive(&ops, Timestamp::now());
        assert!(proof() <= Timestamp::now());
        // And where nothing is heard from then on.
        board.alive(&ops, tomorrow());
        board.status();
        assert!(proof() <= Timestamp::now());
    }
}
