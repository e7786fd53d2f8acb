//! The Secret Service: a real gnome-keyring on a real session bus.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::desktop::Desktop;
use crate::process::{Ended, Machine};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::watching::configuration;

const USER: &str = "mariana@idalko.com";

const ALONE: &str = "state-dir = \"STATE\"\n[vault]\nbackend = \"native\"\n\
    [[account]]\nusername = \"mariana@idalko.com\"\n\
    [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n";

fn alone(address: &str) -> Machine {
    Machine::new(ALONE).with("DBUS_SESSION_BUS_ADDRESS", address)
}

/// A machine on this desktop that watches the server.
fn on(desktop: &Desktop, server: &ImapServer) -> Machine {
    let machine = Machine::new("").with("DBUS_SESSION_BUS_ADDRESS", desktop.address());
    let ca = machine.folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).unwrap();
    let text = configuration(server, &ca.display().to_string(), "");
    machine.configure(&format!("{text}[vault]\nbackend = \"native\"\n"));
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "pass");
    machine
}

fn deliver(server: &ImapServer, seed: u64) {
    server.deliver(&TokenMail::new(USER, &token(seed), Timestamp::now()).bytes());
}

fn set(machine: &Machine, name: &str, secret: &str) -> Ended {
    machine.run_with_input(&["secret", "set", name], secret)
}

/// From the first secret to the last, and what other programs find.
#[tokio::test(flavor = "multi_thread")]
async fn a_desktops_keyring_holds_what_it_is_given() {
    let mut desktop = Desktop::logged_in();
    let server = ImapServer::start(Options::default()).await;
    let machine = on(&desktop, &server);
    let listed = format!("account/{USER}\nmailbox/ops\n");
    assert_eq!(machine.ok(&["secret", "list"]), listed);
    assert_eq!(
        desktop.lookup("tokenwatch", "mailbox/ops").as_deref(),
        Some("mailbox-pass")
    );
    let checked = machine.run(&["check", "--offline"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);

    // At trace, where the bus's own library speaks too.
    let again = ["--log", "trace", "secret", "set", "mailbox/ops"];
    let mut said = machine.run_with_input(&again, "mailbox-pass").stderr;
    said += &machine.run(&["--log", "trace", "secret", "list"]).stderr;
    let daemon = machine.daemon_at("trace");
    server.wait_idling(1).await;
    deliver(&server, 1);
    daemon.wait_for("credential.updated", |_| true);
    let composite = |seed| Some(format!("pass{}", token(seed)));
    assert_eq!(desktop.lookup("exalate", USER), composite(1));
    assert_eq!(machine.credential(USER), composite(1));

    // The service goes and comes back, and does not know who was connected.
    desktop.crash();
    set(&machine, "mailbox/more", "x").failed(1, "credential store", "check");
    desktop.log_in();
    deliver(&server, 2);
    daemon.wait_for_nth("credential.updated", 2, |_| true);
    assert_eq!(desktop.lookup("exalate", USER), composite(2));
    machine.wait_status(|status| status["state"] == "healthy");
    let (status, _, log) = daemon.stop();
    assert!(status.success(), "{log}");
    said += &log;
    assert!(said.contains("zbus"), "trace was on: {said}");
    for secret in ["mailbox-pass", &token(1), &token(2)] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }

    // A person who looks up the entry finds one, and removing removes.
    machine.ok(&["secret", "remove", "mailbox/ops"]);
    assert_eq!(machine.ok(&["secret", "list"]), format!("account/{USER}\n"));
    assert_eq!(desktop.lookup("tokenwatch", "mailbox/ops"), None);
    assert!(!machine.state_dir().join("vault.age").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_keyring_is_locked_nothing_is_lost() {
    let desktop = Desktop::logged_in();
    let server = ImapServer::start(Options::default()).await;
    let machine = on(&desktop, &server);
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    desktop.lock();
    deliver(&server, 1);
    daemon.wait_for("mailbox.lost", |line| {
        line["hint"]
            .as_str()
            .unwrap()
            .contains("unlock the keyring")
    });
    let status = machine.wait_status(|status| status["state"] == "degraded");
    let problems = status["problems"].to_string();
    assert!(problems.contains("storage-failed"), "{status}");
    set(&machine, "mailbox/ops", "x").failed(1, "denies access", "unlock the keyring");
    desktop.unlock();
    daemon.wait_for("credential.updated", |_| true);
    machine.wait_status(|status| status["state"] == "healthy");
    let composite = Some(format!("pass{}", token(1)));
    assert_eq!(machine.credential(USER), composite);
    daemon.stop();

    // Without a daemon each command says the same, and so does the doctor.
    desktop.lock();
    machine
        .run(&["secret", "list"])
        .failed(77, "denies access", "unlock the keyring");
    machine
        .run(&["run"])
        .failed(77, "denies access", "unlock the keyring");
    let checked = machine.run(&["check", "--offline"]);
    assert_eq!(checked.code, 1);
    assert!(checked.stdout.contains("✗ vault"), "{}", checked.stdout);
    desktop.unlock();
    assert_eq!(desktop.lookup("exalate", USER), composite);
}

/// Another program stores an item that answers to an account's name. Each of its entries is
/// tried: the other account knows nothing of it, and the first is well when it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_there_twice_is_its_accounts_alone() {
    const OTHER: &str = "b@example.com";
    let desktop = Desktop::logged_in();
    let server = ImapServer::start(Options::default()).await;
    let machine = on(&desktop, &server);
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&format!("{text}[[account]]\nusername = \"{OTHER}\"\n"));
    machine.set_secret(&format!("account/{OTHER}"), "pass");
    let both = |seed| {
        server.deliver(&TokenMail::new(USER, &token(seed), Timestamp::now()).bytes());
        server.deliver(&TokenMail::new(OTHER, &token(seed + 1), Timestamp::now()).bytes());
    };
    both(1);
    machine.ok(&["run", "--once"]);
    let document = format!("document/{USER}");
    let mut daemon = machine.daemon();
    for (seed, service, name) in [
        (3, "exalate", USER),
        (5, "tokenwatch", document.as_str()),
        (7, "exalate", USER),
    ] {
        server.wait_idling(1).await;
        desktop.store_another(service, name, "of another");
        if seed == 7 {
            // It is there already when the daemon starts.
            daemon.stop();
            daemon = machine.daemon();
            daemon.wait_for("account.unreadable", |line| line["username"] == USER);
            server.wait_idling(1).await;
        }
        both(seed);
        let version = seed.div_ceil(2);
        daemon.wait_for("credential.updated", |line| {
            line["username"] == OTHER && line["version"] == version
        });
        let composite = |seed| Some(format!("pass{}", token(seed)));
        let status = machine.wait_status(|status| status["held"] == 1);
        assert_eq!(machine.credential(OTHER), composite(seed + 1));
        let problems = status["problems"].as_array().unwrap();
        let [problem] = &problems[..] else {
            panic!("{status:#}");
        };
        assert_eq!(problem["code"], "account-unsettled");
        let hint = problem["hint"].as_str().unwrap();
        assert!(hint.contains("remove the item"), "{hint}");
        let listed = machine.ok(&["credential", "list"]);
        assert_eq!(listed.matches("cannot be read").count(), 1, "{listed}");
        let checked = machine.run(&["check", "--offline"]).stdout;
        for wanted in [
            "✓ vault",
            &format!("✗ account {USER}"),
            &format!("✓ account {OTHER}"),
        ] {
            assert!(checked.contains(wanted), "{checked}");
        }

        let title = problem["title"].as_str().unwrap();
        let (_, path) = title.split_once("\"of another\" (").expect(title);
        desktop.remove(path.split_once(')').unwrap().0);
        daemon.signal(rustix::process::Signal::HUP);
        let status = machine.wait_status(|status| status["state"] == "healthy");
        assert_eq!(status["held"], 0, "{status:#}");
        assert_eq!(machine.credential(USER), composite(seed));
        assert_eq!(desktop.lookup("exalate", USER), composite(seed));
    }
    daemon.stop();
}

#[test]
fn no_bus_and_a_bus_without_a_keyring_are_said() {
    let (error, hint) = ("no Secret Service answers", "backend = \"file\"");
    let empty = Desktop::without_keyring();
    let nowhere = format!("unix:path={}/nothing", empty.home().display());
    for address in [empty.address(), &nowhere] {
        let machine = alone(address);
        set(&machine, "mailbox/ops", "x").failed(1, error, hint);
        machine.run(&["secret", "list"]).failed(1, error, hint);
        machine.run(&["run"]).failed(1, error, hint);
        let checked = machine.run(&["check", "--offline"]);
        assert_eq!(checked.code, 1);
        assert!(checked.stdout.contains(error), "{}", checked.stdout);
    }
}

/// Nobody is at the screen: the commands do not wait for him for ever.
#[test]
fn a_prompt_that_nobody_answers_ends_in_time() {
    let desktop = Desktop::logged_in();
    let machine = alone(desktop.address());
    machine.set_secret("mailbox/ops", "kept");
    let nobody = desktop.nobody_answers();
    desktop.lock();
    let begun = Instant::now();
    machine.run(&["secret", "list"]).failed(
        1,
        "did not answer within 10 s",
        "waits for its password",
    );
    assert!(begun.elapsed() < Duration::from_secs(15));
    let checked = machine.run(&["check", "--offline"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.stdout.contains("did not answer within 10 s"),
        "{}",
        checked.stdout
    );
    drop(nobody);
    desktop.unlock();
    assert_eq!(machine.ok(&["secret", "list"]), "mailbox/ops\n");
    assert_eq!(
        desktop.lookup("tokenwatch", "mailbox/ops").as_deref(),
        Some("kept")
    );
}

/// The keyring hangs under a running daemon. What was asked of it lands when it
/// goes on, maybe late; the end is right all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_that_hangs_and_goes_on_has_the_right_state() {
    let desktop = Desktop::logged_in();
    let server = ImapServer::start(Options::default()).await;
    let machine = on(&desktop, &server);
    let daemon = machine.daemon();
    server.wait_idling(1).await;
    desktop.hang(true);
    deliver(&server, 1);
    daemon.wait_for("mailbox.lost", |line| {
        line["error"].as_str().unwrap().contains("within 10 s")
    });
    // Who comes now is not kept waiting for as long.
    let begun = Instant::now();
    set(&machine, "mailbox/more", "x").failed(1, "hangs in an earlier call", "keyring");
    assert!(begun.elapsed() < Duration::from_secs(8));
    deliver(&server, 2);
    desktop.hang(false);
    daemon.wait_for("mailbox.watching", |_| true);
    let composite = Some(format!("pass{}", token(2)));
    let deadline = Instant::now() + Duration::from_secs(45);
    while machine.credential(USER) != composite {
        assert!(Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    machine.wait_status(|status| status["state"] == "healthy");
    assert_eq!(desktop.lookup("exalate", USER), composite);
    let history = machine.ok(&["credential", "history", USER]);
    assert_eq!(history.lines().count(), 2, "{history}");
    assert_eq!(history.matches("current").count(), 1, "{history}");
}

#[test]
fn entries_that_last_until_the_logout_are_warned_of() {
    let desktop = Desktop::logged_in();
    desktop.make_session_the_default();
    let machine = alone(desktop.address());
    machine.set_secret(&format!("account/{USER}"), "x");
    let checked = machine.run(&["check", "--offline"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.stdout.contains("! vault after a reboot")
            && checked.stdout.contains("collection `session`"),
        "{}",
        checked.stdout
    );
}

/// From the file to the desktop and back, and what the commands say of it.
#[test]
fn everything_moves_to_the_desktop_and_back() {
    let desktop = Desktop::logged_in();
    let file = ALONE.replace("native", "file");
    let machine = Machine::new(&file).with("DBUS_SESSION_BUS_ADDRESS", desktop.address());
    machine.set_secret("mailbox/ops", "one");
    machine.set_secret(&format!("account/{USER}"), "two");
    let listed = machine.ok(&["secret", "list"]);

    desktop.lock();
    machine
        .run(&["vault", "move", "--to", "native"])
        .failed(77, "denies access", "unlock");
    assert_eq!(machine.ok(&["secret", "list"]), listed, "nothing is lost");
    desktop.unlock();
    let moved = machine.run(&["vault", "move", "--to", "native"]);
    assert_eq!(moved.code, 0, "{}", moved.stderr);
    assert!(
        moved.stderr.contains("moved 3 entries") && moved.stderr.contains("backend = \"native\""),
        "{}",
        moved.stderr
    );
    assert_eq!(machine.ok(&["secret", "list"]), "");
    machine.configure(ALONE);
    assert_eq!(machine.ok(&["secret", "list"]), listed);
    assert_eq!(
        desktop.lookup("tokenwatch", "mailbox/ops").as_deref(),
        Some("one")
    );
    machine.ok(&["vault", "move", "--to", "file"]);
    assert_eq!(desktop.lookup("tokenwatch", "mailbox/ops"), None);
    machine.configure(&file);
    assert_eq!(machine.ok(&["secret", "list"]), listed);
}
