//! One connection's life: rounds through its folders, and waits for news
//! between them.

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use super::folder::Watched;
use super::{InboxError, Line};
use crate::api::MailboxState;
use crate::mailbox::{MailboxError, Session, Wake};

/// However lively a server is, after so many times `idle-renew` the folder is
/// opened again, and never later than servers hang up on a silent client
/// (RFC 2177).
const LIVELY: u32 = 3;
const LONGEST: Duration = Duration::from_secs(25 * 60);

/// Between two rounds through several folders: no server makes us run.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

impl Line {
    /// One connection's life. It ends with an error, for a server that hangs
    /// up is none to be content with.
    pub(super) async fn session(
        &self,
        folders: &mut [Watched],
        watching: &mut Option<Instant>,
    ) -> Result<Infallible, InboxError> {
        for folder in folders.iter_mut() {
            folder.forget_session();
        }
        let mut entered = self
            .tools
            .enter(&self.mailbox, |state| self.all(state))
            .await?;
        let session = &mut entered.session;
        self.alive(session.heard());
        let shares = folders.len() > 1;
        if shares && session.can_notify() {
            session.notify(&self.folders).await?;
        }
        tracing::info!(
            event = "mailbox.connected",
            mailbox = self.mailbox.name,
            host = self.mailbox.host,
            folders = folders.len(),
            idle = session.can_idle(),
            notify = session.is_notified(),
            "connected"
        );
        // The server has not refused IDLE.
        let mut idles = session.can_idle();
        let mut wake = Wake::Renew;
        let mut again = self.tools.worker.again();
        loop {
            let begun = Instant::now();
            let pushes = idles && (!shares || session.is_notified());
            self.round(session, folders, wake, pushes).await?;
            watching.get_or_insert_with(Instant::now);
            wake = self.wait(session, folders, pushes, &again).await?;
            // Mails that were held became undecided: they wait no longer.
            if again.has_changed().unwrap_or(false) {
                again.mark_unchanged();
                for folder in folders.iter_mut() {
                    folder.due = Some(Instant::now());
                }
            }
            if wake == Wake::Refused {
                tracing::warn!(
                    event = "mailbox.idle-refused",
                    mailbox = self.mailbox.name,
                    "the server refuses IDLE; it is polled"
                );
                idles = false;
            }
            if shares {
                tokio::time::sleep(BETWEEN_ROUNDS.saturating_sub(begun.elapsed())).await;
            }
        }
    }

    /// Looks at all folders. Where only one is open, and the server has told of
    /// news, that takes one round trip; else each is opened again, which shows
    /// also what a server forgot to announce, and whether the folder is still
    /// the one that it was.
    async fn round(
        &self,
        session: &mut Session,
        folders: &mut [Watched],
        wake: Wake,
        pushes: bool,
    ) -> Result<(), InboxError> {
        session.begin_round();
        let is_alone = folders.len() == 1;
        let mut stumbled = None;
        for number in 0..folders.len() {
            let Some(folder) = folders.get_mut(number) else {
                break;
            };
            let span = self.span(&folder.name);
            let looking = async {
                if is_alone && wake == Wake::News && folder.is_open() {
                    self.look_at_news(session, folder).await
                } else {
                    self.reopen(session, folder).await
                }
            };
            match looking.instrument(span).await {
                // What one mail does to its folder, the others need not wait for.
                Err(error @ InboxError::Mailbox(MailboxError::Stumbled { .. }))
                    if !error.is_garbage() =>
                {
                    stumbled = Some(error);
                }
                Err(error) => {
                    // Over the next connection this one comes last.
                    folders.rotate_left(number.saturating_add(1));
                    return Err(error);
                }
                Ok(()) => {}
            }
            self.alive(session.heard());
            if folder.is_open() {
                let state = if pushes {
                    MailboxState::Watching
                } else {
                    MailboxState::Polling
                };
                self.board.state(&self.place(&folder.name), state);
            }
        }
        stumbled.map_or(Ok(()), Err)
    }

    /// Waits for news, for the time to look again, or until a mail is due.
    async fn wait(
        &self,
        session: &mut Session,
        folders: &[Watched],
        pushes: bool,
        again: &watch::Receiver<()>,
    ) -> Result<Wake, InboxError> {
        let now = Instant::now();
        let open = folders.iter().filter(|folder| folder.is_open());
        let until_due = open
            .clone()
            .filter_map(|folder| folder.due)
            .min()
            .map_or(Duration::MAX, |due| due.saturating_duration_since(now));
        let is_alone = folders.len() == 1 && open.clone().count() == 1;
        let any_open = open.count() > 0;
        // NOTIFY is a hurry-up: some servers do not tell of every mail, and of
        // no folder that comes or goes.
        let until_look = if pushes && is_alone {
            self.mailbox.idle_renew.saturating_mul(LIVELY).min(LONGEST)
        } else {
            self.mailbox.poll
        };
        let longest = until_look.min(until_due);
        let mut slept = self.slept.clone();
        slept.mark_unchanged();
        let mut again = again.clone();
        let woken = async {
            tokio::select! {
                Ok(()) = slept.changed() => {}
                Ok(()) = again.changed() => {}
                // Without a clock nobody wakes us, and the renewal does.
                else => std::future::pending().await,
            }
        };
        if pushes && any_open {
            let alive = || self.alive(Timestamp::now());
            let renew = self.mailbox.idle_renew;
            return Ok(session.idle(renew, longest, woken, alive).await?);
        }
        tokio::select! {
            () = tokio::time::sleep(longest) => {}
            () = woken => {}
        }
        Ok(Wake::Renew)
    }

    fn all(&self, state: MailboxState) {
        for folder in &self.folders {
            self.board.state(&self.place(folder), state);
        }
    }

    /// What proves that one folder's server is alive proves it for all of the
    /// line.
    pub(super) fn alive(&self, heard: Timestamp) {
        for folder in &self.folders {
            self.board.alive(&self.place(folder), heard);
        }
    }
}
