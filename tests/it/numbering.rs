//! UIDVALIDITY, UIDNEXT and HIGHESTMODSEQ that are missing, wrong or go back,
//! and folders that are not there.

use std::sync::Mutex;

use crate::held::{list, only};
use crate::meeting::{Meeting, USER, composite, machine, token_mail};
use crate::support::folder::Folder;
use crate::support::mail::{TokenMail, newsletter, token};
use crate::support::scripted::{Options, Scripted};

/// A server whose folder is another one at each connection; the last one stays.
async fn server(folders: Vec<Folder>) -> Scripted {
    let options = Options {
        greeting: folders[0].greeting(),
        ..Options::default()
    };
    Scripted::with(options, move |connection, command| {
        let index = connection.min(folders.len()) - 1;
        folders[index].answer(command)
    })
    .await
}

fn one() -> Folder {
    Folder::empty().with(5, &token_mail())
}

/// What a server has wrong about a folder.
type Change = fn(&mut Folder);

/// At the first connection there is a newsletter, at the second the token mail,
/// and at the third nothing has happened.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_server_says_of_its_numbers_no_mail_is_missed() {
    let before = Folder::empty().and(4, &newsletter(4));
    let changes: [(&str, Change); 7] = [
        ("no UIDVALIDITY", |f| f.uid_validity = None),
        ("UIDVALIDITY 0", |f| f.uid_validity = Some(0)),
        ("no UIDNEXT", |f| f.uid_next = None),
        ("UIDNEXT 0", |f| f.uid_next = Some(0)),
        ("UIDNEXT 1", |f| f.uid_next = Some(1)),
        ("UIDNEXT of the mail", |f| f.uid_next = Some(5)),
        ("another UIDVALIDITY", |f| {
            f.uid_validity = u32::try_from(f.mails.len()).ok();
        }),
    ];
    for (name, change) in changes {
        let mut folders = [before.clone(), before.clone().with(5, &token_mail())];
        folders.iter_mut().for_each(change);
        let server = server(folders.to_vec()).await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), None, "{name}");
        for _ in 0..2 {
            machine.ok(&["run", "--once"]);
            assert_eq!(machine.credential(USER), composite(), "{name}");
        }
        assert_eq!(machine.versions(USER), 1, "{name}");
    }
}

/// The list of what is new leaves the token mail out. Once, and it is asked for
/// again; each time, and there is no better list to be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_the_new_mail_is_not_believed() {
    for (bad, is_found) in [(2..3, true), (2..usize::MAX, false)] {
        let before = Folder::empty().and(4, &newsletter(4));
        let after = before.clone().with(5, &token_mail());
        let options = Options {
            greeting: before.greeting(),
            ..Options::default()
        };
        let server = Scripted::with(options, move |connection, command| {
            let is_left_out = command == "UID FETCH 5:5 (UID)" && bad.contains(&connection);
            match connection {
                1 => before.answer(command),
                _ if is_left_out => "TAG OK done\r\n".to_owned(),
                _ => after.answer(command),
            }
        })
        .await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        let ended = machine.run(&["run", "--once"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(machine.credential(USER).is_some(), is_found);
        assert_eq!(ended.stderr.contains("mailbox.gaps"), !is_found);
        let logins = if is_found { 3 } else { 4 };
        assert_eq!(server.count(None, "LOGIN"), logins);
    }
}

/// The same while it is watched, over one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_numbers_is_watched() {
    for (uid_validity, uid_next) in [(None, None), (Some(1), None), (None, Some(5))] {
        let as_said = |folder: Folder| Folder {
            uid_validity,
            uid_next,
            ..folder
        };
        let before = Folder::empty().and(4, &newsletter(4));
        let after = before.clone().with(5, &token_mail());
        let none = |_: &str, _: &_| None;
        let meeting = Meeting::with("", as_said(before), as_said(after), none).await;
        meeting.server.wait_heard(1, "IDLE", 1).await;
        meeting.arrive();
        meeting.server.tell("* 2 EXISTS\r\n");
        meeting.goes_on().await;
    }
}

/// UIDNEXT does not move, and without IDLE it is all that could show the mail.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_whose_uidnext_stands_still_is_polled() {
    let before = Folder {
        capabilities: "IMAP4rev1",
        ..Folder::empty().and(4, &newsletter(4))
    };
    let after = Folder {
        uid_next: Some(5),
        ..before.clone().with(5, &token_mail())
    };
    let meeting = Meeting::with("", before, after, |_, _| None).await;
    meeting.server.wait_heard(1, "EXAMINE", 2).await;
    meeting.arrive();
    meeting.goes_on().await;
}

/// A server that was put back from a copy has new mails under numbers that
/// others had, and only the modification sequence shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_modification_sequence_that_goes_back_is_a_folder_looked_through_again() {
    let folder = |mod_seq: u64, second: &[u8]| Folder {
        capabilities: "IMAP4rev1 IDLE CONDSTORE",
        mod_seq: Some(mod_seq),
        ..Folder::empty().and(1, &newsletter(1)).and(2, second)
    };
    let before = folder(900, &newsletter(2));
    let server = server(vec![before, folder(500, &token_mail().bytes())]).await;
    let machine = machine(&server, "");
    machine.ok(&["run", "--once"]);
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert!(ended.stderr.contains("mailbox.modseq"), "{}", ended.stderr);
    assert_eq!(machine.credential(USER), composite());
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert!(!ended.stderr.contains("mailbox.modseq"), "{}", ended.stderr);
}

/// A notice of years ago, as the mail with this UID.
fn of_years_ago(folder: Folder, uid: u32, day: &'static str) -> Folder {
    folder.with(uid, &token_mail()).on(uid, day)
}

/// The server hangs up in the middle of a look, behind the first mails: on the
/// first connection, or when it has numbered its mails anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_back_that_is_interrupted_goes_no_further_back() {
    let news = |folder: Folder, uid: u32| folder.and(uid, &newsletter(uid as usize));
    let before = (1..1200).fold(Folder::empty(), news);
    let old = of_years_ago(before, 1200, "01-Jan-2020");
    let folder = (1201..1501).fold(old, news);
    let anew = Folder {
        uid_validity: Some(2),
        ..folder.clone()
    };
    // What comes into the folder later is seen, whenever it was received.
    let moved_in = of_years_ago(anew.clone(), 1501, "02-Jan-2020");
    let folders = [&folder, &folder, &anew, &anew, &moved_in].map(Folder::clone);
    let options = Options {
        greeting: folder.greeting(),
        ..Options::default()
    };
    let server = Scripted::with(options, move |connection, command| {
        if [1, 3].contains(&connection) && command.starts_with("UID FETCH 1001") {
            return "HANGUP".to_owned();
        }
        folders[connection - 1].answer(command)
    })
    .await;
    let machine = machine(&server, "");
    for _ in 0..2 {
        let ended = machine.run(&["run", "--once"]);
        ended.failed(69, "lost during FETCH", "hint");
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER), None, "{:?}", server.heard());
    }
    machine.ok(&["run", "--once"]);
    assert_eq!(machine.credential(USER), composite());
}

/// Nobody watched for longer than `since`, and the server has numbered its mails
/// anew meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_a_long_absence_is_seen_in_a_folder_that_was_numbered_anew() {
    for (day, is_seen) in [("15-Jan-2020", true), ("05-Jan-2020", false)] {
        let before = Folder::empty().and(1, &newsletter(1));
        let anew = Folder {
            uid_validity: Some(2),
            ..of_years_ago(before.clone(), 2, day)
        };
        let server = server(vec![before, anew]).await;
        let machine = machine(&server, "");
        machine.ok(&["run", "--once"]);
        let journal = rusqlite::Connection::open(machine.state_dir().join("journal.db")).unwrap();
        let sql = "UPDATE cursor SET caught_up = unixepoch('2020-01-10') WHERE caught_up > 0";
        assert_eq!(journal.execute(sql, []).unwrap(), 1);
        drop(journal);
        machine.ok(&["run", "--once"]);
        assert_eq!(machine.credential(USER).is_some(), is_seen, "{day}");
    }
}

fn forged(seed: u64) -> TokenMail {
    TokenMail::new(USER, &token(seed), jiff::Timestamp::now()).forged()
}

/// The folder is looked through at every connection, and a person is not asked
/// twice about one mail; but about another that has its number.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_stays_so_on_a_server_without_uidvalidity() {
    let folder = |mail: &TokenMail| Folder {
        uid_validity: None,
        ..Folder::empty().with(5, mail)
    };
    let (dropped, other) = (folder(&forged(2)), folder(&forged(3)));
    let server = server(vec![dropped.clone(), dropped.clone(), dropped, other]).await;
    let machine = machine(&server, "");
    machine.ok(&["run", "--once"]);
    let id = only(&machine);
    machine.ok(&["run", "--once"]);
    assert_eq!(only(&machine), id, "it is the same mail");
    machine.ok(&["held", "drop", &id]);
    machine.ok(&["run", "--once"]);
    assert!(list(&machine).is_empty());
    let ended = machine.run(&["--log", "warn", "run", "--once"]);
    assert!(ended.stderr.contains("notice.held"), "{}", ended.stderr);
    assert_eq!(list(&machine).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_waits_is_not_forgotten_where_a_server_goes_back_in_time() {
    let folder = |mod_seq: u64| Folder {
        capabilities: "IMAP4rev1 IDLE CONDSTORE",
        mod_seq: Some(mod_seq),
        ..Folder::empty().with(1, &forged(2)).on(1, "01-Jan-2020")
    };
    let server = server(vec![folder(900), folder(500)]).await;
    let machine = machine(&server, "since = \"all\"");
    machine.ok(&["run", "--once"]);
    let id = only(&machine);
    let text = std::fs::read_to_string(machine.config_file()).unwrap();
    machine.configure(&text.replace("since = \"all\"", "since = \"30d\""));
    let ended = machine.run(&["--log", "info", "run", "--once"]);
    assert!(ended.stderr.contains("mailbox.modseq"), "{}", ended.stderr);
    assert_eq!(only(&machine), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_made_later_is_watched_from_then_on() {
    let missing = |command: &str, arrived: &std::sync::atomic::AtomicBool| {
        let is_missing = !arrived.load(std::sync::atomic::Ordering::SeqCst);
        (is_missing && command.starts_with("EXAMINE"))
            .then(|| "TAG NO [NONEXISTENT] no such folder\r\n".into())
    };
    let meeting = Meeting::before_the_mail(missing).await;
    let line = meeting.daemon.wait_for("mailbox.lost", |_| true);
    assert!(
        line["error"]
            .as_str()
            .unwrap()
            .contains("no folder \"INBOX\"")
    );
    meeting.server.wait_heard(1, "EXAMINE", 3).await;
    assert_eq!(meeting.daemon.count("mailbox.lost"), 1, "it is said once");
    let status = meeting.machine.status();
    assert_eq!(status["problems"][0]["code"], "mailbox-folder-missing");
    meeting.arrive();
    meeting.daemon.wait_for("credential.updated", |_| true);
    meeting.server.wait_heard(1, "IDLE", 1).await;
    assert_eq!(meeting.daemon.count("mailbox.connected"), 1);
    meeting
        .machine
        .wait_status(|status| status["state"] == "healthy");
    meeting.ends_well().await;
}

/// One folder of two that share a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_keeps_nobody_from_the_others() {
    let mail = one();
    let selected = Mutex::new(String::new());
    let server = Scripted::answering(move |command| {
        let mut selected = selected.lock().unwrap();
        if let Some(name) = command.strip_prefix("EXAMINE ") {
            name.clone_into(&mut selected);
        }
        match (command, selected.as_str()) {
            (c, "\"Gone\"") if c.starts_with("EXAMINE") => "TAG NO gone\r\n".into(),
            _ => mail.answer(command),
        }
    })
    .await;
    let more = "folders = [\"Gone\", \"INBOX\"]\nmax-connections = 1";
    let machine = machine(&server, more);
    let daemon = machine.daemon();
    daemon.wait_for("credential.updated", |_| true);
    assert_eq!(machine.credential(USER), composite());
    assert_eq!(daemon.count("mailbox.connected"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn condstore_that_is_offered_and_refused_is_done_without() {
    for answer in ["TAG NO not for you\r\n", "TAG BAD what\r\n"] {
        let folder = Folder {
            capabilities: "IMAP4rev1 IDLE CONDSTORE",
            ..one()
        };
        let meeting = Meeting::over(folder, move |command| {
            command.contains("(CONDSTORE)").then(|| answer.into())
        });
        meeting.await.goes_on().await;
    }
}

/// A refusal that passes is no missing folder.
#[tokio::test(flavor = "multi_thread")]
async fn an_examine_that_is_refused_for_now_is_tried_again() {
    for capabilities in ["IMAP4rev1 IDLE", "IMAP4rev1 IDLE CONDSTORE"] {
        let folder = Folder {
            capabilities,
            ..one()
        };
        let meeting = Meeting::over(folder, |command| {
            let answer = "TAG NO [INUSE] somebody else has it\r\n";
            command.starts_with("EXAMINE").then(|| answer.into())
        });
        let named = "the server refused EXAMINE";
        meeting.await.ends_in_a_reconnect(named).await;
    }
}
