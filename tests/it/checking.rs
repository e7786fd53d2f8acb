//! A credential that is checked before it is used: the real binary, an IMAP server, and a
//! Salesforce that counts every login.

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Daemon, Machine};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{RECEIVER, TokenMail, token};
use crate::support::salesforce::{Order, Salesforce};

const USER: &str = "mariana@idalko.com";
const PASSWORD: &str = "sf-Pass word";

/// A mailbox, and a machine that watches it.
pub(crate) struct Rig {
    pub(crate) imap: ImapServer,
    pub(crate) machine: Machine,
    configuration: String,
}

impl Rig {
    /// With these `[[account]]` and `[[sink]]` tables. `FOLDER` in them is the machine's folder.
    pub(crate) async fn new(tables: &str) -> Self {
        let imap = ImapServer::start(Options::default()).await;
        let machine = Machine::new("");
        let folder = machine.folder.path().display().to_string();
        std::fs::write(format!("{folder}/ca.pem"), imap.ca_pem()).unwrap();
        let configuration = format!(
            "state-dir = \"STATE\"\n\
             [trust]\naccept = [\"receiver\"]\nreceivers = [\"{RECEIVER}\"]\n\
             [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nport = {}\n\
             ca-file = \"FOLDER/ca.pem\"\nuser = \"ops@example.com\"\n",
            imap.port()
        );
        let rig = Self {
            imap,
            machine,
            configuration,
        };
        rig.configure(tables);
        rig.machine.set_secret("mailbox/ops", "mailbox-pass");
        rig
    }

    /// Puts other tables in their place.
    pub(crate) fn configure(&self, tables: &str) {
        let folder = self.machine.folder.path().display().to_string();
        let text = format!("{}{tables}", self.configuration);
        self.machine.configure(&text.replace("FOLDER", &folder));
    }

    pub(crate) fn set_password(&self, username: &str, password: &str) {
        self.machine
            .set_secret(&format!("account/{username}"), password);
    }

    /// A genuine mail that was made so many minutes ago.
    pub(crate) fn deliver(&self, username: &str, token: &str, minutes: i64) {
        let made = Timestamp::now() - SignedDuration::from_mins(minutes);
        self.imap
            .deliver(&TokenMail::new(username, token, made).bytes());
    }

    /// Has everything looked at again: all mails, and the secrets that are kept elsewhere.
    fn look_again(&self, daemon: &Daemon) {
        let known = daemon.count("daemon.reloaded");
        daemon.signal(Signal::HUP);
        daemon.wait_for_nth("daemon.reloaded", known + 1, |_| true);
        self.machine.ok(&["resync", "--since", "all"]);
        self.machine.ok(&["credential", "list"]);
    }
}

/// An account that is checked there.
pub(crate) fn checked(username: &str, url: &str, more: &str) -> String {
    format!(
        "[[account]]\nusername = \"{username}\"\nverify = \"soap\"\nlogin-url = \"{url}\"\n{more}\n"
    )
}

/// The account of this name in a status.
pub(crate) fn account<'a>(status: &'a Value, username: &str) -> &'a Value {
    let accounts = status["accounts"].as_array().unwrap();
    let found = accounts.iter().find(|one| one["username"] == username);
    found.unwrap()
}

/// The problem with this account, if there is one.
pub(crate) fn problem<'a>(status: &'a Value, username: &str) -> Option<&'a Value> {
    let mut problems = status["problems"].as_array().unwrap().iter();
    problems.find(|one| one["title"].as_str().unwrap().contains(username))
}

fn codes(status: &Value) -> Vec<&str> {
    let problems = status["problems"].as_array().unwrap();
    problems
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_tried_once_and_then_used() {
    let salesforce = Salesforce::start().await;
    salesforce.set(USER, PASSWORD, &token(1));
    let rig = Rig::new(&checked(USER, salesforce.url(), "")).await;
    let machine = &rig.machine;
    rig.set_password(USER, PASSWORD);
    let daemon = machine.daemon();
    rig.deliver(USER, &token(1), 0);
    daemon.wait_for("credential.pending", |_| true);
    daemon.wait_for("credential.updated", |line| line["version"] == 1);
    daemon.wait_for("credential.verified", |line| line["username"] == USER);
    let credential = Some(format!("{PASSWORD}{}", token(1)));
    assert_eq!(machine.credential(USER), credential);
    let status = machine.wait_status(|status| status["state"] == "healthy");
    let known = account(&status, USER);
    assert_eq!(known["state"], "current");
    assert_eq!(
        (&known["verified"], &known["answer"]),
        (&true.into(), &"works".into())
    );
    assert_eq!(known["next_check"], Value::Null);
    assert_eq!(salesforce.sessions(), [1, 1, 0], "logged out again");
    rig.look_again(&daemon);
    assert!(daemon.stop().0.success());

    // Whatever is looked at, it is known that it works.
    let daemon = machine.daemon();
    rig.look_again(&daemon);
    rig.set_password(USER, PASSWORD);
    let status = machine.wait_status(|status| status["state"] == "healthy");
    assert_eq!(account(&status, USER)["verified"], true);
    assert!(daemon.stop().0.success());
    machine.ok(&["run", "--once"]);
    machine.ok(&["credential", "list", "--json"]);
    assert_eq!(machine.credential(USER), credential);
    assert_eq!(salesforce.attempts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_password_change_the_status_says_so_and_the_new_password_completes_it() {
    let salesforce = Salesforce::start().await;
    salesforce.set(USER, PASSWORD, &token(1));
    let rig = Rig::new(&checked(USER, salesforce.url(), "")).await;
    let machine = &rig.machine;
    rig.set_password(USER, PASSWORD);
    let daemon = machine.daemon();
    rig.deliver(USER, &token(1), 1);
    daemon.wait_for("credential.verified", |_| true);

    salesforce.set(USER, "newer", &token(2));
    rig.deliver(USER, &token(2), 0);
    let line = daemon.wait_for("credential.refused", |_| true);
    assert_eq!(
        (&line["version"], &line["answer"]),
        (&2.into(), &"refused".into())
    );
    // It is young: one more try is to come.
    assert_eq!(line["level"], "WARN");
    let status = machine.status();
    assert_eq!(account(&status, USER)["state"], "login-refused");
    assert_eq!(account(&status, USER)["verified"], false);
    let problem = problem(&status, USER).unwrap();
    assert_eq!(problem["code"], "login-refused");
    let title = problem["title"].as_str().unwrap();
    assert!(
        title.contains("the password was most likely changed"),
        "{title}"
    );
    assert!(title.contains("once more at"), "{title}");
    let hint = problem["hint"].as_str().unwrap();
    assert!(
        hint.contains(&format!("tokenwatch secret set account/{USER}")),
        "{hint}"
    );
    let shown = machine.run(&["status"]);
    assert_eq!(shown.code, 1);
    assert!(
        shown.stdout.contains(hint) && shown.stdout.contains("login refused"),
        "{}",
        shown.stdout
    );
    // Nobody is given what does not work.
    assert_eq!(
        machine.credential(USER),
        Some(format!("{PASSWORD}{}", token(1)))
    );

    rig.set_password(USER, "newer");
    daemon.wait_for("credential.verified", |line| line["version"] == 2);
    assert_eq!(machine.credential(USER), Some(format!("newer{}", token(2))));
    machine.wait_status(|status| status["state"] == "healthy");
    rig.look_again(&daemon);
    for pair in [(PASSWORD, 1), (PASSWORD, 2), ("newer", 2)] {
        let both = format!("{}{}", pair.0, token(pair.1));
        assert_eq!(salesforce.attempts_with(USER, &both), 1, "{pair:?}");
    }
    assert_eq!(salesforce.attempts().len(), 3);
}

/// One fault, and what it comes to.
struct Fault {
    name: &'static str,
    order: Order,
    answer: &'static str,
    state: &'static str,
    /// A piece of the hint.
    hint: &'static str,
}

impl Fault {
    fn new(name: &'static str, order: Order, answer: &'static str) -> Self {
        let (state, hint) = match answer {
            "refused" => ("login-refused", "reset the security token"),
            "password-expired" => ("login-refused", "set a new password in Salesforce"),
            "locked" => ("login-refused", "let an administrator unlock"),
            "restricted" => ("checking", "login IP ranges"),
            "not-available" => ("checking", "verify = \"off\""),
            "rate-limited" => ("checking", "API limits"),
            "unreachable" => ("checking", "login-url"),
            "unknown" => ("checking", "login history"),
            other => panic!("{other}"),
        };
        Self {
            name,
            order,
            answer,
            state,
            hint,
        }
    }

    /// Whose account it is.
    fn username(&self, age: &str) -> String {
        format!("{}.{age}@idalko.com", self.name.to_lowercase())
    }

    /// Salesforce has not looked at the credential, so that it is asked again and again.
    fn counts_for_nothing(&self) -> bool {
        ["rate-limited", "unreachable"].contains(&self.answer)
    }

    #[cfg(feature = "system-tests")]
    /// How often a pair with a young token may be tried (invariant 6).
    fn bound(&self) -> usize {
        match self.answer {
            "refused" | "unknown" => 2,
            _ => 1,
        }
    }
}

/// Every fault of docs/salesforce.md, and those of the line.
fn faults() -> Vec<Fault> {
    let codes = [
        ("INVALID_LOGIN", "refused"),
        ("LOGIN_MUST_USE_SECURITY_TOKEN", "refused"),
        ("PASSWORD_LOCKOUT", "locked"),
        ("ORG_LOCKED", "locked"),
        ("LOGIN_DURING_RESTRICTED_DOMAIN", "restricted"),
        ("LOGIN_DURING_RESTRICTED_TIME", "restricted"),
        ("LOGIN_CHALLENGE_ISSUED", "restricted"),
        ("API_CURRENTLY_DISABLED", "not-available"),
        ("API_DISABLED_FOR_ORG", "not-available"),
        ("INSUFFICIENT_ACCESS", "not-available"),
        ("TRIAL_EXPIRED", "not-available"),
        ("UNSUPPORTED_API_VERSION", "not-available"),
        ("INVALID_OPERATION", "not-available"),
        ("SERVER_UNAVAILABLE", "unreachable"),
        ("REQUEST_LIMIT_EXCEEDED", "rate-limited"),
        ("UNKNOWN_EXCEPTION", "unknown"),
    ];
    let page = || "<html>maintenance</html>".to_owned();
    let others = [
        ("expired", Order::Expired, "password-expired"),
        ("status-429", Order::Answer(429, page()), "rate-limited"),
        ("status-502", Order::Answer(502, page()), "unknown"),
        ("status-503", Order::Answer(503, page()), "unreachable"),
        ("status-500", Order::Answer(500, page()), "unknown"),
        ("status-200", Order::Answer(200, page()), "unknown"),
        ("unanswered", Order::CloseUnanswered, "unknown"),
        ("half-answered", Order::CloseHalfAnswered, "unknown"),
    ];
    codes
        .map(|(code, answer)| Fault::new(code, Order::Fault(code), answer))
        .into_iter()
        .chain(others.map(|(name, order, answer)| Fault::new(name, order, answer)))
        .collect()
}

/// A machine with two accounts for each fault, one whose token is young and one whose is old,
/// and the daemon started by `start`, after every one of them was tried.
async fn faulty(
    start: impl FnOnce(&Machine) -> Daemon,
) -> (Rig, Daemon, Vec<(Fault, Salesforce)>, Value) {
    let mut servers = Vec::new();
    let mut tables = String::new();
    for fault in faults() {
        let salesforce = Salesforce::start().await;
        salesforce.order_always(Some(fault.order.clone()));
        for age in ["young", "old"] {
            let username = fault.username(age);
            let password = "password = \"file:FOLDER/password\"";
            tables += &checked(&username, salesforce.url(), password);
            salesforce.set(&username, PASSWORD, &token(1));
        }
        servers.push((fault, salesforce));
    }
    let rig = Rig::new(&tables).await;
    std::fs::write(rig.machine.folder.path().join("password"), PASSWORD).unwrap();
    for (fault, _) in &servers {
        rig.deliver(&fault.username("young"), &token(1), 0);
        rig.deliver(&fault.username("old"), &token(1), 30);
    }
    let daemon = start(&rig.machine);
    for (_, salesforce) in &servers {
        salesforce.wait_for_attempts(2).await;
    }
    let status = rig.machine.wait_status(|status| {
        let mut accounts = status["accounts"].as_array().unwrap().iter();
        accounts.all(|one| one["answer"].is_string())
    });
    (rig, daemon, servers, status)
}

fn tries(salesforce: &Salesforce, username: &str) -> usize {
    salesforce.attempts_with(username, &format!("{PASSWORD}{}", token(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_its_state_and_is_not_tried_again_at_once() {
    let (rig, daemon, servers, status) = faulty(Machine::daemon).await;
    for (fault, salesforce) in &servers {
        for age in ["young", "old"] {
            let username = fault.username(age);
            let known = account(&status, &username);
            assert_eq!(known["answer"], fault.answer, "{username}");
            assert_eq!(known["state"], fault.state, "{username}");
            assert_eq!(known["verified"], false, "{username}");
            let problem = problem(&status, &username).unwrap();
            let code = match fault.state {
                "checking" => "login-unchecked",
                state => state,
            };
            assert_eq!(problem["code"], code, "{username}");
            let hint = problem["hint"].as_str().unwrap();
            assert!(hint.contains(fault.hint), "{username}: {hint}");
            assert_eq!(rig.machine.credential(&username), None, "{username}");
            // Who was not reached may have been asked again by now.
            let tries = tries(salesforce, &username);
            assert!(
                tries == 1 || fault.counts_for_nothing(),
                "{username}: {tries}"
            );
        }
    }
    rig.look_again(&daemon);
    assert!(daemon.stop().0.success());
    let daemon = rig.machine.daemon();
    rig.look_again(&daemon);
    for (fault, salesforce) in &servers {
        if !fault.counts_for_nothing() {
            assert_eq!(salesforce.attempts().len(), 2, "{}", fault.name);
        }
    }
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_checked_is_used_unverified_after_a_while_and_verified_later() {
    let busy = Salesforce::start().await;
    busy.order_always(Some(Order::Answer(503, String::new())));
    busy.set("busy@idalko.com", PASSWORD, &token(1));
    let silent = Salesforce::start().await;
    silent.order_always(Some(Order::Stall));
    // Nobody listens there any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let unverified = "promote-unverified-after = \"2s\"";
    let tables = checked("busy@idalko.com", busy.url(), unverified)
        + &checked("silent@idalko.com", silent.url(), unverified)
        + &checked("refusing@idalko.com", &refusing, unverified)
        + &checked("patient@idalko.com", &refusing, "");
    let rig = Rig::new(&tables).await;
    let all = ["busy", "silent", "refusing", "patient"].map(|name| format!("{name}@idalko.com"));
    for username in &all {
        rig.set_password(username, PASSWORD);
    }
    let daemon = rig.machine.daemon();
    for username in &all {
        rig.deliver(username, &token(1), 0);
    }
    for username in [
        "busy@idalko.com",
        "refusing@idalko.com",
        "silent@idalko.com",
    ] {
        let line = daemon.wait_for("credential.unverified", |line| line["username"] == username);
        assert_eq!(line["level"], "WARN");
        let status = rig
            .machine
            .wait_status(|status| account(status, username)["state"] == "current");
        assert_eq!(account(&status, username)["verified"], false);
        assert_eq!(
            problem(&status, username).unwrap()["code"],
            "login-unverified"
        );
        assert_eq!(
            rig.machine.credential(username),
            Some(format!("{PASSWORD}{}", token(1)))
        );
        if username.starts_with("busy") {
            busy.order_always(None);
            busy.set(username, PASSWORD, &token(1));
        }
    }
    daemon.wait_for("credential.verified", |line| {
        line["username"] == "busy@idalko.com"
    });
    let status = rig.machine.status();
    assert_eq!(account(&status, "busy@idalko.com")["verified"], true);
    assert!(problem(&status, "busy@idalko.com").is_none());
    // A quarter of an hour is not over.
    assert_eq!(account(&status, "patient@idalko.com")["state"], "checking");
    assert_eq!(rig.machine.credential("patient@idalko.com"), None);
    // Each wait is longer than the one before.
    let line = daemon.wait_for_nth("credential.unchecked", 2, |line| {
        line["username"] == "patient@idalko.com"
    });
    let at = |key: &str| line[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    let wait = at("next").duration_since(at("timestamp"));
    assert!(wait > SignedDuration::from_secs(10), "{line}");
    assert_eq!(silent.attempts().len(), 1);
}

/// A Salesforce that answers no login, and a young and an old mail.
async fn stalled() -> (Salesforce, Rig, [&'static str; 2]) {
    let salesforce = Salesforce::start().await;
    salesforce.order_always(Some(Order::Stall));
    let names = ["young@idalko.com", "old@idalko.com"];
    let tables = names.map(|username| checked(username, salesforce.url(), ""));
    let rig = Rig::new(&tables.concat()).await;
    for username in names {
        salesforce.set(username, PASSWORD, &token(1));
        rig.set_password(username, PASSWORD);
    }
    rig.deliver("young@idalko.com", &token(1), 0);
    rig.deliver("old@idalko.com", &token(1), 30);
    (salesforce, rig, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_login_the_login_counts() {
    let (salesforce, rig, names) = stalled().await;
    let daemon = rig.machine.daemon();
    salesforce.wait_for_attempts(2).await;
    let status = rig.machine.status();
    // A login that is under way is no problem yet.
    assert_eq!(codes(&status), Vec::<&str>::new(), "{status:#}");
    daemon.kill();
    salesforce.order_always(None);
    for _ in 0..3 {
        let daemon = rig.machine.daemon();
        rig.look_again(&daemon);
        let status = rig.machine.status();
        for username in names {
            assert_eq!(account(&status, username)["state"], "checking");
            assert_eq!(rig.machine.credential(username), None);
        }
        daemon.kill();
    }
    assert_eq!(salesforce.attempts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_logins_fail_in_a_day_than_are_allowed() {
    let salesforce = Salesforce::start().await;
    let rig = Rig::new(&checked(
        USER,
        salesforce.url(),
        "failed-logins-per-day = 2",
    ))
    .await;
    salesforce.set(USER, PASSWORD, &token(1));
    rig.set_password(USER, "wrong 1");
    let daemon = rig.machine.daemon();
    rig.deliver(USER, &token(1), 30);
    let refused = daemon.wait_for("credential.refused", |_| true);
    assert_eq!(refused["level"], "ERROR", "a person must act");
    rig.set_password(USER, "wrong 2");
    daemon.wait_for_nth("credential.refused", 2, |_| true);
    rig.set_password(USER, PASSWORD);
    let status = rig
        .machine
        .wait_status(|status| codes(status) == ["login-budget"]);
    assert_eq!(account(&status, USER)["state"], "checking");
    let hint = problem(&status, USER).unwrap()["hint"].as_str().unwrap();
    assert!(hint.contains("failed-logins-per-day"), "{hint}");
    let next = account(&status, USER)["next_check"].as_str().unwrap();
    let next: Timestamp = next.parse().unwrap();
    assert!(next.duration_since(Timestamp::now()) > SignedDuration::from_hours(23));
    rig.look_again(&daemon);
    assert!(daemon.stop().0.success());
    let daemon = rig.machine.daemon();
    rig.look_again(&daemon);
    // A pair that was refused is not tried again, whatever was set in between.
    rig.set_password(USER, "wrong 1");
    rig.machine
        .wait_status(|status| codes(status) == ["login-refused"]);
    assert_eq!(salesforce.attempts().len(), 2);
    assert_eq!(rig.machine.credential(USER), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_kept_elsewhere_is_read_again_at_a_reload() {
    let salesforce = Salesforce::start().await;
    let kept = [
        ("file@idalko.com", "file:FOLDER/file"),
        ("command@idalko.com", "command:cat FOLDER/command"),
        ("credential@idalko.com", "credential:sf"),
    ];
    let mut tables = String::new();
    for (username, source) in kept {
        tables += &checked(
            username,
            salesforce.url(),
            &format!("password = \"{source}\""),
        );
        salesforce.set(username, "first", &token(1));
    }
    tables += "[[account]]\nusername = \"off@idalko.com\"\npassword = \"file:FOLDER/file\"\n";
    let rig = Rig::new(&tables).await;
    let folder = rig.machine.folder.path();
    let write = |password: &str| {
        for name in ["file", "command", "sf"] {
            std::fs::write(folder.join(name), format!("{password}\n")).unwrap();
        }
    };
    write("first");
    let mut command = rig.machine.command(&["--log-format", "json", "run"]);
    command.env("CREDENTIALS_DIRECTORY", folder);
    let daemon = Daemon::start(command);
    daemon.wait_for("daemon.ready", |_| true);
    for (username, _) in kept {
        rig.deliver(username, &token(1), 30);
        daemon.wait_for("credential.verified", |line| line["username"] == username);
    }
    rig.deliver("off@idalko.com", &token(1), 30);
    daemon.wait_for("credential.updated", |line| {
        line["username"] == "off@idalko.com"
    });

    // Mistyped: those that are checked keep what works, and the other takes what it is told.
    write("mistyped");
    let reload = |nth: usize| {
        daemon.signal(Signal::HUP);
        daemon.wait_for_nth("daemon.reloaded", nth, |_| true);
    };
    reload(1);
    for (username, _) in kept {
        daemon.wait_for("credential.refused", |line| line["username"] == username);
        assert_eq!(
            rig.machine.credential(username),
            Some(format!("first{}", token(1)))
        );
        let status = rig.machine.status();
        assert_eq!(account(&status, username)["state"], "login-refused");
    }
    assert_eq!(
        rig.machine.credential("off@idalko.com"),
        Some(format!("mistyped{}", token(1)))
    );
    for (username, _) in kept {
        salesforce.set(username, "second", &token(1));
    }
    write("second");
    reload(2);
    for (username, _) in kept {
        daemon.wait_for_nth("credential.verified", 2, |line| {
            line["username"] == username
        });
        assert_eq!(
            rig.machine.credential(username),
            Some(format!("second{}", token(1)))
        );
    }
    rig.machine
        .wait_status(|status| status["state"] == "healthy");
    assert_eq!(salesforce.attempts().len(), 9);

    // One that cannot be read is said, and undoes nothing.
    std::fs::remove_file(folder.join("command")).unwrap();
    reload(3);
    let status = rig.machine.status();
    assert_eq!(
        account(&status, "command@idalko.com")["state"],
        "password-missing"
    );
    assert_eq!(codes(&status), ["password-missing"]);
    assert_eq!(
        rig.machine.credential("command@idalko.com"),
        Some(format!("second{}", token(1)))
    );
    write("second");
    reload(4);
    rig.machine
        .wait_status(|status| status["state"] == "healthy");
    assert_eq!(salesforce.attempts().len(), 9);
}

/// `credential history --json`: version and label, the newest first.
fn labels(machine: &Machine) -> Vec<(u64, String)> {
    let printed = machine.ok(&["credential", "history", "--json", USER]);
    let versions: Value = serde_json::from_str(&printed).unwrap();
    let line = |version: &Value| {
        let label = version["label"].as_str().unwrap().to_owned();
        (version["version"].as_u64().unwrap(), label)
    };
    versions.as_array().unwrap().iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rolled_back_the_previous_one_is_current_and_a_newer_mail_wins() {
    let sink = "[[sink]]\nkind = \"file\"\npath = \"FOLDER/sink\"\nformat = \"raw\"\n";
    let rig = Rig::new(&format!("[[account]]\nusername = \"{USER}\"\n{sink}")).await;
    let machine = &rig.machine;
    rig.set_password(USER, PASSWORD);
    machine
        .run(&["credential", "rollback", USER])
        .failed(1, "", "");
    let daemon = machine.daemon();
    rig.deliver(USER, &token(1), 9);
    daemon.wait_for("credential.updated", |line| line["version"] == 1);
    machine
        .run(&["credential", "rollback", USER])
        .failed(1, USER, "credential history");
    machine
        .run(&["credential", "rollback", "nobody@idalko.com"])
        .failed(1, "nobody@idalko.com", "");
    rig.deliver(USER, &token(2), 8);
    daemon.wait_for("credential.updated", |line| line["version"] == 2);
    daemon.wait_for_nth("sink.delivered", 2, |_| true);

    let ended = machine.run(&["credential", "rollback", USER]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    assert!(
        ended.stderr.contains("version 1 is current again") && ended.stderr.contains("killed"),
        "{}",
        ended.stderr
    );
    let line = daemon.wait_for("credential.rolled-back", |_| true);
    assert_eq!(
        (&line["level"], &line["version"]),
        (&"WARN".into(), &1.into())
    );
    let first = format!("{PASSWORD}{}", token(1));
    assert_eq!(machine.credential(USER), Some(first.clone()));
    daemon.wait_for_nth("sink.delivered", 3, |_| true);
    let told = || std::fs::read_to_string(machine.folder.path().join("sink")).unwrap();
    assert_eq!(told(), first);
    let expected = |all: &[(u64, &str)]| -> Vec<(u64, String)> {
        all.iter()
            .map(|(id, label)| (*id, (*label).to_owned()))
            .collect()
    };
    assert_eq!(
        labels(machine),
        expected(&[(2, "previous"), (1, "current")])
    );
    let shown = machine.ok(&["credential", "history", USER]);
    assert!(
        shown.contains("  2  previous") && shown.contains("  1  current"),
        "{shown}"
    );
    // It stays so, whatever is looked at again.
    rig.look_again(&daemon);
    assert!(daemon.stop().0.success());
    let daemon = machine.daemon();
    rig.look_again(&daemon);
    assert_eq!(machine.credential(USER), Some(first));
    rig.deliver(USER, &token(3), 0);
    daemon.wait_for("credential.updated", |line| line["version"] == 3);
    daemon.wait_for("sink.delivered", |_| true);
    let third = format!("{PASSWORD}{}", token(3));
    assert_eq!(machine.credential(USER), Some(third.clone()));
    assert_eq!(told(), third);
    assert_eq!(
        labels(machine),
        expected(&[(3, "current"), (2, "superseded"), (1, "previous")])
    );
    assert!(daemon.stop().0.success());
    // Without the daemon it does the same, and the sinks hear of it at the next start.
    machine.ok(&["credential", "rollback", USER]);
    let daemon = machine.daemon();
    daemon.wait_for("sink.delivered", |_| true);
    assert_eq!(told(), format!("{PASSWORD}{}", token(1)));
    assert!(daemon.stop().0.success());
}

/// What follows turns the daemon's wall clock (libfaketime), or opens the vault by hand (age).
#[cfg(feature = "system-tests")]
mod with_packages {
    use super::*;
    use crate::process::Faketime;

    /// Has the daemon look what is due now: any mail rings its bell.
    fn poke(rig: &Rig, daemon: &Daemon, username: &str) {
        let known = daemon.count("notice.duplicate");
        rig.deliver(username, &token(1), 0);
        daemon.wait_for_nth("notice.duplicate", known + 1, |_| true);
    }

    /// Waits until nobody is being asked any more, but for those that are asked again and again.
    fn settled(rig: &Rig, servers: &[(Fault, Salesforce)]) -> Value {
        rig.machine.wait_status(|status| {
            let mut final_ones = servers.iter().map(|(fault, _)| fault);
            final_ones.all(|fault| {
                let answers = ["young", "old"]
                    .map(|age| account(status, &fault.username(age))["answer"].is_string());
                fault.counts_for_nothing() || answers == [true, true]
            })
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn never_more_logins_with_a_pair_than_the_invariant_allows() {
        let mut clock = None;
        let start = |machine: &Machine| {
            let faketime = clock.insert(Faketime::new(machine));
            faketime.daemon(machine)
        };
        let (rig, mut daemon, servers, _) = faulty(start).await;
        let clock = clock.unwrap();
        let username = servers[0].0.username("old");
        let of = |fault: &Fault, salesforce: &Salesforce| {
            ["young", "old"].map(|age| tries(salesforce, &fault.username(age)))
        };
        let check = |minutes: u32| {
            let due = usize::from(minutes >= 5);
            for (fault, salesforce) in servers.iter().filter(|(f, _)| !f.counts_for_nothing()) {
                let bound = (1 + due).min(fault.bound());
                let name = fault.name;
                assert_eq!(
                    of(fault, salesforce),
                    [bound, 1],
                    "{name} after {minutes} min"
                );
            }
        };
        for minutes in [4, 6, 12, 60, 2000] {
            clock.turn(minutes);
            poke(&rig, &daemon, &username);
            if minutes >= 5 {
                for (fault, salesforce) in &servers {
                    salesforce.wait_for_attempts(1 + fault.bound()).await;
                }
            }
            settled(&rig, &servers);
            check(minutes);
            // A crash in between changes nothing.
            daemon.kill();
            daemon = clock.daemon(&rig.machine);
            rig.look_again(&daemon);
            settled(&rig, &servers);
            check(minutes);
        }
        for (fault, salesforce) in servers.iter().filter(|(f, _)| f.counts_for_nothing()) {
            // They are asked again and again, but for one whose try a crash has cut off: that
            // counts, also where it never reached anybody.
            clock.turn(2010);
            poke(&rig, &daemon, &username);
            rig.machine.wait_status(|status| {
                let tries = of(fault, salesforce);
                ["young", "old"].iter().zip(tries).all(|(age, tries)| {
                    let answer = &account(status, &fault.username(age))["answer"];
                    tries > 1 || answer == "unknown"
                })
            });
        }
        let status = settled(&rig, &servers);
        for (fault, _) in &servers {
            let state = account(&status, &fault.username("young"))["state"].clone();
            // What nobody has said no to is in use by now.
            let expected = match fault.state {
                "checking" => "current",
                state => state,
            };
            assert_eq!(state, expected, "{}", fault.name);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_in_the_middle_of_a_login_a_young_token_has_one_more_try() {
        let (salesforce, rig, names) = stalled().await;
        let clock = Faketime::new(&rig.machine);
        let daemon = clock.daemon(&rig.machine);
        salesforce.wait_for_attempts(2).await;
        daemon.kill();

        clock.turn(4);
        let daemon = clock.daemon(&rig.machine);
        rig.look_again(&daemon);
        assert_eq!(salesforce.attempts().len(), 2);
        daemon.kill();
        clock.turn(6);
        let daemon = clock.daemon(&rig.machine);
        salesforce.wait_for_attempts(3).await;
        daemon.kill();
        salesforce.order_always(None);
        clock.turn(12);
        let daemon = clock.daemon(&rig.machine);
        rig.look_again(&daemon);
        daemon.kill();
        // Used unverified, and never tried again.
        clock.turn(20);
        let daemon = clock.daemon(&rig.machine);
        rig.look_again(&daemon);
        for username in names {
            daemon.wait_for("credential.unverified", |line| line["username"] == username);
            assert_eq!(
                rig.machine.credential(username),
                Some(format!("{PASSWORD}{}", token(1)))
            );
        }
        let both = format!("{PASSWORD}{}", token(1));
        assert_eq!(salesforce.attempts_with("young@idalko.com", &both), 2);
        assert_eq!(salesforce.attempts_with("old@idalko.com", &both), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_day_after_the_budget_is_new() {
        let salesforce = Salesforce::start().await;
        let rig = Rig::new(&checked(
            USER,
            salesforce.url(),
            "failed-logins-per-day = 1",
        ))
        .await;
        salesforce.set(USER, PASSWORD, &token(1));
        rig.set_password(USER, "wrong");
        let clock = Faketime::new(&rig.machine);
        let daemon = clock.daemon(&rig.machine);
        rig.deliver(USER, &token(1), 30);
        daemon.wait_for("credential.refused", |_| true);
        rig.set_password(USER, PASSWORD);
        rig.machine
            .wait_status(|status| codes(status) == ["login-budget"]);
        clock.turn(24 * 60 - 1);
        poke(&rig, &daemon, USER);
        assert_eq!(codes(&rig.machine.status()), ["login-budget"]);
        clock.turn(24 * 60 + 1);
        poke(&rig, &daemon, USER);
        daemon.wait_for("credential.verified", |_| true);
        assert_eq!(salesforce.attempts().len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_password_that_is_kept_elsewhere_is_read_again_every_five_minutes() {
        let table = format!("[[account]]\nusername = \"{USER}\"\npassword = \"file:FOLDER/sf\"\n");
        let rig = Rig::new(&table).await;
        let file = rig.machine.folder.path().join("sf");
        std::fs::write(&file, "first\n").unwrap();
        rig.deliver(USER, &token(1), 0);
        let daemon = Faketime::new(&rig.machine).fast_daemon(&rig.machine, 20);
        daemon.wait_for("credential.updated", |_| true);
        std::fs::write(&file, "second\n").unwrap();
        daemon.wait_for_nth("credential.updated", 2, |_| true);
        assert_eq!(
            rig.machine.credential(USER),
            Some(format!("second{}", token(1)))
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn twenty_versions_are_kept_and_the_tokens_of_two() {
        let rig = Rig::new(&format!("[[account]]\nusername = \"{USER}\"\n")).await;
        rig.set_password(USER, PASSWORD);
        let daemon = rig.machine.daemon();
        for seed in 1..=25_u32 {
            rig.deliver(USER, &token(seed.into()), i64::from(30 - seed));
            daemon.wait_for("credential.updated", |line| line["version"] == seed);
        }
        let known = labels(&rig.machine);
        assert_eq!(known.len(), 20);
        let numbers: Vec<u64> = known.iter().map(|(id, _)| *id).collect();
        assert_eq!(numbers, (6..=25).rev().collect::<Vec<_>>());
        let word = |n: usize| known[n].1.as_str();
        assert_eq!((word(0), word(1)), ("current", "previous"));
        assert!(known[2..].iter().all(|(_, label)| label == "superseded"));
        assert!(daemon.stop().0.success());
        let state = rig.machine.state_dir();
        let opened = std::process::Command::new("age")
            .arg("-d")
            .arg("-i")
            .arg(state.join("vault.key"))
            .arg(state.join("vault.age"))
            .output()
            .unwrap();
        assert!(opened.status.success());
        let text = String::from_utf8_lossy(&opened.stdout).into_owned();
        for seed in 1..=25 {
            assert_eq!(text.contains(&token(seed)), seed >= 24, "{seed}");
        }
    }
}
