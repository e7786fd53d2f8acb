//! IDLE and its races: mail is announced when nobody listens for it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::meeting::{Meeting, token_mail};
use crate::support::folder::Folder;
use crate::support::mail::newsletter;

/// Nothing is there, then the token mail is.
async fn meeting(
    more: &str,
    misbehave: impl Fn(&str, &AtomicBool) -> Option<String> + Send + Sync + 'static,
) -> Meeting {
    let then = Folder::empty().with(1, &token_mail());
    Meeting::with(more, Folder::empty(), then, misbehave).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_put_the_renewal_off_and_are_proof_of_life() {
    let meeting = meeting("idle-renew = \"2s\"", |_, _| None).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    let life = || {
        let status = meeting.machine.status();
        let text = status["mailboxes"][0]["proof_of_life"].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap()
    };
    let mut before = life();
    for _ in 0..8 {
        // This is the server's rhythm, and shorter than the renewal.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = jiff::Timestamp::now();
        meeting.server.tell("* OK Still here\r\n");
        let status = meeting.machine.wait_status(|status| {
            let text = status["mailboxes"][0]["proof_of_life"].as_str().unwrap();
            text.parse::<jiff::Timestamp>().unwrap() >= told
        });
        assert_eq!(status["mailboxes"][0]["state"], "watching");
        assert!(life() > before);
        before = life();
    }
    assert_eq!(meeting.server.count(1, "DONE"), 0, "it was not renewed");
    meeting.server.wait_heard(1, "DONE", 1).await;
    meeting.server.wait_heard(1, "IDLE", 2).await;
    meeting.arrive();
    meeting.server.tell("* 1 EXISTS\r\n");
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_between_the_last_fetch_and_idle() {
    let before = Folder::empty().and(1, &newsletter(1));
    let after = before.clone().with(2, &token_mail());
    let answer = before.answer("UID FETCH 1 (UID RFC822.SIZE)");
    let misbehave = move |command: &str, arrived: &AtomicBool| {
        // The last question of the first look, and what comes behind its answer.
        let last = command.starts_with("UID FETCH 1 (UID RFC822") && !arrived.swap(true, SeqCst);
        last.then(|| format!("{answer}* 2 EXISTS\r\n"))
    };
    let meeting = Meeting::with("", before, after, misbehave).await;
    meeting.goes_on().await;
}

/// A mail goes without EXPUNGE, and the one that comes then is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_mails_that_goes_down() {
    let before = Folder::empty().and(1, &newsletter(1));
    let after = Folder::empty().with(2, &token_mail());
    let meeting = Meeting::with("", before, after, |_, _| None).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    meeting.arrive();
    meeting.server.tell("* 0 EXISTS\r\n* 1 EXISTS\r\n");
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_while_idle_is_being_ended() {
    let meeting = meeting("idle-renew = \"1s\"", |command, arrived| {
        let first = command == "DONE" && !arrived.swap(true, SeqCst);
        first.then(|| "* 1 EXISTS\r\nTAG OK done\r\n".into())
    });
    meeting.await.goes_on().await;
}

/// Whether it is told of or not: each renewal looks.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_the_server_does_not_announce() {
    let meeting = meeting("idle-renew = \"1s\"", |_, _| None).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    meeting.arrive();
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goodbye_during_idle() {
    let meeting = meeting("", |command, _| {
        (command == "IDLE").then(|| "+ idling\r\n* BYE idle for too long\r\n".into())
    });
    let named = "the server said goodbye: idle for too long";
    meeting.await.ends_in_a_reconnect(named).await;
}

/// The server takes DONE, and says nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn silence_behind_done() {
    let meeting = meeting("idle-renew = \"1s\"", |command, _| {
        (command == "DONE").then(String::new)
    });
    let named = "no answer to DONE in time";
    meeting.await.ends_in_a_reconnect(named).await;
}
