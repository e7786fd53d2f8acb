//! The manual resync: shared, interrupted, and never in the way of watching.

use std::process::{Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Machine;
use crate::support::folder::Folder;
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{RECEIVER, TokenMail, token};
use crate::support::scripted::{Options as ScriptedOptions, Scripted};
use crate::watching::machine;

const USER: &str = "mariana@idalko.com";

/// How many folders were examined by a resync: each watching line does it once.
fn finished(daemon: &crate::process::Daemon) -> usize {
    daemon.log().matches("resync.finished").count()
}

/// A server whose answer to the header fetch of the second login, which is the
/// resync's, comes only when it is let go.
async fn held(gate: std::sync::Arc<std::sync::Barrier>) -> Scripted {
    let logins = std::sync::atomic::AtomicUsize::new(0);
    Scripted::answering(move |command| match command {
        c if c.starts_with("LOGIN") => {
            logins.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            "TAG OK [CAPABILITY IMAP4rev1] in\r\n".into()
        }
        c if c.starts_with("EXAMINE") => {
            if logins.load(std::sync::atomic::Ordering::Relaxed) > 1 {
                gate.wait();
            }
            "* 0 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 1] ok\r\nTAG OK done\r\n".into()
        }
        _ => "TAG OK done\r\n".into(),
    })
    .await
}

fn held_machine(port: u16) -> Machine {
    let machine = Machine::new(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         user = \"ops@example.com\"\npoll = \"25m\"\n"
    ));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_want_the_same_share_a_run() {
    let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
    let server = held(std::sync::Arc::clone(&gate)).await;
    let machine = held_machine(server.port());
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    let start = |arguments: &[&str]| {
        let mut command = machine.command(arguments);
        command.stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let first = start(&["resync", "--json"]);
    daemon.wait_for("resync.started", |_| true);
    let second = start(&["resync", "--json"]);
    // It has joined when the daemon has answered.
    daemon.wait_for("resync.joined", |_| true);
    tokio::task::spawn_blocking(move || gate.wait())
        .await
        .unwrap();
    for child in [first, second] {
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}");
        let last = printed.lines().last().unwrap();
        assert!(last.contains("\"event\":\"finished\""), "{printed}");
    }
    daemon.wait_for("resync.finished", |_| true);
    assert_eq!(finished(&daemon), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_ends_the_command_and_not_the_run() {
    let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
    let server = held(std::sync::Arc::clone(&gate)).await;
    let machine = held_machine(server.port());
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    // Whoever runs the tests in the background has them ignore the signal.
    let resync = machine.command(&["resync"]);
    let mut child = Command::new("/usr/bin/env")
        .arg("--default-signal=INT")
        .arg(resync.get_program())
        .args(resync.get_args())
        .env_clear()
        .env("HOME", machine.folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    daemon.wait_for("resync.started", |_| true);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(finished(&daemon), 0);
    tokio::task::spawn_blocking(move || gate.wait())
        .await
        .unwrap();
    daemon.wait_for("resync.finished", |line| line["failed"] == 0);
    assert_eq!(machine.status()["mailboxes"][0]["state"], "polling");
}

/// The line is in, and nobody else gets in: that is found out once.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_that_is_not_let_in_tries_it_once_for_all_folders() {
    let folder = Folder::empty();
    let server = Scripted::with(ScriptedOptions::default(), move |connection, command| {
        if connection > 1 && command.starts_with("LOGIN") {
            return "TAG NO [AUTHENTICATIONFAILED] no\r\n".to_owned();
        }
        folder.answer(command)
    })
    .await;
    let more = "folders = [\"A\", \"B\", \"C\", \"D\", \"E\"]\nmax-connections = 1\npoll = \"25m\"";
    let machine = crate::meeting::machine(&server, more);
    let daemon = machine.daemon();
    daemon.wait_for_nth("mailbox.watching", 5, |_| true);
    let ended = machine.run(&["resync", "--json"]);
    assert_ne!(ended.code, 0);
    daemon.wait_for("resync.finished", |line| line["failed"] == 5);
    assert_eq!(daemon.count("resync.failed"), 5, "each folder is told of");
    assert_eq!(server.count(2, "LOGIN"), 1);
    assert_eq!(server.count(None, "LOGIN"), 2, "{:?}", server.heard());
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_while_a_resync_looks_back() {
    let server = ImapServer::start(Options::default()).await;
    let ago = |minutes| Timestamp::now() - SignedDuration::from_mins(minutes);
    server.deliver(&TokenMail::new(USER, &token(1), ago(9)).bytes());
    let machine = machine(&server, "");
    machine.set_secret(&format!("account/{USER}"), "pass");
    let daemon = machine.daemon();
    daemon.wait_for("credential.updated", |_| true);
    server.wait_idling(1).await;
    for seed in 2..12 {
        let mut resync = machine.command(&["resync", "--since", "all"]);
        let mut resync = resync.stdout(Stdio::null()).spawn().unwrap();
        server.deliver(&TokenMail::new(USER, &token(seed), ago(0)).bytes());
        daemon.wait_for("credential.updated", |line| line["version"] == seed);
        assert!(resync.wait().unwrap().success());
    }
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(11))));
}
