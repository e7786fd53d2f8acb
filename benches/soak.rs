//! The soak, for as long as one likes, with the real binary:
//! `cargo bench --features system-tests --bench soak -- --minutes 60 --seed 1`
//!
//! With the feature a Dovecot is among the servers. The seed is printed first,
//! then a line a minute, and at the end what is wrong, which should be nothing;
//! else the bench fails. Without arguments it takes five minutes.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a bench fails by a panic, and uses a part of what the tests have"
)]

#[cfg(feature = "system-tests")]
#[path = "../tests/support/dovecot.rs"]
mod dovecot_server;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "../tests/support/soak/mod.rs"]
mod soaking;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use soaking::{Pace, soak};

fn main() -> ExitCode {
    let minutes = argument("--minutes").unwrap_or(5);
    let seed = argument("--seed").unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak/{seed}.log"));
    println!(
        "seed {seed}, {minutes} minutes, everything is in {}",
        log.display()
    );
    let duration = Duration::from_secs(60 * minutes);
    let summary = soak(seed, duration, Pace::steady(), &log, |figures| {
        println!("{figures}");
    });
    let figures = summary.figures;
    println!("{figures}");
    println!(
        "all seen {:.0} s after all was well; {:.1} MiB were {:.1}, {} descriptors were {}; \
         {} mails were taken away unseen",
        figures.recovery.as_secs_f64(),
        figures.resident,
        figures.resident_before,
        figures.descriptors,
        figures.descriptors_before,
        figures.unseen
    );
    for problem in &summary.problems {
        println!("WRONG: {problem}");
    }
    if summary.problems.is_empty() {
        println!("every mail is accounted for");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}
