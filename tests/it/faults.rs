//! Servers that break in the middle: a lost connection is never "no mail".

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use jiff::Timestamp;

use crate::process::Machine;
use crate::support::folder::Folder;
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::{RECEIVER, TokenMail, token};
use crate::support::scripted::{Line, Scripted};

const USER: &str = "mariana@idalko.com";

/// A machine for this server, with all secrets set.
fn ready(port: u16) -> Machine {
    let machine = Machine::new("");
    configure(&machine, port);
    machine.set_secret("mailbox/ops", "mailbox-pass");
    machine.set_secret(&format!("account/{USER}"), "pass");
    machine
}

fn configure(machine: &Machine, port: u16) {
    machine.configure(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"{RECEIVER}\"]\n\
         [[account]]\nusername = \"{USER}\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         user = \"ops@example.com\"\npoll = \"1s\"\n"
    ));
}

/// What a healthy server says up to the first look.
fn healthy() -> Vec<Line> {
    vec![
        ("LOGIN", "TAG OK [CAPABILITY IMAP4rev1 IDLE] in\r\n".into()),
        (
            "EXAMINE",
            "* 300 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 1002] ok\r\nTAG OK done\r\n"
                .into(),
        ),
        (
            "FETCH 300 (UID)",
            "* 300 FETCH (UID 1001)\r\nTAG OK done\r\n".into(),
        ),
    ]
}

/// The script, going wrong at the command `at` with `answer`.
fn broken(at: &str, answer: &str) -> Vec<Line> {
    let mut script = healthy();
    let index = script
        .iter()
        .position(|(heard, _)| heard.starts_with(at))
        .unwrap();
    script.truncate(index + 1);
    answer.clone_into(&mut script[index].1);
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_and_no_mail_is_passed_over() {
    let good = ImapServer::start(Options {
        tls: false,
        ..Options::default()
    })
    .await;
    good.deliver(&TokenMail::new(USER, &token(1), Timestamp::now()).bytes());
    let faults = [
        (
            "LOGIN",
            "TAG NO [AUTHENTICATIONFAILED] no\r\n",
            77,
            "[AUTHENTICATIONFAILED]",
        ),
        (
            "LOGIN",
            "TAG NO [UNAVAILABLE] later\r\n",
            69,
            "[UNAVAILABLE]",
        ),
        ("LOGIN", "", 69, "hung up during the login"),
        ("LOGIN", "* BYE go away\r\n", 69, "hung up during the login"),
        (
            "EXAMINE",
            "TAG NO [NONEXISTENT] no\r\n",
            78,
            "no folder \"INBOX\"",
        ),
        ("EXAMINE", "TAG OK done\r\n", 69, "lacks EXISTS"),
        (
            "EXAMINE",
            "* 300 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n",
            69,
            "lost during EXAMINE",
        ),
        ("FETCH 300", "", 69, "lost during FETCH"),
        ("FETCH 300", "* 300 FETCH (UID 10", 69, "lost during FETCH"),
    ];
    for (at, answer, code, named) in faults {
        let server = Scripted::start(broken(at, answer)).await;
        let machine = ready(server.port());
        machine.run(&["run", "--once"]).failed(code, named, "hint");
        assert_eq!(machine.credential(USER), None);
        // The same machine finds the mail where the server is well again.
        configure(&machine, good.port());
        machine.ok(&["run", "--once"]);
        assert_eq!(
            machine.credential(USER),
            Some(format!("pass{}", token(1))),
            "{named}"
        );
    }
}

/// What a server says that has `exists` mails, the last of which is a token
/// mail with this UID.
fn with_mail(exists: u32, uid: u32, heads: &str) -> Vec<Line> {
    let mail =
        String::from_utf8(TokenMail::new(USER, &token(1), Timestamp::now()).bytes()).unwrap();
    let head = format!(
        "* {exists} FETCH (UID {uid} RFC822.SIZE {} INTERNALDATE \"TODAY 00:00:00 +0000\" \
         BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {{53}}\r\n\
         From: support@salesforce.com\r\nSubject: token mail\r\n\r\n)\r\nTAG OK done\r\n",
        mail.len()
    );
    vec![
        ("RFC822.SIZE", heads.replace('@', &head)),
        (
            "BODY.PEEK[]",
            format!(
                "* {exists} FETCH (UID {uid} BODY[] {{{}}}\r\n{mail})\r\nTAG OK done\r\n",
                mail.len()
            ),
        ),
    ]
}

fn examined(exists: u32, uid_next: u32) -> Line {
    let answer = format!(
        "* {exists} EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT {uid_next}] ok\r\nTAG OK done\r\n"
    );
    ("EXAMINE", answer)
}

/// A server that was put back from a snapshot hands out UIDs again that were
/// seen before.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_back_behind_the_cursor_is_looked_through_again() {
    let login: Line = ("LOGIN", "TAG OK [CAPABILITY IMAP4rev1 IDLE] in\r\n".into());
    let before = Scripted::start(vec![login.clone(), examined(0, 1000)]).await;
    let machine = ready(before.port());
    machine.ok(&["run", "--once"]);

    let mut script = vec![login, examined(1, 901)];
    let all = "* 1 FETCH (UID 900)\r\nTAG OK done\r\n";
    // It has really gone back: there is no mail with a higher number.
    script.push(("FETCH 1 (UID)", all.into()));
    script.push(("UID FETCH 1:900 (UID)", all.into()));
    script.extend(with_mail(1, 900, "@"));
    let after = Scripted::start(script).await;
    configure(&machine, after.port());
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert!(ended.stderr.contains("mailbox.uidnext"), "{}", ended.stderr);
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
}

/// The quick look at news notices that an answer is missing, by the sequence
/// numbers, and does it again the careful way.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_leaves_a_mail_out_is_not_believed() {
    let mut script: Vec<Line> = vec![
        ("LOGIN", "TAG OK [CAPABILITY IMAP4rev1 IDLE] in\r\n".into()),
        examined(0, 1),
        ("IDLE", "+ idling\r\n* 2 EXISTS\r\n".into()),
        ("DONE", "TAG OK done\r\n".into()),
        // Two mails are there, and this speaks of the first one only.
        (
            "UID FETCH 1:* (UID RFC822.SIZE",
            "* 1 FETCH (UID 1 RFC822.SIZE 9 INTERNALDATE \"TODAY 00:00:00 +0000\" \
             BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {2}\r\n\r\n)\r\nTAG OK done\r\n"
                .into(),
        ),
        (
            "FETCH 1,2 (UID)",
            "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 7)\r\nTAG OK done\r\n".into(),
        ),
        (
            "UID FETCH 1:7 (UID)",
            "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 7)\r\nTAG OK done\r\n".into(),
        ),
    ];
    let one = "* 1 FETCH (UID 1 RFC822.SIZE 9 INTERNALDATE \"TODAY 00:00:00 +0000\" \
               BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {2}\r\n\r\n)\r\n";
    script.extend(with_mail(2, 7, &format!("{one}@")));
    let server = Scripted::start(script).await;
    let machine = ready(server.port());
    let daemon = machine.daemon();
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
}

/// A folder with two mails: UID 1, over which the server fails, and UID 2, a
/// token mail.
async fn with_a_bad_mail(kind: &'static str) -> Scripted {
    let mail =
        String::from_utf8(TokenMail::new(USER, &token(1), Timestamp::now()).bytes()).unwrap();
    Scripted::answering(move |command| {
        let head = |uid: u32, size: usize, fields: &str| {
            format!(
                "* {uid} FETCH (UID {uid} RFC822.SIZE {size} INTERNALDATE \"TODAY 00:00:00 +0000\" \
                 BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {fields})\r\n"
            )
        };
        let good = head(2, mail.len(), "{30}\r\nFrom: support@salesforce.com\r\n");
        let any = "{30}\r\nFrom: support@salesforce.com\r\n";
        let bad = match kind {
            "nil" => head(1, 9, "NIL"),
            "omitted" => String::new(),
            "larger" | "refused" | "empty" | "hangup" | "bye" | "stall" => head(1, 900, any),
            "heads" => "HANGUP".to_owned(),
            _ => unreachable!(),
        };
        let large = "x".repeat(262_145);
        match command {
            c if c.starts_with("LOGIN") => "TAG OK [CAPABILITY IMAP4rev1 IDLE ID] in\r\n".into(),
            c if c.starts_with("ID") => "TAG BAD invalid command\r\n".into(),
            c if c.starts_with("EXAMINE") => examined(2, 3).1,
            "UID FETCH 1:2 (UID)" => {
                "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\nTAG OK done\r\n".into()
            }
            "UID FETCH 1 (UID)" => "* 1 FETCH (UID 1)\r\nTAG OK done\r\n".into(),
            c if kind == "heads" && c.starts_with("UID FETCH 1") => bad,
            c if c.starts_with("UID FETCH 1:2 (UID RFC") => format!("{bad}{good}TAG OK done\r\n"),
            c if c.starts_with("UID FETCH 1 (UID RFC") => format!("{bad}TAG OK done\r\n"),
            c if c.starts_with("UID FETCH 2 (UID RFC") => format!("{good}TAG OK done\r\n"),
            c if c.starts_with("UID FETCH 1 (UID BODY") => match kind {
                "larger" => {
                    format!("* 1 FETCH (UID 1 BODY[]<0> {{262145}}\r\n{large})\r\nTAG OK done\r\n")
                }
                "refused" => "TAG NO [SERVERBUG] no\r\n".into(),
                "empty" => "* 1 FETCH (UID 1 BODY[]<0> {0}\r\n)\r\nTAG OK done\r\n".into(),
                "hangup" => "* 1 FETCH (UID 1 BODY[] {900}\r\nFrom: suppHANGUP".into(),
                "bye" => "* BYE Internal error occurred\r\nHANGUP".into(),
                "stall" => String::new(),
                _ => "* 1 FETCH (UID 1 BODY[]<0> {9}\r\nSubject: )\r\nTAG OK done\r\n".into(),
            },
            c if c.starts_with("UID FETCH 2 (UID BODY") => {
                format!(
                    "* 2 FETCH (UID 2 BODY[]<0> {{{}}}\r\n{mail})\r\nTAG OK done\r\n",
                    mail.len()
                )
            }
            _ => "TAG OK done\r\n".into(),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mail_that_the_server_cannot_hand_out_does_not_hide_the_others() {
    for (kind, code) in [
        ("nil", 0),
        ("larger", 0),
        ("omitted", 69),
        ("refused", 69),
        ("empty", 69),
        ("hangup", 69),
        ("bye", 69),
        ("heads", 69),
    ] {
        let server = with_a_bad_mail(kind).await;
        let machine = ready(server.port());
        let ended = machine.run(&["--log", "info", "run", "--once"]);
        assert_eq!(ended.code, code, "{kind}: {}", ended.stderr);
        assert_eq!(
            machine.credential(USER),
            Some(format!("pass{}", token(1))),
            "{kind}"
        );
        if code != 0 {
            assert!(
                ended.stderr.contains("unfetchable"),
                "{kind}: {}",
                ended.stderr
            );
        }
    }
}

/// Nobody waits for it in `run --once`, nor in a resync, whose daemon still asks
/// for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_gets_past_a_mail_at_which_the_server_hangs_up() {
    for kind in ["hangup", "bye", "heads"] {
        let server = with_a_bad_mail(kind).await;
        let machine = ready(server.port());
        let daemon = machine.daemon();
        let lost = daemon.wait_for("mailbox.lost", |_| true);
        let error = lost["error"].as_str().unwrap();
        assert!(error.contains("no end to the answer about"), "{error}");
        let printed = machine.ok(&["resync", "--since", "all"]);
        assert!(
            printed.contains("does not hand the mail out"),
            "{kind}: {printed}"
        );
        assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_at_which_the_server_falls_silent_does_not_hide_the_others() {
    let server = with_a_bad_mail("stall").await;
    let machine = ready(server.port());
    // The patience with a server that is silent is 20 s longer.
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&format!("{text}idle-renew = \"1s\"\n"));
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(ended.stderr.contains("unfetchable"), "{}", ended.stderr);
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
}

/// A line that drops over a mail, once, says nothing of the mail.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_lost_once_over_each_mail_makes_none_unfetchable() {
    let folder = Folder::empty()
        .with(1, &TokenMail::new(USER, &token(2), Timestamp::now()))
        .with(2, &TokenMail::new(USER, &token(1), Timestamp::now()));
    let lost = AtomicUsize::new(0);
    let server = Scripted::answering(move |command| {
        let number = lost.load(SeqCst) + 1;
        let is_first = command.starts_with(&format!("UID FETCH {number} (UID BODY"));
        if is_first {
            lost.store(number, SeqCst);
            return "HANGUP".to_owned();
        }
        folder.answer(command)
    })
    .await;
    let machine = ready(server.port());
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("unfetchable"), "{}", ended.stderr);
    assert_eq!(server.count(None, "LOGIN"), 3);
    assert!(machine.credential(USER).is_some());
}

/// The answer speaks of the second new mail and not of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_mail_that_is_left_out_is_missed_and_looked_for() {
    let mail =
        String::from_utf8(TokenMail::new(USER, &token(1), Timestamp::now()).bytes()).unwrap();
    let server = Scripted::answering(move |command| {
        let head = |uid: u32, fields: &str| {
            format!(
                "* {uid} FETCH (UID {uid} RFC822.SIZE {} INTERNALDATE \"TODAY 00:00:00 +0000\" \
                 BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {fields})\r\n",
                mail.len()
            )
        };
        let token_mail = head(1, "{30}\r\nFrom: support@salesforce.com\r\n");
        let other = head(2, "{2}\r\n\r\n");
        match command {
            c if c.starts_with("LOGIN") => "TAG OK [CAPABILITY IMAP4rev1 IDLE] in\r\n".into(),
            c if c.starts_with("EXAMINE") => examined(0, 1).1,
            "IDLE" => "+ idling\r\n* 2 EXISTS\r\n".into(),
            c if c.starts_with("UID FETCH 1:* (UID RFC") => format!("{other}TAG OK done\r\n"),
            "FETCH 1,2 (UID)" | "UID FETCH 1:2 (UID)" => {
                "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\nTAG OK done\r\n".into()
            }
            c if c.starts_with("UID FETCH 1:2 (UID RFC") => {
                format!("{token_mail}{other}TAG OK done\r\n")
            }
            c if c.starts_with("UID FETCH 1 (UID BODY") => {
                format!(
                    "* 1 FETCH (UID 1 BODY[]<0> {{{}}}\r\n{mail})\r\nTAG OK done\r\n",
                    mail.len()
                )
            }
            _ => "TAG OK done\r\n".into(),
        }
    })
    .await;
    let machine = ready(server.port());
    let daemon = machine.daemon();
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), Some(format!("pass{}", token(1))));
}
