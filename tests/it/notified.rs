//! NOTIFY (RFC 5465): two folders over one connection.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::meeting::{Meeting, token_mail};
use crate::support::folder::Folder;

const TWO: &str = "folders = [\"INBOX\", \"Tokens\"]\nmax-connections = 1\n";

/// A server with NOTIFY, whose folder `Tokens` has the mail when it has
/// arrived; INBOX is empty.
async fn meeting(poll: &str, refuses: bool) -> Meeting {
    let can = |folder: Folder| Folder {
        capabilities: "IMAP4rev1 IDLE NOTIFY",
        ..folder
    };
    let (empty, tokens) = (
        can(Folder::empty()),
        can(Folder::empty()).with(1, &token_mail()),
    );
    let selected = Mutex::new(String::new());
    let inbox = empty.clone();
    let misbehave = move |command: &str, _: &AtomicBool| {
        let mut selected = selected.lock().unwrap();
        if let Some(name) = command.strip_prefix("EXAMINE ") {
            name.clone_into(&mut selected);
        }
        if refuses && command.starts_with("NOTIFY") {
            return Some("TAG NO [BADEVENT (MessageNew)] not these\r\n".into());
        }
        (*selected == "\"INBOX\"").then(|| inbox.answer(command))
    };
    Meeting::with(&format!("{TWO}poll = \"{poll}\""), empty, tokens, misbehave).await
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_the_folder_that_is_not_open() {
    // Nothing but the news makes it look again in time.
    let meeting = meeting("20m", false).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    let heard = meeting.server.heard();
    let notify = heard.iter().find(|(_, said)| said.starts_with("NOTIFY"));
    assert!(
        notify.unwrap().1.contains("(\"INBOX\" \"Tokens\")"),
        "{heard:?}"
    );
    meeting.arrive();
    let news = "* STATUS \"Tokens\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1)\r\n";
    meeting.server.tell(news);
    meeting.daemon.wait_for("credential.updated", |_| true);
    meeting.server.wait_heard(1, "IDLE", 2).await;
    assert_eq!(meeting.server.count(1, "NOTIFY"), 1);
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_notify_is_polled() {
    let meeting = meeting("1s", true).await;
    meeting.server.wait_heard(1, "EXAMINE \"Tokens\"", 2).await;
    meeting.arrive();
    meeting.daemon.wait_for("credential.updated", |_| true);
    // IDLE would tell of one folder alone.
    assert_eq!(meeting.server.count(1, "IDLE"), 0);
    assert_eq!(meeting.machine.status()["mailboxes"][0]["state"], "polling");
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_too_much_to_tell_is_polled() {
    let meeting = meeting("1s", false).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    meeting
        .server
        .tell("* OK [NOTIFICATIONOVERFLOW] too much\r\n");
    meeting
        .machine
        .wait_status(|status| status["mailboxes"][0]["state"] == "polling");
    let idles = meeting.server.count(1, "IDLE");
    meeting.arrive();
    meeting.daemon.wait_for("credential.updated", |_| true);
    assert_eq!(meeting.server.count(1, "IDLE"), idles);
    meeting.goes_on().await;
}

/// The news come in between, while the folders are looked at.
#[tokio::test(flavor = "multi_thread")]
async fn news_of_another_folder_during_a_look() {
    let arrived = AtomicBool::new(false);
    let can = |folder: Folder| Folder {
        capabilities: "IMAP4rev1 IDLE NOTIFY",
        ..folder
    };
    let then = can(Folder::empty().with(1, &token_mail()));
    let empty = can(Folder::empty());
    let inbox = empty.clone();
    let selected = Mutex::new(String::new());
    let misbehave = move |command: &str, mail: &AtomicBool| {
        let mut selected = selected.lock().unwrap();
        if let Some(name) = command.strip_prefix("EXAMINE ") {
            name.clone_into(&mut selected);
            // INBOX has been looked at, and gets its mail now.
            if name == "\"Tokens\"" && !arrived.swap(true, SeqCst) {
                mail.store(true, SeqCst);
                let news = "* STATUS \"INBOX\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1)\r\n";
                return Some(format!("{news}{}", inbox.answer(command)));
            }
        }
        (*selected == "\"Tokens\"").then(|| inbox.answer(command))
    };
    let more = format!("{TWO}poll = \"20m\"");
    let meeting = Meeting::with(&more, empty, then, misbehave).await;
    meeting.goes_on().await;
}
