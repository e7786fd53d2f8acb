//! Invariant 5: no secret leaves. Every path is gone at `--log trace`, and
//! everything that was written anywhere is searched.

use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::checking::Rig;
use crate::https::{Https, Script};
use crate::process::{Machine, files};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::support::salesforce::{Order, SESSION, Salesforce};
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

    /// Every file of the machine, after its daemon has stopped.
    fn folder(&mut self, machine: &Machine) {
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
            self.0.push((
                path.display().to_string(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
    }

    /// Nothing of it was written, neither as it is nor in Base64.
    fn has_none_of(&self, canaries: &[String]) {
        let volume: usize = self.0.iter().map(|(_, text)| text.len()).sum();
        assert!(volume > 20_000, "trace was on");
        let encoded = canaries.iter().map(|canary| STANDARD.encode(canary));
        let all: Vec<String> = canaries.iter().cloned().chain(encoded).collect();
        for (place, text) in &self.0 {
            for canary in &all {
                assert!(!text.contains(canary), "{canary} in {place}:\n{text}");
            }
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

    // With the daemon: pending, current, held, refused, lost. What is looked at
    // again is told of at debug.
    let is_first = |line: &serde_json::Value| line["level"] == "WARN";
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
    daemon.wait_for_nth("notice.held", 2, is_first);
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
    daemon.wait_for_nth("notice.held", 3, is_first);
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

    written.folder(&machine);
    let mut canaries = vec![
        MAILBOX_PASSWORD.to_owned(),
        ACCOUNT_PASSWORD.to_owned(),
        "canary-wrong-77aa".to_owned(),
        composite,
    ];
    canaries.extend((1..8).map(token));
    canaries.push(STANDARD.encode(format!("\0ops@example.com\0{MAILBOX_PASSWORD}")));
    written.has_none_of(&canaries);
}

/// A program that writes what it sees of itself where it is searched, and what it is told where
/// it is not.
const PROGRAM: &str = "\
read -r line
tr '\\0' '\\n' < /proc/$$/cmdline >> FOLDER/seen
tr '\\0' '\\n' < /proc/$$/environ >> FOLDER/seen
[ ! -e KEPT/broken ] || { echo \"$line\"; echo \"$line\" >&2; exit 1; }
printf '%s\\n' \"$line\" >> KEPT/told
";

#[expect(
    clippy::too_many_lines,
    reason = "the paths that are gone, one after the other"
)]
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_by_a_check_a_sink_or_a_rollback() {
    let salesforce = Salesforce::start().await;
    let script = Script::default();
    let hook = Https::new(script.router());
    // What is handed over on purpose is kept elsewhere, and not searched.
    let kept = tempfile::tempdir().unwrap();
    let url = hook.url("/{username}");
    let tables = format!(
        r#"
        [[account]]
        username = "{USER}"
        password = "command:cat KEPT/password"
        verify = "soap"
        login-url = "{}"
        failed-logins-per-day = 9
        [[sink]]
        kind = "file"
        name = "env"
        path = "KEPT/{{username}}.env"
        [[sink]]
        kind = "command"
        name = "program"
        argv = ["/bin/sh", "FOLDER/program", "argument"]
        [[sink]]
        kind = "webhook"
        name = "hook"
        url = "{url}"
        ca-file = "FOLDER/hook.pem"
        include-secret = true
        headers = {{ "X-Token" = "vault" }}
        [[sink]]
        kind = "webhook"
        name = "stranger"
        url = "{url}"
        include-secret = true
        [[sink]]
        kind = "systemd"
        name = "unit"
        unit = "tokenwatch-canary-of-the-tests.service"
        [[sink]]
        kind = "file"
        name = "nowhere"
        path = "FOLDER/not/there"
        "#,
        salesforce.url(),
    );
    let elsewhere = kept.path().display().to_string();
    let rig = Rig::new(&tables.replace("KEPT", &elsewhere)).await;
    let machine = &rig.machine;
    let folder = machine.folder.path();
    std::fs::write(folder.join("hook.pem"), &hook.authority).unwrap();
    let program = PROGRAM.replace("FOLDER", &folder.display().to_string());
    std::fs::write(folder.join("program"), program.replace("KEPT", &elsewhere)).unwrap();
    let password = |text: &str| std::fs::write(kept.path().join("password"), text).unwrap();
    password("canary-password-1");
    std::fs::write(kept.path().join("broken"), "").unwrap();

    let mut written = Written(Vec::new());
    let key = STANDARD.encode("canary-of-the-signing-key");
    written.run(
        machine,
        &["secret", "set", "sink/hook"],
        &format!("whsec_{key}"),
    );
    written.run(
        machine,
        &["secret", "set", "sink/stranger"],
        "canary-key-of-a-stranger",
    );
    written.run(
        machine,
        &["secret", "set", "sink/hook/x-token"],
        "canary-header",
    );
    salesforce.set(USER, "canary-password-1", &token(1));
    rig.deliver(USER, &token(1), 9);
    written.run(machine, &["run", "--once"], "");

    let daemon = machine.daemon_at("trace");
    daemon.wait_for("daemon.ready", |_| true);
    // Each fault that says again what it was about, and answers that nobody understands.
    let echo = format!("canary-password-1{}", token(2));
    for (order, seed) in [
        (Order::Fault("INVALID_LOGIN"), 2),
        (Order::Fault("UNKNOWN_EXCEPTION"), 3),
        (Order::Answer(200, echo.clone()), 4),
        (Order::Answer(503, echo), 5),
        (Order::CloseHalfAnswered, 6),
    ] {
        salesforce.order(order);
        salesforce.set(USER, "canary-password-1", &token(seed));
        rig.deliver(USER, &token(seed), 9 - i64::try_from(seed).unwrap());
        daemon.wait_for("salesforce.login", |_| true);
        daemon.wait_for("notice.updated", |line| line["uid"] == seed);
        salesforce
            .wait_for_attempts(usize::try_from(seed).unwrap())
            .await;
    }
    salesforce.set(USER, "canary-password-1", &token(7));
    rig.deliver(USER, &token(7), 0);
    daemon.wait_for("credential.verified", |line| line["version"] == 7);
    for (name, event) in [
        ("env", "sink.delivered"),
        ("hook", "sink.delivered"),
        ("nowhere", "sink.failed"),
        ("stranger", "sink.failed"),
        ("program", "sink.failed"),
        ("unit", "sink.failed"),
    ] {
        daemon.wait_for(event, |line| line["sink"] == name);
    }
    written.run(machine, &["status"], "");
    written.run(machine, &["status", "--json"], "");
    std::fs::remove_file(kept.path().join("broken")).unwrap();
    for arguments in [
        &["credential", "rollback", USER][..],
        &["credential", "history", USER],
        &["credential", "history", "--json", USER],
        &["credential", "rollback", "nobody@example.com"],
        &["check"],
        &["status"],
    ] {
        written.run(machine, arguments, "");
    }
    // A new password, wrong at first.
    for wrong in ["canary-password-2", "canary-password-3"] {
        password(wrong);
        let refused = daemon.count("credential.refused");
        daemon.signal(rustix::process::Signal::HUP);
        daemon.wait_for_nth("credential.refused", refused + 1, |_| true);
        written.run(machine, &["status", "--json"], "");
    }
    daemon.wait_for("sink.delivered", |line| line["sink"] == "program");
    for name in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{name}", daemon.pid().as_raw_nonzero());
        let bytes = std::fs::read(&path).unwrap();
        written
            .0
            .push((path, String::from_utf8_lossy(&bytes).into_owned()));
    }
    let composite = machine.credential(USER).unwrap();
    assert!(composite.starts_with("canary-password-1"));
    let (ended, printed, log) = daemon.stop();
    assert!(ended.success());
    written.0.push(("run".to_owned(), printed + &log));
    written.run(machine, &["credential", "history", USER], "");
    written.run(machine, &["credential", "rollback", USER], "");
    let seen = std::fs::read_to_string(folder.join("seen")).unwrap();
    assert!(seen.contains("argument"), "{seen}");
    // It was all handed over, to those who are to have it.
    let told = std::fs::read_to_string(kept.path().join("told")).unwrap();
    let env = std::fs::read_to_string(kept.path().join(format!("{USER}.env"))).unwrap();
    assert!(told.contains(&composite) && env.contains("canary-password-1"));
    let asked = script.asked();
    assert!(
        asked
            .iter()
            .any(|asked| asked.headers["x-token"] == "canary-header")
    );

    written.folder(machine);
    let mut canaries: Vec<String> = (1..=3).map(|n| format!("canary-password-{n}")).collect();
    canaries.extend((1..=7).map(token));
    canaries.extend([
        composite,
        key,
        "canary-of-the-signing-key".to_owned(),
        "canary-key-of-a-stranger".to_owned(),
        "canary-header".to_owned(),
        "mailbox-pass".to_owned(),
        SESSION.to_owned(),
    ]);
    written.has_none_of(&canaries);
}
