//! Mails: found, listed, fetched, and left as they were (BODY.PEEK).

use async_imap::imap_proto::{AttributeValue, MailboxDatum, Response};
use jiff::Timestamp;

use super::Session;
use crate::mailbox::wire::{head, uid_of};
use crate::mailbox::{Excess, MailboxError};

/// How much of a mail's headers is looked at before it is fetched, in bytes.
const HEAD: usize = 16 * 1024;

/// No list that is asked for has more mails, and no answer of SEARCH, which is
/// a line, finds more.
const LISTED: usize = 1 << 20;
const FOUND: usize = 1 << 18;

/// What is looked at before a mail is fetched.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its sequence number: the mails of a folder are 1 to EXISTS.
    pub sequence: u32,
    /// Its UID.
    pub uid: u32,
    /// Its size in bytes, as the server counts.
    pub size: u32,
    /// INTERNALDATE: when the server received it; `None` where it cannot be read.
    pub received: Option<Timestamp>,
    /// Its `From` and `Subject` fields; `None` where the server says NIL.
    pub fields: Option<Vec<u8>>,
}

/// Which mails (RFC 3501, section 9, `sequence-set`).
#[derive(Clone, Copy, Debug)]
pub(in crate::mailbox) enum Set<'a> {
    /// By UID.
    Uids(&'a str),
    /// By sequence number.
    Numbers(&'a str),
}

impl Set<'_> {
    fn fetch(self, items: &str) -> String {
        match self {
            Self::Uids(set) => format!("UID FETCH {set} {items}"),
            Self::Numbers(set) => format!("FETCH {set} {items}"),
        }
    }
}

impl Session {
    /// The UIDs that match `keys`, in order; `None` where the server refuses
    /// to search.
    pub async fn search(&mut self, keys: &str) -> Result<Option<Vec<u32>>, MailboxError> {
        const DOING: &str = "SEARCH";
        let mut found: Option<Vec<u32>> = None;
        let mut is_too_much = false;
        let tag = self.send(DOING, &format!("UID SEARCH {keys}")).await?;
        let answer = self
            .until_done(DOING, &tag, |response| {
                if let Response::MailboxData(MailboxDatum::Search(uids)) = response {
                    let found = found.get_or_insert_default();
                    is_too_much |= uids.len() > FOUND.saturating_sub(found.len());
                    if !is_too_much {
                        found.extend(uids);
                    }
                }
            })
            .await?;
        if is_too_much {
            return Err(Excess::Mails(FOUND).into());
        }
        // OK without any answer is no answer.
        Ok(found
            .filter(|_| answer.refusal().is_none())
            .map(|mut uids| {
                uids.sort_unstable();
                uids.dedup();
                uids
            }))
    }

    /// All UIDs of a set, in order.
    pub(in crate::mailbox) async fn uids(
        &mut self,
        set: Set<'_>,
    ) -> Result<Vec<u32>, MailboxError> {
        let listed = self.numbered(set).await?;
        Ok(listed.into_iter().map(|(uid, _)| uid).collect())
    }

    /// The same, each with its sequence number.
    pub(in crate::mailbox) async fn numbered(
        &mut self,
        set: Set<'_>,
    ) -> Result<Vec<(u32, u32)>, MailboxError> {
        let mut listed = Vec::new();
        let mut is_too_much = false;
        self.command("FETCH", &set.fetch("(UID)"), |response| {
            if let Response::Fetch(sequence, items) = response
                && let Some(uid) = uid_of(items)
            {
                is_too_much |= listed.len() >= LISTED;
                if !is_too_much {
                    listed.push((uid, *sequence));
                }
            }
        })
        .await?;
        if is_too_much {
            return Err(Excess::Mails(LISTED).into());
        }
        listed.sort_unstable();
        listed.dedup_by_key(|(uid, _)| *uid);
        self.numbers.last = listed
            .last()
            .filter(|(_, sequence)| *sequence == self.exists)
            .map(|(uid, _)| *uid)
            .or(self.numbers.last);
        Ok(listed)
    }

    /// The UID of the last mail of the folder; `None` where it has none, or
    /// the server does not say.
    pub async fn last_uid(&mut self) -> Result<Option<u32>, MailboxError> {
        if self.exists == 0 {
            return Ok(None);
        }
        let last = self.exists.to_string();
        Ok(self.uids(Set::Numbers(&last)).await?.last().copied())
    }

    /// The heads of a set of mails, each handed on as it comes in.
    pub(in crate::mailbox) async fn heads(
        &mut self,
        set: Set<'_>,
        mut each: impl FnMut(Head),
    ) -> Result<(), MailboxError> {
        let items = format!(
            "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]<0.{HEAD}>)"
        );
        let mut failed = None;
        self.command("FETCH", &set.fetch(&items), |response| {
            if let Response::Fetch(sequence, items) = response {
                match head(*sequence, items, HEAD) {
                    Some(Ok(head)) => each(head),
                    Some(Err(error)) => failed = Some(error),
                    // News of a flag, which nobody asked for.
                    None => {}
                }
            }
        })
        .await?;
        failed.map_or(Ok(()), Err)
    }

    /// A mail, at most `limit` bytes of it; `None` where it is gone.
    pub async fn body(&mut self, uid: u32, limit: u32) -> Result<Option<Vec<u8>>, MailboxError> {
        let mut body = None;
        let line = format!("UID FETCH {uid} (UID BODY.PEEK[]<0.{limit}>)");
        self.command("FETCH", &line, |response| {
            if let Response::Fetch(_, items) = response
                && uid_of(items) == Some(uid)
            {
                body = body.take().or_else(|| {
                    items.iter().find_map(|item| match item {
                        AttributeValue::BodySection {
                            section: None,
                            data: Some(data),
                            ..
                        } => Some(data.to_vec()),
                        _ => None,
                    })
                });
            }
        })
        .await?;
        if body.is_none() && self.uids(Set::Uids(&uid.to_string())).await?.contains(&uid) {
            return Err(MailboxError::Lacking {
                doing: "FETCH",
                what: "the mail",
            });
        }
        Ok(body)
    }
}
