//! Narrowing by SEARCH.
//!
//! Servers refuse it, leave mails out that they have not indexed, find nothing
//! where two keys are combined, or take minutes. So it is proved on a mail that
//! is there before anything is left to it, and the newest mails are never left
//! to it at all.

use std::time::{Duration, Instant};

use jiff::civil;
use jiff::tz::Offset;

use super::query::{Dialect, address_in, keys};
use super::window::List;
use super::{Look, Scope, WINDOW, Wanted, Way};
use crate::mailbox::MailboxError;
use crate::mailbox::session::{Head, Session, Set};

/// How many UIDs one SEARCH covers at first. If all of them match, the answer
/// is still a line that the guard lets pass.
const FIRST_SIZE: u32 = 20_000;

/// In a folder with fewer mails the day is not asked for: Dovecot takes as long
/// again to look at every mail's date as it does for the fields (seen in 2026
/// with 2.3), and what is too old is left out by its INTERNALDATE later.
const MANY: u32 = 50_000;

/// How many of the last mails are tried for an address to prove SEARCH by.
const PROBED: u32 = 8;

/// A SEARCH that takes longer is not asked for more at once.
const SLOW: Duration = Duration::from_secs(2);

/// SEARCH from `next` to before `until`, `size` UIDs at a time, and a list from
/// there to before `end`.
#[derive(Clone, Copy)]
pub(super) struct Search {
    next: u32,
    until: u32,
    end: u32,
    size: u32,
    since: Option<civil::Date>,
    dialect: Dialect,
}

impl Look {
    /// Proves SEARCH, and goes on with it or without.
    pub(super) async fn narrow(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        scope: Scope,
        end: u32,
    ) -> Result<(), MailboxError> {
        let newest = u32::try_from(WINDOW).unwrap_or(u32::MAX);
        let until = end.saturating_sub(newest).max(scope.first);
        if until == scope.first {
            self.list_until(session, scope.first, end);
            return Ok(());
        }
        let since = scope.since.filter(|_| session.exists() > MANY);
        for dialect in Dialect::of(session.can("X-GM-EXT-1")) {
            if finds(session, wanted, since, *dialect)
                .await
                .map_err(failed)?
            {
                self.way = Way::Search(Search {
                    next: scope.first,
                    until,
                    end,
                    size: FIRST_SIZE,
                    since,
                    dialect: *dialect,
                });
                return Ok(());
            }
        }
        tracing::debug!(
            event = "mailbox.search-refused",
            "SEARCH does not find what is there; the headers of every mail are looked at"
        );
        self.list_until(session, scope.first, end);
        Ok(())
    }

    /// Lets the server narrow one window of UIDs.
    pub(super) async fn search(
        &mut self,
        session: &mut Session,
        wanted: &Wanted,
        search: Search,
    ) -> Result<(), MailboxError> {
        let Search {
            next, until, end, ..
        } = search;
        if next >= until {
            self.way = Way::List(List::new(session, next, end));
            return Ok(());
        }
        let behind = next.saturating_add(search.size).min(until);
        let keys = keys(search.dialect, wanted, None, search.since);
        let range = format!("UID {next}:{} {keys}", behind.saturating_sub(1));
        let begun = Instant::now();
        let Some(uids) = session.search(&range).await.map_err(failed)? else {
            tracing::debug!(
                event = "mailbox.search-refused",
                "the server refuses to search; the headers of every mail are looked at"
            );
            self.list_until(session, next, end);
            return Ok(());
        };
        // Sparse UIDs are passed over quickly; a slow server is not asked for more.
        let easy = uids.len() < WINDOW && begun.elapsed() < SLOW;
        self.list(
            uids.into_iter().filter(|uid| (next..behind).contains(uid)),
            Some(behind),
        );
        self.way = Way::Search(Search {
            next: behind,
            size: if easy {
                search.size.saturating_mul(4)
            } else {
                FIRST_SIZE
            },
            ..search
        });
        Ok(())
    }
}

/// Whether the server finds one of the last mails by its sender, among the very
/// keys that are used.
async fn finds(
    session: &mut Session,
    wanted: &Wanted,
    since: Option<civil::Date>,
    dialect: Dialect,
) -> Result<bool, MailboxError> {
    let last = session.exists();
    let first = last.saturating_sub(PROBED.saturating_sub(1)).max(1);
    let mut heads: Vec<Head> = Vec::new();
    let set = format!("{first}:{last}");
    match session
        .heads(Set::Numbers(&set), |head| {
            let is_asked_for = (first..=last).contains(&head.sequence);
            if is_asked_for && heads.iter().all(|other| other.sequence != head.sequence) {
                heads.push(head);
            }
        })
        .await
    {
        // Which mails a server cannot hand out is found out by the list.
        Err(MailboxError::Refused { .. } | MailboxError::Lacking { .. }) => return Ok(false),
        asked => asked?,
    }
    let probe = heads.iter().rev().find_map(|head| {
        let address = address_in(head.fields.as_deref()?)?;
        Some((head, address))
    });
    let Some((head, address)) = probe else {
        return Ok(false);
    };
    // One that is too old for `since` proves the rest of the keys.
    let since = since.filter(|day| {
        head.received
            .is_some_and(|at| Offset::UTC.to_datetime(at).date() > *day)
    });
    let uid = head.uid;
    let keys = keys(dialect, wanted, Some(&address), since);
    let found = session.search(&format!("UID {uid} {keys}")).await?;
    Ok(found.is_some_and(|uids| uids == [uid]))
}

/// SEARCH did not only say no. The next look does without it.
fn failed(error: MailboxError) -> MailboxError {
    MailboxError::Search(Box::new(error))
}
