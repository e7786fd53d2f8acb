//! `after`: what is done with a mail in the mailbox when its token was taken.

use crate::meeting::{Meeting, USER, composite, machine, token_mail};
use crate::support::folder::Folder;
use crate::support::mail::newsletter;
use crate::support::scripted::{Options, Scripted};

/// UID 1 is a newsletter, and UID 2 is the token mail.
fn folder(capabilities: &'static str) -> Folder {
    Folder {
        capabilities,
        ..Folder::empty()
            .and(1, &newsletter(1))
            .with(2, &token_mail())
    }
}

/// The commands that change something, and those that open the folder.
fn changes(server: &Scripted) -> Vec<String> {
    let all = server.heard().into_iter().map(|(_, said)| said);
    all.filter(|said| {
        let verb = said.strip_prefix("UID ").unwrap_or(said);
        !["FETCH", "SEARCH", "LOG", "ID", "CAPA"]
            .iter()
            .any(|harmless| verb.starts_with(harmless))
    })
    .collect()
}

async fn server(folder: Folder, refused: &'static str) -> Scripted {
    let options = Options {
        greeting: folder.greeting(),
        ..Options::default()
    };
    Scripted::with(options, move |_, command| {
        if !refused.is_empty() && command.contains(refused) {
            return "TAG NO [TRYCREATE] no\r\n".to_owned();
        }
        folder.answer(command)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_done_to_this_mail_and_to_no_other_and_once() {
    const DONE: &str = "after = \"move:Done & over\"";
    let seen = ["UID STORE 2 +FLAGS.SILENT (\\Seen)"].as_slice();
    for (more, capabilities, done) in [
        ("after = \"mark-seen\"", "IMAP4rev1", seen),
        (
            "after = \"flag:$Taken\"",
            "IMAP4rev1",
            &["UID STORE 2 +FLAGS.SILENT ($Taken)"],
        ),
        (DONE, "IMAP4rev1 MOVE", &["UID MOVE 2 \"Done &- over\""]),
        (
            DONE,
            "IMAP4rev1 UIDPLUS",
            &[
                "UID COPY 2 \"Done &- over\"",
                "UID STORE 2 +FLAGS.SILENT (\\Deleted)",
                "UID EXPUNGE 2",
            ],
        ),
    ] {
        let server = server(folder(capabilities), "").await;
        let machine = machine(&server, more);
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite());
        let mut expected = vec!["SELECT \"INBOX\"".to_owned()];
        expected.extend(done.iter().map(|&line| line.to_owned()));
        assert_eq!(changes(&server), expected, "{more}");
        machine.ok(&["run", "--once"]);
        expected.push("SELECT \"INBOX\"".to_owned());
        assert_eq!(changes(&server), expected, "{more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_nothing_is_changed() {
    let server = server(folder("IMAP4rev1 MOVE UIDPLUS"), "").await;
    let machine = machine(&server, "");
    machine.ok(&["run", "--once"]);
    assert_eq!(machine.credential(USER), composite());
    assert_eq!(changes(&server), ["EXAMINE \"INBOX\""]);
}

/// What cannot be done is said, and keeps no mail from being taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said() {
    for (capabilities, refused, attempts) in [
        ("IMAP4rev1", "", 0),
        ("IMAP4rev1 MOVE", "UID MOVE", 1),
        ("IMAP4rev1 UIDPLUS", "UID COPY", 1),
    ] {
        let server = server(folder(capabilities), refused).await;
        let machine = machine(&server, "after = \"move:Done\"");
        let ended = machine.run(&["--log", "info", "run", "--once"]);
        assert!(
            ended.stderr.contains("mailbox.after-failed"),
            "{}",
            ended.stderr
        );
        assert_eq!(machine.credential(USER), composite());
        // Nothing behind the refusal: no mail goes that was not copied.
        assert_eq!(
            changes(&server).len(),
            1 + attempts,
            "{:?}",
            changes(&server)
        );
    }
}

/// A mail that cannot be moved is told of once a connection, however often the
/// folder is looked at, and keeps no other waiting.
#[tokio::test(flavor = "multi_thread")]
async fn one_mail_that_cannot_be_moved_keeps_no_other_waiting() {
    let folder = folder("IMAP4rev1 MOVE").with(3, &token_mail());
    let server = server(folder, "UID MOVE 2 ").await;
    let machine = machine(&server, "after = \"move:Done\"");
    let daemon = machine.daemon();
    server.wait_heard(1, "SELECT", 4).await;
    assert_eq!(server.count(1, "UID MOVE 2 "), 1);
    assert_eq!(server.count(1, "UID MOVE 3 "), 1);
    let failed = |line: &serde_json::Value| line["uid"] == 2;
    daemon.wait_for("mailbox.after-failed", failed);
    assert_eq!(daemon.count("mailbox.after-failed"), 1);
}

/// Killed between the outcome and what is to be done: it is done after the
/// restart, and then no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_between_is_made_up_for_once() {
    let silent = |command: &str, _: &_| command.contains("STORE").then(String::new);
    let folder = folder("IMAP4rev1 IDLE");
    let more = "after = \"mark-seen\"";
    let meeting = Meeting::with(more, folder.clone(), folder, silent).await;
    meeting.server.wait_heard(1, "UID STORE 2", 1).await;
    let Meeting {
        server,
        machine,
        daemon,
        ..
    } = meeting;
    assert_eq!(
        machine.credential(USER),
        composite(),
        "the outcome was durable"
    );
    daemon.kill();
    let daemon = machine.daemon();
    server.wait_heard(2, "IDLE", 1).await;
    assert_eq!(server.count(2, "UID STORE 2 +FLAGS.SILENT (\\Seen)"), 1);
    assert_eq!(server.count(2, "UID STORE"), 1);
    daemon.kill();
    let _daemon = machine.daemon();
    server.wait_heard(3, "IDLE", 1).await;
    assert_eq!(server.count(3, "UID STORE"), 0, "once is enough");
}

/// A mail that a person accepts is done with as any other whose token was
/// taken, and accepting it changes nothing itself.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_done_to_a_mail_that_a_person_accepted() {
    let folder = Folder::empty().with(1, &token_mail().forged());
    let server = server(folder, "").await;
    let machine = machine(&server, "after = \"mark-seen\"");
    machine.ok(&["run", "--once"]);
    let mut expected = vec!["SELECT \"INBOX\"".to_owned()];
    assert_eq!(changes(&server), expected);
    machine.ok(&["held", "accept", "1", "--yes"]);
    assert_eq!(machine.credential(USER), composite());
    // Once to show it, and once to do it.
    expected.extend(["EXAMINE \"INBOX\""; 2].map(str::to_owned));
    assert_eq!(changes(&server), expected);
    machine.ok(&["run", "--once"]);
    expected.push("SELECT \"INBOX\"".to_owned());
    expected.push("UID STORE 1 +FLAGS.SILENT (\\Seen)".to_owned());
    assert_eq!(changes(&server), expected);
}
