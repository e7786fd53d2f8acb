//! Invariant 5: no secret leaves. Every path is gone at `--log trace`, and
//! everything that was written anywhere is searched.

use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::process::{Machine, files};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::watching::configuration;

const USER: &str = "mariana@idalko.com";
const MAILBOX_PASSWORD: &str = "canary-mailbox-4f1d";
const ACCOUNT_PASSWORD: &str = "canary-account-9b2e";

/// Everything that was printed or logged.
struct Written(Vec<(String, String)>);

impl Written {
    fn run(&mut self, machine: &Machine, arguments: &[&str], input: &str) {
        for format in ["text", "json"] {
            let mut all = vec!["--log", "trace", "--log-format", format];
            all.extend(arguments);
            let ended = machine.run_with_input(&all, input);
            self.0
                .push((format!("{arguments:?}"), ended.stdout + &ended.stderr));
        }
    }
}

/// The newest held mail for a username.
fn held_for(machine: &Machine, username: &str) -> String {
    let printed = machine.ok(&["held", "--json"]);
    let mails = printed.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["username"] == username).then(|| line["id"].as_i64().unwrap())
    });
    mails.max().unwrap().to_string()
}

#[expect(
    clippy::too_many_lines,
    reason = "the paths that are gone, one after the other"
)]
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_output_log_or_file_but_the_vault() {
    let server = ImapServer::start(Options {
        password: MAILBOX_PASSWORD.to_owned(),
        ..Options::default()
    })
    .await;
    let plain = ImapServer::start(Options {
        password: MAILBOX_PASSWORD.to_owned(),
        tls: false,
        idle: false,
        ..Options::default()
    })
    .await;
    let machine = Machine::new("");
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    let text = configuration(&server, &ca.display().to_string(), "")
        + &format!(
            "[[mailbox]]\nname = \"plain\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
             user = \"ops@example.com\"\npoll = \"1s\"\n",
            plain.port()
        );
    machine.configure(&text);
    let mut written = Written(Vec::new());
    let mails: Vec<_> = (1..8)
        .map(|seed| TokenMail::new(USER, &token(seed), Timestamp::now()))
        .collect();
    let eml = machine.folder.path().join("one.eml");
    std::fs::write(&eml, mails[0].bytes()).unwrap();

    // Offline: the commands open the vault themselves.
    written.run(
        &machine,
        &["secret", "set", "mailbox/ops"],
        MAILBOX_PASSWORD,
    );
    written.run(
        &machine,
        &["secret", "set", "mailbox/plain"],
        &format!("{MAILBOX_PASSWORD}\n"),
    );
    written.run(
        &machine,
        &["secret", "set", "mailbox/ops"],
        &format!("{MAILBOX_PASSWORD}\n\n"),
    );
    server.deliver(&mails[1].bytes());
    written.run(&machine, &["run", "--once"], "");
    written.run(&machine, &["check"], "");
    written.run(&machine, &["credential", "list"], "");
    // Accepted before there is a Salesforce password.
    server.deliver(&mails[2].clone().forged().bytes());
    written.run(&machine, &["run", "--once"], "");
    let id = held_for(&machine, USER);
    written.run(&machine, &["held"], "");
    written.run(&machine, &["held", "accept", &id], "");
    written.run(&machine, &["held", "accept", &id, "--yes"], "");
    let history = machine.ok(&["credential", "history", USER]);
    assert!(history.contains("accepted by a person"), "{history}");

    // With the daemon: pending, current, held, refused, lost.
    let daemon = machine.daemon_at("trace");
    daemon.wait_for("daemon.ready", |_| true);
    daemon.wait_for("mailbox.watching", |line| {
        line["spans"][0]["mailbox"] == "ops"
    });
    daemon.wait_for("mailbox.watching", |line| {
        line["spans"][0]["mailbox"] == "plain"
    });
    written.run(
        &machine,
        &["secret", "set", &format!("account/{USER}")],
        ACCOUNT_PASSWORD,
    );
    server.deliver(&mails[3].bytes());
    plain.deliver(&mails[4].clone().forged().bytes());
    let mut unknown = mails[5].clone();
    unknown.username = "other@example.com".into();
    server.deliver(&unknown.bytes());
    daemon.wait_for("credential.updated", |line| line["version"] == 3);
    daemon.wait_for_nth("notice.held", 2, |_| true);
    for arguments in [
        &["resync", "--since", "all"][..],
        &["resync", "--json", "--dry-run"],
        &["status"],
        &["status", "--json"],
        &["check"],
        &["secret", "list"],
        &["credential", "list"],
        &["credential", "history", USER],
        &["credential", "history", "--json", USER],
        &["extract", eml.to_str().unwrap()],
        &["extract", "--json", eml.to_str().unwrap()],
        &["secret", "remove", "mailbox/nobody"],
        &["credential", "get", "nobody@example.com"],
    ] {
        written.run(&machine, arguments, "");
    }
    let unknown = held_for(&machine, "other@example.com");
    server.deliver(&mails[6].clone().forged().bytes());
    daemon.wait_for_nth("notice.held", 3, |_| true);
    let id = held_for(&machine, USER);
    for arguments in [
        &["held"][..],
        &["held", "--json"],
        &["held", "accept", &id],
        &["held", "accept", &id, "--yes"],
        &["held", "accept", &unknown, "--yes"],
        &["held", "drop", &unknown],
    ] {
        written.run(&machine, arguments, "");
    }
    daemon.wait_for("notice.accepted", |_| true);
    daemon.wait_for("notice.dropped", |_| true);
    written.run(
        &machine,
        &["secret", "set", "mailbox/plain"],
        "canary-wrong-77aa",
    );
    plain.kick();
    server.cut();
    daemon.wait_for("mailbox.lost", |line| {
        line["error"].as_str().unwrap().contains("refused")
    });
    let composite = machine.credential(USER).unwrap();
    assert_eq!(composite, format!("{ACCOUNT_PASSWORD}{}", token(7)));
    let (ended, printed, log) = daemon.stop();
    assert!(ended.success());
    written.0.push(("run".to_owned(), printed + &log));
    written.run(&machine, &["vault", "rekey"], "");
    // A password where none belongs.
    let misplaced = text.replace(
        "user = \"ops@example.com\"",
        &format!("user = \"ops@example.com\"\npassword = \"{MAILBOX_PASSWORD}\""),
    );
    machine.configure(&misplaced);
    written.run(&machine, &["run"], "");
    std::fs::remove_file(machine.config_file()).unwrap();
    std::fs::remove_file(&eml).unwrap();

    for path in files(machine.folder.path()) {
        let is_vault = path.ends_with("state/vault.age");
        if path.starts_with(machine.state_dir()) {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        assert!(
            is_vault || !path.ends_with("control.sock"),
            "the socket is gone after a stop"
        );
        let bytes = std::fs::read(&path).unwrap();
        written.0.push((
            path.display().to_string(),
            String::from_utf8_lossy(&bytes).into_owned(),
        ));
    }
    let mut canaries = vec![
        MAILBOX_PASSWORD.to_owned(),
        ACCOUNT_PASSWORD.to_owned(),
        "canary-wrong-77aa".to_owned(),
        composite,
    ];
    canaries.extend((1..8).map(token));
    for canary in canaries.clone() {
        canaries.push(STANDARD.encode(&canary));
    }
    canaries.push(STANDARD.encode(format!("\0ops@example.com\0{MAILBOX_PASSWORD}")));
    let volume: usize = written.0.iter().map(|(_, text)| text.len()).sum();
    assert!(volume > 20_000, "trace was on");
    for (place, text) in &written.0 {
        for canary in &canaries {
            assert!(!text.contains(canary), "{canary} in {place}:\n{text}");
        }
    }
}
