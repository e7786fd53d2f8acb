//! Logins that are under way, and answers that cannot be written down.

use super::*;

/// A vault that cannot be read or written until what is given back is dropped.
struct Away(std::path::PathBuf);

impl Away {
    fn new(desk: &Rig) -> Self {
        let state = desk.folder.path().join("state");
        std::fs::rename(&state, state.with_extension("away")).unwrap();
        Self(state)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        std::fs::rename(self.0.with_extension("away"), &self.0).unwrap();
    }
}

/// A disk that is full when Salesforce refuses the credential: nobody is given it, however long it
/// takes until that can be written down.
#[test]
fn an_answer_that_cannot_be_written_down_is_kept() {
    let mut desk = Rig::new(&checked(USER));
    let now = Timestamp::now();
    desk.set_password(USER, "pass");
    desk.notice(USER, "token1", now - SignedDuration::from_hours(1));
    let jobs = desk.worker.begin_checks(now, 8).unwrap();
    let away = Away::new(&desk);
    assert!(answer(&mut desk, &jobs[0], Answer::Refused, now).is_err());
    let next = desk.worker.next_errand().unwrap().unwrap();
    assert!(next > now, "it is not tried again at once");
    // It still cannot be, and each wait is longer than the one before.
    assert!(desk.worker.begin_checks(next, 8).unwrap().is_empty());
    let later = desk.worker.next_errand().unwrap().unwrap();
    let before = next.duration_since(now);
    assert!(later.duration_since(next) > before, "{now} {next} {later}");
    assert_eq!(desk.worker.waiting().unwrap(), (0, 1));
    drop(away);

    // Whatever comes first: a round, or the next try.
    let later = later + SignedDuration::from_mins(30);
    let account = desk.worker.config.account(USER).cloned().unwrap();
    let reconciled = desk.worker.happen(&account, Event::Reconcile, later);
    assert!(reconciled.unwrap().is_none());
    assert_eq!(desk.deliver(later), []);
    assert!(desk.worker.begin_checks(later, 8).unwrap().is_empty());
    assert_eq!(desk.deliver(later), []);
    assert_eq!(desk.worker.credential(USER).unwrap(), None);
    let state = |desk: &mut Rig| desk.worker.credentials().unwrap().remove(0).state;
    assert_eq!(state(&mut desk), AccountState::LoginRefused);
    assert_eq!(desk.worker.next_errand().unwrap(), None);
    let mut desk = desk.restart(&checked(USER));
    assert_eq!(state(&mut desk), AccountState::LoginRefused);
}

/// The vault has it that the login was begun, so that it counts: it is made, too.
#[test]
fn a_login_that_the_journal_does_not_hear_of_is_made() {
    let mut desk = Rig::new(&checked(USER));
    let now = Timestamp::now();
    desk.set_password(USER, "pass");
    desk.notice(USER, "token1", now);
    desk.worker.journal.refuse(true);
    let jobs = desk.worker.begin_checks(now, 8).unwrap();
    assert_eq!(jobs.len(), 1);
    assert!(
        desk.worker.unsettled.contains_key(USER),
        "and it is told of"
    );
    assert!(answer(&mut desk, &jobs[0], Answer::Works, now).is_err());
    desk.worker.journal.refuse(false);
    let next = desk.worker.next_errand().unwrap().unwrap();
    assert!(desk.worker.begin_checks(next, 8).unwrap().is_empty());
    assert_eq!(desk.deliver(next), [pair(USER, "passtoken1")]);
    assert!(desk.worker.unsettled.is_empty());
}

/// A machine that has slept for an hour in the middle of a login, or whose clock was set.
#[test]
fn while_a_login_is_under_way_no_other_one_begins() {
    let mut desk = Rig::new(&checked(USER));
    let now = Timestamp::now();
    desk.set_password(USER, "pass");
    desk.notice(USER, "token1", now);
    let jobs = desk.worker.begin_checks(now, 8).unwrap();
    assert_eq!(jobs.len(), 1);
    // Neither with this pair nor with another one, and nobody is given anything.
    let later = now + SignedDuration::from_hours(1);
    assert!(desk.worker.begin_checks(later, 8).unwrap().is_empty());
    assert_eq!(desk.worker.next_errand().unwrap(), None);
    desk.set_password(USER, "other");
    assert!(desk.worker.begin_checks(later, 8).unwrap().is_empty());
    assert_eq!(desk.deliver(later), []);
    answer(&mut desk, &jobs[0], Answer::Refused, later).unwrap();
    let jobs = desk.worker.begin_checks(later, 8).unwrap();
    assert_eq!(jobs.len(), 1);
    answer(&mut desk, &jobs[0], Answer::Works, later).unwrap();
    assert_eq!(desk.deliver(later), [pair(USER, "othertoken1")]);
}
