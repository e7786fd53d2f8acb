//! What a server can do that the client library under us hides, aborts over or
//! takes for something else, one test for each. The daemon meets it on its
//! first connection.
//!
//! | stimulus | what tokenwatch does |
//! |---|---|
//! | the stream ends during IDLE | lost, and comes back |
//! | `BAD` without text to IDLE | polls, over the same connection |
//! | `NO` to IDLE | the same |
//! | the server ends IDLE by itself | looks, and goes on; polls where it does so at once |
//! | `EXISTS` between IDLE and `+` | looks at once |
//! | SEARCH answered `NO` or `BAD` | looks at the headers of every mail |
//! | FETCH answered `NO` | names the mail, and comes back |
//! | the stream ends in SEARCH, FETCH, EXAMINE | lost; the part that came is not believed |
//! | nonsense on a connection that is polled | cannot be understood, and comes back |
//! | a literal of 500 MB | goes too far: nothing of it is kept |
//! | a line of 8 MiB without an end | goes too far |
//! | SEARCH with a million UIDs | goes too far; then headers |
//! | SEARCH with half a million UIDs, in lines that pass | the same |
//! | fields of more than was asked for | go too far |
//! | thousands of new mails where one was announced | listed first, none is kept |
//! | 500 nested brackets in a FETCH | goes too far; no stack is used up |
//! | line ends in folder, user, password | refused before anything is sent |
//! | the log of the client library at TRACE | says no password |
//! | `UID FETCH n:*` shows the last mail again | it is not judged again |
//! | ESEARCH, SEARCH with MODSEQ | headers, at the latest after coming back |
//! | more unsolicited answers than a queue of 100 has room for | each is noted |

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::meeting::{MAILBOX_PASSWORD, Meeting, large, machine, misbehaving, token_mail};
use crate::support::folder::Folder;
use crate::support::mail::newsletter;

fn one() -> Folder {
    Folder::empty().with(1, &token_mail())
}

/// Says this to commands that have all these words.
fn to(words: &'static [&'static str], answer: &str) -> impl Fn(&str) -> Option<String> + use<> {
    let answer = answer.to_owned();
    move |command| {
        let is_it = words.iter().all(|word| command.contains(word));
        is_it.then(|| answer.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_during_idle() {
    let meeting = Meeting::before_the_mail(|command, _| {
        (command == "IDLE").then(|| "+ idling\r\nHANGUP".into())
    });
    meeting.await.ends_in_a_reconnect("lost during IDLE").await;
}

async fn refusing_idle(answer: &'static str) {
    let meeting =
        Meeting::before_the_mail(move |command, _| (command == "IDLE").then(|| answer.into()))
            .await;
    meeting.daemon.wait_for("mailbox.idle-refused", |_| true);
    meeting.arrive();
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_without_text_to_idle() {
    refusing_idle("TAG BAD\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_to_idle() {
    refusing_idle("TAG NO not today\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_idle_by_itself() {
    let meeting = Meeting::before_the_mail(|_, _| None).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    // Sooner, it would be no IDLE.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    meeting.arrive();
    meeting.server.tell("TAG OK that is enough\r\n");
    meeting.server.wait_heard(1, "IDLE", 2).await;
    assert_eq!(meeting.server.count(1, "DONE"), 0);
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_idle_at_once() {
    let meeting = Meeting::before_the_mail(|command, _| {
        (command == "IDLE").then(|| "+ idling\r\nTAG OK done\r\n".into())
    })
    .await;
    meeting.daemon.wait_for("mailbox.idle-refused", |_| true);
    meeting.arrive();
    meeting.daemon.wait_for("credential.updated", |_| true);
    assert_eq!(meeting.server.count(1, "IDLE"), 1, "that was a busy loop");
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exists_between_idle_and_its_continuation() {
    let meeting = Meeting::before_the_mail(|command, arrived| {
        let first = command == "IDLE" && !arrived.swap(true, SeqCst);
        first.then(|| "* 1 EXISTS\r\n+ idling\r\n".into())
    });
    meeting.await.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_is_refused() {
    for answer in ["TAG NO not here\r\n", "TAG BAD what\r\n"] {
        let meeting = Meeting::over(large(), to(&["SEARCH"], answer));
        meeting.await.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_is_refused() {
    let meeting = Meeting::over(one(), to(&["BODY.PEEK[]"], "TAG NO not now\r\n"));
    let named = "does not hand out the mail with UID 1";
    meeting.await.ends_in_a_reconnect(named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_in_search() {
    // Behind an answer that would do.
    let meeting = Meeting::over(large(), to(&["SEARCH UID 1:"], "* SEARCH\r\nHANGUP"));
    let named = "the connection was lost during SEARCH";
    meeting.await.ends_in_a_reconnect(named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_in_fetch() {
    let folder = Folder::empty()
        .and(1, &newsletter(1))
        .with(2, &token_mail());
    let meeting = Meeting::over(
        folder,
        to(&["FETCH", "(UID)"], "* 1 FETCH (UID 1)\r\nHANGUP"),
    );
    meeting.await.ends_in_a_reconnect("lost during FETCH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_in_examine() {
    let answer = "* 0 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 1] ok\r\nHANGUP";
    let meeting = Meeting::over(one(), to(&["EXAMINE"], answer));
    meeting
        .await
        .ends_in_a_reconnect("lost during EXAMINE")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_a_connection_that_is_polled() {
    let examined = AtomicUsize::new(0);
    let silent = Folder {
        capabilities: "IMAP4rev1",
        ..Folder::empty()
    };
    let misbehave = move |command: &str, _: &_| {
        let again = command.starts_with("EXAMINE") && examined.fetch_add(1, SeqCst) == 1;
        again.then(|| "* 0 EXI$TS\r\n* )(\r\n".into())
    };
    let meeting = Meeting::with("", silent, one(), misbehave).await;
    let named = "the answer to EXAMINE cannot be understood";
    meeting.ends_in_a_reconnect(named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_literal_of_half_a_gigabyte() {
    let mut answer = "* 1 FETCH (UID 1 BODY[]<0> {500000000}\r\n".to_owned();
    answer.push_str(&"x".repeat(16 << 20));
    let meeting = Meeting::over(one(), to(&["BODY.PEEK[]"], &answer));
    meeting
        .await
        .ends_in_a_reconnect("a literal is larger than")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_an_end() {
    let answer = "* OK ".to_owned() + &"x".repeat(8 << 20);
    let meeting = Meeting::over(one(), to(&["RFC822.SIZE"], &answer));
    meeting
        .await
        .ends_in_a_reconnect("a line is longer than")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_a_million() {
    let uids: Vec<String> = (1..=1_000_000).map(|uid: u32| uid.to_string()).collect();
    let answer = format!("* SEARCH {}\r\nTAG OK done\r\n", uids.join(" "));
    let meeting = Meeting::over(large(), to(&["SEARCH"], &answer));
    meeting
        .await
        .ends_in_a_reconnect("a line is longer than")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_too_many_in_lines_that_pass() {
    let line = format!("* SEARCH{}\r\n", " 1".repeat(130_000));
    let answer = line.repeat(4) + "TAG OK done\r\n";
    let meeting = Meeting::over(large(), to(&["SEARCH"], &answer));
    meeting
        .await
        .ends_in_a_reconnect("an answer names more than")
        .await;
}

/// The head of a mail, with so many bytes of fields.
fn head(uid: usize, fields: usize) -> String {
    let fields = format!("{{{fields}}}\r\n{}", "x".repeat(fields));
    format!(
        "* {uid} FETCH (UID {uid} RFC822.SIZE 9 INTERNALDATE \"TODAY 00:00:00 +0000\" \
         BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {fields})\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_larger_than_was_asked_for() {
    let answer = head(1, 20_000) + "TAG OK done\r\n";
    let meeting = Meeting::over(one(), to(&["RFC822.SIZE"], &answer));
    let named = "a literal is larger than 16384 bytes";
    meeting.await.ends_in_a_reconnect(named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_new_mails_than_were_announced() {
    let heads: String = (1..=3000).map(|uid| head(uid, 16_000)).collect();
    let meeting = Meeting::before_the_mail(move |command, arrived| match command {
        "IDLE" if !arrived.swap(true, SeqCst) => Some("+ idling\r\n* 1 EXISTS\r\n".into()),
        c if c.starts_with("UID FETCH 1:* (UID RFC") => Some(heads.clone() + "TAG OK done\r\n"),
        _ => None,
    });
    meeting.await.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_brackets() {
    let answer = format!("* 1 FETCH (UID 1 BODYSTRUCTURE {}", "(".repeat(500));
    let meeting = Meeting::over(one(), to(&["RFC822.SIZE"], &answer));
    meeting
        .await
        .ends_in_a_reconnect("brackets are nested deeper")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_in_what_is_sent() {
    let server = misbehaving(one(), |_| None).await;
    for more in [
        r#"folders = ["INBOX\r\nt9 DELETE INBOX"]"#,
        r#"user = "ops\r\nt9 DELETE INBOX""#,
        r#"after = "move:Done\r\nt9 DELETE INBOX""#,
        r#"after = "flag:a\r\nt9""#,
    ] {
        let ended = machine(&server, more).run(&["run", "--once"]);
        ended.failed(78, "mailbox.", "hint");
    }
    let machine = machine(&server, "");
    let password = machine.folder.path().join("mailbox.secret");
    std::fs::write(password, "a\r\nt9 DELETE INBOX\r\n").unwrap();
    let ended = machine.run(&["run", "--once"]);
    ended.failed(ended.code, "one line of UTF-8 text", "hint");
    assert_ne!(ended.code, 0);
    let heard = server.heard();
    let harmless =
        |(_, said): &(usize, String)| !said.contains("LOGIN") && !said.contains("DELETE");
    assert!(heard.iter().all(harmless), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_at_trace_says_no_password() {
    let encoded = STANDARD.encode(format!("\0ops@example.com\0{MAILBOX_PASSWORD}"));
    for capabilities in ["IMAP4rev1 IDLE", "IMAP4rev1 IDLE AUTH=PLAIN SASL-IR"] {
        let folder = Folder {
            capabilities,
            ..one()
        };
        let server = misbehaving(folder, |_| None).await;
        let machine = machine(&server, "");
        let daemon = machine.daemon_at("trace,async_imap=trace,imap_proto=trace,log=trace");
        daemon.wait_for("credential.updated", |_| true);
        server.wait_heard(1, "IDLE", 1).await;
        let heard = format!("{:?}", server.heard());
        assert!(heard.contains(MAILBOX_PASSWORD) || heard.contains(&encoded));
        let (_, _, log) = daemon.stop();
        assert!(log.contains("imap.command"), "trace was on");
        assert!(
            !log.contains(MAILBOX_PASSWORD) && !log.contains(&encoded),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_mail_is_shown_again() {
    let folder = Folder::empty().with(20_000, &token_mail());
    let meeting = Meeting::over(folder, |_| None).await;
    meeting.server.wait_heard(1, "IDLE", 1).await;
    // Something has happened, and there is no mail that was not there before.
    meeting.server.tell("* 1 EXPUNGE\r\n* 1 EXISTS\r\n");
    meeting.server.wait_heard(1, "IDLE", 2).await;
    assert!(meeting.server.count(1, "UID FETCH 20001:*") >= 1);
    // It may be looked at again, since some servers show a mail late and under a
    // number from before; it is taken once.
    assert_eq!(meeting.daemon.count("credential.updated"), 1);
    meeting.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_search() {
    for answer in [
        "* ESEARCH (tag \"TAG\") UID ALL 1001\r\nTAG OK done\r\n",
        "* SEARCH 1001 (MODSEQ 917162500)\r\nTAG OK done\r\n",
    ] {
        let meeting = Meeting::over(large(), to(&["SEARCH"], answer)).await;
        meeting.ends_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_unsolicited_answers_than_a_queue_holds() {
    let before = Folder::empty().and(1, &newsletter(1));
    let after = before.clone().with(2, &token_mail());
    let shown = before.fetched(1, "RFC822.SIZE");
    let misbehave = move |command: &str, arrived: &std::sync::atomic::AtomicBool| {
        let first = command.contains("RFC822.SIZE") && !arrived.swap(true, SeqCst);
        let flags = "* 1 FETCH (FLAGS (\\Seen))\r\n".repeat(150);
        first.then(|| format!("{shown}* 2 EXISTS\r\n{flags}TAG OK done\r\n"))
    };
    let meeting = Meeting::with("", before, after, misbehave).await;
    meeting.goes_on().await;
}
