//! FETCH as servers do it: more than was asked for, less, twice, in any order,
//! with other news in between.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokenwatch::mailbox::{
    Access, Credential, Look, Proxy, Roots, Scope, Security, Server, Session, Step, Wanted,
};
use tokenwatch::secret::Secret;

use crate::meeting::{Meeting, USER, composite, machine, misbehaving, token_mail};
use crate::support::folder::Folder;
use crate::support::mail::newsletter;
use crate::support::scripted::{Options, Scripted};

/// UIDs 1, 2 and 3, of which the second is the token mail.
fn three() -> Folder {
    Folder::empty()
        .and(1, &newsletter(1))
        .with(2, &token_mail())
        .and(3, &newsletter(3))
}

/// What is said instead of the heads of all three, which go wrong like this.
fn heads(kind: &str) -> String {
    let head = |number: usize| three().fetched(number, "RFC822.SIZE");
    let (one, two, three) = (head(1), head(2), head(3));
    // The third is the second one once the first is gone.
    let moved = |line: &str, from: &str, to: &str| line.replacen(from, to, 1);
    let lines = match kind {
        "twice" => format!("{one}{two}{two}{three}{one}"),
        "backwards" => format!("{three}{two}{one}"),
        "not asked for" => {
            let foreign = moved(&head(2), "* 2 FETCH (UID 2 ", "* 9 FETCH (UID 77 ");
            format!("* 3 FETCH (FLAGS (\\Seen))\r\n{foreign}{one}{two}* 7 RECENT\r\n{three}")
        }
        "expunged" => format!(
            "{one}* 1 EXPUNGE\r\n{}{}",
            moved(&two, "* 2 ", "* 1 "),
            moved(&three, "* 3 ", "* 2 ")
        ),
        "expunged behind" => format!("{one}{two}{three}* 1 EXPUNGE\r\n"),
        "left out" => format!("{one}{three}"),
        "nothing" => String::new(),
        _ => unreachable!(),
    };
    lines + "TAG OK done\r\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_what_is_there_misses_nothing() {
    for kind in [
        "twice",
        "backwards",
        "not asked for",
        "expunged",
        "expunged behind",
    ] {
        let server = misbehaving(three(), move |command| {
            let all = command.starts_with("UID FETCH 1:3 (UID RFC822.SIZE");
            all.then(|| heads(kind))
        })
        .await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite(), "{kind}");
        let bodies = |(_, said): &&(usize, String)| said.contains("BODY.PEEK[]");
        let heard = server.heard();
        assert_eq!(heard.iter().filter(bodies).count(), 1, "{kind}: {heard:?}");
    }
}

/// The same for what is announced, where one question must do.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_news_misses_nothing() {
    for kind in [
        "twice",
        "backwards",
        "not asked for",
        "expunged",
        "expunged behind",
        "left out",
        "nothing",
    ] {
        let misbehave = move |command: &str, arrived: &AtomicBool| match command {
            "IDLE" if !arrived.swap(true, SeqCst) => Some("+ idling\r\n* 3 EXISTS\r\n".into()),
            c if c.starts_with("UID FETCH 1:* (UID RFC822.SIZE") => Some(heads(kind)),
            _ => None,
        };
        let meeting = Meeting::with("", Folder::empty(), three(), misbehave).await;
        meeting.server.wait_heard(1, "IDLE", 2).await;
        meeting.daemon.wait_for("notice.updated", |_| true);
        let updated = meeting.daemon.count("notice.updated");
        let again = meeting.daemon.count("notice.duplicate");
        assert_eq!((updated, again), (1, 0), "{kind}");
        meeting.ends_well().await;
    }
}

/// The heads leave the mail out, in windows of every size; the list shows that
/// it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_left_out_is_asked_for_over_another_connection() {
    let meeting = Meeting::over(three(), |command| {
        let heads_of = |set: &str| command.starts_with(&format!("UID FETCH {set} (UID RFC822"));
        if ["1:3", "1:2", "2:3"].into_iter().any(heads_of) {
            return Some(heads("left out"));
        }
        heads_of("2").then(|| "TAG OK done\r\n".into())
    });
    let named = "does not hand out the mail with UID 2";
    meeting.await.ends_in_a_reconnect(named).await;
}

/// The body of another mail, or an empty answer, is not taken for this one's.
#[tokio::test(flavor = "multi_thread")]
async fn another_mails_body_is_not_believed() {
    let other = three().fetched(3, "BODY.PEEK[]") + "TAG OK done\r\n";
    for answer in [other, "TAG OK done\r\n".to_owned()] {
        let meeting = Meeting::over(three(), move |command| {
            command.contains("BODY.PEEK[]").then(|| answer.clone())
        });
        let named = "does not hand out the mail with UID 2";
        meeting.await.ends_in_a_reconnect(named).await;
    }
}

/// An answer about one mail that the parser rejects costs the connection, and
/// the next one would get the same: first, in the middle, or last of all.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_cannot_be_spoken_of_hides_no_other() {
    for bad in [1, 3] {
        let options = Options {
            greeting: three().greeting(),
            ..Options::default()
        };
        let server = Scripted::with(options, move |_, command| {
            let set = command.split(' ').nth(2).unwrap_or_default();
            let heads = command.starts_with("UID FETCH") && command.contains("RFC822.SIZE");
            if heads && three().by_uid(set).contains(&bad) {
                let head = "RFC822.SIZE 9 INTERNALDATE NIL";
                return format!("* {bad} FETCH (UID {bad} {head})\r\nTAG OK done\r\n");
            }
            three().answer(command)
        })
        .await;
        let machine = machine(&server, "");
        let ended = machine.run(&["run", "--once"]);
        assert_eq!(machine.credential(USER), composite(), "{}", ended.stderr);
        // Nothing more is to be had of it, and that is said.
        assert_eq!(ended.code, 69, "{}", ended.stderr);
        assert!(server.heard().len() < 100, "{} lines", server.heard().len());

        let daemon = machine.daemon();
        daemon.wait_for("mailbox.watching", |_| true);
        machine.ok(&["resync", "--since", "all"]);
    }
}

/// What a look hands out of the folder that this server has: every mail could
/// be a notice.
async fn steps(server: &Scripted, change: impl FnOnce(Look) -> Look) -> Vec<String> {
    let server = Server {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        security: Security::Plain,
        ca_file: None,
        pin: None,
        proxy: Proxy::None,
        max_mail_size: 1 << 20,
        patience: Duration::from_secs(30),
    };
    let roots = Roots::of_the_system();
    let mut session = Session::connect(&server, &roots).await.unwrap();
    let credential = Credential::Password(Secret::new("p".to_owned()));
    session.log_in("ops", &credential).await.unwrap();
    let folder = session.open("INBOX", Access::Read).await.unwrap();
    let wanted = Wanted {
        from: Vec::new(),
        subjects: Vec::new(),
        fields: Box::new(|_| true),
        max_size: 1 << 20,
    };
    let scope = Scope {
        first: 1,
        since: None,
        narrow: true,
    };
    let mut look = change(Look::through(folder, scope));
    let mut steps = Vec::new();
    loop {
        steps.push(match look.next(&mut session, &wanted).await {
            Ok(Some(Step::Mail(found))) => format!("mail {}", found.head.uid),
            Ok(Some(Step::Unfetchable { uid })) => format!("unfetchable {uid}"),
            Ok(Some(Step::Gone { uid })) => format!("gone {uid}"),
            Ok(Some(Step::Seen { next_uid })) => format!("seen {next_uid}"),
            Ok(None) => return steps,
            Err(error) => {
                steps.push(error.to_string());
                return steps;
            }
        });
    }
}

/// The cursor passes a mail with the next one's outcome.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_not_handed_out_is_told_of_before_those_behind_it() {
    let server = misbehaving(three(), |command| {
        let is_second = command.starts_with("UID FETCH 2 (UID BODY.PEEK[]");
        is_second.then(|| "TAG NO [SERVERBUG] no\r\n".into())
    })
    .await;
    assert_eq!(
        steps(&server, Look::tolerant).await,
        ["mail 1", "unfetchable 2", "mail 3", "seen 4"]
    );
}

/// Sequence numbers have no gaps, and the last mail's is EXISTS.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_leaves_mails_out_is_not_believed() {
    let line = |number: usize| three().fetched(number, "UID");
    let gaps = "the server's list leaves out mails that are there";
    let all = ["mail 1", "mail 2", "mail 3", "seen 4"];
    for (numbers, more, told) in [
        (&[][..], "", &[gaps][..]),
        (&[1], "", &[gaps]),
        (&[1, 2], "", &[gaps]),
        (&[2, 3], "", &[gaps]),
        (&[1, 3], "", &[gaps]),
        (&[3, 1, 2, 3], "", &all),
        // Where mails come or go meanwhile the numbers say nothing.
        (&[1, 2], "* 3 EXPUNGE\r\n", &["mail 1", "mail 2", "seen 4"]),
        (&[1, 2, 3], "* 4 EXISTS\r\n", &all),
    ] {
        let answer: String = numbers.iter().map(|number| line(*number)).collect();
        let answer = format!("{answer}{more}TAG OK done\r\n");
        let server = misbehaving(three(), move |command| {
            (command == "UID FETCH 1:3 (UID)").then(|| answer.clone())
        })
        .await;
        assert_eq!(steps(&server, |look| look).await, told, "{numbers:?}");
    }
}
