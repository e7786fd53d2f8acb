//! What is due, for whom, and when: without a network and by a clock of our own.
#![expect(clippy::disallowed_methods, reason = "a test writes its configuration")]

use jiff::SignedDuration;

use super::super::errands::CheckJob;
use super::*;
use crate::INTERNAL_SERVICE;
use crate::api::{AccountState, AccountStatus};
use crate::judge::Finding;
use crate::notice::{Envelope, Notice, Username};
use crate::rotation::Answer;
use crate::rotation::Source;
use crate::sender::{Proof, Verdict};
use crate::sink::Credential;

mod logins;

const USER: &str = "mariana@idalko.com";

struct Rig {
    worker: Worker,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let worker = open(&folder, tables);
        Self { worker, folder }
    }

    /// Ends, and is started with other tables.
    fn restart(self, tables: &str) -> Self {
        let Self { worker, folder } = self;
        drop(worker);
        let worker = open(&folder, tables);
        Self { worker, folder }
    }

    fn set_password(&mut self, username: &str, password: &str) {
        let name = SecretName::Account(username.to_owned());
        let password = Secret::new(password.to_owned());
        self.worker.set_secret(&name, &password).unwrap();
    }

    /// A trusted mail that came at this moment.
    fn notice(&mut self, username: &str, token: &str, at: Timestamp) {
        let account = self.worker.config.account(username).cloned().unwrap();
        let token = Secret::new(token.to_owned());
        let event = Event::Notice {
            fingerprint: self.worker.fingerprint(&token, false).unwrap(),
            token,
            source: Source {
                mailbox: "ops".into(),
                folder: "INBOX".into(),
                uid_validity: 1,
                uid: 1,
                message_id: None,
                originated: at,
                received: at,
            },
            proof: "signed".into(),
        };
        let mut desk = self.worker.desk([&account]).unwrap();
        self.worker
            .take(&mut desk, &account, |_| Ok(event), false, false, at)
            .unwrap();
        self.worker.clear(desk, &[], at).unwrap();
    }

    /// A trusted mail, from its fetching on: what became of it.
    fn mail(&mut self, username: &str, token: &str, uid: u32) -> Outcome {
        let notice = Notice {
            username: Username::new(username),
            token: Secret::new(token.to_owned()),
        };
        let proof = Proof::Dkim {
            domain: "salesforce.com".into(),
            selector: "s".into(),
            date_signed: false,
        };
        let judgement = Judgement {
            envelope: Envelope {
                from: None,
                message_id: None,
                date: None,
            },
            finding: Finding::Notice(notice, Verdict::Trusted(proof)),
        };
        let report = Report {
            place: Place {
                mailbox: "ops".into(),
                folder: "INBOX".into(),
                uid_validity: 1,
                uid,
            },
            received: Timestamp::now(),
            content: Content::Judged(Box::new(judgement)),
            cursor: None,
            dry_run: false,
        };
        self.worker.receive(report).unwrap()
    }

    fn key(&self) -> Option<Secret> {
        let vault = &self.worker.vault;
        vault.read(INTERNAL_SERVICE, "fingerprint-key").unwrap()
    }

    /// Whom a sink is told of now, and what.
    fn deliveries(&mut self, now: Timestamp) -> Vec<Credential> {
        let jobs = self.worker.begin_deliveries(now, 8).unwrap();
        jobs.into_iter().map(|job| job.credential).collect()
    }

    fn deliver(&mut self, now: Timestamp) -> Vec<(String, String)> {
        let told = self.deliveries(now);
        for credential in &told {
            let key = ("sink", credential.username.as_str(), credential.id.as_str());
            self.worker.conclude(key, Ok(()), now).unwrap();
        }
        let pair = |told: Credential| (told.username, told.secret.expose().to_owned());
        told.into_iter().map(pair).collect()
    }

    /// Those that are looked after at a start.
    fn delivered(&mut self) -> Vec<String> {
        let jobs = self.worker.written_files().unwrap();
        jobs.into_iter()
            .map(|job| job.credential.username)
            .collect()
    }
}

fn open(folder: &tempfile::TempDir, tables: &str) -> Worker {
    let path = folder.path().join("tokenwatch.toml");
    let text = format!(
        "state-dir = \"{0}/state\"\n{tables}\n\
         [[sink]]\nkind = \"file\"\nname = \"sink\"\npath = \"{0}/{{username}}\"\n",
        folder.path().display()
    );
    std::fs::write(&path, text).unwrap();
    let config = Arc::new(Config::load(Some(&path)).unwrap());
    let board = Arc::new(Board::new(&config));
    let mut worker = Worker::open(config, board).unwrap();
    worker.start_up().unwrap();
    worker
}

fn unchecked(username: &str) -> String {
    format!("[[account]]\nusername = \"{username}\"\n")
}

fn checked(username: &str) -> String {
    unchecked(username) + "verify = \"soap\"\n"
}

/// What Salesforce says to a login that was handed out.
fn answer(
    desk: &mut Rig,
    job: &CheckJob,
    answer: Answer,
    now: Timestamp,
) -> Result<(), StateError> {
    let (token, password) = (job.token.clone(), job.password.clone());
    desk.worker
        .answered(&job.account.username, token, password, answer, now)
}

fn pair(username: &str, secret: &str) -> (String, String) {
    (username.to_owned(), secret.to_owned())
}

/// The file of the new one would hold the old one's credential after the next start.
#[test]
fn nobody_is_told_of_an_account_that_has_another_name_now() {
    for name in ["mariana.new@idalko.com", "Mariana@idalko.com"] {
        let now = Timestamp::now();
        let mut desk = Rig::new(&unchecked(USER));
        desk.set_password(USER, "old");
        desk.notice(USER, "token1", now);
        assert_eq!(desk.deliver(now), [pair(USER, "oldtoken1")]);

        let mut desk = desk.restart(&unchecked(name));
        desk.set_password(name, "new");
        let now = now + SignedDuration::from_secs(1);
        desk.notice(name, "token2", now);
        assert_eq!(desk.deliver(now), [pair(name, "newtoken2")]);
        assert_eq!(desk.delivered(), [name]);

        // What waits for the old name waits for nobody.
        let mut desk = desk.restart(&unchecked(USER));
        desk.set_password(USER, "newer");
        let mut desk = desk.restart(&unchecked(name));
        let told = desk.deliver(now + SignedDuration::from_mins(1));
        assert!(told.iter().all(|(told, _)| told == name), "{told:?}");
    }
}

/// A disk that is full when a sink was told: it is told again, but not at once and for ever.
#[test]
fn a_delivery_that_cannot_be_written_down_is_not_repeated_at_once() {
    let now = Timestamp::now();
    let mut desk = Rig::new(&unchecked(USER));
    desk.set_password(USER, "pass");
    desk.notice(USER, "token1", now);
    for ended in [true, false] {
        let now = Timestamp::now();
        let told = desk.deliveries(now);
        assert_eq!(told.len(), 1);
        desk.worker.journal.refuse(true);
        let failure = || Undelivered {
            code: "exit-code",
            error: "it failed".into(),
            hint: String::new(),
            is_persons: false,
            wait: None,
        };
        let ended = if ended { Ok(()) } else { Err(failure()) };
        let key = ("sink", USER, told[0].id.as_str());
        assert!(desk.worker.conclude(key, ended, now).is_err());
        assert_eq!(desk.deliveries(now).len(), 0);
        let next = desk.worker.next_errand().unwrap().unwrap();
        assert!(next >= now + SignedDuration::from_secs(5), "{next} {now}");
        desk.worker.journal.refuse(false);
        assert_eq!(desk.deliveries(next).len(), 1, "and is made up for");
        desk.worker.conclude(key, Err(failure()), next).unwrap();
        let next = desk.worker.next_errand().unwrap().unwrap();
        desk.worker.try_now().unwrap();
        assert!(next > now);
    }
}

/// A keyring from which somebody has taken the entry.
#[test]
fn a_delivery_whose_entry_is_gone_is_made_when_the_entry_is_back() {
    let now = Timestamp::now();
    let mut desk = Rig::new(&unchecked(USER));
    desk.set_password(USER, "pass");
    desk.notice(USER, "token1", now);
    let service = desk.worker.config.vault.service.clone();
    assert!(desk.worker.vault.remove(&service, USER).unwrap());
    assert_eq!(desk.deliver(now), []);
    desk.worker.tidy(false).unwrap();
    assert_eq!(desk.deliver(Timestamp::now()), [pair(USER, "passtoken1")]);
}

/// A machine that starts years fast, and is put right by NTP: nothing waits for those years.
#[test]
fn what_waits_goes_on_when_the_clock_is_set_back() {
    let wrong = Timestamp::now() + SignedDuration::from_hours(5 * 365 * 24);
    let mut desk = Rig::new(&checked(USER));
    desk.set_password(USER, "pass");
    desk.notice(USER, "token1", Timestamp::now());
    desk.worker.heed_clock(wrong).unwrap();
    let jobs = desk.worker.begin_checks(wrong, 8).unwrap();
    assert_eq!(jobs.len(), 1);
    answer(&mut desk, &jobs[0], Answer::Unreachable, wrong).unwrap();
    let now = Timestamp::now();
    desk.worker.heed_clock(now).unwrap();
    assert_eq!(desk.worker.begin_checks(now, 8).unwrap().len(), 1);

    let mut desk = desk.restart(&unchecked(USER));
    desk.set_password(USER, "pass");
    desk.worker.heed_clock(wrong).unwrap();
    let told = desk.deliveries(wrong);
    let failure = Undelivered {
        code: "unreachable",
        error: "it failed".into(),
        hint: String::new(),
        is_persons: false,
        wait: None,
    };
    let key = ("sink", USER, told[0].id.as_str());
    desk.worker.conclude(key, Err(failure), wrong).unwrap();
    let now = Timestamp::now();
    desk.worker.heed_clock(now).unwrap();
    assert_eq!(desk.deliver(now), [pair(USER, "passtoken1")]);
}

#[test]
fn a_password_whose_note_failed_is_made_up_for() {
    let mut desk = Rig::new(&unchecked(USER));
    let now = Timestamp::now();
    desk.set_password(USER, "old");
    desk.notice(USER, "token", now);
    desk.deliver(now);
    desk.worker.journal.refuse(true);
    let name = SecretName::Account(USER.to_owned());
    let password = Secret::new("new".to_owned());
    desk.worker.set_secret(&name, &password).unwrap_err();
    desk.worker.journal.refuse(false);
    desk.worker.tidy(false).unwrap();
    assert_eq!(
        desk.deliver(now + SignedDuration::from_mins(1)),
        [(USER.into(), "newtoken".into())]
    );
    assert!(desk.worker.unsettled.is_empty());
}

#[test]
fn only_another_place_or_form_is_another_delivery() {
    let account = unchecked(USER);
    let command = |more: &str| {
        format!("{account}[[sink]]\nkind = \"command\"\nname = \"program\"\nargv = [\"x\"]\n{more}")
    };
    let mut desk = Rig::new(&command(""));
    let now = Timestamp::now();
    desk.set_password(USER, "password");
    desk.notice(USER, "token", now);
    let told = desk.deliveries(now);
    for credential in &told {
        for sink in ["sink", "program"] {
            let key = (sink, credential.username.as_str(), credential.id.as_str());
            desk.worker.conclude(key, Ok(()), now).unwrap();
        }
    }
    let told = desk.deliveries(now);
    for credential in &told {
        let key = (
            "program",
            credential.username.as_str(),
            credential.id.as_str(),
        );
        desk.worker.conclude(key, Ok(()), now).unwrap();
    }
    let later = now + SignedDuration::from_mins(1);
    let mut desk = desk.restart(&command(
        "timeout = \"50s\"\naccounts = [\"mariana@idalko.com\"]\n",
    ));
    assert!(desk.deliveries(later).is_empty());
    let mut desk = desk.restart(&command("").replace("[\"x\"]", "[\"y\"]"));
    assert_eq!(desk.deliveries(later).len(), 1);
}

/// A program that prints a password after what `first` does.
fn program(folder: &tempfile::TempDir, first: &str) -> Vec<String> {
    let path = folder.path().join("program");
    std::fs::write(&path, format!("{first}\necho pass\n")).unwrap();
    ["/bin/sh".to_owned(), path.display().to_string()].into()
}

#[test]
fn a_password_that_is_kept_elsewhere_is_read_once_for_many_mails() {
    let desk = Rig::new("");
    let runs = desk.folder.path().join("runs");
    let argv = program(&desk.folder, &format!("echo run >> {}", runs.display()));
    let from = format!("password = \"command:{}\"\n", argv.join(" "));
    let mut desk = desk.restart(&(unchecked(USER) + &from));
    let runs = || std::fs::read_to_string(&runs).unwrap().lines().count();
    let before = runs();
    let account = desk.worker.config.account(USER).cloned().unwrap();
    let mut together = desk.worker.desk([&account]).unwrap();
    let now = Timestamp::now();
    for _ in 0..20 {
        let reconciled = desk
            .worker
            .let_happen(&mut together, &account, Event::Reconcile, now);
        reconciled.unwrap();
    }
    assert_eq!(runs(), before + 1);
    // Nothing of it is kept.
    desk.worker.reconcile(&account).unwrap();
    assert_eq!(runs(), before + 2);
}

/// The program waits until somebody else has had his answer from the worker.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_secret_elsewhere_keeps_nobody_from_the_worker() {
    let Rig { worker, folder } = Rig::new("");
    let (handle, _end) = start(worker).unwrap();
    let goes_on = folder.path().join("goes-on");
    let waits = format!("until [ -e {} ]; do sleep 0.01; done", goes_on.display());
    let source = SecretSource::Command(program(&folder, &waits));
    let name = SecretName::Mailbox("ops".to_owned());
    let others = async {
        handle.run(|_| Ok(())).await.unwrap();
        std::fs::write(&goes_on, "").unwrap();
    };
    let (secret, ()) = tokio::join!(handle.secret(&source, name), others);
    assert_eq!(secret.unwrap().unwrap().expose(), "pass");
}

/// A store that hides what it has: with another key a known token would look new, and a
/// refused one would be tried again.
#[test]
fn no_key_is_made_where_there_must_be_one() {
    const OTHER: &str = "new@idalko.com";
    let tables = unchecked(USER) + &unchecked(OTHER);
    let mut desk = Rig::new(&tables);
    desk.set_password(USER, "pass");
    assert_eq!(desk.mail(USER, "token1", 1).kind, Kind::Updated);
    let kept = desk.key().unwrap();
    let document = "document/mariana@idalko.com";
    let account = desk.worker.vault.read(INTERNAL_SERVICE, document).unwrap();
    let hide =
        |desk: &Rig, name| assert!(desk.worker.vault.remove(INTERNAL_SERVICE, name).unwrap());
    hide(&desk, "fingerprint-key");
    hide(&desk, document);

    let mut desk = desk.restart(&tables);
    desk.worker.make_vault().unwrap_err();
    for (username, why, uid) in [
        (USER, "kept for", 2),
        (OTHER, "the key of the fingerprints", 3),
    ] {
        let outcome = desk.mail(username, "token2", uid);
        assert_eq!(outcome.reason.as_deref(), Some("account-unreadable"));
        assert!(outcome.detail.unwrap().contains(why));
        // Nor does it come to rest before it is mended.
        desk.worker.tidy(true).unwrap();
        assert!(desk.worker.unsettled.contains_key(username));
        assert_eq!(desk.worker.undecided("ops", "INBOX", 1).unwrap(), [0; 0]);
    }
    assert_eq!(desk.key(), None);
    let states = desk.worker.credentials().unwrap();
    let is_unreadable = |status: &AccountStatus| status.state == AccountState::Unreadable;
    assert!(states.iter().all(is_unreadable), "{states:?}");

    for (name, secret) in [("fingerprint-key", kept), (document, account.unwrap())] {
        let vault = &desk.worker.vault;
        vault.write(INTERNAL_SERVICE, name, &secret).unwrap();
    }
    desk.worker.tidy(false).unwrap();
    assert!(desk.worker.unsettled.is_empty());
    let again = desk.worker.undecided("ops", "INBOX", 1).unwrap();
    assert_eq!(again, [2, 3]);
    assert_eq!(desk.mail(USER, "token2", 2).kind, Kind::Updated);
}
