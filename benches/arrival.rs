//! From the server's EXISTS, over TLS, to the mail being judged, in this
//! process, and to the durable credential, with the real binary:
//! `cargo bench --bench arrival`
//!
//! Each iteration delivers a mail with a new token to a server in this process,
//! whose EXISTS goes out at once. The first ends when the bytes were judged, the
//! second when the daemon has logged `credential.updated`, which it does after
//! the last fsync of the vault. The pipe that the log comes through is a part
//! of what is measured there.

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

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use process::Machine;
use support::imap_server::{ImapServer, Options};
use support::mail::{RECEIVER, TokenMail, token};
use support::trust;
use tokenwatch::judge::{Finding, judge};
use tokenwatch::mailbox::{
    Access, Credential, Look, Proxy, Roots, Security, Server, Session, Step, Wanted,
};
use tokenwatch::notice;
use tokenwatch::secret::Secret;
use tokenwatch::sender::{Keys, Verdict};

const USER: &str = "mariana@idalko.com";

fn exists_to_durable(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(ImapServer::start(Options::default()));
    let machine = Machine::new("");
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    machine.configure(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\nca-file = \"{}\"\n\
         user = \"ops@example.com\"\n",
        server.port(),
        ca.display()
    ));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "pass");
    let daemon = machine.daemon();

    let start = Timestamp::now() - SignedDuration::from_hours(24);
    let mut seed: i64 = 0;
    criterion.bench_function("EXISTS to credential durable", |bench| {
        bench.iter_custom(|iterations| {
            let mut sum = Duration::ZERO;
            for _ in 0..iterations {
                seed += 1;
                let date = start + SignedDuration::from_secs(seed);
                let mail = TokenMail::new(USER, &token(seed.unsigned_abs()), date).bytes();
                runtime.block_on(server.wait_idling(1));
                let announced = Instant::now();
                server.deliver(&mail);
                daemon.wait_for("credential.updated", |line| line["version"] == seed);
                sum += announced.elapsed();
            }
            sum
        });
    });
}

/// One session in this process, which is in IDLE when the mail comes.
struct Watcher {
    session: Session,
    wanted: Wanted,
    keys: Keys,
    next_uid: u32,
}

impl Watcher {
    async fn start(server: &ImapServer, ca_file: &std::path::Path) -> Self {
        let of = Server {
            host: "localhost".to_owned(),
            port: server.port(),
            security: Security::Tls,
            ca_file: Some(ca_file.to_owned()),
            pin: None,
            proxy: Proxy::None,
            max_mail_size: 256 * 1024,
            patience: Duration::from_secs(10),
        };
        let roots = Roots::of_the_system();
        let mut session = Session::connect(&of, &roots).await.unwrap();
        let password = Secret::new("mailbox-pass".to_owned());
        session
            .log_in("ops@example.com", &Credential::Password(password))
            .await
            .unwrap();
        session.open("INBOX", Access::Read).await.unwrap();
        let policy = trust::policy();
        let (senders, wordings) = (policy.trust.senders, policy.wordings);
        Self {
            session,
            wanted: Wanted {
                from: senders.clone(),
                subject: notice::SUBJECT_SEARCH.to_owned(),
                fields: Box::new(move |fields| notice::worth_reading(fields, &senders, &wordings)),
                max_size: 256 * 1024,
            },
            keys: Keys::new(&[]).unwrap(),
            next_uid: 1,
        }
    }

    /// Waits for a mail, and judges it: when that was done.
    async fn take(&mut self) -> Instant {
        let never = std::future::pending();
        self.session
            .idle(Duration::from_secs(60), never, || {})
            .await
            .unwrap();
        let mut judged = None;
        let mut look = Look::at_news(self.next_uid);
        while let Some(step) = look.next(&mut self.session, &self.wanted).await.unwrap() {
            match step {
                Step::Mail(found) => {
                    let raw = found.raw.unwrap();
                    let judgement = judge(&raw, &trust::policy(), &self.keys).await;
                    judged = Some(Instant::now());
                    assert!(matches!(
                        judgement.finding,
                        Finding::Notice(_, Verdict::Trusted(_))
                    ));
                }
                Step::Seen { next_uid } => self.next_uid = next_uid,
                Step::Unfetchable { .. } | Step::Gone { .. } => unreachable!(),
            }
        }
        judged.unwrap()
    }
}

fn exists_to_judged(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(ImapServer::start(Options::default()));
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    let mut watcher = runtime.block_on(Watcher::start(&server, &ca));
    let mut seed: u64 = 0;
    criterion.bench_function("EXISTS to judged", |bench| {
        bench.iter_custom(|iterations| {
            let mut sum = Duration::ZERO;
            for _ in 0..iterations {
                seed += 1;
                let mail = TokenMail::new(USER, &token(seed), Timestamp::now()).bytes();
                let announce = async {
                    server.wait_idling(1).await;
                    let announced = Instant::now();
                    server.deliver(&mail);
                    announced
                };
                let (announced, judged) =
                    runtime.block_on(async { tokio::join!(announce, watcher.take()) });
                sum += judged - announced;
            }
            sum
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(8));
    targets = exists_to_judged, exists_to_durable
}
criterion_main!(benches);
