//! The journal on a real file system.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn journal(folder: &Path) -> Journal {
    Journal::open(&folder.join("journal.db")).unwrap()
}

fn record(uid: u32, kind: Kind) -> Record {
    Record {
        place: Place {
            mailbox: "ops".into(),
            folder: "INBOX".into(),
            uid_validity: 7,
            uid,
        },
        kind,
        reason: None,
        detail: None,
        username: None,
        sender: None,
        message_id: None,
        received: Timestamp::UNIX_EPOCH,
        after: false,
    }
}

fn cursor(uid_validity: u32, next_uid: u32) -> Cursor {
    Cursor::at(uid_validity, next_uid)
}

#[test]
fn outcome_and_cursor_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = journal(folder.path());
    let held = record(3, Kind::Held);
    first
        .record(&held, Some(cursor(7, 4)), Timestamp::UNIX_EPOCH)
        .unwrap();
    drop(first);
    let again = journal(folder.path());
    assert_eq!(again.cursor("ops", "INBOX").unwrap(), Some(cursor(7, 4)));
    assert_eq!(again.outcome(&held.place).unwrap(), Some(Kind::Held));
    assert_eq!(again.count(Kind::Held, |_| true).unwrap(), 1);
    let elsewhere = |(mailbox, _): (&str, &str)| mailbox != "ops";
    assert_eq!(again.count(Kind::Held, elsewhere).unwrap(), 0);
    again.move_cursor("ops", "INBOX", cursor(8, 1)).unwrap();
    assert_eq!(
        again.count(Kind::Held, |_| true).unwrap(),
        0,
        "numbered anew"
    );
    assert_eq!(again.cursor("ops", "Other").unwrap(), None);
}

#[test]
fn a_cursor_goes_back_only_with_another_uidvalidity() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    for (given, kept) in [
        (cursor(7, 10), cursor(7, 10)),
        (cursor(7, 5), cursor(7, 10)),
        (cursor(8, 2), cursor(8, 2)),
    ] {
        journal.move_cursor("ops", "INBOX", given).unwrap();
        assert_eq!(journal.cursor("ops", "INBOX").unwrap(), Some(kept));
    }
}

#[test]
fn a_server_that_went_back_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    for uid in [3, 4] {
        journal
            .record(&record(uid, Kind::Updated), None, Timestamp::UNIX_EPOCH)
            .unwrap();
    }
    journal.move_cursor("ops", "INBOX", cursor(7, 5)).unwrap();
    journal.look_back("ops", "INBOX", 7, None, Some(4)).unwrap();
    assert_eq!(journal.cursor("ops", "INBOX").unwrap(), Some(cursor(7, 1)));
    let place = |uid| record(uid, Kind::Updated).place;
    assert_eq!(journal.outcome(&place(3)).unwrap(), Some(Kind::Updated));
    assert_eq!(journal.outcome(&place(4)).unwrap(), None);
}

#[test]
fn what_a_person_is_asked_or_has_said_outlives_a_server_that_went_back() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let with_id = |uid, kind| Record {
        message_id: Some(format!("{uid}@example.com")),
        ..record(uid, kind)
    };
    let unnamed = record(4, Kind::Held);
    for record in [1, 2].map(|uid| with_id(uid, Kind::Held)) {
        journal.record(&record, None, at(1)).unwrap();
    }
    journal
        .record(&with_id(3, Kind::Ignored), None, at(1))
        .unwrap();
    journal.record(&unnamed, None, at(1)).unwrap();
    let id = |uid| {
        let held = journal.held(None, |_| true).unwrap();
        let mail = held.iter().find(|mail| mail.place.uid == uid)?;
        Some(mail.id)
    };
    let (first, second) = (id(1).unwrap(), id(2).unwrap());
    journal.put_away(second, PutAway::Dropped, at(2)).unwrap();
    journal.look_back("ops", "INBOX", 7, None, Some(1)).unwrap();
    let place = |uid| record(uid, Kind::Held).place;
    assert_eq!(id(1), Some(first));
    let dropped = journal.was_put_away(&place(2), at(3)).unwrap();
    assert_eq!(dropped, Some(PutAway::Dropped));
    assert_eq!(journal.outcome(&place(3)).unwrap(), None);
    assert_eq!(journal.outcome(&unnamed.place).unwrap(), None, "nameless");
    // The same mails, and then others under their numbers.
    for uid in [1, 2] {
        let same = format!("{uid}@example.com");
        let forgotten = |id| journal.forget_another(&place(uid), id).unwrap();
        assert!(!forgotten(Some(&same)));
        assert!(forgotten(Some("other@example.com")));
        assert!(!forgotten(None), "it is forgotten already");
    }
}

#[test]
fn a_mail_looked_at_again_keeps_its_outcome_unless_it_was_open() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let now = Timestamp::UNIX_EPOCH;
    for (given, kept) in [
        (Kind::Undecided, Kind::Undecided),
        (Kind::Held, Kind::Held),
        (Kind::Updated, Kind::Updated),
        (Kind::Duplicate, Kind::Updated),
        (Kind::Older, Kind::Updated),
        (Kind::Held, Kind::Updated),
        (Kind::Undecided, Kind::Updated),
    ] {
        journal.record(&record(1, given), None, now).unwrap();
        assert_eq!(
            journal.outcome(&record(1, given).place).unwrap(),
            Some(kept)
        );
    }
}

#[test]
fn undecided_mails_remember_when_they_were_first_seen() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let at = |second| Timestamp::from_second(second).unwrap();
    let open = record(1, Kind::Undecided);
    journal.record(&open, None, at(10)).unwrap();
    journal.record(&open, None, at(20)).unwrap();
    assert_eq!(journal.undecided("ops", "INBOX", 7).unwrap(), [(1, at(10))]);
    // Held for long, and then undecided: its time begins then.
    journal
        .record(&record(2, Kind::Held), None, at(10))
        .unwrap();
    journal
        .record(&record(2, Kind::Undecided), None, at(30))
        .unwrap();
    let open = journal.undecided("ops", "INBOX", 7).unwrap();
    assert_eq!(open, [(1, at(10)), (2, at(30))]);
    assert!(journal.undecided("ops", "INBOX", 8).unwrap().is_empty());
    // One by one it is the same.
    let since = |uid| {
        let place = record(uid, Kind::Undecided).place;
        journal.undecided_since(&place).unwrap()
    };
    assert_eq!([1, 2].map(since), [Some(at(10)), Some(at(30))]);
    journal
        .record(&record(1, Kind::Held), None, at(40))
        .unwrap();
    assert_eq!([1, 3].map(since), [None, None], "decided, and never seen");
}

#[test]
fn a_second_process_is_kept_out_and_the_files_are_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let _first = journal(folder.path());
    let error = Journal::open(&folder.path().join("journal.db"))
        .err()
        .expect("must be refused");
    assert!(error.hint().contains("stop the other"), "{error:?}");
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[test]
fn what_is_no_journal_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let rubbish = "no database at all\n".repeat(100);
    std::io::Write::write_all(
        &mut std::fs::File::create(&path).unwrap(),
        rubbish.as_bytes(),
    )
    .unwrap();
    let error = Journal::open(&path).err().expect("must be refused");
    assert!(error.hint().contains("move journal.db away"), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), rubbish);
}

#[test]
fn a_modification_sequence_belongs_to_its_uidvalidity() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let mod_seq = || journal.cursor("ops", "INBOX").unwrap().unwrap().mod_seq;
    journal.move_cursor("ops", "INBOX", cursor(7, 5)).unwrap();
    journal
        .caught_up("ops", "INBOX", 8, Some(11), at(1))
        .unwrap();
    assert_eq!(mod_seq(), None);
    journal
        .caught_up("ops", "INBOX", 7, Some(11), at(1))
        .unwrap();
    journal.move_cursor("ops", "INBOX", cursor(7, 6)).unwrap();
    assert_eq!(mod_seq(), Some(11));
    journal.move_cursor("ops", "INBOX", cursor(8, 1)).unwrap();
    assert_eq!(mod_seq(), None);
}

#[test]
fn a_look_back_is_remembered_until_it_is_through() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let known = || journal.cursor("ops", "INBOX").unwrap().unwrap();
    let day = civil::date(2026, 3, 1);
    let begins = |uid_validity| {
        journal
            .look_back("ops", "INBOX", uid_validity, Some(day), None)
            .unwrap();
    };
    begins(7);
    journal.move_cursor("ops", "INBOX", cursor(7, 5)).unwrap();
    let on_its_way = Cursor {
        since: Some(day),
        ..cursor(7, 5)
    };
    assert_eq!(known(), on_its_way);
    journal.caught_up("ops", "INBOX", 7, None, at(3)).unwrap();
    let through = Cursor {
        caught_up: Some(at(3)),
        ..cursor(7, 5)
    };
    assert_eq!(known(), through);
    // Numbered anew: when it was last caught up is still known.
    begins(8);
    let again = Cursor {
        since: Some(day),
        caught_up: Some(at(3)),
        ..cursor(8, 1)
    };
    assert_eq!(known(), again);
}

#[test]
fn what_is_to_be_done_afterwards_waits_until_it_was_done_and_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = journal(folder.path());
    let record = |uid, kind| Record {
        after: true,
        ..record(uid, kind)
    };
    let now = Timestamp::UNIX_EPOCH;
    for (uid, kind) in [(1, Kind::Held), (2, Kind::Updated), (3, Kind::Duplicate)] {
        first.record(&record(uid, kind), None, now).unwrap();
    }
    drop(first);
    let journal = journal(folder.path());
    let waiting = || journal.waiting_for_after("ops", "INBOX", 7).unwrap();
    assert_eq!(waiting(), [(2, After::Waits), (3, After::Waits)]);
    let second = record(2, Kind::Updated).place;
    journal.after(&second, After::Copied).unwrap();
    assert_eq!(waiting(), [(2, After::Copied), (3, After::Waits)]);
    journal.after(&second, After::Done).unwrap();
    // Looked at again, it stays done.
    journal
        .record(&record(2, Kind::Duplicate), None, now)
        .unwrap();
    assert_eq!(waiting(), [(3, After::Waits)]);
    // A person has let a held one in.
    journal
        .record(&record(1, Kind::Updated), None, now)
        .unwrap();
    assert_eq!(waiting(), [(1, After::Waits), (3, After::Waits)]);
}

#[test]
fn a_journal_of_the_first_version_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "CREATE TABLE cursor (
           mailbox TEXT NOT NULL, folder TEXT NOT NULL,
           uid_validity INTEGER NOT NULL, next_uid INTEGER NOT NULL,
           PRIMARY KEY (mailbox, folder)) STRICT, WITHOUT ROWID;
         CREATE TABLE outcome (
           id INTEGER PRIMARY KEY,
           mailbox TEXT NOT NULL, folder TEXT NOT NULL,
           uid_validity INTEGER NOT NULL, uid INTEGER NOT NULL,
           kind TEXT NOT NULL, reason TEXT, username TEXT, message_id TEXT,
           received INTEGER NOT NULL, first_seen INTEGER NOT NULL, decided INTEGER NOT NULL,
           UNIQUE (mailbox, folder, uid_validity, uid)) STRICT;
         CREATE INDEX outcome_kind ON outcome (kind);
         INSERT INTO cursor VALUES ('ops', 'INBOX', 7, 9);
         INSERT INTO outcome VALUES (1, 'ops', 'INBOX', 7, 8, 'updated', NULL, NULL, NULL, 0, 0, 0);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let journal = journal(folder.path());
    assert_eq!(journal.cursor("ops", "INBOX").unwrap(), Some(cursor(7, 9)));
    // It was settled before anything was to be done afterwards.
    assert!(
        journal
            .waiting_for_after("ops", "INBOX", 7)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_journal_of_the_third_version_has_no_look_back_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let first = journal(folder.path());
    first.move_cursor("ops", "INBOX", cursor(7, 9)).unwrap();
    first.caught_up("ops", "INBOX", 7, Some(11), at(1)).unwrap();
    drop(first);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "ALTER TABLE cursor DROP COLUMN since;
         ALTER TABLE cursor DROP COLUMN caught_up;
         PRAGMA user_version = 3;",
    )
    .unwrap();
    drop(old);
    let journal = journal(folder.path());
    let known = || journal.cursor("ops", "INBOX").unwrap().unwrap();
    let read_on = Cursor {
        mod_seq: Some(11),
        ..cursor(7, 9)
    };
    assert_eq!(known(), read_on);
    journal.caught_up("ops", "INBOX", 7, None, at(2)).unwrap();
    assert_eq!(
        (known().caught_up, known().mod_seq),
        (Some(at(2)), Some(11))
    );
}

fn at(days: i64) -> Timestamp {
    Timestamp::from_second(days.saturating_mul(86_400)).unwrap()
}

#[test]
fn what_is_put_away_is_known_and_held_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    for uid in [3, 4] {
        journal
            .record(&record(uid, Kind::Held), None, at(1))
            .unwrap();
    }
    let held = journal.held(None, |_| true).unwrap();
    let uids: Vec<u32> = held.iter().map(|mail| mail.place.uid).collect();
    assert_eq!(uids, [4, 3], "the newest first");
    assert_eq!(held[0].since, at(1));
    let id = held[0].id;
    assert!(journal.put_away(id, PutAway::Dropped, at(2)).unwrap());
    assert!(!journal.put_away(id, PutAway::Dropped, at(2)).unwrap());
    assert!(journal.held(Some(id), |_| true).unwrap().is_empty());
    let put_away = |uid| {
        let place = record(uid, Kind::Held).place;
        journal.was_put_away(&place, at(100)).unwrap()
    };
    assert_eq!(put_away(4), Some(PutAway::Dropped));
    assert_eq!(put_away(3), None);
    assert_eq!(journal.count(Kind::Held, |_| true).unwrap(), 1);
    let elsewhere = |(mailbox, _): (&str, &str)| mailbox != "ops";
    assert!(journal.held(None, elsewhere).unwrap().is_empty());
    journal.move_cursor("ops", "INBOX", cursor(8, 1)).unwrap();
    assert!(
        journal.held(None, |_| true).unwrap().is_empty(),
        "numbered anew"
    );
}

#[test]
fn a_mail_expires_by_the_time_that_it_was_held_and_not_by_the_last_look_at_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    for (uid, kind, day) in [
        (3, Kind::Held, 1),
        (3, Kind::Held, 50),
        (4, Kind::Ignored, 1),
        (4, Kind::Held, 50),
        (5, Kind::Updated, 1),
    ] {
        journal.record(&record(uid, kind), None, at(day)).unwrap();
    }
    assert_eq!(journal.expire(at(1), at(91)).unwrap(), 0);
    assert_eq!(journal.expire(at(2), at(92)).unwrap(), 1);
    let held = journal.held(None, |_| true).unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].place.uid, held[0].since), (4, at(50)));
    let expired = journal
        .was_put_away(&record(3, Kind::Held).place, at(92))
        .unwrap();
    assert_eq!(expired, Some(PutAway::Expired));
    // The clock that said so was fast.
    let place = record(3, Kind::Held).place;
    assert_eq!(journal.was_put_away(&place, at(91)).unwrap(), None);
}

#[test]
fn the_outbox_holds_one_parcel_for_a_sink_and_account_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let want = |print: &str, id: &str, day| {
        let wanted = [("sink".to_owned(), print.to_owned())];
        let id = || id.to_owned();
        journal.want("u@x.y", &wanted, id, at(day)).unwrap()
    };
    let key = ("sink", "u@x.y");
    let one = || {
        let mut parcels = journal.parcels().unwrap();
        assert_eq!(parcels.len(), 1);
        parcels.remove(0)
    };
    assert!(want("a", "1", 1));
    assert!(!want("a", "2", 2), "it is to be told this already");
    journal
        .not_delivered(key, "1", at(9), ("error", "hint"))
        .unwrap();
    assert_eq!((one().tries, one().next_try), (1, at(9)));
    // Who starts anew does not wait.
    journal.try_now(at(3)).unwrap();
    assert_eq!((one().tries, one().next_try), (1, at(3)));
    assert!(want("b", "3", 4));
    journal.delivered(key, "1", at(5)).unwrap();
    assert_eq!(
        (one().delivered, one().tries),
        (None, 0),
        "that was another"
    );
    journal.delivered(key, "3", at(5)).unwrap();
    assert_eq!(one().delivered, Some(at(5)));
    assert!(!want("b", "4", 6), "it has been told this");
    journal.try_now(at(6)).unwrap();
    assert_eq!(one().delivered, Some(at(5)));
    journal.lost(key, at(7)).unwrap();
    let lost = one();
    assert_eq!((lost.delivered, lost.next_try), (None, at(7)));
    assert_eq!(lost.id, "3", "it is the same parcel");
    journal.forget_parcel(key).unwrap();
    assert!(journal.parcels().unwrap().is_empty());
}

/// What was held for one account's sake waits no more, and has as long as a new mail.
#[test]
fn what_was_held_for_a_reason_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let mails = [
        (1, Kind::Held, "unreadable", Some("a")),
        (2, Kind::Held, "unreadable", Some("b")),
        (3, Kind::Held, "dkim", Some("a")),
        (4, Kind::Ignored, "unreadable", Some("a")),
        (5, Kind::Held, "unreadable", None),
    ];
    for (uid, kind, reason, username) in mails {
        let record = Record {
            reason: Some(reason.into()),
            username: username.map(str::to_owned),
            ..record(uid, kind)
        };
        let then = Timestamp::UNIX_EPOCH;
        journal.record(&record, None, then).unwrap();
    }
    let now = Timestamp::from_second(1_000).unwrap();
    let look_again = || journal.look_again_at_held("unreadable", |of| of == "a", now);
    assert_eq!(look_again().unwrap(), 1);
    assert_eq!(journal.undecided("ops", "INBOX", 7).unwrap(), [(1, now)]);
    assert_eq!(look_again().unwrap(), 0);
}
