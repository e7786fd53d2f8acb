//! One connection's life: rounds through its folders, and waits for news
//! between them.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::folder::Watched;
use super::{InboxError, Line};
use crate::api::MailboxState;
use crate::mailbox::{MailboxError, Session, Wake};

impl Line {
    /// Connects and logs in.
    pub(super) async fn connect(&self) -> Result<Session, InboxError> {
        self.all(MailboxState::Connecting);
        let (mut session, _permit) = self.tools.doors.connect(&self.mailbox).await?;
        self.alive();
        self.all(MailboxState::Authenticating);
        self.tools.log_in(&mut session, &self.mailbox).await?;
        self.alive();
        Ok(session)
    }

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
        let mut session = self.connect().await?;
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
        loop {
            self.round(&mut session, folders, wake).await?;
            watching.get_or_insert_with(Instant::now);
            let pushes = idles && (!shares || session.is_notified());
            for folder in folders.iter().filter(|folder| folder.is_open()) {
                let state = if pushes {
                    MailboxState::Watching
                } else {
                    MailboxState::Polling
                };
                self.board.state(&self.place(&folder.name), state);
            }
            wake = self.wait(&mut session, folders, pushes).await?;
            if wake == Wake::Refused {
                tracing::warn!(
                    event = "mailbox.idle-refused",
                    mailbox = self.mailbox.name,
                    "the server refuses IDLE; it is polled"
                );
                idles = false;
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
    ) -> Result<(), InboxError> {
        session.begin_round();
        let is_alone = folders.len() == 1;
        let mut stumbled = None;
        for folder in folders {
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
                Err(error @ InboxError::Mailbox(MailboxError::Stumbled { .. })) => {
                    stumbled = Some(error);
                }
                looked => looked?,
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
    ) -> Result<Wake, InboxError> {
        let now = Instant::now();
        let dues = folders.iter().filter_map(|folder| folder.due);
        let until_due = dues
            .min()
            .map_or(Duration::MAX, |due| due.saturating_duration_since(now));
        let all_open = folders.iter().all(Watched::is_open);
        // NOTIFY is a hurry-up: some servers do not tell of every mail, and of
        // no folder that comes or goes.
        let until_look = if pushes && folders.len() == 1 && all_open {
            self.mailbox.idle_renew
        } else {
            self.mailbox.poll
        };
        let longest = until_look.min(until_due);
        let mut slept = self.slept.clone();
        slept.mark_unchanged();
        let woken = async {
            // Without a clock nobody wakes us, and the renewal does.
            if slept.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        if pushes && folders.iter().any(Watched::is_open) {
            let wake = session.idle(longest, woken, || self.alive()).await?;
            return Ok(wake);
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

    fn alive(&self) {
        for folder in &self.folders {
            self.board.alive(&self.place(folder));
        }
    }
}
