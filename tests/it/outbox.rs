//! Sinks are told of every new credential, at least once and in order, whatever fails or dies
//! meanwhile: the real binary with files, commands and webhooks.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::checking::Rig;
use crate::https::{Https, Script};
use crate::process::Machine;
use crate::support::mail::{TokenMail, token};
use crate::support::salesforce::{Order, Salesforce};

const USER: &str = "mariana@idalko.com";
const OTHER: &str = "other@idalko.com";
const PASSWORD: &str = "sf-Pass word";

/// A program that writes what it is told into `told`; it fails while there is a file `broken`, and
/// waits while there is a pipe `gate`.
const PROGRAM: &str = "\
read -r line || exit 4
[ ! -e FOLDER/broken ] || exit 3
[ ! -p FOLDER/gate ] || cat FOLDER/gate
printf '%s\\n' \"$line\" >> FOLDER/told
";

/// The sink that runs it.
const COMMAND: &str =
    "[[sink]]\nkind = \"command\"\nname = \"program\"\nargv = [\"/bin/sh\", \"FOLDER/program\"]\n";

fn account(username: &str) -> String {
    format!("[[account]]\nusername = \"{username}\"\n")
}

fn file(name: &str) -> String {
    format!(
        "[[sink]]\nkind = \"file\"\nname = \"{name}\"\npath = \"FOLDER/{name}\"\nformat = \"raw\"\n"
    )
}

fn composite(seed: u64) -> String {
    format!("{PASSWORD}{}", token(seed))
}

fn path(machine: &Machine, name: &str) -> PathBuf {
    machine.folder.path().join(name)
}

fn read(machine: &Machine, name: &str) -> Option<String> {
    std::fs::read_to_string(path(machine, name)).ok()
}

/// A machine with the account, these sinks, the program and the password.
async fn rig(tables: &str) -> Rig {
    let rig = Rig::new(tables).await;
    let folder = rig.machine.folder.path().display().to_string();
    std::fs::write(
        path(&rig.machine, "program"),
        PROGRAM.replace("FOLDER", &folder),
    )
    .unwrap();
    rig.set_password(USER, PASSWORD);
    rig
}

/// What the program was told: version and password with token.
fn told(machine: &Machine) -> Vec<(u64, String)> {
    let text = read(machine, "told").unwrap_or_default();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let password = line["password"].as_str().unwrap().to_owned();
        (line["version"].as_u64().unwrap(), password)
    };
    text.lines().map(line).collect()
}

/// Waits until every sink has what it should have.
fn all_told(machine: &Machine) -> Value {
    machine.wait_status(|status| {
        let sinks = status["sinks"].as_array().unwrap();
        !sinks.is_empty() && sinks.iter().all(|sink| sink["state"] == "delivered")
    })
}

fn sink<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut sinks = status["sinks"].as_array().unwrap().iter();
    sinks.find(|sink| sink["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sink_is_told_once_and_one_that_comes_later_of_the_credential_of_now() {
    let script = Script::default();
    let hook = Https::new(script.router());
    let webhook = format!(
        "[[sink]]\nkind = \"webhook\"\nname = \"hook\"\nurl = \"{}\"\nca-file = \"FOLDER/hook.pem\"\n",
        hook.url("/{username}")
    );
    let sinks = account(USER) + &file("plain") + COMMAND + &webhook;
    let rig = rig(&sinks).await;
    let machine = &rig.machine;
    std::fs::write(path(machine, "hook.pem"), &hook.authority).unwrap();
    machine.set_secret("sink/hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let daemon = machine.daemon();
    assert_eq!(machine.status()["sinks"], serde_json::json!([]));
    for seed in 1..=2 {
        rig.deliver(USER, &token(seed), 5 - i64::try_from(seed).unwrap());
        daemon.wait_for("credential.updated", |line| line["version"] == seed);
        let count = usize::try_from(3 * seed).unwrap();
        daemon.wait_for_nth("sink.delivered", count, |_| true);
        assert_eq!(read(machine, "plain"), Some(composite(seed)));
        let mode = std::fs::metadata(path(machine, "plain"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let asked = script.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].uri, "/mariana%40idalko.com");
        let body: Value = serde_json::from_slice(&asked[0].body).unwrap();
        assert_eq!(body["version"], seed);
    }
    let both = [(1, composite(1)), (2, composite(2))];
    assert_eq!(told(machine), both);
    let status = all_told(machine);
    assert_eq!(status["sinks"].as_array().unwrap().len(), 3);
    assert_eq!(sink(&status, "hook")["username"], USER);
    assert_eq!(sink(&status, "hook")["next_attempt"], Value::Null);
    assert_eq!(status["state"], "healthy");
    let shown = machine.ok(&["status"]);
    assert!(
        shown.contains(&format!("hook  {USER}  told since")),
        "{shown}"
    );
    assert!(daemon.stop().0.success());

    // Nobody is told twice, and who is new is told.
    rig.configure(&(sinks + &file("late")));
    let daemon = machine.daemon();
    daemon.wait_for("sink.delivered", |line| line["sink"] == "late");
    all_told(machine);
    assert_eq!(read(machine, "late"), Some(composite(2)));
    assert_eq!(daemon.count("sink.delivered"), 1);
    assert_eq!(told(machine), both);
    assert!(script.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_is_shown_waits_longer_each_time_and_recovers_with_the_newest() {
    let rig = rig(&(account(USER) + COMMAND + &file("plain"))).await;
    let machine = &rig.machine;
    std::fs::write(path(machine, "broken"), "").unwrap();
    let daemon = machine.daemon();
    rig.deliver(USER, &token(1), 3);
    let line = daemon.wait_for("sink.failed", |_| true);
    assert_eq!(
        (&line["level"], &line["code"]),
        (&"WARN".into(), &"exit-code".into())
    );
    daemon.wait_for("sink.delivered", |line| line["sink"] == "plain");
    let status = machine.wait_status(|status| status["problems"][0]["code"] == "sink-failed");
    assert_eq!(status["state"], "degraded");
    let problem = &status["problems"][0];
    assert!(
        problem["title"].as_str().unwrap().contains("program"),
        "{problem}"
    );
    assert!(
        problem["hint"].as_str().unwrap().contains("by hand"),
        "{problem}"
    );
    assert_eq!(status["problems"].as_array().unwrap().len(), 1);
    let failing = sink(&status, "program");
    assert_eq!(failing["state"], "failing");
    assert!(failing["next_attempt"].is_string() && failing["last_error"].is_string());
    assert_eq!(sink(&status, "plain")["state"], "delivered");
    assert_eq!(machine.run(&["status"]).code, 1);
    // Five seconds, then ten.
    let lines = [1, 2].map(|nth| daemon.wait_for_nth("sink.failed", nth, |_| true));
    let [first, second] = lines.map(|line| {
        let at = |key: &str| line[key].as_str().unwrap().parse::<Timestamp>().unwrap();
        at("next_try").duration_since(at("timestamp")).as_secs_f64()
    });
    assert!(
        (3.0..6.0).contains(&first) && (8.0..11.0).contains(&second),
        "{first} {second}"
    );

    // Two more; it is told of the last one alone, and needs nobody's help.
    rig.deliver(USER, &token(2), 2);
    daemon.wait_for_nth("sink.failed", 3, |_| true);
    rig.deliver(USER, &token(3), 1);
    daemon.wait_for_nth("sink.failed", 4, |_| true);
    std::fs::remove_file(path(machine, "broken")).unwrap();
    daemon.wait_for("sink.delivered", |line| line["sink"] == "program");
    assert_eq!(told(machine), [(3, composite(3))]);
    assert_eq!(read(machine, "plain"), Some(composite(3)));
    machine.wait_status(|status| status["state"] == "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_sink_is_being_told_waits_for_its_turn() {
    let rig = rig(&(account(USER) + COMMAND + &file("plain"))).await;
    let machine = &rig.machine;
    let gate = path(machine, "gate");
    let made = std::process::Command::new("mkfifo").arg(&gate).status();
    assert!(made.unwrap().success());
    let daemon = machine.daemon();
    for seed in 1..=3 {
        rig.deliver(USER, &token(seed), 5 - i64::try_from(seed).unwrap());
        // The other sink does not wait for this one.
        let nth = usize::try_from(seed).unwrap();
        daemon.wait_for_nth("sink.delivered", nth, |line| line["sink"] == "plain");
        assert_eq!(read(machine, "plain"), Some(composite(seed)));
    }
    assert_eq!(told(machine), []);
    // Opened for writing and closed: the program that waits goes on, and no later one waits.
    let opened = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    std::fs::remove_file(&gate).unwrap();
    drop(opened);
    daemon.wait_for_nth("sink.delivered", 2, |line| line["sink"] == "program");
    assert_eq!(told(machine), [(1, composite(1)), (3, composite(3))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_forty_times_the_last_credential_reaches_every_sink_and_the_order_holds() {
    let rig = rig(&(account(USER) + COMMAND + &file("plain"))).await;
    let machine = &rig.machine;
    let start = Timestamp::now() - SignedDuration::from_hours(1);
    let mut newest = 0;
    for round in 0..40_u64 {
        let daemon = machine.daemon_at("info");
        let span = if round % 2 == 0 {
            150_000
        } else {
            daemon.wait_for("mailbox.watching", |_| true);
            60_000
        };
        for _ in 0..=fastrand::u64(0..3) {
            newest += 1;
            let at = start + SignedDuration::from_secs(i64::try_from(newest).unwrap());
            rig.imap
                .deliver(&TokenMail::new(USER, &token(newest), at).bytes());
        }
        // Any moment between the mail and the end of its delivery.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..span))).await;
        daemon.kill();
    }
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    machine.wait_status(|status| status["accounts"][0]["version"] == newest);
    all_told(machine);
    assert_eq!(read(machine, "plain"), Some(composite(newest)));
    let told = told(machine);
    assert_eq!(told.last(), Some(&(newest, composite(newest))));
    assert!(told.is_sorted(), "{told:?}");
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_after_a_reboot_is_written_again_at_the_start() {
    let salesforce = Salesforce::start().await;
    let tables = format!(
        "{}verify = \"soap\"\nlogin-url = \"{}\"\n{COMMAND}{}",
        account(USER),
        salesforce.url(),
        file("plain")
    );
    let rig = rig(&tables).await;
    let machine = &rig.machine;
    salesforce.set(USER, PASSWORD, &token(1));
    rig.deliver(USER, &token(1), 0);
    let daemon = machine.daemon();
    daemon.wait_for_nth("sink.delivered", 2, |_| true);
    assert!(daemon.stop().0.success());
    let wait_for_file = || {
        std::fs::remove_file(path(machine, "plain")).unwrap();
        let daemon = machine.daemon();
        daemon.wait_for("sink.delivered", |line| line["sink"] == "plain");
        assert_eq!(read(machine, "plain"), Some(composite(1)));
        all_told(machine);
        assert_eq!(
            daemon.count("sink.delivered"),
            1,
            "nobody else is told again"
        );
        daemon
    };
    let daemon = wait_for_file();
    // Refused: what works stays in use, and stays where it belongs.
    rig.set_password(USER, "mistyped");
    daemon.wait_for("credential.refused", |_| true);
    assert!(daemon.stop().0.success());
    assert!(wait_for_file().stop().0.success());
    // The same for one that ends by itself.
    std::fs::remove_file(path(machine, "plain")).unwrap();
    machine.run(&["run", "--once"]);
    assert_eq!(read(machine, "plain"), Some(composite(1)));
    assert_eq!(told(machine), [(1, composite(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_delivers_and_checks_before_it_ends_and_says_what_it_could_not() {
    let salesforce = Salesforce::start().await;
    let tables = format!(
        "{}verify = \"soap\"\nlogin-url = \"{}\"\n{COMMAND}{}",
        account(USER),
        salesforce.url(),
        file("plain")
    );
    let rig = rig(&tables).await;
    let machine = &rig.machine;
    salesforce.set(USER, PASSWORD, &token(1));
    rig.deliver(USER, &token(1), 2);
    machine.ok(&["run", "--once"]);
    assert_eq!(salesforce.sessions(), [1, 1, 0]);
    assert_eq!(told(machine), [(1, composite(1))]);
    assert_eq!(read(machine, "plain"), Some(composite(1)));

    std::fs::write(path(machine, "broken"), "").unwrap();
    salesforce.set(USER, PASSWORD, &token(2));
    rig.deliver(USER, &token(2), 1);
    let ended = machine.run(&["run", "--once"]);
    ended.failed(69, "1 sink could not be told", "sink.failed");
    assert_eq!(read(machine, "plain"), Some(composite(2)));
    // Who runs it again wants it tried now.
    std::fs::remove_file(path(machine, "broken")).unwrap();
    machine.ok(&["run", "--once"]);
    assert_eq!(told(machine).last(), Some(&(2, composite(2))));

    salesforce.order_always(Some(Order::Answer(503, String::new())));
    rig.deliver(USER, &token(3), 0);
    let ended = machine.run(&["run", "--once"]);
    ended.failed(
        69,
        "1 credential could not be checked",
        "credential.unchecked",
    );
    assert_eq!(machine.credential(USER), Some(composite(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_delivered_without_its_password_or_to_who_may_not_have_it() {
    let sinks = |accounts: &str| {
        let command = COMMAND.to_owned() + accounts;
        let files = "[[sink]]\nkind = \"file\"\nname = \"files\"\npath = \"FOLDER/{username}\"\nformat = \"raw\"\n";
        account(USER) + &account(OTHER) + &command + files
    };
    let rig = rig(&sinks(&format!("accounts = [\"{USER}\", \"{OTHER}\"]\n"))).await;
    let machine = &rig.machine;
    rig.set_password(OTHER, "pass of the other");
    std::fs::write(path(machine, "broken"), "").unwrap();
    let daemon = machine.daemon();
    rig.deliver(USER, &token(1), 5);
    rig.deliver(OTHER, &token(2), 5);
    for username in [USER, OTHER] {
        daemon.wait_for("sink.failed", |line| line["username"] == username);
        daemon.wait_for("sink.delivered", |line| line["username"] == username);
    }
    machine.ok(&["secret", "remove", &format!("account/{USER}")]);
    let status = machine.wait_status(|status| {
        let sinks = status["sinks"].as_array().unwrap();
        sinks.iter().all(|sink| sink["username"] == OTHER)
    });
    assert_eq!(status["sinks"].as_array().unwrap().len(), 2, "{status:#}");
    assert!(daemon.stop().0.success());

    // The other one is not for this sink any more.
    rig.configure(&sinks(&format!("accounts = [\"{USER}\"]\n")));
    std::fs::remove_file(path(machine, "broken")).unwrap();
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    let status = machine.status();
    assert_eq!(status["sinks"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!(sink(&status, "files")["username"], OTHER);
    // The password comes back, with another file gone meanwhile: this is the first that is told.
    std::fs::remove_file(path(machine, USER)).unwrap();
    rig.set_password(USER, PASSWORD);
    daemon.wait_for("sink.delivered", |line| line["sink"] == "program");
    all_told(machine);
    assert_eq!(told(machine), [(1, composite(1))]);
    assert_eq!(read(machine, USER), Some(composite(1)));
}

/// What lies in a vault, taken out and put back by hand.
#[cfg(feature = "system-tests")]
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_read_keeps_no_sink_from_the_others() {
    let rig = rig(&(account(OTHER) + &account(USER) + COMMAND)).await;
    let machine = &rig.machine;
    rig.set_password(OTHER, "pass of the other");
    std::fs::write(path(machine, "broken"), "").unwrap();
    let daemon = machine.daemon();
    for (username, seed) in [(OTHER, 2), (USER, 1)] {
        rig.deliver(username, &token(seed), 5);
        daemon.wait_for("sink.failed", |line| line["username"] == username);
    }
    assert!(daemon.stop().0.success());
    std::fs::remove_file(path(machine, "broken")).unwrap();
    let (key, vault) = (
        path(machine, "state/vault.key"),
        path(machine, "state/vault.age"),
    );
    let age = |way: &str, from: &std::path::Path, to: &std::path::Path| {
        let mut command = std::process::Command::new("age");
        let run = command
            .arg(way)
            .arg("-i")
            .arg(&key)
            .arg("-o")
            .arg(to)
            .arg(from);
        assert!(run.status().unwrap().success());
    };
    let open = path(machine, "open");
    age("-d", &vault, &open);
    let mut content: Value = serde_json::from_slice(&std::fs::read(&open).unwrap()).unwrap();
    let entries = content["entries"]["tokenwatch"].as_object_mut().unwrap();
    let document = format!("document/{OTHER}");
    entries.insert(document, "unreadable".into()).unwrap();
    std::fs::write(&open, content.to_string()).unwrap();
    age("-e", &open, &vault);

    let daemon = machine.daemon();
    daemon.wait_for("account.unreadable", |line| line["username"] == OTHER);
    daemon.wait_for("sink.delivered", |line| line["username"] == USER);
    assert_eq!(told(machine), [(1, composite(1))]);
    let status = machine.wait_status(|status| {
        let problems = status["problems"].as_array().unwrap().iter();
        let codes: Vec<_> = problems.map(|one| one["code"].as_str().unwrap()).collect();
        codes == ["account-unsettled", "sink-failed"]
    });
    let hint = status["problems"][1]["hint"].as_str().unwrap();
    assert!(!hint.is_empty(), "{status:#}");
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_comes_after_a_file_finds_the_new_one() {
    // What restarts a reader of the file must not do it while the old one is there.
    let file =
        "[[sink]]\nkind = \"file\"\nname = \"env\"\npath = \"FOLDER/out/env\"\nformat = \"raw\"\n";
    let program = "[[sink]]\nkind = \"command\"\nname = \"restart\"\nargv = [\"/bin/cp\", \"FOLDER/out/env\", \"FOLDER/seen\"]\n";
    let first = "[[sink]]\nkind = \"command\"\nname = \"first\"\nargv = [\"/bin/touch\", \"FOLDER/touched\"]\n";
    let rig = rig(&(account(USER) + first + file + program)).await;
    let machine = &rig.machine;
    let daemon = machine.daemon();
    rig.deliver(USER, &token(1), 1);
    let failed = daemon.wait_for("sink.failed", |_| true);
    assert_eq!(failed["sink"], "env");
    daemon.wait_for("sink.delivered", |line| line["sink"] == "first");
    let status = machine.wait_status(|status| sink(status, "env")["attempts"] == 1);
    let waits = sink(&status, "restart");
    assert_eq!(
        (&waits["state"], &waits["attempts"]),
        (&"waiting".into(), &0.into())
    );
    assert!(daemon.stop().0.success());

    std::fs::create_dir(path(machine, "out")).unwrap();
    let daemon = machine.daemon();
    all_told(machine);
    assert_eq!(read(machine, "seen"), Some(composite(1)));
    assert_eq!(daemon.count("sink.failed"), 0);
    for seed in 2..=6 {
        rig.deliver(USER, &token(seed), 0);
        // Two for the first, and three for each that came since.
        let count = 3 * usize::try_from(seed).unwrap() - 1;
        daemon.wait_for_nth("sink.delivered", count, |_| true);
        assert_eq!(read(machine, "seen"), Some(composite(seed)));
    }
    assert!(daemon.stop().0.success());
}

/// The journal, as something that is full or broken would leave it. The daemon must not run.
fn journal(machine: &Machine, sql: &str) {
    let journal = rusqlite::Connection::open(machine.state_dir().join("journal.db")).unwrap();
    journal.execute_batch(sql).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_noted_is_made_even_where_once_cannot_use_the_outbox() {
    let salesforce = Salesforce::start().await;
    let tables = format!(
        "{}verify = \"soap\"\nlogin-url = \"{}\"\n",
        account(USER),
        salesforce.url()
    );
    let rig = rig(&tables).await;
    let machine = &rig.machine;
    salesforce.set(USER, PASSWORD, &token(1));
    machine.ok(&["run", "--once"]);
    journal(
        machine,
        "INSERT INTO outbox (sink, username, wanted, id, since, next_try)
           VALUES ('gone', 'gone@idalko.com', 'print', 'msg_1', 0, 0);
         CREATE TRIGGER full BEFORE DELETE ON outbox
           BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;",
    );
    rig.deliver(USER, &token(1), 30);
    assert_ne!(machine.run(&["run", "--once"]).code, 0);
    assert_eq!(salesforce.sessions(), [1, 1, 0]);
    journal(machine, "DROP TRIGGER full");
    machine.ok(&["run", "--once"]);
    assert_eq!(machine.credential(USER), Some(composite(1)));
    assert_eq!(salesforce.attempts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_cannot_be_written_keeps_no_sink_from_being_told() {
    let salesforce = Salesforce::start().await;
    salesforce.order_always(Some(Order::Answer(503, String::new())));
    let tables = format!(
        "{}{}verify = \"soap\"\nlogin-url = \"{}\"\n{COMMAND}",
        account(USER),
        account(OTHER),
        salesforce.url()
    );
    let rig = rig(&tables).await;
    let machine = &rig.machine;
    rig.set_password(OTHER, PASSWORD);
    std::fs::write(path(machine, "broken"), "").unwrap();
    let daemon = machine.daemon();
    rig.deliver(OTHER, &token(2), 30);
    rig.deliver(USER, &token(1), 30);
    daemon.wait_for("sink.failed", |line| line["username"] == USER);
    salesforce.wait_for_attempts(1).await;
    daemon.wait_for("credential.unchecked", |_| true);
    // Its new file cannot be made there; the next login is due in ten seconds.
    let new = machine.state_dir().join("vault.age.new");
    std::fs::create_dir(&new).unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    std::fs::remove_file(path(machine, "broken")).unwrap();
    daemon.wait_for("sink.delivered", |line| line["username"] == USER);
    assert_eq!(told(machine), [(1, composite(1))]);
    assert_eq!(salesforce.attempts().len(), 1, "none that is not noted");
    std::fs::remove_dir(&new).unwrap();
}

/// Vault and journal, as they lie on the disk while nobody has them open.
struct State(Vec<(PathBuf, Option<Vec<u8>>)>);

impl State {
    const VAULT: [&str; 1] = ["vault.age"];
    const JOURNAL: [&str; 2] = ["journal.db", "journal.db-wal"];

    fn of(machine: &Machine, files: &[&str]) -> Self {
        let read = |name: &&str| {
            let path = machine.state_dir().join(name);
            let bytes = std::fs::read(&path).ok();
            (path, bytes)
        };
        Self(files.iter().map(read).collect())
    }

    fn put_back(&self) {
        for (path, bytes) in &self.0 {
            match bytes {
                Some(bytes) => {
                    std::fs::write(path, bytes).unwrap();
                    let own = std::fs::Permissions::from_mode(0o600);
                    std::fs::set_permissions(path, own).unwrap();
                }
                None => std::fs::remove_file(path).unwrap_or_default(),
            }
        }
    }
}

/// A new credential is three durable steps: the vault, the journal with the outbox, the sink and
/// the note that it was told. What a crash between two of them leaves is put together by hand.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_between_any_two_steps_the_sink_hears_of_the_last_credential() {
    let rig = rig(&(account(USER) + COMMAND)).await;
    let machine = &rig.machine;
    rig.deliver(USER, &token(1), 9);
    machine.ok(&["run", "--once"]);
    let before = State::of(machine, &State::JOURNAL);
    // Vault and outbox are written, and the sink is not told.
    std::fs::write(path(machine, "broken"), "").unwrap();
    rig.deliver(USER, &token(2), 5);
    machine
        .run(&["run", "--once"])
        .failed(69, "1 sink could not be told", "sink.failed");
    let untold = [
        State::of(machine, &State::VAULT),
        State::of(machine, &State::JOURNAL),
    ];
    std::fs::remove_file(path(machine, "broken")).unwrap();
    let (first, second) = ((1, composite(1)), (2, composite(2)));
    assert_eq!(told(machine), std::slice::from_ref(&first));

    // After the vault, before the journal.
    before.put_back();
    machine.ok(&["run", "--once"]);
    assert_eq!(told(machine), [first.clone(), second.clone()]);
    // After the journal, before the sink.
    for state in &untold {
        state.put_back();
    }
    machine.ok(&["run", "--once"]);
    // After the sink, before the note: it is told once more, and not of less.
    let told_twice = [first.clone(), second.clone(), second.clone()];
    assert_eq!(told(machine), told_twice);
    for state in &untold {
        state.put_back();
    }
    machine.ok(&["run", "--once"]);
    assert_eq!(told(machine).last(), Some(&second));
    // After the note: never again.
    let count = told(machine).len();
    machine.ok(&["run", "--once"]);
    assert_eq!(told(machine).len(), count);
}

/// Somebody puts a copy of the vault back that is older than what came since.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_was_put_back_is_noticed_and_what_it_lacks_is_read_again() {
    let rig = rig(&(account(USER) + COMMAND)).await;
    let machine = &rig.machine;
    rig.deliver(USER, &token(1), 9);
    machine.ok(&["run", "--once"]);
    let older = State::of(machine, &State::VAULT);
    rig.deliver(USER, &token(2), 5);
    machine.ok(&["run", "--once"]);
    assert_eq!(machine.credential(USER), Some(composite(2)));
    older.put_back();
    assert_eq!(machine.credential(USER), Some(composite(1)));
    let daemon = machine.daemon();
    daemon.wait_for("vault.went-back", |line| line["level"] == "ERROR");
    daemon.wait_for("credential.updated", |line| line["version"] == 2);
    assert_eq!(machine.credential(USER), Some(composite(2)));
    machine.wait_status(|status| status["state"] == "healthy");
    assert!(daemon.stop().0.success());
    // Once is enough.
    let daemon = machine.daemon();
    daemon.wait_for("mailbox.watching", |_| true);
    assert_eq!(daemon.count("vault.went-back"), 0);
    assert!(daemon.stop().0.success());
}
