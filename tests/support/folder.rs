//! What a server that is well says of one folder, command by command, for a
//! scripted server to say it, or something else.

use std::collections::BTreeMap;

use super::mail::TokenMail;

/// A folder, and what the server can do.
#[derive(Clone)]
pub struct Folder {
    pub capabilities: &'static str,
    pub uid_validity: Option<u32>,
    pub uid_next: Option<u32>,
    /// HIGHESTMODSEQ (RFC 7162).
    pub mod_seq: Option<u64>,
    /// UIDs and mails, in order.
    pub mails: Vec<(u32, String)>,
    /// The days of the mails that did not come today.
    pub days: BTreeMap<u32, &'static str>,
}

impl Folder {
    pub fn empty() -> Self {
        Self {
            capabilities: "IMAP4rev1 IDLE",
            uid_validity: Some(1),
            uid_next: Some(1),
            mod_seq: None,
            mails: Vec::new(),
            days: BTreeMap::new(),
        }
    }

    /// Another mail in it, and UIDNEXT behind it.
    #[must_use]
    pub fn and(mut self, uid: u32, mail: &[u8]) -> Self {
        let mail = String::from_utf8(mail.to_vec()).unwrap();
        self.mails.push((uid, mail));
        self.uid_next = Some(uid + 1);
        self
    }

    /// Another token mail in it.
    #[must_use]
    pub fn with(self, uid: u32, mail: &TokenMail) -> Self {
        self.and(uid, &mail.bytes())
    }

    /// The mail came on another day.
    #[must_use]
    pub fn on(mut self, uid: u32, day: &'static str) -> Self {
        self.days.insert(uid, day);
        self
    }

    pub fn greeting(&self) -> String {
        format!("* OK [CAPABILITY {}] answering\r\n", self.capabilities)
    }

    /// The answer to a command.
    pub fn answer(&self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        match words[..] {
            ["LOGIN", ..] | ["AUTHENTICATE", _, _] => {
                format!("TAG OK [CAPABILITY {}] in\r\n", self.capabilities)
            }
            ["CAPABILITY"] => format!("* CAPABILITY {}\r\nTAG OK done\r\n", self.capabilities),
            ["EXAMINE" | "SELECT", ..] => self.opened(),
            ["UID", "FETCH", set, ..] => self.fetch(&self.by_uid(set), command),
            ["FETCH", set, ..] => self.fetch(&self.by_number(set), command),
            ["UID", "SEARCH", "UID", set, ..] => self.search(set, command),
            ["IDLE"] => "+ idling\r\n".to_owned(),
            _ => "TAG OK done\r\n".to_owned(),
        }
    }

    fn opened(&self) -> String {
        let said = |name: &str, value: Option<u64>| {
            value.map_or_else(String::new, |value| format!("* OK [{name} {value}] ok\r\n"))
        };
        format!(
            "* {} EXISTS\r\n{}{}{}TAG OK done\r\n",
            self.mails.len(),
            said("UIDVALIDITY", self.uid_validity.map(u64::from)),
            said("UIDNEXT", self.uid_next.map(u64::from)),
            said("HIGHESTMODSEQ", self.mod_seq)
        )
    }

    /// The sequence numbers in a set of UIDs. `*` is the last mail, always
    /// (RFC 3501, section 9, `seq-number`).
    pub fn by_uid(&self, set: &str) -> Vec<usize> {
        let last = self.mails.last().map_or(0, |(uid, _)| *uid);
        let ranges = ranges(set, last);
        (1..=self.mails.len())
            .filter(|number| ranges.iter().any(|r| r.contains(&self.mails[number - 1].0)))
            .collect()
    }

    fn by_number(&self, set: &str) -> Vec<usize> {
        let last = u32::try_from(self.mails.len()).unwrap();
        let ranges = ranges(set, last);
        (1..=last)
            .filter(|number| ranges.iter().any(|r| r.contains(number)))
            .map(|number| number as usize)
            .collect()
    }

    fn fetch(&self, numbers: &[usize], command: &str) -> String {
        let lines = numbers.iter().map(|number| self.fetched(*number, command));
        lines.collect::<String>() + "TAG OK done\r\n"
    }

    /// One mail as a FETCH with these items shows it.
    pub fn fetched(&self, number: usize, items: &str) -> String {
        let (uid, mail) = &self.mails[number - 1];
        let literal = |text: &str| format!("{{{}}}\r\n{text}", text.len());
        if items.contains("RFC822.SIZE") {
            let is_wanted =
                |line: &&str| line.starts_with("From: ") || line.starts_with("Subject: ");
            let header = mail.split("\r\n\r\n").next().unwrap_or_default();
            let fields: Vec<&str> = header.split("\r\n").filter(is_wanted).collect();
            let day = self.days.get(uid).unwrap_or(&"TODAY");
            format!(
                "* {number} FETCH (UID {uid} RFC822.SIZE {} INTERNALDATE \"{day} 00:00:00 +0000\" \
                 BODY[HEADER.FIELDS (FROM SUBJECT)]<0> {})\r\n",
                mail.len(),
                literal(&format!("{}\r\n\r\n", fields.join("\r\n")))
            )
        } else if items.contains("BODY.PEEK[]") {
            format!(
                "* {number} FETCH (UID {uid} BODY[]<0> {})\r\n",
                literal(mail)
            )
        } else {
            format!("* {number} FETCH (UID {uid})\r\n")
        }
    }

    /// The mails in which one of the quoted words stands.
    fn search(&self, set: &str, command: &str) -> String {
        let words: Vec<&str> = command.split('"').skip(1).step_by(2).collect();
        let found: Vec<String> = self
            .by_uid(set)
            .into_iter()
            .map(|number| &self.mails[number - 1])
            .filter(|(_, mail)| words.iter().any(|word| mail.contains(word)))
            .map(|(uid, _)| format!(" {uid}"))
            .collect();
        let found = found.concat();
        format!("* SEARCH{found}\r\nTAG OK done\r\n")
    }
}

fn ranges(set: &str, last: u32) -> Vec<std::ops::RangeInclusive<u32>> {
    let number = |word: &str| {
        if word == "*" {
            last
        } else {
            word.parse().unwrap()
        }
    };
    set.split(',')
        .map(|range| {
            let (a, b) = range.split_once(':').unwrap_or((range, range));
            let (a, b) = (number(a), number(b));
            a.min(b)..=a.max(b)
        })
        .collect()
}
