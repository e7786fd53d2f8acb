//! The daemon: the one place that knows all rooms.
//!
//! [`run`] is the story from start to stop. One task a connection watches
//! (`inbox`), the worker alone changes anything (`worker`), the control API
//! answers commands (`control`), and the board says what everybody is doing
//! (`board`). Commands that find no daemon open a [`Worker`] themselves.

mod board;
mod callers;
mod check;
mod clock;
mod control;
mod doors;
mod elsewhere;
mod errands;
mod error;
mod gate;
mod held;
mod inbox;
mod lessons;
mod looking;
mod metrics;
mod notify;
mod refusal;
mod resync;
mod secrets;
mod sign_in;
mod socket;
mod state;
mod tokens;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};
use crate::judge::Policy;
use crate::notice::{Wording, Wordings};

use crate::sender;
use errands::Receivers;
use inbox::Line;
use looking::Tools;
use resync::Resync;

pub use board::Board;
pub use check::Doctor;
pub use doors::WayError;
pub use errands::{SetUpError, UnusableSink, sink};
pub use error::{DaemonError, InboxError};
pub use gate::Held;
pub use held::{HeldError, accept_alone};
pub use secrets::{SecretError, from_reader as secret_from, secret_of};
pub use sign_in::{SignIn, SignInError};
pub use socket::ControlError;
pub use state::{StateError, file_options, keep_out, vault_options};
pub use worker::{Content, Handle, Outcome, Report, SecretName, Worker};

/// How long the tasks may take to end: as long as a renewal of a token does, and
/// the vault to store what came of it.
const TASKS: Duration = Duration::from_secs(18);

/// How long the worker may take to end after them. Both have ended before the unit
/// lets systemd kill us.
const WORKER: Duration = Duration::from_secs(10);

/// How mails are judged, as the rooms want it. The words of token mails are
/// checked where they are used, so an error of theirs comes from here.
pub fn policy(config: &Config) -> Result<Policy, ConfigError> {
    let added: Vec<Wording> = config
        .wordings
        .iter()
        .map(|written| Wording {
            subject: written.subject.clone(),
            username: written.username.clone(),
            token: written.token.clone(),
        })
        .collect();
    let wordings = Wordings::new(&added).map_err(|error| {
        ConfigError::invalid(
            "wording",
            error.to_string(),
            "copy each label from a real mail, without its colon and brackets",
        )
    })?;
    let trust = &config.trust;
    Ok(Policy {
        trust: sender::Policy {
            senders: trust.senders.clone(),
            dkim: trust.dkim,
            receiver: trust.receiver,
            sender_address: trust.sender_address,
            receivers: trust.receivers.clone(),
            arc_sealers: trust.arc_sealers.clone(),
        },
        wordings,
        max_size: usize::try_from(config.max_mail_size()).unwrap_or(usize::MAX),
    })
}

/// Runs until `stop` is cancelled. At each `reload` the secrets that are kept
/// elsewhere are read again. The control socket goes into the first of
/// `sockets` that is free.
pub async fn run(
    config: Config,
    sockets: &[PathBuf],
    reload: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let config = Arc::new(config);
    let (worker, tools, board, worker_ended) = open(&config)?;
    let receivers = Receivers::set_up(&config, &tools.doors).await?;
    let listener = socket::Listener::bind_first(sockets, &config.state_dir).await?;

    let tasks = tools.tasks.clone();
    let stop = stop.child_token();
    let (sleeper, slept) = watch::channel(0);
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(clock::watch_over(sleeper)),
    );
    for mailbox in &config.mailboxes {
        let mailbox = Arc::new(mailbox.clone());
        for folders in inbox::lines(&mailbox) {
            let line = Line {
                mailbox: Arc::clone(&mailbox),
                folders,
                tools: tools.clone(),
                board: Arc::clone(&board),
                slept: slept.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(line.watch());
        }
    }
    tasks.spawn(errands::run(tools.clone(), receivers, stop.clone()));
    let socket = listener.path().to_owned();
    let rooms = control::Rooms {
        config: Arc::clone(&config),
        worker: worker.clone(),
        board: Arc::clone(&board),
        resync: Resync::new(Arc::clone(&config), tools.clone()),
        tools,
        stop: stop.clone(),
    };
    tasks.spawn(control::serve(listener, rooms));
    tasks.spawn(notify::keep_informed(
        board,
        worker.clone(),
        reload,
        stop.clone(),
    ));
    drop(worker);

    notify::ready();
    tracing::info!(
        event = "daemon.ready",
        version = env!("CARGO_PKG_VERSION"),
        socket = %socket.display(),
        state_dir = %config.state_dir.display(),
        "tokenwatch is ready"
    );

    let mut worker_ended = worker_ended;
    let ended = tokio::select! {
        // At a stop the tasks let go of the worker, and it may have ended before
        // this task is woken: that is no failure.
        biased;
        () = stop.cancelled() => Ok(()),
        _ = &mut worker_ended => Err(DaemonError::WorkerGone),
    };

    tracing::info!(event = "daemon.stopping", "stopping");
    notify::stopping();
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(TASKS, tasks.wait()).await.is_err() {
        tracing::warn!(event = "daemon.drain", "some tasks did not end in time");
    }
    // With the last handle gone the worker finishes what it has, and lets go
    // of the vault.
    if ended.is_ok() && tokio::time::timeout(WORKER, worker_ended).await.is_err() {
        tracing::warn!(event = "daemon.drain", "the worker did not end in time");
    }
    tracing::info!(event = "daemon.stopped", "stopped");
    ended
}

/// Looks through every folder once, as far back as the daemon would, and ends
/// when all that was found is durable.
pub async fn once(config: Config) -> Result<(), DaemonError> {
    let config = Arc::new(config);
    let (worker, tools, board, worker_ended) = open(&config)?;
    let receivers = Receivers::set_up(&config, &tools.doors).await?;
    let (mut failed, mut of, mut undecided) = (0_usize, 0_usize, 0_usize);
    let mut first = None;
    for mailbox in &config.mailboxes {
        let line = Line {
            mailbox: Arc::new(mailbox.clone()),
            folders: mailbox.folders.clone(),
            tools: tools.clone(),
            board: Arc::clone(&board),
            slept: watch::channel(0).1,
            stop: CancellationToken::new(),
        };
        let once = line.once().await;
        of = of.saturating_add(mailbox.folders.len());
        failed = failed.saturating_add(once.failed);
        undecided = undecided.saturating_add(once.undecided);
        first = first.or_else(|| once.first.map(|error| (mailbox.name.clone(), error)));
    }
    let waiting = errands::finish(&tools, &receivers).await;
    tools.tasks.close();
    tools.tasks.wait().await;
    drop((worker, tools));
    // The sender is the worker's own thread: it answers, or is gone.
    worker_ended.await.unwrap_or_default();
    match first {
        Some((mailbox, first)) => Err(DaemonError::Incomplete {
            failed,
            of,
            mailbox,
            source: Box::new(first),
        }),
        None if undecided > 0 => Err(DaemonError::Undecided(undecided)),
        None => match waiting? {
            (0, 0) => Ok(()),
            (sinks, checks) => Err(DaemonError::Unfinished { sinks, checks }),
        },
    }
}

type Opened = (
    Handle,
    Tools,
    Arc<Board>,
    tokio::sync::oneshot::Receiver<()>,
);

fn open(config: &Arc<Config>) -> Result<Opened, DaemonError> {
    if config.mailboxes.is_empty() {
        return Err(DaemonError::NoMailbox);
    }
    for warning in config.warnings() {
        tracing::warn!(event = "config.warning", "{warning}");
    }
    let board = Arc::new(Board::new(config));
    let mut worker = Worker::open(Arc::clone(config), Arc::clone(&board))?;
    worker.start_up()?;
    let (worker, ended) = worker::start(worker).map_err(DaemonError::Thread)?;
    let tools = Tools::new(config, worker.clone())?;
    Ok((worker, tools, board, ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_waits_for_a_renewal_and_is_over_before_systemd_ends_it() {
        let unit = include_str!("../../systemd/tokenwatch.service");
        let mut lines = unit.lines();
        let seconds = lines.find_map(|line| line.strip_prefix("TimeoutStopSec="));
        let patience = Duration::from_secs(seconds.unwrap().parse().unwrap());
        assert!(crate::oauth::DEADLINE < TASKS);
        assert!(TASKS + WORKER < patience);
    }
}
