//! What is done to the servers and to the daemon, and how it is undone.
//!
//! The servers at the front of the fleet are hit often, the last ones seldom:
//! so some mailboxes live with the longest waits between two attempts, and
//! others are watched for so long that theirs begin anew.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Soak;
use super::fleet::PASSWORD;
use super::ledger::message_id;

/// What ends a trouble.
#[derive(Clone, Copy)]
pub(super) enum Undo {
    Accept(usize),
    AllowLogins(usize),
    AllowSearch(usize),
    LetDaemonGoOn,
    #[cfg(feature = "system-tests")]
    LetDovecotGoOn,
}

impl Soak {
    pub(super) fn do_some_harm(&mut self) {
        self.figures.faults += 1;
        let choice = self.rng.u32(0..100);
        #[cfg(feature = "system-tests")]
        if self.fleet.dovecot.is_some() && choice < 20 {
            return self.harm_dovecot();
        }
        if choice < 30 {
            self.harm_the_daemon();
        } else {
            self.harm_a_server();
        }
    }

    fn harm_a_server(&mut self) {
        let n = (self.rng.f64().powi(2) * self.fleet.servers.len() as f64) as usize;
        let server = self.fleet.servers[n].clone();
        let what = match self.rng.u32(0..100) {
            0..25 => {
                server.kick();
                "is kicked"
            }
            25..43 => {
                server.cut();
                "is cut"
            }
            43..60 => {
                server.reset();
                "is reset"
            }
            60..68 => {
                server.stop_accepting(true);
                server.cut();
                self.later(Undo::Accept(n));
                "is cut and accepts nobody"
            }
            68..73 => {
                server.refuse_logins(true);
                server.kick();
                self.later(Undo::AllowLogins(n));
                "kicks and refuses logins"
            }
            73..80 => {
                server.refuse_search(true);
                self.later(Undo::AllowSearch(n));
                "refuses SEARCH"
            }
            80..86 => {
                server.refuse_search(self.rng.bool());
                server.reset_uidvalidity();
                self.later(Undo::AllowSearch(n));
                "is numbered anew"
            }
            _ => {
                self.expunge(n);
                "loses mails"
            }
        };
        self.say(&format!("m{n} {what}"));
    }

    /// Takes mails away, as a person who tidies up, but never the one that an
    /// account's credential comes from.
    fn expunge(&mut self, n: usize) {
        let mails = self.fleet.servers[n].inbox().mails;
        for _ in 0..3 {
            let Some((uid, raw)) = self.rng.choice(&mails) else {
                return;
            };
            let id = message_id(raw);
            if self.ledger.may_go(&id) {
                self.fleet.servers[n].expunge(*uid);
                self.say(&format!("mail {id} goes from m{n}"));
            }
        }
    }

    /// A signal to it, or a resync. In the second half of the time it stays the
    /// same process, so that it can be seen whether it grows.
    fn harm_the_daemon(&mut self) {
        let early = self.elapsed() < 0.4;
        let what = match self.rng.u32(0..100) {
            0..35 if early => {
                self.restart_daemon(Signal::KILL);
                "is killed"
            }
            35..50 if early => {
                self.restart_daemon(Signal::TERM);
                "is restarted"
            }
            50..70 => {
                self.daemon().signal(Signal::STOP);
                self.is_halted = true;
                self.later(Undo::LetDaemonGoOn);
                "is halted"
            }
            70..85 => {
                self.resync();
                "looks through everything again"
            }
            _ => return self.harm_a_server(),
        };
        self.say(&format!("the daemon {what}"));
    }

    #[cfg(feature = "system-tests")]
    fn harm_dovecot(&mut self) {
        let choice = self.rng.u32(0..100);
        let dovecot = self.fleet.dovecot.as_mut().unwrap();
        // Its own programs would wait for one that is frozen.
        dovecot.resume();
        let what = match choice {
            0..45 => {
                dovecot.kick_if_any();
                "is kicked"
            }
            45..60 => {
                // It fails where there is no session at all.
                if dovecot.sessions() > 1 {
                    dovecot.pause();
                }
                "pauses its sessions"
            }
            60..70 => {
                dovecot.freeze();
                "is frozen"
            }
            70..80 => {
                dovecot.restart();
                "is restarted"
            }
            80..90 => {
                dovecot.stop();
                dovecot.forget_uids();
                dovecot.restart();
                "is restarted and numbered anew"
            }
            _ => {
                dovecot.stop();
                let (from, to) = if choice.is_multiple_of(2) {
                    ("INBOX", "Tokens")
                } else {
                    ("Tokens", "INBOX")
                };
                dovecot.refile(from, to);
                dovecot.restart();
                "is restarted with its mails in another folder"
            }
        };
        if (45..70).contains(&choice) {
            self.later(Undo::LetDovecotGoOn);
        }
        self.say(&format!("Dovecot {what}"));
    }

    // --- and its end -----------------------------------------------------

    fn later(&mut self, undo: Undo) {
        let after = self.pace.trouble.mul_f64(0.1 + self.rng.f64() * 0.9);
        self.undos.push((Instant::now() + after, undo));
    }

    /// Ends what is due.
    pub(super) fn undo(&mut self, now: Instant) {
        let (due, others) = std::mem::take(&mut self.undos)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.undos = others;
        let due: Vec<(Instant, Undo)> = due;
        for (_, undo) in due {
            self.end_trouble(undo);
        }
    }

    pub(super) fn make_all_well(&mut self) {
        self.say("all is made well");
        self.undo(Instant::now() + Duration::from_secs(24 * 3600));
        for server in &self.fleet.servers {
            server.refuse_search(false);
        }
    }

    fn end_trouble(&mut self, undo: Undo) {
        match undo {
            Undo::Accept(n) => self.fleet.servers[n].stop_accepting(false),
            Undo::AllowSearch(n) => self.fleet.servers[n].refuse_search(false),
            Undo::AllowLogins(n) => {
                self.fleet.servers[n].refuse_logins(false);
                // A person who sets the password again needs an answer.
                if !self.is_halted {
                    self.machine.set_secret(&format!("mailbox/m{n}"), PASSWORD);
                }
            }
            Undo::LetDaemonGoOn => {
                self.daemon().signal(Signal::CONT);
                self.is_halted = false;
            }
            #[cfg(feature = "system-tests")]
            Undo::LetDovecotGoOn => self.fleet.dovecot.as_ref().unwrap().resume(),
        }
    }
}
