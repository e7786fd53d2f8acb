//! INBOX of the IMAP test server: its mails, each client's view of them, and the
//! sets of numbers that name some of them.

use std::io::{BufRead, Write};
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

use super::imap_query::{Refusal, decimal};

/// A mail. Its bytes are answered exactly as they were given.
pub struct Mail {
    pub uid: u32,
    pub received: Timestamp,
    pub raw: Arc<[u8]>,
}

impl Mail {
    pub fn received_utc(&self) -> DateTime {
        Offset::UTC.to_datetime(self.received)
    }

    /// The day in the `Date` field as the sender wrote it, whatever its zone,
    /// as SENTSINCE wants it.
    pub fn sent(&self) -> Option<Date> {
        let text = str::from_utf8(self.values("Date").next()?).ok()?;
        let date = mail_parser::DateTime::parse_rfc822(text)?;
        let (month, day) = (date.month.try_into().ok()?, date.day.try_into().ok()?);
        Date::new(date.year.try_into().ok()?, month, day).ok()
    }

    /// The header, and the empty line that ends it.
    pub fn header(&self) -> &[u8] {
        let fields: usize = self.fields().map(<[u8]>::len).sum();
        let end = (&self.raw[fields..]).skip_until(b'\n').unwrap();
        &self.raw[..fields + end]
    }

    /// The values of the fields with this name, still folded and encoded.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields()
            .filter_map(move |field| field_value(field, name))
    }

    /// The header's fields, each with its continuation lines. `skip_until` is a
    /// `memchr`, so that a search over thousands of mails is fast in a debug
    /// build too.
    pub fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.raw[..];
        std::iter::from_fn(move || {
            let start = rest;
            let mut length = rest.skip_until(b'\n').unwrap();
            while let [b' ' | b'\t', ..] = rest {
                length += rest.skip_until(b'\n').unwrap();
            }
            let field = &start[..length];
            (!matches!(field, b"" | b"\n" | b"\r\n")).then_some(field)
        })
    }
}

/// The value of a header field, if this is its name.
pub fn field_value<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = field.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
}

/// INBOX as it is now.
pub struct Mailbox {
    pub uid_validity: u32,
    pub uid_next: u32,
    pub mails: Vec<Arc<Mail>>,
    /// The UIDs of all mails that were taken away, in that order.
    expunged: Vec<u32>,
}

impl Mailbox {
    /// UIDVALIDITY is the time, as RFC 3501 advises, so that a client which
    /// remembers an earlier server sees a new mailbox.
    pub fn new() -> Self {
        Self {
            uid_validity: Timestamp::now().as_second().try_into().unwrap(),
            uid_next: 1,
            mails: Vec::new(),
            expunged: Vec::new(),
        }
    }

    pub fn add(&mut self, raw: Arc<[u8]>, received: Timestamp) -> u32 {
        let uid = self.uid_next;
        self.uid_next += 1;
        self.mails.push(Arc::new(Mail { uid, received, raw }));
        uid
    }

    pub fn expunge(&mut self, uid: u32) {
        if let Ok(index) = position(&self.mails, uid) {
            self.mails.remove(index);
            self.expunged.push(uid);
        }
    }

    pub fn renew(&mut self) {
        let uid_validity = self.uid_validity + 1;
        let mails = mem::replace(self, Self::new()).mails;
        self.uid_validity = uid_validity;
        for mail in mails {
            self.add(Arc::clone(&mail.raw), mail.received);
        }
    }
}

/// The mailbox as one client knows it: sequence numbers are positions here.
pub struct View {
    pub uid_validity: u32,
    /// The next UID, as far as the client knows.
    pub uid_next: u32,
    pub mails: Vec<Arc<Mail>>,
    /// How many of the mailbox's expunged mails the client knows of.
    expunged: usize,
}

impl View {
    pub fn of(mailbox: &Mailbox) -> Self {
        Self {
            uid_validity: mailbox.uid_validity,
            uid_next: mailbox.uid_next,
            mails: mailbox.mails.clone(),
            expunged: mailbox.expunged.len(),
        }
    }

    /// Tells the client what has changed. An expunged mail renumbers those
    /// after it, which RFC 3501 forbids while numbers are in use.
    pub fn catch_up(&mut self, mailbox: &Mailbox, may_renumber: bool, out: &mut Vec<u8>) {
        if self.uid_validity != mailbox.uid_validity {
            return; // This mailbox is no more, and its connections are being kicked.
        }
        if may_renumber {
            for uid in &mailbox.expunged[self.expunged..] {
                if let Ok(index) = position(&self.mails, *uid) {
                    self.mails.remove(index);
                    write!(out, "* {} EXPUNGE\r\n", index + 1).unwrap();
                }
            }
            self.expunged = mailbox.expunged.len();
        }
        let known = position(&mailbox.mails, self.uid_next).unwrap_or_else(|index| index);
        let new = &mailbox.mails[known..];
        if !new.is_empty() {
            self.mails.extend_from_slice(new);
            write!(out, "* {} EXISTS\r\n", self.mails.len()).unwrap();
        }
        self.uid_next = mailbox.uid_next;
    }

    pub fn last(&self) -> Last {
        Last {
            number: self.mails.len(),
            uid: self.mails.last().map_or(0, |mail| mail.uid as usize),
        }
    }

    /// The sequence numbers of the mails with these UIDs.
    pub fn with_uids(&self, set: &Set) -> Vec<usize> {
        let before = |uid| self.mails.partition_point(|mail| (mail.uid as usize) < uid);
        let numbers = |(low, high)| before(low) + 1..=before(high + 1);
        set.ranges().flat_map(numbers).collect()
    }
}

/// The highest numbers there are, which is what `*` means.
#[derive(Clone, Copy)]
pub struct Last {
    pub number: usize,
    pub uid: usize,
}

/// A sequence set: ranges with both ends, ascending and apart.
#[derive(Debug, PartialEq)]
pub struct Set(Vec<(usize, usize)>);

impl Set {
    /// UIDs, which need not exist. Ranges have no direction, so `9:*` with 9
    /// beyond the last finds the last mail.
    pub fn uids(text: &str, last: Last) -> Result<Self, Refusal> {
        Self::parse(text, last.uid)
    }

    /// Sequence numbers, which must exist.
    pub fn numbers(text: &str, last: Last) -> Result<Self, Refusal> {
        let set = Self::parse(text, last.number)?;
        let missing = |(low, high): &(usize, usize)| *low == 0 || *high > last.number;
        if set.0.iter().any(missing) {
            return Err("BAD no mail has this number");
        }
        Ok(set)
    }

    fn parse(text: &str, last: usize) -> Result<Self, Refusal> {
        let number = |text: &str| match text {
            "*" => Some(last),
            _ => decimal::<NonZeroU32>(text).map(|number| number.get() as usize),
        };
        let range = |part: &str| {
            let (one, other) = part.split_once(':').unwrap_or((part, part));
            let (one, other) = (number(one)?, number(other)?);
            Some((one.min(other), one.max(other)))
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let mut ranges = ranges.ok_or("BAD not a set of numbers")?;
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let overlap = next.0 <= kept.1;
            kept.1 = if overlap { kept.1.max(next.1) } else { kept.1 };
            overlap
        });
        Ok(Self(ranges))
    }

    pub fn ranges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().copied()
    }

    pub fn contains(&self, number: usize) -> bool {
        let after = self.0.partition_point(|(low, _)| *low <= number);
        let range = self.0[..after].last();
        range.is_some_and(|(_, high)| *high >= number)
    }
}

fn position(mails: &[Arc<Mail>], uid: u32) -> Result<usize, usize> {
    mails.binary_search_by_key(&uid, |mail| mail.uid)
}
