//! The first look through 20,000 mails on a real Dovecot, over TLS, with the
//! real binary: `cargo bench --features system-tests --bench look`
//!
//! Five of the mails bring a token, all together are 112 MB, and Dovecot has
//! its index of them. What a run over an empty inbox takes, start and login and
//! end of the process, is taken off. Where the server refuses to search, a
//! go-between in this process does it in Dovecot's place, which costs a second
//! TLS for every octet; with it the empty run is made as well.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench fails by a panic"
)]

#[path = "../tests/support/dovecot.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "a part of it is used, and it fails by a panic"
)]
mod dovecot;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/without_search.rs"]
mod without_search;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use dovecot::Dovecot;
use jiff::Timestamp;
use process::Machine;
use support::mail::{RECEIVER, TokenMail, newsletter, token};
use without_search::WithoutSearch;

const MAILS: usize = 20_000;
const TOKENS: usize = 5;
const OCTETS: usize = 112_000_000;
const USER: &str = "mariana@idalko.com";
const RUNS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (empty, full) = (Dovecot::start(), Dovecot::start());
    fill(&full);
    let before = |server: &Dovecot| {
        let folder = server.ca_file().parent().unwrap().to_owned();
        runtime.block_on(WithoutSearch::start(
            server.port(),
            server.ca_file(),
            folder,
        ))
    };
    let (empty_without, full_without) = (before(&empty), before(&full));

    // Dovecot makes its index: that is its own time, and passes once.
    let index = run(full.port(), full.ca_file(), TOKENS);
    println!(
        "the very first, Dovecot has no index yet: {:.2} s",
        index.as_secs_f64()
    );
    println!("SEARCH    the whole run   an empty inbox   the look");
    for (search, empty_port, full_port) in [
        ("yes", empty.port(), full.port()),
        ("refused", empty_without.port(), full_without.port()),
    ] {
        let start = median(|| run(empty_port, empty.ca_file(), 0));
        let whole = median(|| run(full_port, full.ca_file(), TOKENS));
        let [start, whole] = [start, whole].map(|took| took.as_secs_f64());
        println!(
            "{search:<8} {whole:>13.3} s {start:>14.3} s {:>8.3} s",
            whole - start
        );
    }
}

fn fill(server: &Dovecot) {
    let now = Timestamp::now();
    let filler = "lorem ipsum dolor sit amet\r\n".repeat(OCTETS / MAILS / 28 + 1);
    for n in 0..MAILS {
        // All within the last ten days, so that `since` leaves none out.
        let age = Duration::from_secs(((MAILS - n) * 43).try_into().unwrap());
        let mail = if n % (MAILS / TOKENS) == MAILS / TOKENS / 2 {
            let seed = n.try_into().unwrap();
            TokenMail::new(USER, &token(seed), now - age).bytes()
        } else {
            let mut mail = newsletter(n);
            let rest = OCTETS / MAILS - mail.len().min(OCTETS / MAILS);
            mail.extend_from_slice(&filler.as_bytes()[..rest]);
            mail
        };
        server.deliver_at(&mail, SystemTime::now() - age);
    }
}

/// One look from a machine that has never looked: how long it took.
fn run(port: u16, ca_file: &Path, tokens: usize) -> Duration {
    let machine = Machine::new("");
    let password = machine.folder.path().join("password");
    std::fs::write(&password, "mailbox-pass").unwrap();
    machine.configure(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {port}\nca-file = \"{}\"\n\
         user = \"ops@example.com\"\npassword = \"file:{}\"\n",
        ca_file.display(),
        password.display(),
    ));
    machine.set_secret(&format!("account/{USER}"), "pass");
    let begun = Instant::now();
    let ended = machine.run(&["--log", "info", "--log-format", "json", "run", "--once"]);
    let took = begun.elapsed();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let found = ended.stderr.matches("\"notice.updated\"").count();
    assert_eq!(found, tokens, "{}", ended.stderr);
    took
}

fn median(run: impl Fn() -> Duration) -> Duration {
    let mut all: Vec<Duration> = std::iter::repeat_with(run).take(RUNS).collect();
    all.sort();
    all[RUNS / 2]
}
