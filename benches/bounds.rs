//! Time and memory that one hostile mail can take: `cargo bench --bench bounds`.
//!
//! Each is judged as the daemon would with the largest `max-mail-size` that
//! can be configured, thirty-two times the default. Memory is what is held on
//! top of the mail itself at the worst moment. It ends with an error where a
//! bound is broken.

#![allow(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is no daemon"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use support::{bombs, trust};
use tokenwatch::judge::{Policy, judge};
use tokenwatch::sender::Keys;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MOST_TIME: Duration = Duration::from_millis(500);
const MOST_MEMORY: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dns = support::dns::Dns::start();
    let keys = runtime.block_on(async { Keys::new(&[dns.address()]).unwrap() });
    let policy = Policy {
        max_size: bombs::LARGEST,
        ..trust::policy()
    };
    let mut broken = false;
    for (name, mail) in bombs::all() {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let start = Instant::now();
        let judgement = runtime.block_on(judge(&mail, &policy, &keys));
        let took = start.elapsed();
        let memory = MEMORY.peak_usage() - before;
        let fits = took <= MOST_TIME && memory <= MOST_MEMORY;
        broken |= !fits;
        println!(
            "{} {name:<36} {:>6.1} MB {:>7.1} ms {:>6.1} MiB  {}",
            if fits { "ok  " } else { "OVER" },
            mail.len() as f64 / 1e6,
            took.as_secs_f64() * 1e3,
            memory as f64 / 1_048_576.0,
            reason(&judgement),
        );
    }
    ExitCode::from(u8::from(broken))
}

fn reason(judgement: &tokenwatch::judge::Judgement) -> &'static str {
    match &judgement.finding {
        tokenwatch::judge::Finding::Notice(_, verdict) => verdict.word(),
        tokenwatch::judge::Finding::NotANotice(why) => why.code(),
    }
}
