//! The rotation against a Salesforce that can be asked what is true.
#![expect(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use jiff::SignedDuration;

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
    assert_eq!(step.actions, []);
    // A small correction is no passing of time.
    let account = Account::new("u@x.y");
    let account = account.step(notice(1, at(0)), Some("p"), &RULES, at(60));
    let due = account.account.step(Event::Due, Some("p"), &RULES, at(60));
    let step = due.account.step(Event::Due, Some("p"), &RULES, at(50));
    assert_eq!(step.actions, []);
    assert_eq!(step.account.due(Some("p"), &RULES, at(50)), Some(at(360)));
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

/// What happens in the world.
#[derive(Clone, Debug)]
enum Happening {
    /// Somebody resets the token, or changes the password: a mail is sent.
    Reset,
    NewPassword,
    /// The mail so many from the newest is seen, for the first time or again.
    Seen(usize),
    /// The password so many from the newest is set; `None`: removed.
    Known(Option<usize>),
    Passed(i64),
    /// Somebody is there to log in; Salesforce says this instead of the truth.
    Login(Option<Answer>, Crash),
    RollBack,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Crash {
    None,
    BeforeStore,
    AfterStore,
    AfterLogin,
}

fn happening() -> impl Strategy<Value = Happening> {
    let lie = prop_oneof![
        6 => Just(None),
        2 => Just(Some(Answer::Unreachable)),
        1 => Just(Some(Answer::RateLimited)),
        1 => Just(Some(Answer::Unknown)),
        1 => Just(Some(Answer::Locked)),
        1 => Just(Some(Answer::Restricted)),
        1 => Just(Some(Answer::NotAvailable)),
        1 => Just(Some(Answer::PasswordExpired)),
    ];
    let crash = prop_oneof![
        6 => Just(Crash::None),
        1 => Just(Crash::BeforeStore),
        1 => Just(Crash::AfterStore),
        1 => Just(Crash::AfterLogin),
    ];
    prop_oneof![
        2 => Just(Happening::Reset),
        1 => Just(Happening::NewPassword),
        4 => (0_usize..4).prop_map(Happening::Seen),
        3 => prop::option::weighted(0.9, 0_usize..3).prop_map(Happening::Known),
        4 => prop_oneof![1_i64..30, 250_i64..400, 800_i64..1000, Just(90_000)].prop_map(Happening::Passed),
        9 => (lie, crash).prop_map(|(lie, crash)| Happening::Login(lie, crash)),
        1 => Just(Happening::RollBack),
    ]
}

type Pair = (String, String);

/// Salesforce, the mails that it sent, and ourselves.
struct World {
    now: i64,
    tokens: Vec<i64>,
    passwords: usize,
    account: Account,
    password: Option<String>,
    /// Every login that got as far as Salesforce looking at it, its answer, and
    /// whether that was lost.
    logins: Vec<(Pair, i64, Answer, bool)>,
    /// What the others have: the entry.
    entry: Option<Pair>,
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            tokens: vec![0],
            passwords: 1,
            account: Account::new("u@x.y"),
            password: None,
            logins: Vec::new(),
            entry: None,
        }
    }

    fn valid(&self) -> Pair {
        let token = format!("print{}", self.tokens.len() - 1);
        (token, format!("password{}", self.passwords - 1))
    }

    fn step(&self, event: Event) -> Step {
        let password = self.password.as_deref();
        self.account.step(event, password, &RULES, at(self.now))
    }

    /// Carries a step out, as far as a crash lets it.
    fn carry_out(&mut self, step: &Step, lie: Option<Answer>, crash: Crash) {
        if crash == Crash::BeforeStore {
            return;
        }
        let begins = step.actions.contains(&Action::Check);
        // It is what the document says, and not what was in memory.
        self.account = from_document(&to_document(&step.account).unwrap()).unwrap();
        assert_eq!(self.account, step.account);
        if step.actions.contains(&Action::Publish) {
            let version = self.account.labelled(Label::Current).unwrap();
            let pair = (version.fingerprint.clone(), self.password.clone().unwrap());
            self.entry = Some(pair);
        }
        if !begins || crash == Crash::AfterStore {
            return;
        }
        let newest = self.account.newest().unwrap().fingerprint.clone();
        let pair = (newest, self.password.clone().unwrap());
        let answer = lie.unwrap_or(if pair == self.valid() {
            Answer::Works
        } else {
            Answer::Refused
        });
        if !matches!(answer, Answer::Unreachable | Answer::RateLimited) {
            let lost = crash == Crash::AfterLogin;
            self.logins.push((pair.clone(), self.now, answer, lost));
        }
        if crash != Crash::AfterLogin {
            let (token, password) = pair;
            let event = Event::Answered {
                token,
                password,
                answer,
            };
            let step = self.step(event);
            self.carry_out(&step, None, Crash::None);
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Reset => self.tokens.push(self.now),
            Happening::NewPassword => {
                self.tokens.push(self.now);
                self.passwords += 1;
            }
            Happening::Seen(back) => {
                let n = self.tokens.len().saturating_sub(back + 1);
                let step = self.step(notice(n, at(self.tokens[n])));
                self.carry_out(&step, None, Crash::None);
            }
            Happening::Known(back) => {
                self.password = back.map(|back| {
                    let n = self.passwords.saturating_sub(back + 1);
                    format!("password{n}")
                });
                let step = self.step(Event::Reconcile);
                self.carry_out(&step, None, Crash::None);
            }
            Happening::Passed(seconds) => self.now += seconds,
            Happening::Login(lie, crash) => {
                let step = self.step(Event::Due);
                self.carry_out(&step, lie, crash);
            }
            Happening::RollBack => {
                let step = self.step(Event::RollBack);
                self.carry_out(&step, None, Crash::None);
            }
        }
        // Two tokens are never made in the same second.
        self.now += 1;
    }

    /// Invariant 6.
    fn nobody_was_locked_out(&self) -> Result<(), TestCaseError> {
        let mut pairs: HashMap<&Pair, Vec<(i64, Answer, bool)>> = HashMap::new();
        for (pair, when, answer, lost) in &self.logins {
            let tries = pairs.entry(pair).or_default();
            tries.push((*when, *answer, *lost));
        }
        for ((token, _), tries) in &pairs {
            let n: usize = token.strip_prefix("print").unwrap().parse().unwrap();
            prop_assert!(tries.len() <= 2, "{tries:?}");
            if let [(first, answer, lost), (second, ..)] = tries.as_slice() {
                prop_assert!(first - self.tokens[n] < 900, "the mail was old: {tries:?}");
                prop_assert!(second - first >= 300, "{tries:?}");
                // What Salesforce has decided is not asked again, unless the
                // answer was lost in a crash.
                let decided = [Answer::Works, Answer::Locked, Answer::PasswordExpired];
                prop_assert!(*lost || !decided.contains(answer), "{tries:?}");
            }
        }
        let failed: Vec<i64> = self
            .logins
            .iter()
            .filter(|(_, _, answer, lost)| *lost || *answer != Answer::Works)
            .map(|(_, when, ..)| *when)
            .collect();
        for window in failed.windows(5) {
            prop_assert!(window[4] - window[0] >= 86_400, "five in a day: {failed:?}");
        }
        Ok(())
    }

    fn labels_are_in_order(&self) -> Result<(), TestCaseError> {
        let versions = &self.account.versions;
        prop_assert!(versions.len() <= MAX_VERSIONS);
        for label in [Label::Pending, Label::Current, Label::Previous] {
            prop_assert!(versions.iter().filter(|v| v.label == label).count() <= 1);
        }
        let wiped = |v: &Version| v.token.is_none() == (v.label == Label::Superseded);
        prop_assert!(versions.iter().all(wiped));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Mails in any order and again, passwords right and wrong, Salesforce out
    /// of order, crashes at every step: what must hold, holds after each.
    #[test]
    fn whatever_happens_the_invariants_hold(
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut world = World::new();
        for happening in happenings {
            let before = world.account.clone();
            let entry = world.entry.clone();
            let order = |account: &Account| account.labelled(Label::Current).map(|v| v.source.order());
            let is_person = matches!(happening, Happening::RollBack);
            world.happen(&happening);
            world.labels_are_in_order()?;
            world.nobody_was_locked_out()?;
            prop_assert!(world.account.generation >= before.generation);
            prop_assert_eq!(world.account == before, world.account.generation == before.generation);
            if is_person {
                continue;
            }
            // Never backwards.
            prop_assert!(order(&world.account) >= order(&before));
            let newest = |account: &Account| account.newest().map(|v| v.source.order());
            prop_assert!(newest(&world.account) >= newest(&before));
            // Nobody is handed what Salesforce has said no to.
            if let Some(pair) = world.entry.as_ref().filter(|_| world.entry != entry) {
                let (token, password) = pair;
                let barred = world.account.trial(token, password).is_some_and(|t| {
                    t.barred && t.answer != Some(Answer::Works)
                });
                let was_in_use = before.password.as_ref() == Some(password)
                    && before.labelled(Label::Current).is_some_and(|v| v.fingerprint == *token);
                prop_assert!(!barred || was_in_use, "{pair:?}");
            }
        }
        // Everything is put right: another reset, which overrules a person who
        // rolled back; all mails seen, the right password known, Salesforce
        // truthful.
        world.happen(&Happening::Reset);
        let unseen = world.tokens.len().min(4);
        for back in (0..unseen).rev() {
            world.happen(&Happening::Seen(back));
        }
        world.happen(&Happening::Known(Some(0)));
        world.happen(&Happening::Passed(90_000));
        for _ in 0..3 {
            world.happen(&Happening::Login(None, Crash::None));
            world.happen(&Happening::Passed(1_000));
        }
        world.nobody_was_locked_out()?;
        let valid = world.valid();
        let trial = world.account.trial(&valid.0, &valid.1);
        // Unless Salesforce itself has said no to it, it is in use now.
        let barred = trial.is_some_and(|t| t.barred && t.answer != Some(Answer::Works));
        if world.tokens.len() > 1 && !barred {
            let current = world.account.labelled(Label::Current).unwrap();
            prop_assert_eq!(&current.fingerprint, &valid.0);
            prop_assert_eq!(world.entry, Some(valid));
        }
    }

    /// Without a check the newest token is current in the end, whatever the
    /// order of arrival, with the password there or not at any time.
    #[test]
    fn the_newest_wins_in_any_order(
        arrivals in prop::collection::vec((1_usize..40, any::<bool>()), 1..80),
    ) {
        let mut account = Account::new("u@x.y");
        for (n, known) in &arrivals {
            let event = notice(*n, at(i64::try_from(*n).unwrap()));
            account = account.step(event, known.then_some("p"), &UNCHECKED, at(100)).account;
        }
        account = account.step(Event::Reconcile, Some("p"), &UNCHECKED, at(101)).account;
        let newest = arrivals.iter().map(|(n, _)| n).max().unwrap();
        let expected = format!("token{newest}");
        prop_assert_eq!(current(&account), Some(expected.as_str()));
        let document = to_document(&account).unwrap();
        prop_assert_eq!(from_document(&document).unwrap(), account);
    }
}
