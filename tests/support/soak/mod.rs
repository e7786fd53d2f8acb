//! The soak: one daemon, many mailboxes, and everything that happens to them in
//! a bad month, in an hour or in a minute.
//!
//! A seed decides what happens: mails come, in any order, twice, forged; lines
//! are cut, servers stop, refuse, are numbered anew; the daemon is killed,
//! stopped and started again. Then all is made well, and everything must be
//! accounted for: each mail has its outcome, each account has the newest token,
//! and on the way no credential ever went back (`ledger` says what is asked).
//!
//! One thread does all of it, one thing after the other, so that a seed gives
//! the same decisions; when they fall upon the daemon is the machine's business.
//! Everything that was done stands in a file, between the lines of the daemon's
//! log.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a test fails by a panic and is no daemon; the hour and the minute use a part of it each"
)]

mod faults;
mod fleet;
mod ledger;
mod measure;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::Timestamp;
use rustix::process::Signal;

use crate::process::{Daemon, Machine};
use crate::support::mail::{TokenMail, newsletter};
use faults::Undo;
use fleet::Fleet;
use ledger::Ledger;
pub(crate) use measure::Figures;

/// How fast things happen.
pub(crate) struct Pace {
    /// The time between two mails, and between two faults, on average.
    pub mails: Duration,
    pub faults: Duration,
    /// The longest time that something stays stopped or refused.
    pub trouble: Duration,
    /// `idle-renew` and `poll` of every mailbox.
    pub idle_renew: &'static str,
    pub poll: &'static str,
    /// How many servers are in this process.
    pub servers: usize,
    /// A real Dovecot is among the servers.
    pub dovecot: bool,
    /// How long it may take until everything is seen once all is well: the
    /// longest that a mailbox may have to wait for its next attempt, and more.
    pub recovery: Duration,
}

impl Pace {
    /// For a minute, which is what a suite of tests may take.
    pub(crate) fn hurried() -> Self {
        Self {
            mails: Duration::from_millis(250),
            faults: Duration::from_millis(1200),
            trouble: Duration::from_secs(4),
            idle_renew: "4s",
            poll: "2s",
            servers: 10,
            dovecot: false,
            recovery: Duration::from_secs(120),
        }
    }

    /// For an hour.
    pub(crate) fn steady() -> Self {
        Self {
            mails: Duration::from_secs(1),
            faults: Duration::from_secs(5),
            trouble: Duration::from_secs(45),
            idle_renew: "10s",
            poll: "5s",
            servers: 13,
            dovecot: cfg!(feature = "system-tests"),
            // Ten logins in ten minutes, and the next one waits.
            recovery: Duration::from_secs(660),
        }
    }
}

/// What came of it.
pub(crate) struct Summary {
    /// What is wrong, a line each. There should be none.
    pub problems: Vec<String>,
    pub figures: Figures,
}

/// Lets things happen for so long, makes all well, and looks at what became of
/// it. `each_minute` is told how it goes; everything is written to `log`.
pub(crate) fn soak(
    seed: u64,
    duration: Duration,
    pace: Pace,
    log: &Path,
    each_minute: impl FnMut(&Figures),
) -> Summary {
    let mut soak = Soak::begin(seed, duration, pace, log);
    soak.everybody_sees("the beginning");
    soak.figures.descriptors_before = measure::descriptors(soak.daemon().pid());
    soak.let_things_happen(each_minute);
    soak.make_all_well();
    soak.everybody_sees("the end");
    soak.look_at_status();
    soak.end()
}

/// A soak that goes on.
struct Soak {
    pace: Pace,
    duration: Duration,
    rng: Rng,
    machine: Machine,
    daemon: Option<Daemon>,
    /// The daemon has been stopped by SIGSTOP.
    is_halted: bool,
    /// How many lines of its log have been read.
    known: usize,
    fleet: Fleet,
    ledger: Ledger,
    undos: Vec<(Instant, Undo)>,
    resyncs: Vec<Child>,
    log: File,
    begun: Instant,
    figures: Figures,
}

impl Soak {
    fn begin(seed: u64, duration: Duration, pace: Pace, log: &Path) -> Self {
        let mut rng = Rng::with_seed(seed);
        let fleet = Fleet::start(&pace);
        let ledger = Ledger::new(4);
        let machine = Machine::new("");
        let text = fleet.configuration(&pace, machine.folder.path()) + &ledger.configuration();
        machine.configure(&text);
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        for name in fleet.names() {
            machine.set_secret(&format!("mailbox/{name}"), fleet::PASSWORD);
        }
        for (username, password) in ledger.passwords() {
            machine.set_secret(&format!("account/{username}"), &password);
        }
        // So many that SEARCH is worth it in some of them.
        for post in 0..fleet.len() {
            let few = rng.usize(0..40);
            let many = if post % 4 == 0 { 300 } else { 0 };
            (0..few + many).for_each(|n| fleet.deliver(post, &newsletter(n)));
        }
        let daemon = machine.daemon();
        let mut soak = Self {
            pace,
            duration,
            rng,
            machine,
            daemon: Some(daemon),
            is_halted: false,
            known: 0,
            fleet,
            ledger,
            undos: Vec::new(),
            resyncs: Vec::new(),
            log: File::create(log).unwrap(),
            begun: Instant::now(),
            figures: Figures::default(),
        };
        soak.say(&format!("seed {seed}"));
        soak
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn let_things_happen(&mut self, mut each_minute: impl FnMut(&Figures)) {
        self.begun = Instant::now();
        let (mut mail, mut fault) = (self.begun, self.begun);
        let (mut second, mut minute) = (self.begun, self.begun + Duration::from_secs(60));
        let end = self.begun + self.duration;
        while Instant::now() < end {
            let now = Instant::now();
            self.undo(now);
            if now >= mail {
                self.deliver_something();
                mail = now + self.about(self.pace.mails);
            }
            if now >= fault {
                self.do_some_harm();
                fault = now + self.about(self.pace.faults);
            }
            if now >= second {
                self.look();
                // It has been started for the last time, and has seen some of
                // everything.
                if self.figures.resident_before == 0.0 && self.elapsed() > 0.5 {
                    self.figures.resident_before = measure::resident(self.daemon().pid());
                }
                second = now + Duration::from_secs(1);
            }
            if now >= minute {
                self.measure();
                each_minute(&self.figures);
                minute += Duration::from_secs(60);
            }
            // The next thing is due within a quarter of a second or so.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A time that is so long on average.
    fn about(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(0.2 + self.rng.f64() * 1.6)
    }

    // --- mails -----------------------------------------------------------

    fn deliver_something(&mut self) {
        let post = self.rng.usize(0..self.fleet.len());
        let account = self.rng.usize(0..self.ledger.accounts());
        match self.rng.u32(0..100) {
            0..45 => {
                self.deliver_newest(account, post);
            }
            45..57 => {
                let mail = self.ledger.older(account, &mut self.rng);
                self.deliver(post, &mail);
            }
            // A filter, or a list: the same mail in two mailboxes.
            57..65 => {
                let mail = self.ledger.newest(account);
                let other = self.rng.usize(0..self.fleet.len());
                self.deliver(post, &mail);
                self.deliver(other, &mail);
            }
            65..70 => {
                if let Some(mail) = self.ledger.one_again(&mut self.rng) {
                    self.deliver(post, &mail);
                }
            }
            70..85 => {
                let mail = self.ledger.forged(account, &mut self.rng);
                self.deliver(post, &mail);
            }
            _ => {
                let number = self.rng.usize(0..1_000_000);
                self.fleet.deliver(post, &newsletter(number));
            }
        }
        self.figures.mails += 1;
    }

    fn deliver_newest(&mut self, account: usize, post: usize) -> String {
        let mail = self.ledger.newest(account);
        self.deliver(post, &mail);
        mail.message_id
    }

    fn deliver(&mut self, post: usize, mail: &TokenMail) {
        self.ledger.delivered(mail, self.fleet.name(post));
        self.fleet.deliver(post, &mail.bytes());
        self.say(&format!(
            "mail {} into {}",
            mail.message_id,
            self.fleet.name(post)
        ));
    }

    // --- what is seen ----------------------------------------------------

    /// Reads the log and the credentials.
    fn look(&mut self) {
        self.read_log();
        if self.daemon().has_ended() {
            self.ledger.wrong("the daemon has ended by itself");
            self.start_daemon();
        }
        self.read_credentials();
        self.resyncs
            .retain_mut(|resync| resync.try_wait().unwrap().is_none());
    }

    fn read_log(&mut self) {
        let lines = self.daemon().lines_after(self.known);
        self.known += lines.len();
        for line in lines {
            self.ledger.read(&line);
            writeln!(self.log, "{line}").unwrap();
        }
        self.figures.noticed = self.ledger.noticed();
        self.figures.lost = self.ledger.lost();
    }

    /// Nobody answers while the daemon is halted.
    fn read_credentials(&mut self) {
        if self.is_halted {
            return;
        }
        for account in 0..self.ledger.accounts() {
            let username = self.ledger.username(account).to_owned();
            let credential = self.machine.credential(&username);
            self.ledger.credential(account, credential.as_deref());
        }
    }

    fn measure(&mut self) {
        let pid = self.daemon().pid();
        self.figures.minutes = self.begun.elapsed().as_secs() / 60;
        self.figures.resident = measure::resident(pid);
        self.figures.descriptors = measure::descriptors(pid);
        self.figures.waiting = self.ledger.waiting();
    }

    /// A mail into each folder, and until all of them are seen: what came
    /// before them was seen too.
    fn everybody_sees(&mut self, when: &str) {
        let begun = Instant::now();
        let mut waiting: Vec<(String, String)> = Vec::new();
        for post in 0..self.fleet.len() {
            let id = self.deliver_newest(post % self.ledger.accounts(), post);
            waiting.push((id, self.fleet.name(post).to_owned()));
        }
        loop {
            self.look();
            waiting.retain(|(id, _)| !self.ledger.has_noticed(id));
            if waiting.is_empty() {
                break;
            }
            if begun.elapsed() > self.pace.recovery {
                for (id, name) in waiting {
                    let wrong = format!("at {when} {name} does not see {id}");
                    self.ledger.wrong(wrong);
                }
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.figures.recovery = begun.elapsed();
        self.say(&format!("everybody has seen {when}"));
    }

    fn look_at_status(&mut self) {
        let begun = Instant::now();
        let is_well = |status: &serde_json::Value| {
            let mailboxes = status["mailboxes"].as_array().unwrap();
            let is_watched = |mailbox: &serde_json::Value| {
                mailbox["state"] == "watching" || mailbox["state"] == "polling"
            };
            mailboxes.iter().all(is_watched)
        };
        loop {
            let status = self.machine.status();
            if is_well(&status) {
                break;
            }
            if begun.elapsed() > Duration::from_secs(20) {
                self.ledger.wrong(format!("not all is watched: {status}"));
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.measure();
    }

    /// Stops the daemon, and reads in its journal what became of everything.
    fn end(mut self) -> Summary {
        self.ledger.all_is_newest();
        self.compare_with_the_beginning();
        self.daemon().signal(Signal::TERM);
        let mut daemon = self.daemon.take().unwrap();
        if !daemon.wait().success() {
            self.ledger.wrong("the daemon did not stop in order");
        }
        self.daemon = Some(daemon);
        self.read_log();
        self.read_credentials();
        self.ledger.all_is_newest();
        for mut resync in self.resyncs.drain(..) {
            resync.wait().unwrap();
        }
        let journal = self.machine.state_dir().join("journal.db");
        self.ledger.balance(&journal, &self.fleet);
        self.figures.unseen = self.ledger.unseen();
        let problems = self.ledger.problems();
        for problem in &problems {
            self.say(&format!("WRONG: {problem}"));
        }
        Summary {
            problems,
            figures: self.figures,
        }
    }

    fn compare_with_the_beginning(&mut self) {
        let figures = &self.figures;
        let grown = figures.resident - figures.resident_before;
        if figures.resident_before > 0.0 && grown > 4.0 {
            self.ledger.wrong(format!("it has grown by {grown:.1} MiB"));
        }
        // A connection that is just being renewed counts twice.
        if figures.descriptors > figures.descriptors_before + 2 {
            self.ledger.wrong(format!(
                "{} descriptors were {}",
                figures.descriptors, figures.descriptors_before
            ));
        }
    }

    fn say(&mut self, what: &str) {
        writeln!(self.log, "{} # {what}", Timestamp::now()).unwrap();
    }

    fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() / self.duration.as_secs_f64()
    }

    // --- the daemon ------------------------------------------------------

    fn start_daemon(&mut self) {
        self.read_log();
        self.is_halted = false;
        self.known = 0;
        self.daemon = Some(self.machine.daemon());
        self.figures.starts += 1;
    }

    /// Ends it, by SIGKILL or in order, and starts it again.
    fn restart_daemon(&mut self, signal: Signal) {
        self.daemon().signal(signal);
        // One that is halted hears nothing but SIGKILL.
        self.daemon().signal(Signal::CONT);
        let mut daemon = self.daemon.take().unwrap();
        let ended = daemon.wait();
        if signal == Signal::TERM && !ended.success() {
            self.ledger.wrong("the daemon did not stop in order");
        }
        self.daemon = Some(daemon);
        self.is_halted = false;
        self.read_log();
        // The vault as it was left.
        self.read_credentials();
        self.start_daemon();
    }

    fn resync(&mut self) {
        let mut resync = self.machine.command(&["resync", "--since", "all"]);
        resync.stdin(Stdio::null()).stdout(Stdio::null());
        let resync = resync.stderr(Stdio::null()).spawn().unwrap();
        self.resyncs.push(resync);
    }
}
