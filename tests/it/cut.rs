//! A whole conversation, and the connection cut behind every single byte of
//! what the server says in it.
//!
//! In this process, through the library, for there are some thousand runs:
//! each has a state and a server of its own. A run over a line that was cut
//! ends with an error that has a code, or has taken the mail; and the next one,
//! with the same state, takes it, or has it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tempfile::TempDir;
use tokenwatch::config::Config;
use tokenwatch::daemon::{self, Board, DaemonError, InboxError, Worker};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::meeting::{USER, composite, token_mail, write_configuration};
use crate::support::folder::Folder;
use crate::support::imap_server::certify;
use crate::support::mail::newsletter;
use crate::support::scripted::{Cut, Options, Scripted};

/// How long one run may take: none of them waits for anything.
const DEADLINE: Duration = Duration::from_secs(25);

/// A state of its own, in memory where that is to be had.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// What the server has: a mail that is none of ours, and the token mail.
fn mails() -> Folder {
    Folder {
        capabilities: "IMAP4rev1 IDLE ID",
        ..Folder::empty()
            .and(1, &newsletter(1))
            .with(2, &token_mail())
    }
}

/// A line, and where it is cut.
#[derive(Clone, Default)]
struct Wire {
    cut: Option<Cut>,
    tls: Option<(TlsAcceptor, String)>,
}

impl Wire {
    fn plain(after: usize) -> Self {
        let cut = Some(Cut {
            after,
            reset: false,
        });
        Self { cut, tls: None }
    }

    fn options(&self) -> Options {
        Options {
            greeting: mails().greeting(),
            tls: self.tls.as_ref().map(|(acceptor, _)| acceptor.clone()),
            cut: self.cut,
        }
    }

    /// The configuration for such a server.
    fn configure(&self, folder: &TempDir, server: &Scripted) -> PathBuf {
        let line = match &self.tls {
            None => "tls = \"none\"".to_owned(),
            Some((_, ca)) => {
                let path = folder.path().join("ca.pem");
                std::fs::write(&path, ca).unwrap();
                format!("ca-file = \"{}\"", path.display())
            }
        };
        write_configuration(folder.path(), server.port(), &line)
    }
}

fn credential(config: &Config) -> Option<String> {
    let board = Arc::new(Board::new(config));
    let worker = Worker::open(Arc::new(config.clone()), board).unwrap();
    let secret = worker.credential(USER).unwrap();
    secret.map(|secret| secret.expose().to_owned())
}

/// `run --once`.
async fn look(config: &Config) -> Result<(), DaemonError> {
    let once = daemon::once(config.clone());
    tokio::time::timeout(DEADLINE, once)
        .await
        .expect("it hangs")
}

/// Twice `run --once`: over a line that is cut, and over one that is not. How
/// many bytes the first was told.
async fn two_looks(wire: Wire) -> usize {
    let mails = mails();
    let server = Scripted::with(wire.options(), move |_, command| mails.answer(command)).await;
    let folder = folder();
    let config = Config::load(Some(&wire.configure(&folder, &server))).unwrap();
    let at = format!("{:?}", wire.cut);
    match look(&config).await {
        Ok(()) => assert_eq!(credential(&config), composite(), "{at}"),
        Err(DaemonError::Incomplete { source, .. }) => {
            let InboxError::Mailbox(error) = *source else {
                panic!("{at}: {source}");
            };
            assert!(error.code().starts_with("mailbox-"), "{at}: {error}");
        }
        Err(other) => panic!("{at}: {other}"),
    }
    let said = server.said();
    if wire.cut.is_some() {
        look(&config).await.unwrap_or_else(|error| {
            panic!("{at}: {}", tokenwatch::chain(&error));
        });
        assert_eq!(credential(&config), composite(), "{at}");
    }
    said
}

/// A daemon that is told of the mail during IDLE, until it idles behind it.
async fn watching(wire: Wire) -> usize {
    let (full, arrived) = (mails(), AtomicBool::new(false));
    let mut empty = full.clone();
    empty.mails.truncate(1);
    empty.uid_next = Some(2);
    let server = Scripted::with(wire.options(), move |connection, command| {
        if connection > 1 {
            return full.answer(command);
        }
        match command {
            "IDLE" if !arrived.swap(true, SeqCst) => "+ idling\r\n* 2 EXISTS\r\n".to_owned(),
            c if arrived.load(SeqCst) => full.answer(c),
            c => empty.answer(c),
        }
    })
    .await;
    let folder = folder();
    let config = Config::load(Some(&wire.configure(&folder, &server))).unwrap();
    let stop = CancellationToken::new();
    let sockets = [folder.path().join("control.sock")];
    let reload = Arc::default();
    let running = daemon::run(config.clone(), &sockets, reload, stop.clone());
    let idles = async {
        match wire.cut {
            None => server.wait_heard(1, "IDLE", 2).await,
            Some(_) => server.wait_heard(2, "IDLE", 1).await,
        }
        stop.cancel();
    };
    let (ended, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(running, idles) })
        .await
        .expect("it hangs");
    ended.unwrap();
    assert_eq!(credential(&config), composite(), "{:?}", wire.cut);
    server.said()
}

/// So many at a time.
async fn all<F>(most: usize, runs: impl Iterator<Item = F>) -> usize
where
    F: Future<Output = usize> + Send + 'static,
{
    let (mut tasks, mut count) = (JoinSet::new(), 0);
    for run in runs {
        if tasks.len() >= most {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(run);
        count += 1;
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_cut_behind_every_byte() {
    let length = two_looks(Wire::default()).await;
    assert!(length > 1000, "{length} bytes are no conversation");
    let runs = all(8, (0..=length).map(|after| two_looks(Wire::plain(after)))).await;
    assert_eq!(runs, length + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_reset() {
    let length = two_looks(Wire::default()).await;
    let wire = |after| Wire {
        cut: Some(Cut { after, reset: true }),
        tls: None,
    };
    all(8, (0..=length).step_by(11).map(|at| two_looks(wire(at)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_over_tls_that_is_cut() {
    let (ca, acceptor) = certify(Ipv4Addr::LOCALHOST.into());
    let length = two_looks(Wire::default()).await;
    for reset in [false, true] {
        let wire = |after| Wire {
            cut: Some(Cut { after, reset }),
            tls: Some((acceptor.clone(), ca.clone())),
        };
        all(8, (0..=length).step_by(29).map(|at| two_looks(wire(at)))).await;
    }
}

/// From the login on, for behind a refused login the next one waits a minute.
/// Most of a mail's own bytes are left to the look.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_cut_behind_every_byte() {
    let length = watching(Wire::default()).await;
    let mails = mails();
    let login = mails.greeting().len() + mails.answer("LOGIN").len();
    let body = mails.mails[1].1.len();
    // The mail is the last but for the end of its answer, and `+ idling`.
    let in_the_mail = length - body + 64..length - 64;
    let cuts = (login..length).filter(|at| !in_the_mail.contains(at) || at % 16 == 0);
    let runs = all(64, cuts.map(|at| watching(Wire::plain(at)))).await;
    assert!(runs > 400, "{runs}");
}
