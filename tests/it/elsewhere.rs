//! Passwords that are kept elsewhere, by programs that take their time.

use jiff::Timestamp;

use crate::process::Machine;
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::watching::configuration;

const USER: &str = "mariana@idalko.com";

/// A machine with an account that has its password in the vault, and further tables.
fn machine(server: &ImapServer, tables: &str) -> Machine {
    let machine = Machine::new("");
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    let folder = machine.folder.path().display().to_string();
    let text = configuration(server, &ca.display().to_string(), "") + tables;
    machine.configure(&text.replace("FOLDER", &folder));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "pass");
    machine
}

fn account(username: &str, program: &str) -> String {
    format!("[[account]]\nusername = \"{username}\"\npassword = \"command:{program}\"\n")
}

fn mail(username: &str, seed: u64) -> Vec<u8> {
    TokenMail::new(username, &token(seed), Timestamp::now()).bytes()
}

/// One after the other they would take longer than anything here is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_hang_hold_up_neither_the_start_nor_the_others() {
    let server = ImapServer::start(Options::default()).await;
    let hang = |n: usize| account(&format!("hangs{n}@idalko.com"), &format!("sleep 60{n}"));
    let machine = machine(&server, &(0..8).map(hang).collect::<String>());
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    assert_eq!(daemon.count("secret.unreadable"), 8);

    // Its token waits for the password, and nobody waits for it.
    server.deliver(&mail("hangs3@idalko.com", 1));
    server.deliver(&mail(USER, 2));
    daemon.wait_for("credential.updated", |line| line["username"] == USER);
    daemon.wait_for("credential.pending", |line| {
        line["username"] == "hangs3@idalko.com"
    });
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(2))));
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_far_fewer_times_than_there_are_mails() {
    let server = ImapServer::start(Options::default()).await;
    let kept = "kept@idalko.com";
    let machine = machine(&server, &account(kept, "/bin/sh FOLDER/program"));
    let path = |name: &str| machine.folder.path().join(name);
    let runs = path("runs").display().to_string();
    let program = format!("echo run >> {runs}; sleep 1; echo pass");
    std::fs::write(path("program"), program).unwrap();
    for seed in 0..20 {
        server.deliver(&mail(kept, seed));
    }
    let daemon = machine.daemon();
    daemon.wait_for("notice.updated", |line| line["uid"] == 20);
    // Those that are judged while it runs are taken in together.
    let ran = std::fs::read_to_string(&runs).unwrap().lines().count();
    assert!(ran <= 10, "{ran}");
    assert_eq!(machine.credential(kept), Some(format!("pass{}", token(19))));
}
