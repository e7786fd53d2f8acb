//! What watching costs, with one mailbox and with a thousand, over TLS, with
//! the real binary: `cargo bench --bench scale`, or `… --bench scale -- 1 200`
//! for other numbers of mailboxes.
//!
//! A daemon is started, and its memory looked at when all its connections are
//! in IDLE. Then every one of them gets the same signed notice in HTML, and the
//! daemon idles: for a minute with `idle-renew = "30s"`, and for five
//! with the default, so that every connection is renewed in it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
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

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use process::Machine;
use support::dns::Dns;
use support::imap_server::{ImapServer, Options};
use usage::Usage;

/// A notice in HTML, signed with RSA, and whose token it brings.
const MAIL: &str = "genuine/html-table-cells.eml";
const USER: &str = "svc-jira@example.com";

fn main() {
    usage::raise_limit_of_files();
    let numbers: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let numbers = if numbers.is_empty() {
        vec![1, 1000]
    } else {
        numbers
    };
    println!(
        "mailboxes  renew  all watching  RSS MiB  anonymous  PSS   after a mail  CPU a mailbox-minute"
    );
    for mailboxes in numbers {
        for (renew, minutes) in [("30s", 1), ("5m", 5)] {
            watch(mailboxes, renew, minutes);
        }
    }
}

fn watch(mailboxes: usize, renew: &str, minutes: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(ImapServer::start(Options::default()));
    let dns = Dns::serving(&corpus("zone"));
    let machine = Machine::new("");
    configure(&machine, &server, &dns, mailboxes, renew);
    machine.set_secret(&format!("account/{USER}"), "pass");

    let begun = Instant::now();
    let daemon = machine.daemon();
    runtime.block_on(server.wait_idling(mailboxes));
    let watching = begun.elapsed();
    let usage = Usage(daemon.pid());
    let (resident, anonymous) = (usage.resident(), usage.anonymous());
    let proportional = usage.proportional();

    server.deliver(corpus(MAIL).replace('\n', "\r\n").as_bytes());
    daemon.wait_for("notice.updated", |_| true);
    if mailboxes > 1 {
        // It is the same inbox to all of them.
        daemon.wait_for_nth("notice.duplicate", mailboxes - 1, |_| true);
    }
    runtime.block_on(server.wait_idling(mailboxes));
    let with_mail = usage.resident();

    let before = usage.cpu();
    std::thread::sleep(Duration::from_secs(60) * minutes);
    let cpu = usage.cpu().checked_sub(before).unwrap();
    let each = cpu.as_secs_f64() * 1e3 / mailboxes as f64 / f64::from(minutes);
    let proportional = proportional.map_or("-".to_owned(), |mib| format!("{mib:.1}"));
    println!(
        "{mailboxes:>9} {renew:>6} {:>11.2} s {resident:>8.1} {anonymous:>10.1} {proportional:>5} \
         {with_mail:>13.1} {each:>19.2} ms",
        watching.as_secs_f64(),
    );
    // Whoever was lost meanwhile has logged in once more.
    assert_eq!(server.logins(), mailboxes, "a connection was lost");
}

fn configure(machine: &Machine, server: &ImapServer, dns: &Dns, mailboxes: usize, renew: &str) {
    let ca = machine.folder.path().join("ca.pem");
    let password = machine.folder.path().join("password");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    std::fs::write(&password, "mailbox-pass").unwrap();
    let mut text = format!(
        "state-dir = \"STATE\"\n[trust]\ndns-servers = [\"{}\"]\n\
         [[account]]\nusername = \"{USER}\"\n",
        dns.address()
    );
    for n in 0..mailboxes {
        write!(
            text,
            "[[mailbox]]\nname = \"m{n}\"\nhost = \"localhost\"\nport = {}\nca-file = \"{}\"\n\
             user = \"ops@example.com\"\npassword = \"file:{}\"\nidle-renew = \"{renew}\"\n",
            server.port(),
            ca.display(),
            password.display(),
        )
        .unwrap();
    }
    machine.configure(&text);
}

/// A file of the corpus.
fn corpus(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eml");
    std::fs::read_to_string(folder.join(name)).unwrap()
}
