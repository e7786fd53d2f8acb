//! A real Dovecot over TLS, as the first user has it.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use crate::dovecot_server::Dovecot;
use crate::process::Machine;
use crate::support::mail::{RECEIVER, TokenMail, newsletter, token};

const USER: &str = "mariana@idalko.com";

fn machine(dovecot: &Dovecot) -> Machine {
    let machine = Machine::new(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\n\
         ca-file = \"{}\"\nuser = \"ops@example.com\"\n",
        dovecot.port(),
        dovecot.ca_file().display()
    ));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "sf-pass");
    machine
}

/// The credential that the mail with this seed makes.
pub fn composite(seed: u64) -> Option<String> {
    Some(format!("sf-pass{}", token(seed)))
}

/// A token mail from so many minutes ago.
pub fn mail(seed: u64, minutes_ago: i64) -> Vec<u8> {
    let date = Timestamp::now() - SignedDuration::from_mins(minutes_ago);
    TokenMail::new(USER, &token(seed), date).bytes()
}

#[test]
fn from_the_first_secret_to_the_last_signal() {
    let dovecot = Dovecot::start();
    dovecot.deliver(&newsletter(1));
    let machine = machine(&dovecot);
    assert_eq!(machine.run(&["check"]).stdout.matches('✗').count(), 0);
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.deliver(&mail(5, 2));
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite(5));

    // Late ones: older by their date, and older by when they were received.
    dovecot.deliver(&mail(4, 90));
    let yesterday = SystemTime::now() - Duration::from_hours(24);
    dovecot.deliver_at(&mail(3, 1440), yesterday);
    dovecot.deliver(&mail(5, 2));
    daemon.wait_for_nth("notice.older", 2, |_| true);
    daemon.wait_for("notice.duplicate", |_| true);
    assert_eq!(machine.credential(USER), composite(5));
    assert!(daemon.stop().0.success());

    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    assert_eq!(machine.credential(USER), composite(5));
    let printed = machine.ok(&["resync", "--since", "all"]);
    assert!(
        printed.contains("0 updated, 2 duplicate, 2 older"),
        "{printed}"
    );
    dovecot.deliver(&mail(6, 0));
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite(6));
    assert_eq!(machine.wait_status(|s| s["state"] == "healthy")["held"], 0);
    let (ended, _, log) = daemon.stop();
    assert!(ended.success(), "{log}");
    assert_eq!(machine.credential(USER), composite(6));
    machine
        .run(&["status"])
        .failed(3, "no daemon", "tokenwatch run");
    for file in dovecot.flags() {
        assert!(
            !file.contains(":2,"),
            "the mailbox is left as it was: {file}"
        );
    }
}

#[test]
fn kicked_restarted_and_numbered_anew_no_mail_is_missed() {
    let mut dovecot = Dovecot::start();
    let machine = machine(&dovecot);
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.kick();
    dovecot.deliver(&mail(1, 9));
    daemon.wait_for_nth("credential.updated", 1, |_| true);

    dovecot.stop();
    dovecot.deliver(&mail(2, 8));
    dovecot.restart();
    daemon.wait_for_nth("credential.updated", 2, |_| true);

    dovecot.stop();
    dovecot.forget_uids();
    dovecot.restart();
    daemon.wait_for("mailbox.uidvalidity", |_| true);
    dovecot.deliver(&mail(3, 7));
    daemon.wait_for_nth("credential.updated", 3, |_| true);
    assert_eq!(machine.credential(USER), composite(3));
    assert!(daemon.stop().0.success());
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let dovecot = Dovecot::start();
    let machine = machine(&dovecot);
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&text.replace("ca-file", "#ca-file"));
    machine
        .run(&["run", "--once"])
        .failed(69, "no TLS with localhost", "ca-file");
    machine.configure(&text.replace("\"localhost\"", "\"127.0.0.2\""));
    machine
        .run(&["run", "--once"])
        .failed(69, "127.0.0.2", "host");
}

/// Dovecot hangs up over a mail that is larger than its file's name says, at
/// each session (`imap_fetch_failure`, whose default that is).
#[test]
fn a_damaged_mail_hides_no_other() {
    let dovecot = Dovecot::start();
    dovecot.deliver_as("0.localhost,S=100,W=100", &mail(1, 9));
    dovecot.deliver(&mail(2, 1));
    let machine = machine(&dovecot);
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(ended.stderr.contains("uid=1 reason=\"unfetchable\""));
    assert_eq!(machine.credential(USER), composite(2));
    assert!(dovecot.log().contains("Disconnected: FETCH failed"));
}
