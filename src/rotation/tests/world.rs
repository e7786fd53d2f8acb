//! The rotation against a Salesforce that can be asked what is true.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

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
    /// Our clock is wrong from now on by so many seconds.
    Clock(i64),
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
        1 => Just(Some(Answer::NotMade)),
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

/// The same, and a clock that is fast or slow now and then.
fn with_a_clock() -> impl Strategy<Value = Happening> {
    let wrong = prop_oneof![
        2 => Just(0),
        1 => Just(-50_000_000),
        2 => -4_000_i64..4_000,
        2 => Just(30 * 86_400),
    ];
    prop_oneof![8 => happening(), 1 => wrong.prop_map(Happening::Clock)]
}

type Pair = (String, String);

/// Salesforce, the mails that it sent, and ourselves.
struct World {
    now: i64,
    /// By so much our clock is fast.
    wrong: i64,
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
            wrong: 0,
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
        self.account
            .step(event, password, &RULES, at(self.now + self.wrong))
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
        if !matches!(
            answer,
            Answer::Unreachable | Answer::RateLimited | Answer::NotMade
        ) {
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
            Happening::Clock(wrong) => self.wrong = wrong,
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

    /// Everything is put right: the clock; another reset, which overrules a person
    /// who rolled back; all mails seen, the right password known, Salesforce
    /// truthful. A day later the credential is in use.
    fn comes_right(&mut self) -> Result<(), TestCaseError> {
        self.happen(&Happening::Clock(0));
        self.happen(&Happening::Reset);
        let unseen = self.tokens.len().min(4);
        for back in (0..unseen).rev() {
            self.happen(&Happening::Seen(back));
        }
        self.happen(&Happening::Known(Some(0)));
        self.happen(&Happening::Passed(90_000));
        for _ in 0..3 {
            self.happen(&Happening::Login(None, Crash::None));
            self.happen(&Happening::Passed(1_000));
        }
        let valid = self.valid();
        let trial = self.account.trial(&valid.0, &valid.1);
        // Unless Salesforce itself has said no to it, it is in use now.
        let barred = trial.is_some_and(|t| t.barred && t.answer != Some(Answer::Works));
        if self.tokens.len() > 1 && !barred {
            let current = self.account.labelled(Label::Current).unwrap();
            prop_assert_eq!(&current.fingerprint, &valid.0);
            prop_assert_eq!(&self.entry, &Some(valid));
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
        world.comes_right()?;
        world.nobody_was_locked_out()?;
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the clock says: no pair is tried a third time, and what a wrong one
    /// has noted keeps nothing waiting once it is right.
    #[test]
    fn a_wrong_clock_locks_nobody_out_and_keeps_nobody_waiting(
        happenings in prop::collection::vec(with_a_clock(), 1..60),
    ) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(&happening);
            world.labels_are_in_order()?;
        }
        world.comes_right()?;
        let mut tries = HashMap::new();
        for (pair, ..) in &world.logins {
            let tries = tries.entry(pair).or_insert(0);
            *tries += 1;
            prop_assert!(*tries <= 2, "{pair:?}");
        }
    }
}
