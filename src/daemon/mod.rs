//! The daemon: the one place that knows all rooms.
//!
//! [`run`] is the story from start to stop. One task a folder watches
//! (`inbox`), the worker alone changes anything (`worker`), the control API
//! answers commands (`control`), and the board says what everybody is doing
//! (`board`). Commands that find no daemon open a [`Worker`] themselves.

mod board;
mod check;
mod clock;
mod control;
mod doors;
mod gate;
mod inbox;
mod looking;
mod notify;
mod resync;
mod secrets;
mod sign_in;
mod state;
mod tokens;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError};
use crate::judge::Policy;
use crate::mailbox::{Class, MailboxError};
use crate::notice::{Wording, Wordings};
use crate::oauth::{self, OauthError};
use crate::sender::{self, KeysError};
use inbox::Line;
use looking::Tools;
use resync::Resync;

pub use board::Board;
pub use check::Doctor;
pub use control::ControlError;
pub use secrets::{SecretError, secret_of};
pub use sign_in::{SignIn, SignInError};
pub use state::StateError;
pub use worker::{Content, Handle, Outcome, Report, SecretName, Worker};

/// How long the tasks may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The daemon does not start, or has to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Vault or journal cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The configuration cannot be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The resolver does not start.
    #[error("the resolver cannot be set up")]
    Keys(#[from] KeysError),
    /// The control socket cannot be made.
    #[error("the control socket cannot be made")]
    Control(#[from] ControlError),
    /// The worker's thread does not start.
    #[error("the worker's thread does not start")]
    Thread(#[source] std::io::Error),
    /// Nothing is configured to be watched.
    #[error("no [[mailbox]] is configured")]
    NoMailbox,
    /// The worker ended while it was needed.
    #[error("the worker has stopped")]
    WorkerGone,
    /// Some mailboxes could not be looked through.
    #[error("{failed} of {of} folders could not be looked through")]
    Incomplete {
        /// So many.
        failed: usize,
        /// Of so many.
        of: usize,
        /// The mailbox of the first.
        mailbox: String,
        /// The first failure.
        source: Box<InboxError>,
    },
    /// The senders of some mails could not be judged.
    #[error("the senders of {0} mails cannot be judged now")]
    Undecided(usize),
}

/// Why a folder is not watched.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The mailbox failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The vault or the journal failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no password to log in with.
    #[error("the password of mailbox {0} is not set")]
    NoPassword(String),
    /// Nobody has signed in for it.
    #[error("nobody has signed in for mailbox {0}")]
    NotSignedIn(String),
    /// The secret of the OAuth 2 client is not set.
    #[error("the client secret of mailbox {0} is not set")]
    NoClientSecret(String),
    /// Without a refresh token one would have to sign in every hour.
    #[error("the provider gave mailbox {0} no refresh token")]
    NoRefreshToken(String),
    /// There is no access token.
    #[error("there is no access token for the mailbox")]
    Oauth(#[from] OauthError),
    /// It is too soon for another login.
    #[error("{}", held_back(*.refused))]
    HeldBack {
        /// For so long.
        wait: Duration,
        /// Because the last one was refused; else because there were too many.
        refused: bool,
    },
    /// The task panicked.
    #[error("the task that watches it went wrong")]
    Panicked,
}

impl InboxError {
    fn class(&self) -> Class {
        match self {
            Self::Mailbox(error) => error.class(),
            Self::Oauth(error) => match error.class() {
                oauth::Class::Transient => Class::Transient,
                oauth::Class::SignIn | oauth::Class::Person => Class::Person,
            },
            Self::NoPassword(_)
            | Self::NotSignedIn(_)
            | Self::NoClientSecret(_)
            | Self::NoRefreshToken(_)
            | Self::Panicked
            | Self::State(StateError::Secret(_)) => Class::Person,
            Self::HeldBack { .. } => Class::Login,
            Self::State(_) => Class::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Mailbox(error) => error.code(),
            Self::Oauth(error) => error.code(),
            Self::NotSignedIn(_) | Self::NoRefreshToken(_) => "oauth-sign-in",
            Self::NoPassword(_) | Self::NoClientSecret(_) | Self::State(StateError::Secret(_)) => {
                "mailbox-password-missing"
            }
            Self::HeldBack { refused: true, .. } => "mailbox-login-refused",
            Self::HeldBack { refused: false, .. } => "mailbox-login-limit",
            Self::State(_) => "storage-failed",
            Self::Panicked => "internal",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self, mailbox: &str) -> String {
        match self {
            Self::Mailbox(error) => error.hint().replace("NAME", mailbox),
            Self::NoPassword(name) => format!("run `tokenwatch secret set mailbox/{name}`"),
            Self::Oauth(error) => error.hint().replace("NAME", mailbox),
            Self::NotSignedIn(name) => format!("run `tokenwatch login {name}`"),
            Self::NoClientSecret(name) => format!("run `tokenwatch secret set client/{name}`"),
            Self::NoRefreshToken(_) => {
                "add the scope that the provider asks for it, `offline_access` most often, to `scopes`"
                    .to_owned()
            }
            Self::HeldBack { refused: true, .. } => {
                format!(
                    "set the right password with `tokenwatch secret set mailbox/{mailbox}`: then it is tried at once"
                )
            }
            Self::HeldBack { refused: false, .. } => {
                "see the server's log: it lets us in and hangs up, again and again".to_owned()
            }
            Self::State(error) => error.hint(),
            Self::Panicked => "this is a fault of tokenwatch: please report it".to_owned(),
        }
    }
}

fn held_back(refused: bool) -> &'static str {
    if refused {
        "the login was refused before, and it is too soon to try it again"
    } else {
        "there were too many logins in a short time, and the next one waits"
    }
}

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

/// Runs until `stop` is cancelled. The control socket goes into the first of
/// `sockets` that is free.
pub async fn run(
    config: Config,
    sockets: &[PathBuf],
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let config = Arc::new(config);
    let (worker, tools, board, worker_ended) = open(&config)?;
    let control = control::Listener::bind_first(sockets, &config.state_dir).await?;

    let tasks = TaskTracker::new();
    let stop = stop.child_token();
    let mut wakes = Wakes::default();
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
                secret_changed: wakes.add(&mailbox.name),
                slept: slept.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(line.watch());
        }
    }
    let socket = control.path().to_owned();
    tasks.spawn(control.serve(control::Rooms {
        config: Arc::clone(&config),
        worker: worker.clone(),
        board: Arc::clone(&board),
        resync: Resync::new(Arc::clone(&config), tools.clone()),
        tools,
        wakes,
        tasks: tasks.clone(),
        stop: stop.clone(),
    }));
    tasks.spawn(notify::keep_informed(board, worker.clone(), stop.clone()));
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
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!(event = "daemon.drain", "some tasks did not end in time");
    }
    // With the last handle gone the worker finishes what it has, and lets go
    // of the vault.
    if ended.is_ok() && tokio::time::timeout(DRAIN, worker_ended).await.is_err() {
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
    let (mut failed, mut of, mut undecided) = (Vec::new(), 0_usize, 0_usize);
    for mailbox in &config.mailboxes {
        for folder in &mailbox.folders {
            of = of.saturating_add(1);
            let line = Line {
                mailbox: Arc::new(mailbox.clone()),
                folders: vec![folder.clone()],
                tools: tools.clone(),
                board: Arc::clone(&board),
                secret_changed: Arc::default(),
                slept: watch::channel(0).1,
                stop: CancellationToken::new(),
            };
            match line.once().await {
                Ok(open) => undecided = undecided.saturating_add(open),
                Err(error) => {
                    let (chain, hint) = (crate::chain(&error), error.hint(&mailbox.name));
                    tracing::error!(
                        event = "mailbox.lost",
                        mailbox = mailbox.name,
                        folder,
                        error = chain,
                        hint,
                        "a folder could not be looked through"
                    );
                    failed.push((mailbox.name.clone(), error));
                }
            }
        }
    }
    drop((worker, tools));
    // The sender is the worker's own thread: it answers, or is gone.
    worker_ended.await.unwrap_or_default();
    let count = failed.len();
    match failed.into_iter().next() {
        Some((mailbox, first)) => Err(DaemonError::Incomplete {
            failed: count,
            of,
            mailbox,
            source: Box::new(first),
        }),
        None if undecided > 0 => Err(DaemonError::Undecided(undecided)),
        None => Ok(()),
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

/// Who waits for a secret, and is to be woken when it is set.
#[derive(Clone, Default)]
struct Wakes(Arc<Vec<(String, Arc<Notify>)>>);

impl Wakes {
    /// One more line of this mailbox.
    fn add(&mut self, mailbox: &str) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        Arc::make_mut(&mut self.0).push((mailbox.to_owned(), Arc::clone(&wake)));
        wake
    }

    /// A secret was set or removed.
    fn wake(&self, name: &SecretName) {
        if let Some(changed) = name.mailbox() {
            for (mailbox, waiting) in self.0.iter() {
                if mailbox == changed {
                    waiting.notify_one();
                }
            }
        }
    }
}
