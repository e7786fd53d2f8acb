//! SEARCH as servers do it: whatever it answers, the mail is found.

use crate::meeting::{Meeting, USER, composite, large, machine, misbehaving};
use crate::support::folder::Folder;

/// Answers of a server that searches badly, always.
const ANSWERS: [&str; 7] = [
    "TAG NO not here\r\n",
    "TAG BAD what\r\n",
    "TAG NO [BADCHARSET (US-ASCII)] not in this charset\r\n",
    "TAG NO [BADCHARSET] not in this charset\r\n",
    "TAG OK done\r\n",
    "* SEARCH\r\nTAG OK done\r\n",
    "* SEARCH 3 4 1000\r\nTAG OK done\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_search_does_not_find_the_headers_do() {
    for answer in ANSWERS {
        let server = misbehaving(large(), move |command| {
            command.contains("SEARCH").then(|| answer.into())
        })
        .await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite(), "{answer}");
        assert_eq!(server.count(1, "UID SEARCH"), 1, "it is not asked twice");
    }
}

/// The server proves itself, and refuses afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_is_refused_later_is_done_without() {
    for answer in &ANSWERS[..5] {
        let server = misbehaving(large(), move |command| {
            command.contains("SEARCH UID 1:").then(|| (*answer).into())
        })
        .await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite(), "{answer}");
        assert_eq!(server.count(1, "UID SEARCH"), 2);
    }
}

/// The patience with a server that is silent is 20 s longer than `idle-renew`.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_without_an_answer_ends() {
    let silent = |command: &str, _: &_| command.contains("SEARCH").then(String::new);
    let more = "idle-renew = \"1s\"";
    let meeting = Meeting::with(more, large(), large(), silent).await;
    meeting.server.wait_heard(1, "UID SEARCH", 1).await;
    meeting
        .ends_in_a_reconnect("no answer to SEARCH in time")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_works_is_used() {
    let server = misbehaving(large(), |_| None).await;
    let machine = machine(&server, "");
    machine.ok(&["run", "--once"]);
    assert_eq!(machine.credential(USER), composite());
    let heard = server.heard();
    let lists =
        |(_, said): &&(usize, String)| said.starts_with("UID FETCH") && said.ends_with("(UID)");
    // Only the newest are listed.
    assert!(
        heard
            .iter()
            .filter(lists)
            .all(|(_, said)| said.contains("502:")),
        "{heard:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gmails_own_search_is_used_where_it_proves_itself() {
    for works in [true, false] {
        let folder = Folder {
            capabilities: "IMAP4rev1 IDLE X-GM-EXT-1",
            ..large()
        };
        let server = misbehaving(folder, move |command| {
            let found = if command.contains("UID 1001 ") {
                1001
            } else {
                1
            };
            let is_gmails = works && command.contains("X-GM-RAW");
            is_gmails.then(|| format!("* SEARCH {found}\r\nTAG OK done\r\n"))
        })
        .await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite());
        let window = server
            .heard()
            .into_iter()
            .map(|(_, said)| said)
            .find(|said| said.starts_with("UID SEARCH UID 1:"))
            .unwrap();
        assert_eq!(window.contains("X-GM-RAW"), works, "{window}");
        assert_eq!(window.contains("OR FROM"), !works, "{window}");
    }
}
