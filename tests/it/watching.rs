//! One mail, end to end, against the server in the process.

use jiff::{SignedDuration, Timestamp};

use crate::process::Machine;
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{RECEIVER, TokenMail, newsletter, token};

const USER: &str = "mariana@idalko.com";
const PASSWORD: &str = "sf-Pass word";

/// The configuration for a server, with `more` in the mailbox.
pub fn configuration(server: &ImapServer, ca_file: &str, more: &str) -> String {
    format!(
        "state-dir = \"STATE\"\n\
         [trust]\naccept = [\"receiver\"]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\nca-file = \"{ca_file}\"\n\
         user = \"ops@example.com\"\n{more}\n",
        server.port()
    )
}

/// A machine that knows a server and its password.
pub fn machine(server: &ImapServer, more: &str) -> Machine {
    let machine = Machine::new("");
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    machine.configure(&configuration(server, &ca.display().to_string(), more));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine
}

fn ready(server: &ImapServer) -> Machine {
    let machine = machine(server, "");
    machine.set_secret(&format!("account/{USER}"), PASSWORD);
    machine
}

fn composite(seed: u64) -> Option<String> {
    Some(format!("{PASSWORD}{}", token(seed)))
}

fn ago(minutes: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_mins(minutes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_mail_becomes_the_credential_by_itself() {
    let server = ImapServer::start(Options::default()).await;
    for n in 0..3 {
        server.deliver(&newsletter(n));
    }
    let machine = ready(&server);
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    assert_eq!(machine.credential(USER), None);

    server.deliver(&TokenMail::new(USER, &token(1), ago(0)).bytes());
    let line = daemon.wait_for("credential.updated", |_| true);
    assert_eq!(line["username"], USER);
    assert_eq!(machine.credential(USER), composite(1));
    assert_eq!(machine.credential("Mariana@IDALKO.com"), composite(1));

    let status = machine.wait_status(|status| status["state"] == "healthy");
    assert_eq!(status["mailboxes"][0]["state"], "watching");
    assert_eq!(status["accounts"][0]["state"], "current");
    assert_eq!(status["accounts"][0]["version"], 1);
    assert!(status["mailboxes"][0]["proof_of_life"].is_string());
    assert_eq!(machine.run(&["status"]).code, 0);

    let (ended, printed, log) = daemon.stop();
    assert!(ended.success(), "{log}");
    assert_eq!(printed, "", "standard output is data");
    assert_eq!(machine.credential(USER), composite(1));
    machine
        .run(&["status"])
        .failed(3, "no daemon is running", "tokenwatch run");
    assert!(!server.flags_touched(), "{:?}", server.commands());
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_and_older_mails_change_nothing_whatever_the_order() {
    let server = ImapServer::start(Options::default()).await;
    let machine = ready(&server);
    let newest = TokenMail::new(USER, &token(9), ago(1)).bytes();
    server.deliver(&newest);
    let daemon = machine.daemon();
    daemon.wait_for("notice.updated", |_| true);
    // Late, and received now: only its date tells that it is an older one.
    server.deliver(&TokenMail::new(USER, &token(3), ago(60)).bytes());
    daemon.wait_for("notice.older", |line| line["uid"] == 2);
    server.deliver(&newest);
    daemon.wait_for("notice.duplicate", |line| line["uid"] == 3);
    assert_eq!(machine.credential(USER), composite(9));
    assert!(daemon.stop().0.success());

    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    let printed = machine.ok(&["resync", "--since", "all", "--json"]);
    let last: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "finished", "{printed}");
    assert_eq!(
        (&last["duplicate"], &last["older"]),
        (&2.into(), &1.into()),
        "{printed}"
    );
    assert_eq!(machine.credential(USER), composite(9));
    assert_eq!(machine.versions(USER), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_password_the_token_waits_and_the_password_completes_it() {
    let server = ImapServer::start(Options::default()).await;
    server.deliver(&TokenMail::new(USER, &token(1), ago(0)).bytes());
    let machine = machine(&server, "");
    let daemon = machine.daemon();
    daemon.wait_for("credential.pending", |_| true);
    let status = machine.status();
    assert_eq!(status["accounts"][0]["state"], "password-missing");
    assert_eq!(status["state"], "degraded");
    assert_eq!(status["problems"][0]["code"], "password-missing");
    assert_eq!(machine.run(&["status"]).code, 1);
    machine
        .run(&["credential", "get", USER])
        .failed(1, "no credential", "credential list");

    machine.set_secret(&format!("account/{USER}"), PASSWORD);
    assert_eq!(machine.credential(USER), composite(1));
    machine.wait_status(|status| status["state"] == "healthy");
    // A new password makes a new credential with the same token.
    machine.set_secret(&format!("account/{USER}"), "other");
    assert_eq!(machine.credential(USER), Some(format!("other{}", token(1))));
    machine.ok(&["secret", "remove", &format!("account/{USER}")]);
    assert_eq!(
        machine.credential(USER),
        None,
        "the password is gone from everywhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_proved_is_held_and_changes_nothing() {
    let server = ImapServer::start(Options::default()).await;
    let machine = ready(&server);
    let mut doubtful = vec![
        (
            TokenMail::new(USER, &token(1), ago(0)).forged(),
            "sender-not-proved",
        ),
        (
            TokenMail::new("other@example.com", &token(2), ago(0)),
            "unknown-account",
        ),
    ];
    let mut stranger = TokenMail::new(USER, &token(3), ago(0));
    stranger.from = "support@salesforce.example".into();
    doubtful.push((stranger, "sender-not-listed"));
    let mut failed = TokenMail::new(USER, &token(4), ago(0));
    failed.results = Some(format!("{RECEIVER}; dkim=fail header.d=salesforce.com"));
    doubtful.push((failed, "receiver-failed"));
    for (mail, _) in &doubtful {
        server.deliver(&mail.bytes());
    }
    let two = TokenMail::new(
        USER,
        &format!("{}\r\nSecurity token: {}", token(5), token(6)),
        ago(0),
    );
    server.deliver(&two.bytes());
    let daemon = machine.daemon();
    for (uid, (_, reason)) in (1..).zip(&doubtful) {
        let line = daemon.wait_for("notice.held", |line| line["uid"] == uid);
        assert_eq!(line["reason"], *reason);
        assert_eq!(line["level"], "WARN");
    }
    daemon.wait_for("notice.held", |line| line["reason"] == "two-tokens");
    assert_eq!(machine.credential(USER), None);
    machine.wait_status(|status| status["held"] == 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_come_back_from_and_no_mail_is_missed() {
    let server = ImapServer::start(Options::default()).await;
    let machine = ready(&server);
    let daemon = machine.daemon();
    for (n, break_it) in [ImapServer::kick, ImapServer::cut].iter().enumerate() {
        server.wait_idling(1).await;
        break_it(&server);
        let lost = daemon.wait_for_nth("mailbox.lost", n + 1, |_| true);
        assert_eq!(lost["level"], "WARN");
        let seed = u64::try_from(n).unwrap();
        server.deliver(&TokenMail::new(USER, &token(seed), ago(0)).bytes());
        daemon.wait_for_nth("credential.updated", n + 1, |_| true);
        assert_eq!(machine.credential(USER), composite(seed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_numbers_anew_is_looked_through_again() {
    let server = ImapServer::start(Options::default()).await;
    server.deliver(&TokenMail::new(USER, &token(1), ago(5)).bytes());
    let machine = ready(&server);
    let daemon = machine.daemon();
    daemon.wait_for("notice.updated", |_| true);
    server.wait_idling(1).await;
    server.deliver(&TokenMail::new(USER, &token(2), ago(1)).bytes());
    daemon.wait_for_nth("notice.updated", 2, |_| true);
    server.reset_uidvalidity();
    daemon.wait_for("mailbox.uidvalidity", |_| true);
    daemon.wait_for("notice.duplicate", |line| line["uid"] == 2);
    assert_eq!(machine.credential(USER), composite(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_idle_the_server_is_polled() {
    let server = ImapServer::start(Options {
        idle: false,
        ..Options::default()
    })
    .await;
    let machine = machine(&server, "poll = \"1s\"");
    machine.set_secret(&format!("account/{USER}"), PASSWORD);
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    machine.wait_status(|status| status["mailboxes"][0]["state"] == "polling");
    server.deliver(&TokenMail::new(USER, &token(1), ago(0)).bytes());
    daemon.wait_for("credential.updated", |_| true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_mailbox_is_searched_and_a_server_that_refuses_is_read_by_headers() {
    let server = ImapServer::start(Options::default()).await;
    for n in 0..1000 {
        server.deliver(&newsletter(n));
        if n == 500 {
            server.deliver(&TokenMail::new(USER, &token(1), ago(0)).bytes());
        }
    }
    for refuse in [false, true] {
        server.refuse_search(refuse);
        let machine = ready(&server);
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite(1));
    }
    let bodies = server
        .commands()
        .iter()
        .filter(|line| line.contains("BODY.PEEK[]<"))
        .count();
    assert_eq!(bodies, 2, "only the token mail is ever fetched whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_waits_and_the_right_password_is_tried_at_once() {
    let server = ImapServer::start(Options::default()).await;
    let machine = machine(&server, "");
    machine.set_secret("mailbox/ops", "wrong");
    let daemon = machine.daemon();
    let line = daemon.wait_for("mailbox.lost", |_| true);
    assert_eq!(line["level"], "WARN", "a first refusal may be a hiccup");
    assert!(
        line["hint"]
            .as_str()
            .unwrap()
            .contains("secret set mailbox/ops")
    );
    let status = machine.wait_status(|status| status["mailboxes"][0]["state"] == "waiting");
    assert!(status["mailboxes"][0]["next_attempt"].is_string());
    assert!(status["mailboxes"][0]["last_error"].is_string());
    assert!(!has_problem(&status, "mailbox-login-refused"), "{status}");
    assert_eq!(server.failed_logins(), 1);
    // Another secret is tried at once, and the second refusal is told of.
    machine.set_secret("mailbox/ops", "wrong again");
    daemon.wait_for_nth("mailbox.lost", 2, |_| true);
    machine.set_secret("mailbox/ops", "mailbox-pass");
    server.wait_idling(1).await;
    assert_eq!(server.failed_logins(), 2, "a refused login is not hammered");
}

fn has_problem(status: &serde_json::Value, code: &str) -> bool {
    let problems = status["problems"].as_array().unwrap();
    problems.iter().any(|problem| problem["code"] == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_mailbox_password_is_said_and_waited_for() {
    let server = ImapServer::start(Options::default()).await;
    let machine = machine(&server, "");
    machine.ok(&["secret", "remove", "mailbox/ops"]);
    machine.run(&["run", "--once"]).failed(
        78,
        "the password of mailbox ops is not set",
        "secret set mailbox/ops",
    );
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.lost", |_| true);
    let status = machine.status();
    assert!(
        status["problems"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["code"] == "mailbox-password-missing"),
        "{status}"
    );
    machine.set_secret("mailbox/ops", "mailbox-pass");
    server.wait_idling(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let server = ImapServer::start(Options::default()).await;
    let machine = ready(&server);
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    // Held at first; then the configuration would not hold it any more.
    server.deliver(&TokenMail::new("Late@example.com", &token(1), ago(0)).bytes());
    daemon.wait_for("notice.held", |_| true);
    daemon.stop();
    let mut text = std::fs::read_to_string(machine.config_file()).unwrap();
    text.push_str("[[account]]\nusername = \"late@example.com\"\n");
    std::fs::write(machine.config_file(), text).unwrap();
    machine.set_secret("account/late@example.com", PASSWORD);
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    let printed = machine.ok(&["resync", "--dry-run"]);
    assert!(
        printed.contains("updated    ops/INBOX 1  late@example.com"),
        "{printed}"
    );
    assert_eq!(machine.credential("late@example.com"), None);
    machine.ok(&["resync", "--mailbox", "ops"]);
    assert_eq!(machine.credential("late@example.com"), composite(1));
    assert_eq!(machine.status()["held"], 0);
    machine.run(&["resync", "--mailbox", "opps"]).failed(
        2,
        "no mailbox \"opps\"",
        "tokenwatch status",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_too_large_for_a_notice_is_never_fetched() {
    let server = ImapServer::start(Options::default()).await;
    let mut mail = TokenMail::new(USER, &token(1), ago(0)).bytes();
    mail.extend("padding\r\n".repeat(40_000).into_bytes());
    server.deliver(&mail);
    let machine = ready(&server);
    let daemon = machine.daemon();
    let line = daemon.wait_for("notice.held", |_| true);
    assert_eq!(line["reason"], "too-large");
    assert!(
        !server
            .commands()
            .iter()
            .any(|line| line.contains("BODY.PEEK[]<"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_that_is_out_of_order_does_not_stop_another() {
    let server = ImapServer::start(Options::default()).await;
    let machine = ready(&server);
    let mut text = std::fs::read_to_string(machine.config_file()).unwrap();
    text.push_str("[[account]]\nusername = \"b@example.com\"\npassword = \"file:/no/such/file\"\n");
    machine.configure(&text);
    server.deliver(&TokenMail::new("b@example.com", &token(1), ago(2)).bytes());
    server.deliver(&TokenMail::new(USER, &token(2), ago(1)).bytes());
    let daemon = machine.daemon();
    daemon.wait_for("credential.pending", |line| {
        line["username"] == "b@example.com"
    });
    daemon.wait_for("credential.updated", |line| line["username"] == USER);
    assert_eq!(machine.credential(USER), composite(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_lost_an_account_is_not_taken_for_a_new_one() {
    let server = ImapServer::start(Options::default()).await;
    server.deliver(&TokenMail::new(USER, &token(1), ago(2)).bytes());
    let machine = ready(&server);
    machine.ok(&["run", "--once"]);
    for file in ["vault.age", "vault.key"] {
        std::fs::remove_file(machine.state_dir().join(file)).unwrap();
    }
    machine.set_secret("mailbox/ops", "mailbox-pass");
    let daemon = machine.daemon();
    let line = daemon.wait_for("account.unreadable", |_| true);
    assert!(
        line["hint"].as_str().unwrap().contains("journal.db"),
        "{line}"
    );
    server.deliver(&TokenMail::new(USER, &token(2), ago(1)).bytes());
    daemon.wait_for("notice.held", |line| line["reason"] == "account-unreadable");
    let status = machine.wait_status(|status| status["state"] == "degraded");
    let problems = status["problems"].as_array().unwrap();
    assert!(
        problems.iter().any(|p| p["code"] == "account-unsettled"),
        "{status}"
    );
    assert_eq!(machine.credential(USER), None, "nothing is started afresh");
}

/// The mail comes while its account cannot be read, and nobody does anything but put the
/// vault right.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_put_right_has_what_came_meanwhile() {
    let server = ImapServer::start(Options::default()).await;
    server.deliver(&TokenMail::new(USER, &token(1), ago(2)).bytes());
    let machine = ready(&server);
    machine.ok(&["run", "--once"]);
    let aside = |file: &str| machine.folder.path().join(file);
    let files = ["vault.key", "vault.age"];
    for file in files {
        std::fs::rename(machine.state_dir().join(file), aside(file)).unwrap();
    }
    machine.set_secret("mailbox/ops", "mailbox-pass");
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    server.deliver(&TokenMail::new(USER, &token(2), ago(1)).bytes());
    daemon.wait_for("notice.held", |line| line["reason"] == "account-unreadable");
    assert!(
        machine
            .ok(&["credential", "list"])
            .contains("cannot be read")
    );
    let checked = machine.run(&["check", "--offline"]).stdout;
    for wanted in ["✓ vault", &format!("✗ account {USER}")] {
        assert!(checked.contains(wanted), "{checked}");
    }
    let held = machine.ok(&["held"]);
    assert!(held.contains("looked at again by itself"), "{held}");

    for file in files {
        std::fs::rename(aside(file), machine.state_dir().join(file)).unwrap();
    }
    // What is done each minute is done now.
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for("credential.updated", |line| line["version"] == 2);
    let status = machine.wait_status(|status| status["state"] == "healthy");
    assert_eq!(status["held"], 0);
    assert_eq!(machine.credential(USER), composite(2));
    assert_eq!(daemon.count("account.unreadable"), 1, "it is told of once");
}

/// STARTTLS in front of the server that speaks TLS from the first byte.
async fn starttls(to: u16, answer: &'static str) -> (u16, tokio::task::JoinSet<()>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let mut client = BufReader::new(client);
            client.write_all(b"* OK plain\r\n").await.unwrap();
            let mut line = String::new();
            client.read_line(&mut line).await.unwrap();
            assert_eq!(line, "s1 STARTTLS\r\n", "nothing else is said in clear");
            client.write_all(answer.as_bytes()).await.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            // Either side may hang up.
            tokio::io::copy_bidirectional(&mut client, &mut server)
                .await
                .unwrap_or_default();
        }
    });
    (port, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn starttls_protects_the_line_or_nothing_is_said() {
    let server = ImapServer::start(Options::default()).await;
    server.deliver(&TokenMail::new(USER, &token(1), ago(2)).bytes());
    for (answer, code) in [
        ("s1 NO not here\r\n", 78),
        // Words that were slipped in before TLS are no words of the server's.
        ("s1 OK go on\r\n* PREAUTH welcome\r\n", 69),
        ("s1 OK go on\r\n", 0),
    ] {
        let (port, _tasks) = starttls(server.port(), answer).await;
        let machine = ready(&server);
        let text = std::fs::read_to_string(machine.config_file()).unwrap();
        let text = text.replace(
            &format!("port = {}", server.port()),
            &format!("port = {port}\ntls = \"starttls\""),
        );
        machine.configure(&text);
        let ended = machine.run(&["run", "--once"]);
        assert_eq!(ended.code, code, "{answer}: {}", ended.stderr);
        let expected = if code == 0 { composite(1) } else { None };
        assert_eq!(machine.credential(USER), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_back_goes_as_far_as_it_is_told() {
    let server = ImapServer::start(Options::default()).await;
    let old = ago(60 * 24 * 60);
    server.deliver_at(&TokenMail::new(USER, &token(1), old).bytes(), old);
    for refuse in [false, true] {
        server.refuse_search(refuse);
        let machine = ready(&server);
        machine.ok(&["run", "--once"]);
        assert_eq!(
            machine.credential(USER),
            None,
            "thirty days are the default"
        );
        let daemon = machine.daemon();
        daemon.wait_for("mailbox.watching", |_| true);
        machine.ok(&["resync", "--since", "90d"]);
        assert_eq!(machine.credential(USER), composite(1));
    }
}
