//! What follows from what, case by case; `world` has what holds whatever happens.
#![expect(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

mod world;

use jiff::SignedDuration;

use super::*;

const RULES: Rules = Rules {
    check: true,
    release_unverified_after: SignedDuration::from_mins(15),
    failures_a_day: 4,
};

const UNCHECKED: Rules = Rules {
    check: false,
    ..RULES
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn notice(n: usize, originated: Timestamp) -> Event {
    Event::Notice {
        token: Secret::new(format!("token{n}")),
        fingerprint: format!("print{n}"),
        source: Source {
            mailbox: "ops".into(),
            folder: "INBOX".into(),
            uid_validity: 1,
            uid: u32::try_from(n).unwrap(),
            message_id: None,
            originated,
            received: originated,
        },
        proof: "signed".into(),
    }
}

fn current(account: &Account) -> Option<&str> {
    let version = account.labelled(Label::Current)?;
    version.token.as_ref().map(Secret::expose)
}

fn answered(token: usize, password: &str, answer: Answer) -> Event {
    Event::Answered {
        token: format!("print{token}"),
        password: password.into(),
        answer,
    }
}

#[test]
fn without_a_password_the_token_waits_and_the_password_completes_it() {
    let account = Account::new("u@x.y");
    let step = account.step(notice(1, at(0)), None, &UNCHECKED, at(1));
    assert_eq!(step.reception, Some(Reception::Updated));
    assert_eq!(step.actions, [Action::Store]);
    assert_eq!(step.account.labelled(Label::Pending).unwrap().id, 1);
    let step = step
        .account
        .step(Event::Reconcile, Some("p"), &UNCHECKED, at(2));
    assert_eq!(step.actions, [Action::Store, Action::Publish]);
    assert_eq!(current(&step.account), Some("token1"));
}

#[test]
fn a_changed_password_makes_a_new_pair_of_the_same_version() {
    let account = Account::new("u@x.y");
    let account = account
        .step(notice(1, at(0)), Some("p"), &UNCHECKED, at(1))
        .account;
    let same = account.step(Event::Reconcile, Some("p"), &UNCHECKED, at(2));
    assert_eq!(same.actions, [Action::Publish]);
    assert_eq!(same.account, account);
    let other = account.step(Event::Reconcile, Some("q"), &UNCHECKED, at(3));
    assert_eq!(other.actions, [Action::Store, Action::Publish]);
    assert_eq!(other.account.versions, account.versions);
    // With a check, it is not given to anybody before it has been checked.
    let other = account.step(Event::Reconcile, Some("q"), &RULES, at(3));
    assert_eq!(other.actions, []);
    let due = account.step(Event::Due, Some("q"), &RULES, at(4));
    assert_eq!(due.actions, [Action::Store, Action::Check]);
    let works = due
        .account
        .step(answered(1, "q", Answer::Works), Some("q"), &RULES, at(5));
    assert_eq!(works.actions, [Action::Store, Action::Publish]);
}

/// Mail first, password still the old one; then the password is set.
#[test]
fn after_a_password_change_the_state_says_so_and_the_new_password_completes_it() {
    let account = Account::new("u@x.y");
    let account = account.step(notice(1, at(0)), Some("old"), &RULES, at(1));
    let account = account.account.step(Event::Due, Some("old"), &RULES, at(1));
    let account = account
        .account
        .step(
            answered(1, "old", Answer::Works),
            Some("old"),
            &RULES,
            at(2),
        )
        .account;
    let account = account
        .step(notice(2, at(9000)), Some("old"), &RULES, at(9001))
        .account;
    assert_eq!(current(&account), Some("token1"));
    let due = account.step(Event::Due, Some("old"), &RULES, at(9001));
    assert_eq!(due.actions, [Action::Store, Action::Publish, Action::Check]);
    let refused = due
        .account
        .step(
            answered(2, "old", Answer::Refused),
            Some("old"),
            &RULES,
            at(9002),
        )
        .account;
    let standing = refused.standing(Some("old"), &RULES, at(9003));
    let expected = Standing::Refused {
        answer: Answer::Refused,
        is_new: true,
        next: Some(at(9001 + 300)),
    };
    assert_eq!(standing, expected);
    let set = refused.step(Event::Reconcile, Some("new"), &RULES, at(9010));
    let due = set.account.step(Event::Due, Some("new"), &RULES, at(9010));
    let works = due.account.step(
        answered(2, "new", Answer::Works),
        Some("new"),
        &RULES,
        at(9011),
    );
    assert_eq!(works.actions, [Action::Store, Action::Publish]);
    assert_eq!(current(&works.account), Some("token2"));
    let standing = works.account.standing(Some("new"), &RULES, at(9012));
    let answer = Some(Answer::Works);
    assert_eq!(standing, Standing::Current { answer });
}

/// A first try of a mail that is `age` seconds old, the answer to it, and when
/// something is done next, in seconds after the try.
#[test]
fn each_answer_has_its_consequence() {
    const UNVERIFIED: i64 = 900;
    for (answer, age, next, released) in [
        (Answer::Works, 0, None, true),
        (Answer::Refused, 899, Some(300), false),
        (Answer::Refused, 900, None, false),
        (Answer::PasswordExpired, 0, None, false),
        (Answer::Locked, 0, None, false),
        (Answer::Restricted, 0, Some(UNVERIFIED), false),
        (Answer::NotAvailable, 0, Some(UNVERIFIED), false),
        (Answer::RateLimited, 0, Some(60), false),
        (Answer::Unreachable, 0, Some(10), false),
        (Answer::NotMade, 0, Some(10), false),
        (Answer::Unknown, 0, Some(300), false),
        (Answer::Unknown, 900, Some(UNVERIFIED), false),
    ] {
        let account = Account::new("u@x.y");
        let account = account.step(notice(1, at(-age)), Some("p"), &RULES, at(0));
        // Neither what is to be tried now nor what is being tried waits for anything.
        let waits_for_nothing = Standing::Checking {
            answer: None,
            next: None,
        };
        let standing = account.account.standing(Some("p"), &RULES, at(0));
        assert_eq!(standing, waits_for_nothing);
        let due = account.account.step(Event::Due, Some("p"), &RULES, at(0));
        assert_eq!(due.actions, [Action::Store, Action::Check]);
        let standing = due.account.standing(Some("p"), &RULES, at(1));
        assert_eq!(standing, waits_for_nothing);
        let told = due
            .account
            .step(answered(1, "p", answer), Some("p"), &RULES, at(1));
        assert_eq!(
            current(&told.account).is_some(),
            released,
            "{answer:?} {age}"
        );
        let due = told.account.due(Some("p"), &RULES, at(1));
        assert_eq!(due, next.map(at), "{answer:?} {age}");
    }
}

#[test]
fn rolling_back_makes_the_previous_one_current_and_a_newer_mail_wins_all_the_same() {
    let mut account = Account::new("u@x.y");
    for n in 1..=2 {
        let event = notice(n, at(i64::try_from(n).unwrap()));
        account = account.step(event, Some("p"), &UNCHECKED, at(5)).account;
    }
    let back = account.step(Event::RollBack, Some("p"), &UNCHECKED, at(6));
    assert_eq!(back.actions, [Action::Store, Action::Publish]);
    assert_eq!(current(&back.account), Some("token1"));
    // The mail of the one that was left is looked at again: nothing changes.
    let again = back
        .account
        .step(notice(2, at(2)), Some("p"), &UNCHECKED, at(7));
    assert_eq!(again.reception, Some(Reception::Duplicate));
    assert_eq!(current(&again.account), Some("token1"));
    let newer = again
        .account
        .step(notice(3, at(3)), Some("p"), &UNCHECKED, at(8));
    assert_eq!(current(&newer.account), Some("token3"));
    let nothing = Account::new("u@x.y").step(Event::RollBack, Some("p"), &UNCHECKED, at(1));
    assert_eq!(nothing.actions, []);
}

/// A machine that was years fast when it last tried, and is put right: it does not wait for those
/// years, and what may have been counted is not tried sooner for it.
#[test]
fn a_clock_that_is_set_back_keeps_nothing_waiting() {
    let wrong = 150_000_000;
    let began = |answer: Option<Answer>| {
        let account = Account::new("u@x.y");
        let account = account.step(notice(1, at(0)), Some("p"), &RULES, at(wrong));
        let due = account
            .account
            .step(Event::Due, Some("p"), &RULES, at(wrong));
        assert!(due.actions.contains(&Action::Check));
        match answer {
            None => due.account,
            Some(answer) => {
                let event = answered(1, "p", answer);
                let step = due.account.step(event, Some("p"), &RULES, at(wrong));
                step.account
            }
        }
    };
    for answer in [Answer::Unreachable, Answer::RateLimited] {
        let account = began(Some(answer));
        assert_eq!(account.due(Some("p"), &RULES, at(60)), Some(at(60)));
        let due = account.step(Event::Due, Some("p"), &RULES, at(60));
        assert_eq!(due.actions, [Action::Store, Action::Check]);
        let event = answered(1, "p", answer);
        let account = due.account.step(event, Some("p"), &RULES, at(60)).account;
        let step = account.step(Event::Due, Some("p"), &RULES, at(60 + 899));
        assert!(!step.actions.contains(&Action::Publish), "not yet");
        let step = account.step(Event::Due, Some("p"), &RULES, at(60 + 900));
        assert!(step.actions.contains(&Action::Publish));
    }
    // Its answer was lost, and it was no young mail by that clock.
    for answer in [None, Some(Answer::Unknown), Some(Answer::Restricted)] {
        let account = began(answer);
        let step = account.step(Event::Due, Some("p"), &RULES, at(60));
        assert_eq!(step.actions, [Action::Store, Action::Publish], "{answer:?}");
    }
    let account = began(Some(Answer::Refused));
    let step = account.step(Event::Due, Some("p"), &RULES, at(60));
    assert_eq!(step.actions, [Action::Store], "and the clock is noted");
    // A small correction is no passing of time.
    let account = Account::new("u@x.y");
    let account = account.step(notice(1, at(0)), Some("p"), &RULES, at(60));
    let due = account.account.step(Event::Due, Some("p"), &RULES, at(60));
    let step = due.account.step(Event::Due, Some("p"), &RULES, at(50));
    assert_eq!(step.actions, []);
    assert_eq!(step.account.due(Some("p"), &RULES, at(50)), Some(at(360)));
}

/// The budget that a clock which was a month fast has spent is back in a day, and not in a month.
/// One that is slow for a while gives nothing back.
#[test]
fn failures_of_a_clock_that_was_fast_count_for_a_day() {
    const HOUR: i64 = 3_600;
    let fail = |now: i64| {
        let account = Account::new("u@x.y");
        let mut account = account
            .step(notice(1, at(now - HOUR)), None, &RULES, at(now))
            .account;
        for password in ["a", "b", "c", "d"] {
            let due = account.step(Event::Due, Some(password), &RULES, at(now));
            assert!(due.actions.contains(&Action::Check));
            let event = answered(1, password, Answer::Refused);
            account = due
                .account
                .step(event, Some(password), &RULES, at(now))
                .account;
        }
        account
    };
    let step = |account: &Account, event: Event, now: i64| {
        let step = account.step(event, Some("p"), &RULES, at(now));
        let kept = from_document(&to_document(&step.account).unwrap()).unwrap();
        assert_eq!(kept, step.account);
        (kept, step.actions.contains(&Action::Check))
    };
    let account = fail(30 * 24 * HOUR);
    let (account, _) = step(&account, notice(2, at(30 * 24 * HOUR)), 0);
    assert_eq!(account.due(Some("p"), &RULES, at(0)), Some(at(24 * HOUR)));
    for hour in 1..24 {
        let (_, began) = step(&account, Event::Due, hour * HOUR);
        assert!(!began, "hour {hour}");
    }
    let (account, _) = step(&account, Event::Reconcile, 12 * HOUR);
    let (account, began) = step(&account, Event::Due, 24 * HOUR);
    assert!(began);
    let (account, _) = step(&account, answered(2, "p", Answer::Works), 25 * HOUR);
    assert_eq!(current(&account), Some("token2"));

    // It starts in 1970, and is put right a minute later.
    let (account, _) = step(&fail(0), notice(2, at(1)), -1_600_000_000);
    let (account, began) = step(&account, Event::Due, HOUR);
    assert!(!began);
    let (_, began) = step(&account, Event::Due, 23 * HOUR);
    assert!(!began);
    let (_, began) = step(&account, Event::Due, 24 * HOUR);
    assert!(began);
}

/// Many passwords, none of which got as far as Salesforce, do not make it forget the one that did.
#[test]
fn a_pair_that_was_refused_is_not_forgotten_for_those_that_were_not_tried() {
    let account = Account::new("u@x.y");
    let mut account = account
        .step(notice(1, at(0)), Some("p"), &RULES, at(9_000))
        .account;
    let mut try_with = |password: &str, answer: Answer, now: i64| {
        let due = account.step(Event::Due, Some(password), &RULES, at(now));
        let event = answered(1, password, answer);
        account = due
            .account
            .step(event, Some(password), &RULES, at(now))
            .account;
        due.actions.contains(&Action::Check)
    };
    assert!(try_with("wrong", Answer::Refused, 9_000));
    for n in 0..300 {
        assert!(try_with(&format!("p{n}"), Answer::Unreachable, 9_001 + n));
    }
    assert!(!try_with("wrong", Answer::Refused, 9_400));
}
