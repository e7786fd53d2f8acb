//! The most memory that a first look takes, by the number of mails:
//! `cargo bench --bench memory`, or `… --bench memory -- 1000 50000` for other
//! numbers.
//!
//! The real daemon looks through an inbox that is made while it looks, with
//! SEARCH and where the server refuses it, with UIDs one by one and 4,000
//! apart. The peak is that of the whole process, until it is in IDLE.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench fails by a panic"
)]

#[path = "../tests/support/process.rs"]
mod process;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/usage.rs"]
mod usage;

use std::time::{Duration, Instant};

use process::Machine;
use support::endless::{Endless, Inbox, TOKENS, USER};
use support::mail::RECEIVER;
use usage::Usage;

fn main() {
    let numbers: Vec<u32> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let numbers = if numbers.is_empty() {
        vec![1000, 100_000, 1_000_000]
    } else {
        numbers
    };
    println!("    mails  UIDs        SEARCH   peak MiB    time");
    for (refuses_search, search) in [(false, "yes"), (true, "refused")] {
        for (gap, uids) in [(1, "dense"), (4000, "4,000 apart")] {
            for &mails in &numbers {
                let inbox = Inbox {
                    mails,
                    gap,
                    refuses_search,
                };
                let (peak, took) = first_look(inbox);
                let took = took.as_secs_f64();
                println!("{mails:>9}  {uids:<11} {search:<8} {peak:>7.1}  {took:>7.2} s");
            }
        }
    }
}

fn first_look(inbox: Inbox) -> (f64, Duration) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = runtime.block_on(Endless::start(inbox));
    let machine = Machine::new("");
    let password = machine.folder.path().join("password");
    std::fs::write(&password, "mailbox-pass").unwrap();
    machine.configure(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
         user = \"ops@example.com\"\npassword = \"file:{}\"\n",
        server.port(),
        password.display(),
    ));
    machine.set_secret(&format!("account/{USER}"), "pass");
    let begun = Instant::now();
    let daemon = machine.daemon();
    runtime.block_on(server.wait_idling());
    let took = begun.elapsed();
    let peak = Usage(daemon.pid()).peak();
    // It has found them all.
    daemon.wait_for_nth("notice.updated", TOKENS.try_into().unwrap(), |_| true);
    (peak, took)
}
