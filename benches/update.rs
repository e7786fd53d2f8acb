//! From the judgement of a mail to the durable credential, and a new token for
//! each of a thousand accounts, with the file vault:
//! `cargo bench --bench update`
//!
//! It is the worker's part alone: what the network and the judgement take is
//! measured in `arrival`. One iteration ends when the account's document, the
//! entry that others read, the outcome and the cursor are on the disk.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by a panic; criterion's macros make undocumented items"
)]

#[path = "../tests/support/process.rs"]
mod process;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use support::mail::{RECEIVER, TokenMail, token};
use support::trust;
use tokenwatch::config::Config;
use tokenwatch::daemon::{Board, Content, Outcome, Report, SecretName, Worker};
use tokenwatch::journal::{Cursor, Kind, Place};
use tokenwatch::judge::judge;
use tokenwatch::secret::Secret;
use tokenwatch::sender::Keys;

/// A worker that keeps so many accounts, and the mails that come for them.
struct Desk {
    worker: Worker,
    runtime: tokio::runtime::Runtime,
    keys: Keys,
    uid: u32,
    _folder: tempfile::TempDir,
}

fn user(n: usize) -> String {
    format!("user{n}@idalko.com")
}

impl Desk {
    fn with(accounts: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut text = format!(
            "state-dir = \"{}\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
             [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nuser = \"ops\"\n",
            state.display()
        );
        for n in 0..accounts {
            write!(text, "[[account]]\nusername = \"{}\"\n", user(n)).unwrap();
        }
        let path = folder.path().join("tokenwatch.toml");
        std::fs::write(&path, text).unwrap();
        let config = Arc::new(Config::load(Some(&path)).unwrap());
        let board = Arc::new(Board::new(&config));
        let mut worker = Worker::open(config, board).unwrap();
        let passwords = (0..accounts).map(|n| {
            let password = Secret::new(format!("correct horse {n}"));
            (SecretName::Account(user(n)), password)
        });
        worker.keep_all(passwords).unwrap();
        worker.start_up().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let keys = runtime.block_on(async { Keys::new(&[]).unwrap() });
        Self {
            worker,
            runtime,
            keys,
            uid: 0,
            _folder: folder,
        }
    }

    /// The next mail with a new token for this account, judged.
    fn mail(&mut self, n: usize) -> Report {
        self.uid += 1;
        let date = Timestamp::now() - SignedDuration::from_hours(24)
            + SignedDuration::from_secs(i64::from(self.uid));
        let mail = TokenMail::new(&user(n), &token(u64::from(self.uid)), date).bytes();
        let policy = trust::policy();
        let judged = judge(&mail, &policy, &self.keys);
        let judgement = self.runtime.block_on(judged);
        Report {
            place: Place {
                mailbox: "ops".into(),
                folder: "INBOX".into(),
                uid_validity: 1,
                uid: self.uid,
            },
            received: date,
            content: Content::Judged(Box::new(judgement)),
            cursor: Some(Cursor::at(1, self.uid + 1)),
            dry_run: false,
        }
    }
}

fn updated(outcome: &Outcome) -> bool {
    outcome.kind == Kind::Updated
}

fn one(criterion: &mut Criterion) {
    let mut desk = Desk::with(1);
    criterion.bench_function("judged to durable", |bench| {
        bench.iter_custom(|iterations| {
            let mut sum = Duration::ZERO;
            for _ in 0..iterations {
                let report = desk.mail(0);
                let begun = Instant::now();
                assert!(updated(&desk.worker.receive(report).unwrap()));
                sum += begun.elapsed();
            }
            sum
        });
    });
}

fn thousand(criterion: &mut Criterion) {
    const ACCOUNTS: usize = 1_000;
    // So many are taken in together while more are judged.
    const SHEAF: usize = 64;
    let mut desk = Desk::with(ACCOUNTS);
    let mut group = criterion.benchmark_group("a new token for each of 1,000 accounts");
    group.sample_size(10);
    group.bench_function("as they come from a mailbox", |bench| {
        bench.iter_custom(|iterations| {
            let mut sum = Duration::ZERO;
            for _ in 0..iterations {
                let mut mails = (0..ACCOUNTS)
                    .map(|n| desk.mail(n))
                    .collect::<Vec<_>>()
                    .into_iter();
                let begun = Instant::now();
                loop {
                    let sheaf: Vec<Report> = mails.by_ref().take(SHEAF).collect();
                    if sheaf.is_empty() {
                        break;
                    }
                    let outcomes = desk.worker.receive_all(sheaf).unwrap();
                    assert!(outcomes.iter().all(updated));
                }
                sum += begun.elapsed();
            }
            sum
        });
    });
    group.finish();
}

criterion_group!(benches, one, thousand);
criterion_main!(benches);
