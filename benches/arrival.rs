//! From the server's EXISTS to the durable credential, over TLS, with the real
//! binary: `cargo bench --bench arrival`
//!
//! Each iteration delivers a mail with a new token to a server in this process,
//! whose EXISTS goes out at once, and ends when the daemon has logged
//! `credential.updated`, which it does after the last fsync of the vault. The
//! pipe that the log comes through is a part of what is measured.

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

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(8));
    targets = exists_to_durable
}
criterion_main!(benches);
