//! Folders of a real Dovecot that other people and programs work in as well, its other ways in,
//! and its processes stopped.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::dovecot::{composite, mail};
use crate::dovecot_server::{Dovecot, Options};
use crate::process::{Daemon, Machine};
use crate::support::mail::RECEIVER;

const USER: &str = "mariana@idalko.com";

/// A machine with these mailboxes; `SERVER` in them is the host and the CA.
fn machine(dovecot: &Dovecot, mailboxes: &[String]) -> Machine {
    let server = format!(
        "host = \"localhost\"\nca-file = \"{}\"\n",
        dovecot.ca_file().display()
    );
    let machine = Machine::new(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n{}",
        mailboxes.concat().replace("SERVER", &server)
    ));
    machine.set_secret(&format!("account/{USER}"), "sf-pass");
    machine
}

fn mailbox(name: &str, user: &str, port: u16, more: &str) -> String {
    format!("[[mailbox]]\nname = \"{name}\"\nSERVERport = {port}\nuser = \"{user}\"\n{more}\n")
}

fn ops(dovecot: &Dovecot, more: &str) -> Machine {
    let mailbox = mailbox("ops", "ops@example.com", dovecot.port(), more);
    let machine = machine(dovecot, &[mailbox]);
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine
}

#[test]
fn what_is_saved_moved_and_filed_into_a_watched_folder_is_taken() {
    let dovecot = Dovecot::start();
    for folder in ["Tokens", "Elsewhere"] {
        dovecot.create_folder(folder);
    }
    let machine = ops(&dovecot, "folders = [\"INBOX\", \"Tokens\"]");
    let daemon = machine.daemon();
    daemon.wait_for_nth("mailbox.watching", 2, |_| true);
    dovecot.deliver_to("Tokens", &mail(1, 9));
    daemon.wait_for_nth("credential.updated", 1, |_| true);
    dovecot.save("Tokens", &mail(2, 8));
    daemon.wait_for_nth("credential.updated", 2, |_| true);

    dovecot.deliver_to("Elsewhere", &mail(3, 7));
    dovecot.move_mails("Elsewhere", "Tokens");
    daemon.wait_for_nth("credential.updated", 3, |_| true);
    dovecot.deliver_to("Elsewhere", &mail(4, 6));
    dovecot.refile("Elsewhere", "INBOX");
    daemon.wait_for_nth("credential.updated", 4, |_| true);
    assert_eq!(machine.credential(USER), composite(4));

    // From one watched folder into another: the same mail again.
    dovecot.move_mails("INBOX", "Tokens");
    daemon.wait_for("notice.duplicate", |line| line["uid"] == 4);
    assert_eq!(machine.credential(USER), composite(4));
    assert!(daemon.stop().0.success());
    assert_eq!(dovecot.flags(), Vec::<String>::new());
    let left = dovecot.folder_mails("Tokens");
    assert_eq!(left.len(), 4, "{left:?}");
    for file in left {
        assert!(
            !file.contains(":2,S"),
            "the folder is left as it was: {file}"
        );
    }
}

#[test]
fn a_folder_that_is_deleted_and_made_again_is_watched_again() {
    let dovecot = Dovecot::start();
    dovecot.create_folder("Tokens");
    let machine = ops(&dovecot, "folders = [\"Tokens\"]\nidle-renew = \"5s\"");
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.delete_folder("Tokens");
    daemon.wait_for("mailbox.lost", |_| true);
    dovecot.create_folder("Tokens");
    dovecot.save("Tokens", &mail(1, 3));
    daemon.wait_for_nth("credential.updated", 1, |_| true);

    // To a session in IDLE, Dovecot says nothing of this.
    daemon.wait_for_nth("mailbox.watching", 2, |_| true);
    dovecot.rename_folder("Tokens", "Old tokens");
    dovecot.create_folder("Tokens");
    dovecot.save("Tokens", &mail(2, 2));
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    assert_eq!(machine.credential(USER), composite(2));
    assert!(daemon.stop().0.success());
}

#[test]
fn starttls_first_and_then_the_password() {
    let dovecot = Dovecot::with(&Options {
        more: "ssl = required",
        ..Options::default()
    });
    let more = "tls = \"starttls\"";
    let mailbox = mailbox("ops", "ops@example.com", dovecot.starttls_port(), more);
    let machine = machine(&dovecot, &[mailbox]);
    machine.set_secret("mailbox/ops", "mailbox-pass");
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.deliver(&mail(1, 0));
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite(1));
    assert!(daemon.stop().0.success());
    assert!(dovecot.log().contains("TLS, session="), "{}", dovecot.log());
}

#[test]
fn users_of_a_server_without_idle_and_one_login_more_than_it_allows() {
    let dovecot = Dovecot::with(&Options {
        users: 3,
        connections: 1,
        without: &["IDLE", "NOTIFY"],
        ..Options::default()
    });
    let names = ["u1", "u2", "u3", "u3-again"];
    let mailboxes = names.map(|name| {
        let user = name.trim_end_matches("-again");
        mailbox(name, user, dovecot.port(), "poll = \"2s\"")
    });
    let machine = machine(&dovecot, &mailboxes);
    let set = |name: &str| machine.set_secret(&format!("mailbox/{name}"), "mailbox-pass");
    names[..3].iter().for_each(|name| set(name));
    let daemon = machine.daemon();
    daemon.wait_for_nth("mailbox.watching", 3, |_| true);
    // Of two logins in the same instant, Dovecot counts neither for the other, and lets both in.
    set(names[3]);
    let limited = |line: &Value| line["error"].as_str().unwrap().contains("[LIMIT]");
    let lost = daemon.wait_for("mailbox.lost", limited);
    assert_eq!(lost["spans"][0]["mailbox"], names[3], "{lost}");
    assert_eq!(dovecot.sessions(), 3);
    dovecot.deliver_for("u2", &mail(1, 3));
    daemon.wait_for_nth("credential.updated", 1, |_| true);
    dovecot.deliver_for("u3", &mail(2, 2));
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    assert_eq!(machine.credential(USER), composite(2));
    let status = machine.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    assert!(daemon.stop().0.success());
}

#[test]
fn a_session_that_stands_still_is_noticed_and_another_catches_up() {
    let dovecot = Dovecot::start();
    let machine = ops(&dovecot, "idle-renew = \"5s\"");
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.pause();
    dovecot.deliver(&mail(1, 3));
    noticed(&daemon);
    // The next session has a process of its own, which nobody has stopped.
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite(1));
    assert!(daemon.stop().0.success());
}

#[test]
fn a_server_that_stands_still_is_noticed_and_caught_up_with() {
    let dovecot = Dovecot::start();
    let machine = ops(&dovecot, "idle-renew = \"5s\"");
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    dovecot.freeze();
    dovecot.deliver(&mail(1, 3));
    noticed(&daemon);
    dovecot.resume();
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite(1));
    assert!(daemon.stop().0.success());
}

/// Waits until the daemon tells of the loss: within `idle-renew` and half a minute, wherever in
/// the conversation the server has gone silent.
fn noticed(daemon: &Daemon) {
    let silent = Instant::now();
    daemon.wait_for("mailbox.lost", |_| true);
    let noticed = silent.elapsed();
    assert!(noticed < Duration::from_secs(35), "only after {noticed:?}");
}
