//! Mails that wait for a person: what is shown of them, and what becomes of them.

use std::io::{Read, Write};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::process::{Daemon, Machine};
use crate::support::dns::{Dns, Mood};
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{TokenMail, token};
use crate::support::signer::Signer;
use crate::watching::machine;

const USER: &str = "mariana@idalko.com";
const OTHER: &str = "other@example.com";
const PASSWORD: &str = "sf-Pass word";

fn composite(seed: u64) -> Option<String> {
    Some(format!("{PASSWORD}{}", token(seed)))
}

fn mail(seed: u64, minutes_ago: i64) -> TokenMail {
    let date = Timestamp::now() - SignedDuration::from_mins(minutes_ago);
    TokenMail::new(USER, &token(seed), date)
}

fn forged(seed: u64, minutes_ago: i64) -> Vec<u8> {
    mail(seed, minutes_ago).forged().bytes()
}

fn two_tokens() -> Vec<u8> {
    let both = format!("{}\r\nSecurity token: {}", token(5), token(6));
    TokenMail::new(USER, &both, Timestamp::now()).bytes()
}

/// A server, and a machine that has the account's password.
async fn ready() -> (ImapServer, Machine) {
    let server = ImapServer::start(Options::default()).await;
    let machine = machine(&server, "");
    machine.set_secret(&format!("account/{USER}"), PASSWORD);
    (server, machine)
}

/// Everything that is there has been looked at, and a daemon runs where one is
/// wanted.
fn looked_at(machine: &Machine, with_daemon: bool) -> Option<Daemon> {
    if with_daemon {
        let daemon = machine.daemon();
        daemon.wait_for("mailbox.watching", |_| true);
        Some(daemon)
    } else {
        machine.ok(&["run", "--once"]);
        None
    }
}

pub fn list(machine: &Machine) -> Vec<Value> {
    let printed = machine.ok(&["held", "list", "--json"]);
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The number of the only held mail.
pub fn only(machine: &Machine) -> String {
    let held = list(machine);
    assert_eq!(held.len(), 1, "{held:?}");
    held[0]["id"].to_string()
}

/// Asks the daemon as `curl` does: the status, and the JSON.
fn call(machine: &Machine, line: &str, body: &str) -> (u16, Value) {
    let socket = machine.state_dir().join("control.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_what_is_held_why_and_what_can_be_done() {
    for with_daemon in [true, false] {
        let (server, machine) = ready().await;
        let first = mail(1, 0).forged();
        server.deliver(&first.bytes());
        let mut unknown = mail(2, 0);
        unknown.username = OTHER.into();
        server.deliver(&unknown.bytes());
        server.deliver(&two_tokens());
        let _daemon = looked_at(&machine, with_daemon);

        let held = list(&machine);
        assert_eq!(held.len(), 3, "{held:?}");
        let of = |uid: u32| held.iter().find(|mail| mail["uid"] == uid).unwrap();
        for (key, value) in [
            ("mailbox", "ops"),
            ("folder", "INBOX"),
            ("reason", "sender-not-proved"),
            ("sender", "support@salesforce.com"),
            ("username", USER),
            ("message_id", &first.message_id),
        ] {
            assert_eq!(of(1)[key], value, "{}", of(1));
        }
        assert!(of(1)["received"].is_string() && of(1)["held_since"].is_string());
        let detail = of(1)["detail"].as_str().unwrap();
        assert!(
            detail.contains("nothing that trust.accept takes"),
            "{detail}"
        );
        for (uid, acceptable, hint) in [
            (1, true, format!("held accept {}", of(1)["id"])),
            (2, false, "add an [[account]]".to_owned()),
            (3, false, "reset the token".to_owned()),
        ] {
            assert_eq!(of(uid)["acceptable"], acceptable);
            let said = of(uid)["hint"].as_str().unwrap();
            assert!(said.contains(&hint), "{said}");
        }

        let printed = machine.ok(&["held"]);
        for wanted in [
            "sender-not-proved",
            "unknown-account",
            "two-tokens",
            "two different tokens could be meant",
            "ops/INBOX UID 3",
            OTHER,
            "support@salesforce.com",
        ] {
            assert!(printed.contains(wanted), "{wanted} in {printed}");
        }
        assert_eq!(printed, machine.ok(&["held", "list"]));
        assert_eq!(machine.ok(&["held", "--json"]).lines().count(), 3);
        if with_daemon {
            let said = machine.run(&["status"]).stdout;
            assert!(said.contains("3 mails are held"), "{said}");
            assert!(said.contains("tokenwatch held"), "{said}");
        }
        assert_eq!(machine.credential(USER), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_watched_no_more_has_no_held_mail() {
    let (server, machine) = ready().await;
    server.deliver(&forged(1, 0));
    machine.ok(&["run", "--once"]);
    let id = only(&machine);
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&text.replace("port =", "folders = [\"Other\"]\nport ="));
    let ended = machine.run(&["held"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    assert!(ended.stderr.contains("no mail is held"), "{}", ended.stderr);
    for verb in ["accept", "drop"] {
        machine
            .run(&["held", verb, &id])
            .failed(1, "no mail 1 is held", "tokenwatch held");
    }
}

/// A forged mail is shown, is not taken without a yes, and becomes the
/// credential with one.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_a_person_accepts_becomes_the_credential() {
    for with_daemon in [true, false] {
        let (server, machine) = ready().await;
        server.deliver(&mail(1, 5).bytes());
        server.deliver(&forged(2, 0));
        let daemon = looked_at(&machine, with_daemon);
        assert_eq!(machine.credential(USER), composite(1));
        let history = |n: usize| -> Value {
            let printed = machine.ok(&["credential", "history", "--json", USER]);
            serde_json::from_str::<Value>(&printed).unwrap()[n].clone()
        };
        let known = history(0)["fingerprint"].as_str().unwrap().to_owned();

        let id = only(&machine);
        let ended = machine.run(&["held", "accept", &id]);
        ended.failed(2, "no terminal to ask on", &format!("accept {id} --yes"));
        for wanted in [
            USER,
            "support@salesforce.com",
            "untrusted (sender-not-proved)",
            "version 1",
            &known,
            "becomes the account's newest",
        ] {
            assert!(ended.stdout.contains(wanted), "{wanted}: {}", ended.stdout);
        }
        assert_eq!(machine.credential(USER), composite(1), "nothing was done");
        assert_eq!(only(&machine), id);

        let done = machine.ok(&["held", "accept", &id, "--yes"]);
        assert!(done.ends_with(&format!("updated  {USER}\n")), "{done}");
        assert_eq!(machine.credential(USER), composite(2));
        let newest = history(0);
        let proof = newest["proof"].as_str().unwrap();
        assert!(proof.starts_with("accepted by a person; "), "{proof}");
        assert!(proof.contains("no DKIM signature"), "{proof}");
        let fingerprint = newest["fingerprint"].as_str().unwrap();
        assert!(
            ended.stdout.contains(fingerprint),
            "what was shown was done"
        );
        assert!(list(&machine).is_empty());
        machine.run(&["held", "accept", &id, "--yes"]).failed(
            1,
            &format!("no mail {id} is held"),
            "tokenwatch held",
        );
        if let Some(daemon) = daemon {
            let line = daemon.wait_for("notice.accepted", |_| true);
            assert_eq!(line["outcome"], "updated");
            assert_eq!(line["username"], USER);
            daemon.wait_for("notice.updated", |line| line["uid"] == 2);
            assert_eq!(machine.status()["held"], 0);
            // A later look does not undo it.
            machine.ok(&["resync", "--since", "all"]);
            assert_eq!(machine.status()["held"], 0);
        }
        assert_eq!(machine.credential(USER), composite(2));
        let commands = server.commands();
        assert!(commands.iter().any(|line| line.contains("EXAMINE")));
        assert!(!commands.iter().any(|line| line.contains("SELECT ")));
        assert!(!server.flags_touched(), "{commands:?}");
    }
}

/// Invariant 2 is not the person's to break.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_or_a_known_token_changes_nothing() {
    for with_daemon in [true, false] {
        let (server, machine) = ready().await;
        for (seed, age) in [(9, 60), (2, 0)] {
            server.deliver(&mail(seed, age).bytes());
        }
        server.deliver(&forged(1, 30));
        server.deliver(&forged(2, 0));
        let _daemon = looked_at(&machine, with_daemon);
        for (uid, outcome, said) in [
            (3, "older", "older than the token that is known"),
            (4, "duplicate", "known already"),
        ] {
            let held = list(&machine);
            let it = held.iter().find(|mail| mail["uid"] == uid).unwrap();
            let id = it["id"].to_string();
            let done = machine.ok(&["held", "accept", &id, "--yes"]);
            assert!(done.contains(said), "{done}");
            assert!(done.contains("no credential changes"), "{done}");
            assert!(done.ends_with(&format!("{outcome}  {USER}\n")), "{done}");
            assert_eq!(machine.credential(USER), composite(2));
        }
        assert!(list(&machine).is_empty());
        assert_eq!(machine.versions(USER), 2);
    }
}

/// A genuine mail that came before its account was configured.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_is_added_and_then_accepted() {
    for with_daemon in [true, false] {
        let (server, machine) = ready().await;
        let mut unknown = mail(1, 0);
        unknown.username = OTHER.into();
        server.deliver(&unknown.bytes());
        let daemon = looked_at(&machine, with_daemon);
        let id = only(&machine);
        machine.run(&["held", "accept", &id, "--yes"]).failed(
            78,
            "no [[account]] is configured for other@example.com",
            "add an [[account]]",
        );
        drop(daemon);
        let mut text = std::fs::read_to_string(machine.config_file()).unwrap();
        text.push_str("[[account]]\nusername = \"Other@Example.com\"\n");
        machine.configure(&text);
        machine.set_secret(&format!("account/{OTHER}"), PASSWORD);
        let _daemon = looked_at(&machine, with_daemon);
        assert_eq!(list(&machine)[0]["acceptable"], true);
        let done = machine.ok(&["held", "accept", &id, "--yes"]);
        assert!(
            done.contains("trusted: Authentication-Results of"),
            "{done}"
        );
        assert!(done.contains("no token yet"), "{done}");
        assert_eq!(machine.credential(OTHER), composite(1));
        assert!(list(&machine).is_empty());
    }
}

/// Invariant 3 is not the person's to break either: nothing is picked.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_mean_two_things_cannot_be_accepted() {
    let (server, machine) = ready().await;
    server.deliver(&two_tokens());
    let mut large = mail(1, 0).bytes();
    large.extend("padding\r\n".repeat(40_000).into_bytes());
    server.deliver(&large);
    let _daemon = looked_at(&machine, true);
    let held = list(&machine);
    assert_eq!(held.len(), 2);
    for mail in held {
        let id = mail["id"].to_string();
        assert_eq!(mail["acceptable"], false);
        machine.run(&["held", "accept", &id, "--yes"]).failed(
            65,
            &format!("mail {id} cannot be accepted"),
            "reset the token in Salesforce",
        );
    }
    assert_eq!(machine.credential(USER), None);
    assert_eq!(list(&machine).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_gone_or_numbered_anew_is_said_to_be() {
    for with_daemon in [true, false] {
        let (server, machine) = ready().await;
        let uid = server.deliver(&forged(1, 0));
        let daemon = looked_at(&machine, with_daemon);
        let id = only(&machine);
        server.expunge(uid);
        machine.run(&["held", "accept", &id, "--yes"]).failed(
            1,
            "is on the server no more",
            &format!("held drop {id}"),
        );
        machine.ok(&["held", "drop", &id]);
        assert!(list(&machine).is_empty());

        server.deliver(&forged(2, 0));
        drop(daemon);
        drop(looked_at(&machine, with_daemon));
        let id = only(&machine);
        server.reset_uidvalidity();
        // No daemon has seen it yet.
        machine.run(&["held", "accept", &id, "--yes"]).failed(
            1,
            "has numbered the mails of ops/INBOX anew",
            "another number",
        );
        let _daemon = looked_at(&machine, with_daemon);
        let anew = only(&machine);
        assert_ne!(anew, id);
        machine.ok(&["held", "accept", &anew, "--yes"]);
        assert_eq!(machine.credential(USER), composite(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_said_to_be() {
    let (server, machine) = ready().await;
    server.deliver(&forged(1, 0));
    machine.ok(&["run", "--once"]);
    let id = only(&machine);
    machine.set_secret("mailbox/ops", "wrong");
    machine.run(&["held", "accept", &id, "--yes"]).failed(
        77,
        "cannot be fetched from mailbox ops",
        "secret set mailbox/ops",
    );
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&text.replace(&format!("port = {}", server.port()), "port = 1"));
    machine.run(&["held", "accept", &id, "--yes"]).failed(
        69,
        "cannot be fetched from mailbox ops",
        "`host` and `port`",
    );
    assert_eq!(only(&machine), id);
}

/// The second step is for what the first has shown, and for nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_is_what_is_done() {
    let (server, machine) = ready().await;
    server.deliver(&forged(1, 5));
    let daemon = looked_at(&machine, true).unwrap();
    let id = only(&machine);
    let (status, held) = call(&machine, "GET /v1/held", "");
    assert_eq!((status, held[0]["id"].to_string()), (200, id.clone()));
    let accept = |body: &str| call(&machine, &format!("POST /v1/held/{id}/accept"), body);
    let (status, shown) = accept("{\"confirm\":null}");
    assert_eq!((status, &shown["done"]), (200, &false.into()), "{shown}");
    assert_eq!(shown["outcome"], "updated");
    let confirm = shown["confirm"].as_str().unwrap().to_owned();
    assert_eq!(accept("{}").1["confirm"], confirm.as_str(), "the same");

    let (status, error) = accept("{\"confirm\":\"another\"}");
    assert_eq!((status, &error["exit_code"]), (409, &1.into()), "{error}");
    // Meanwhile another token comes in, older than this mail's.
    server.deliver(&mail(2, 30).bytes());
    daemon.wait_for("credential.updated", |_| true);
    let yes = format!("{{\"confirm\":\"{confirm}\"}}");
    let (status, error) = accept(&yes);
    assert_eq!(status, 409);
    let said = error["error"].as_str().unwrap();
    assert!(said.contains("not what was shown"), "{said}");
    assert_eq!(machine.credential(USER), composite(2));

    let (_, shown) = accept("{}");
    assert_eq!(shown["known"]["version"], 1);
    let confirm = shown["confirm"].as_str().unwrap();
    let (status, done) = accept(&format!("{{\"confirm\":\"{confirm}\"}}"));
    assert_eq!((status, &done["done"]), (200, &true.into()), "{done}");
    assert_eq!(machine.credential(USER), composite(1));
    assert_eq!(accept("{}").0, 404);
    assert_eq!(call(&machine, "DELETE /v1/held/99", "").0, 404);
}

/// What a person dropped is not held again, and never keeps a genuine mail out.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_mail_does_not_come_back() {
    for with_daemon in [true, false] {
        let (server, machine) = ready().await;
        server.deliver(&forged(1, 0));
        server.deliver(&two_tokens());
        let daemon = looked_at(&machine, with_daemon);
        let held = list(&machine);
        for mail in &held {
            machine.ok(&["held", "drop", &mail["id"].to_string()]);
        }
        assert!(list(&machine).is_empty());
        let id = held[0]["id"].to_string();
        machine.run(&["held", "drop", &id]).failed(
            1,
            &format!("no mail {id} is held"),
            "tokenwatch held",
        );
        if let Some(daemon) = &daemon {
            daemon.wait_for_nth("notice.dropped", 2, |line| line["mailbox"] == "ops");
            assert_eq!(machine.status()["held"], 0);
        }
        drop(daemon);
        let daemon = looked_at(&machine, true).unwrap();
        let printed = machine.ok(&["resync", "--since", "all", "--json"]);
        assert!(printed.contains("\"reason\":\"dropped\""), "{printed}");
        let last: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        assert_eq!((&last["held"], &last["ignored"]), (&0.into(), &2.into()));
        assert_eq!(machine.status()["held"], 0);
        assert_eq!(daemon.count("notice.held"), 0);
        server.deliver(&mail(3, 0).bytes());
        daemon.wait_for("credential.updated", |_| true);
        assert_eq!(machine.credential(USER), composite(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ninety_days_nobody_waits_for_a_mail() {
    let (server, machine) = ready().await;
    server.deliver(&forged(1, 0));
    server.deliver(&forged(2, 0));
    machine.ok(&["run", "--once"]);
    let held_for = |uid: u32, days: i64| {
        let journal = rusqlite::Connection::open(machine.state_dir().join("journal.db")).unwrap();
        let since = Timestamp::now().as_second() - days * 86_400;
        let sql = "UPDATE outcome SET decided = ?1 WHERE uid = ?2";
        assert_eq!(journal.execute(sql, (since, uid)).unwrap(), 1);
    };
    held_for(1, 91);
    held_for(2, 89);
    let daemon = looked_at(&machine, true).unwrap();
    let line = daemon.wait_for("notice.expired", |_| true);
    assert_eq!(
        (&line["mails"], &line["level"]),
        (&1.into(), &"WARN".into())
    );
    let held = list(&machine);
    assert_eq!((held.len(), &held[0]["uid"]), (1, &2.into()));
    // A look at it does not make it a day younger, and none brings the other back.
    let printed = machine.ok(&["resync", "--since", "all", "--json"]);
    assert!(printed.contains("\"reason\":\"expired\""), "{printed}");
    assert_eq!(machine.status()["held"], 1);
    assert!(
        list(&machine)[0]["held_since"].as_str().unwrap() < held[0]["received"].as_str().unwrap()
    );
    drop(daemon);
    held_for(2, 91);
    machine.ok(&["run", "--once"]);
    assert!(list(&machine).is_empty());
}

/// A mail whose key could not be looked up for so long that it was held.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_was_undecided_for_too_long_can_be_accepted() {
    let server = ImapServer::start(Options::default()).await;
    let (dns, signer) = (Dns::start(), Signer::new());
    dns.mood(Mood::Servfail);
    let headers = ["From", "To", "Subject", "Date"];
    server.deliver(&signer.sign(&forged(1, 0), "salesforce.com", "sf", &headers));
    let machine = machine(&server, "");
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    let trust = format!(
        "[trust]\ndns-servers = [\"{}\"]\nundecided-for = \"1s\"\n#",
        dns.address()
    );
    machine.configure(&text.replace("[trust]\naccept", &format!("{trust}accept")));
    machine.set_secret(&format!("account/{USER}"), PASSWORD);
    assert_eq!(machine.run(&["run", "--once"]).code, 69);
    assert!(list(&machine).is_empty(), "it is tried again");
    let journal = rusqlite::Connection::open(machine.state_dir().join("journal.db")).unwrap();
    let sql = "UPDATE outcome SET first_seen = first_seen - 60";
    assert_eq!(journal.execute(sql, ()).unwrap(), 1);
    drop(journal);
    machine.ok(&["run", "--once"]);
    assert_eq!(list(&machine)[0]["reason"], "dns-unavailable");
    let id = only(&machine);
    let done = machine.ok(&["held", "accept", &id, "--yes"]);
    assert!(done.contains("undecided (dns-unavailable)"), "{done}");
    assert_eq!(machine.credential(USER), composite(1));
}

/// Killed at any moment of it: the mail waits or is taken, and the next `accept`
/// finds it so.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_is_accepted_nothing_is_lost() {
    let (server, machine) = ready().await;
    let mut before = None;
    for round in 1..=24_u64 {
        server.deliver(&forged(round, 60 - i64::try_from(round).unwrap()));
        let daemon = looked_at(&machine, round % 2 == 0);
        let id = only(&machine);
        let mut command = machine.command(&["held", "accept", &id, "--yes"]);
        let output = std::process::Stdio::null;
        command.stdin(output()).stdout(output()).stderr(output());
        let mut accepting = command.spawn().unwrap();
        let span = Duration::from_micros(fastrand::u64(0..150_000));
        tokio::time::sleep(span).await;
        if let Some(daemon) = daemon {
            daemon.kill();
        }
        // It may have ended by itself.
        accepting.kill().unwrap_or_default();
        accepting.wait().unwrap();

        let credential = machine.credential(USER);
        let waits = list(&machine);
        if waits.is_empty() {
            assert_eq!(credential, composite(round), "it was taken");
        } else {
            assert!([&before, &composite(round)].contains(&&credential));
            let done = machine.ok(&["held", "accept", &id, "--yes"]);
            // The token may be in the vault, and not yet in the entry that others read.
            let said = ["updated", "duplicate"].map(|word| format!("{word}  {USER}\n"));
            assert!(said.iter().any(|line| done.ends_with(line)), "{done}");
        }
        before = composite(round);
        assert_eq!(machine.credential(USER), before);
        assert!(list(&machine).is_empty());
    }
    // Twenty are kept.
    assert_eq!(machine.versions(USER), 20);
}

/// Cut off between the vault and the journal, which no kill can be timed for:
/// the journal is put back to what it was.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_between_vault_and_journal_it_is_made_up_for() {
    let (server, machine) = ready().await;
    server.deliver(&forged(1, 0));
    machine.ok(&["run", "--once"]);
    let id = only(&machine);
    let (journal, copy) = (
        machine.state_dir().join("journal.db"),
        machine.folder.path().join("copy.db"),
    );
    std::fs::copy(&journal, &copy).unwrap();
    machine.ok(&["held", "accept", &id, "--yes"]);
    std::fs::copy(&copy, &journal).unwrap();
    assert_eq!(only(&machine), id, "as if it had been killed");
    assert_eq!(machine.credential(USER), composite(1));
    let done = machine.ok(&["held", "accept", &id, "--yes"]);
    assert!(done.contains("known already"), "{done}");
    assert!(list(&machine).is_empty());
    assert_eq!(machine.versions(USER), 1);
    // It is remembered that this account's token was taken.
    for file in ["vault.age", "vault.key"] {
        std::fs::remove_file(machine.state_dir().join(file)).unwrap();
    }
    machine.run(&["credential", "history", USER]).failed(
        65,
        "has lost what was kept",
        "put back the vault",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_of_a_mail_is_refused() {
    let (_server, machine) = ready().await;
    assert_eq!(machine.run(&["held", "accept", "x"]).code, 2);
    assert_eq!(machine.run(&["held", "accept"]).code, 2);
    machine.run(&["held", "--json", "drop", "1"]).failed(
        2,
        "--json is for the list",
        "held --json",
    );
    assert_eq!(machine.ok(&["held", "--log", "info", "list"]), "");
    assert_eq!(machine.ok(&["held", "--json", "list"]), "");
    machine
        .run(&["held", "drop", "7"])
        .failed(1, "no mail 7 is held", "tokenwatch held");
}

/// On a terminal a person is asked.
#[cfg(feature = "system-tests")]
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_person_is_asked() {
    let (server, machine) = ready().await;
    server.deliver(&forged(1, 0));
    machine.ok(&["run", "--once"]);
    let id = only(&machine);
    for (answer, code, credential) in [("n\n", 1, None), ("\n", 1, None), ("y\n", 0, composite(1))]
    {
        let ended = machine.on_a_terminal(&["held", "accept", &id], answer);
        let said = ended.stdout;
        assert!(said.contains("accept it? [y/N]"), "{said}");
        assert_eq!(ended.code, code, "{said}");
        assert_eq!(said.contains("nothing was changed"), code == 1, "{said}");
        assert_eq!(machine.credential(USER), credential);
    }
}
