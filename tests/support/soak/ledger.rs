//! Who was sent what, and what became of it: what a soak asks of the daemon.
//!
//! * A genuine mail is `updated`, `duplicate` or `older`, a forged one `held`, in
//!   the journal for each place that it is in, and the cursor of each folder is
//!   behind its last mail. Only a mail that was taken away before it was seen has
//!   no outcome.
//! * No token is taken twice.
//! * A credential is the password and a token that was sent, never an older one
//!   than before, and at the end the newest.
//! * The log has no panic, no error but that of a mailbox that a person must
//!   look at, and no password.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::fleet::{Fleet, PASSWORD};
use crate::support::mail::{RECEIVER, TokenMail, token};

/// The mails of an account are so far apart that older ones fit in between.
const APART: i64 = 16;

pub(super) struct Ledger {
    accounts: Vec<Account>,
    mails: BTreeMap<String, Sent>,
    /// Mails that the daemon has told of.
    noticed: BTreeSet<String>,
    lost: usize,
    unseen: usize,
    problems: Vec<String>,
    begin: Timestamp,
    tokens: u64,
}

struct Account {
    username: String,
    password: String,
    /// Every token that was sent, and its date in seconds from the beginning.
    tokens: HashMap<String, i64>,
    /// How many newest ones there were.
    newest: i64,
    newest_id: String,
    /// The date of the token in the credential.
    reached: Option<i64>,
}

struct Sent {
    mail: TokenMail,
    is_genuine: bool,
    /// In which mailboxes it was put.
    into: Vec<String>,
    /// A person has taken it away somewhere.
    was_taken: bool,
}

impl Ledger {
    pub(super) fn new(accounts: usize) -> Self {
        let account = |n| Account {
            username: format!("admin{n}@example.org"),
            password: format!("sf-Soak-{n}-"),
            tokens: HashMap::new(),
            newest: 0,
            newest_id: String::new(),
            reached: None,
        };
        let begin = Timestamp::now() - SignedDuration::from_hours(48);
        Self {
            accounts: (0..accounts).map(account).collect(),
            mails: BTreeMap::new(),
            noticed: BTreeSet::new(),
            lost: 0,
            unseen: 0,
            problems: Vec::new(),
            // A mail's date has whole seconds.
            begin: Timestamp::from_second(begin.as_second()).unwrap(),
            tokens: 0,
        }
    }

    pub(super) fn configuration(&self) -> String {
        let line =
            |account: &Account| format!("[[account]]\nusername = \"{}\"\n", account.username);
        self.accounts.iter().map(line).collect()
    }

    pub(super) fn passwords(&self) -> Vec<(String, String)> {
        let both = |account: &Account| (account.username.clone(), account.password.clone());
        self.accounts.iter().map(both).collect()
    }

    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn username(&self, account: usize) -> &str {
        &self.accounts[account].username
    }

    // --- what is sent ----------------------------------------------------

    /// A genuine mail that is newer than all before it.
    pub(super) fn newest(&mut self, account: usize) -> TokenMail {
        self.accounts[account].newest += 1;
        let mail = self.genuine(account, self.accounts[account].newest * APART);
        self.accounts[account]
            .newest_id
            .clone_from(&mail.message_id);
        mail
    }

    /// A genuine one that was late: others are newer.
    pub(super) fn older(&mut self, account: usize, rng: &mut Rng) -> TokenMail {
        let newest = self.accounts[account].newest * APART;
        let date = rng.i64(0..=newest);
        let taken = |date: i64| self.accounts[account].tokens.values().any(|d| *d == date);
        // Two of the same second have no order that a test could know of.
        let free = (1..date).rev().find(|date| !taken(*date));
        match free {
            Some(date) => self.genuine(account, date),
            None => self.newest(account),
        }
    }

    fn genuine(&mut self, account: usize, date: i64) -> TokenMail {
        let token = self.token();
        let account = &mut self.accounts[account];
        account.tokens.insert(token.clone(), date);
        let date = self.begin + SignedDuration::from_secs(date);
        TokenMail::new(&account.username, &token, date)
    }

    /// One that nobody at Salesforce has sent, newer than anything that was.
    pub(super) fn forged(&mut self, account: usize, rng: &mut Rng) -> TokenMail {
        let token = self.token();
        let username = &self.accounts[account].username;
        let mail = TokenMail::new(username, &token, Timestamp::now());
        match rng.u32(0..3) {
            0 => mail.forged(),
            1 => TokenMail {
                results: Some(format!("{RECEIVER}; dkim=fail header.d=salesforce.com")),
                ..mail
            },
            _ => TokenMail {
                results: Some("mx.example.net; dkim=pass header.d=salesforce.com".to_owned()),
                ..mail
            },
        }
    }

    /// A genuine one that was sent before.
    pub(super) fn one_again(&self, rng: &mut Rng) -> Option<TokenMail> {
        let genuine = self.mails.values().filter(|sent| sent.is_genuine);
        let genuine: Vec<_> = genuine.collect();
        Some(rng.choice(genuine)?.mail.clone())
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        token(self.tokens)
    }

    pub(super) fn delivered(&mut self, mail: &TokenMail, into: &str) {
        let is_genuine = self
            .accounts
            .iter()
            .any(|account| account.tokens.contains_key(&mail.token));
        let sent = self
            .mails
            .entry(mail.message_id.clone())
            .or_insert_with(|| Sent {
                mail: mail.clone(),
                is_genuine,
                into: Vec::new(),
                was_taken: false,
            });
        sent.into.push(into.to_owned());
    }

    /// Whether a mail may be taken away; it is, then.
    pub(super) fn may_go(&mut self, id: &str) -> bool {
        let is_newest = self.accounts.iter().any(|account| account.newest_id == id);
        if let Some(sent) = self.mails.get_mut(id).filter(|_| !is_newest) {
            sent.was_taken = true;
        }
        !is_newest
    }

    // --- what is seen ----------------------------------------------------

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        let what = what.into();
        // One fault may show itself every second.
        if !self.problems.contains(&what) {
            self.problems.push(what);
        }
    }

    /// A line of the daemon's log.
    pub(super) fn read(&mut self, line: &str) {
        if line.contains(PASSWORD) || line.contains("sf-Soak-") {
            self.wrong("a password is in the log");
        }
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            self.wrong(format!("not a line of a log: {line}"));
            return;
        };
        let event = line["event"].as_str().unwrap_or_default();
        if event == "mailbox.lost" {
            self.lost += 1;
        } else if line["level"] == "ERROR" || event.contains("panic") {
            self.wrong(line.to_string());
        }
        if let Some(id) = line["message_id"].as_str()
            && event.starts_with("notice.")
        {
            self.noticed.insert(id.to_owned());
        }
    }

    pub(super) fn noticed(&self) -> usize {
        self.noticed.len()
    }

    pub(super) fn has_noticed(&self, id: &str) -> bool {
        self.noticed.contains(id)
    }

    /// How many mails the daemon has not told of.
    pub(super) fn waiting(&self) -> usize {
        let waits = |id: &&String| !self.noticed.contains(*id);
        self.mails.keys().filter(waits).count()
    }

    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    pub(super) fn unseen(&self) -> usize {
        self.unseen
    }

    /// The credential of an account as it is now.
    pub(super) fn credential(&mut self, account: usize, now: Option<&str>) {
        let account = &mut self.accounts[account];
        let username = &account.username;
        let wrong = match (now, account.reached) {
            (None, None) => return,
            (None, Some(_)) => format!("the credential of {username} cannot be had"),
            (Some(now), before) => {
                let token = now.strip_prefix(&account.password);
                match token.and_then(|token| account.tokens.get(token)) {
                    None => format!("the credential of {username} is nothing that was sent"),
                    Some(date) if before.is_some_and(|before| *date < before) => {
                        format!("the credential of {username} went back to {date}")
                    }
                    Some(date) => {
                        account.reached = Some(*date);
                        return;
                    }
                }
            }
        };
        self.wrong(wrong);
    }

    pub(super) fn all_is_newest(&mut self) {
        for account in &self.accounts {
            let newest = account.newest * APART;
            if account.reached != Some(newest) {
                let (username, reached) = (&account.username, account.reached);
                let what = format!("{username} has the token of {reached:?} and not {newest}");
                self.problems.push(what);
            }
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        self.problems.clone()
    }

    // --- the journal -----------------------------------------------------

    /// Compares what is in the mailboxes with the journal of a daemon that has
    /// stopped.
    pub(super) fn balance(&mut self, journal: &Path, fleet: &Fleet) {
        // Nobody else has it open, so it can be read without a lock, which a
        // reader who may not write could not take.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let path = format!("file:{}?immutable=1", journal.display());
        let journal = Connection::open_with_flags(path, flags).unwrap();
        let outcomes = outcomes(&journal);
        self.every_mail_has_its_outcome(&outcomes);
        self.every_place_has_its_outcome(&outcomes, fleet);
        for (n, server) in fleet.servers.iter().enumerate() {
            let sql = "SELECT uid_validity, next_uid FROM cursor WHERE mailbox = ?1";
            let cursor: (u32, u32) = journal
                .query_row(sql, [format!("m{n}")], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap();
            let inbox = server.inbox();
            if cursor != (inbox.uid_validity, inbox.uid_next) {
                let end = (inbox.uid_validity, inbox.uid_next);
                self.wrong(format!("the cursor of m{n} is at {cursor:?}, not {end:?}"));
            }
            if server.flags_touched() {
                self.wrong(format!("m{n} was not left as it was"));
            }
        }
    }

    fn every_mail_has_its_outcome(&mut self, outcomes: &[Outcome]) {
        let mut by_id: HashMap<&str, Vec<&Outcome>> = HashMap::new();
        for outcome in outcomes {
            let id = outcome.message_id.as_deref().unwrap_or_default();
            by_id.entry(id).or_default().push(outcome);
        }
        let mut wrong = Vec::new();
        for (id, sent) in &self.mails {
            let found = by_id.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            let told = self.noticed.contains(id);
            if found.is_empty() && !told && sent.was_taken {
                self.unseen += 1;
            } else if found.is_empty() && !told {
                wrong.push(format!("{id} in {:?} has no outcome", sent.into));
            }
            let taken = found.iter().filter(|outcome| outcome.kind == "updated");
            if taken.count() > 1 {
                wrong.push(format!("{id} was taken twice: {found:?}"));
            }
            let is_right = |kind: &str| {
                let is_taken = matches!(kind, "updated" | "duplicate" | "older");
                if sent.is_genuine {
                    is_taken
                } else {
                    kind == "held"
                }
            };
            for outcome in found.iter().filter(|outcome| !is_right(&outcome.kind)) {
                wrong.push(format!("{id} is {outcome:?}"));
            }
        }
        for what in wrong {
            self.wrong(what);
        }
    }

    /// What is still in a mailbox has an outcome under the number that it has
    /// now.
    fn every_place_has_its_outcome(&mut self, outcomes: &[Outcome], fleet: &Fleet) {
        let places: BTreeSet<_> = outcomes.iter().map(Outcome::place).collect();
        for (n, server) in fleet.servers.iter().enumerate() {
            let name = format!("m{n}");
            let inbox = server.inbox();
            for (uid, raw) in &inbox.mails {
                let id = message_id(raw);
                let place = (name.as_str(), inbox.uid_validity, *uid, id.as_str());
                if self.mails.contains_key(&id) && !places.contains(&place) {
                    self.wrong(format!("no outcome for {place:?}"));
                }
            }
        }
    }
}

/// A row of the journal.
#[derive(Debug)]
struct Outcome {
    mailbox: String,
    uid_validity: u32,
    uid: u32,
    kind: String,
    message_id: Option<String>,
}

impl Outcome {
    fn place(&self) -> (&str, u32, u32, &str) {
        let id = self.message_id.as_deref().unwrap_or_default();
        (&self.mailbox, self.uid_validity, self.uid, id)
    }
}

fn outcomes(journal: &Connection) -> Vec<Outcome> {
    let sql = "SELECT mailbox, uid_validity, uid, kind, message_id FROM outcome";
    let mut query = journal.prepare(sql).unwrap();
    let rows = query.query_map([], |row| {
        Ok(Outcome {
            mailbox: row.get(0)?,
            uid_validity: row.get(1)?,
            uid: row.get(2)?,
            kind: row.get(3)?,
            message_id: row.get(4)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The Message-ID of a mail of ours.
pub(super) fn message_id(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Message-ID: <"));
    line.unwrap().trim_end_matches('>').to_owned()
}
