//! Waiting for news.

use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use super::command::Heard;
use crate::mailbox::MailboxError;

/// How long the server may take to end IDLE.
const DONE: Duration = Duration::from_secs(15);

/// An IDLE that a server ends sooner is none.
const SHORTEST: Duration = Duration::from_secs(1);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something was announced.
    News,
    /// It is time to renew IDLE, or the caller wanted to go on.
    Renew,
    /// The server refuses IDLE.
    Refused,
}

impl Session {
    /// All folders are about to be opened one after the other: what was told of
    /// them until now is answered by that.
    pub fn begin_round(&mut self) {
        self.stirred = false;
    }

    /// Waits for news (RFC 2177) until the server was silent for `renew`, in all
    /// for `longest`, or until `interrupt` is ready. `alive` is called whenever
    /// the server says something.
    pub async fn idle(
        &mut self,
        renew: Duration,
        longest: Duration,
        interrupt: impl Future<Output = ()>,
        alive: impl Fn(),
    ) -> Result<Wake, MailboxError> {
        const DOING: &str = "IDLE";
        // Announced during an earlier command: there is nothing to wait for.
        if self.has_news() {
            return Ok(self.wake());
        }
        let tag = self.send(DOING, DOING).await?;
        if self.until_continue(DOING, &tag).await?.is_some() {
            return Ok(Wake::Refused);
        }
        alive();
        let begun = Instant::now();
        let mut heard = begun;
        let mut interrupt = std::pin::pin!(interrupt);
        // What comes between IDLE and `+` is noted like everything else.
        while !self.has_news() {
            let patience = renew
                .saturating_sub(heard.elapsed())
                .min(longest.saturating_sub(begun.elapsed()));
            let hearing = tokio::select! {
                hearing = self.hear(DOING, patience, &tag, |_| {}) => hearing,
                () = &mut interrupt => break,
            };
            match hearing {
                Ok(Heard::Untagged | Heard::Continue) => {
                    heard = Instant::now();
                    alive();
                }
                // The server has ended IDLE by itself. Some do so at once,
                // always: that is no IDLE, and would be a busy loop.
                Ok(Heard::Done(_)) if begun.elapsed() < SHORTEST && !self.has_news() => {
                    return Ok(Wake::Refused);
                }
                Ok(Heard::Done(_)) => return Ok(self.wake()),
                Err(MailboxError::Deadline(_)) => break,
                Err(error) => return Err(error),
            }
        }
        self.write(DOING, "DONE", "").await?;
        match tokio::time::timeout(DONE, self.until_done(DOING, &tag, |_| {})).await {
            Ok(answer) => answer?,
            Err(_) => return Err(MailboxError::Deadline("DONE")),
        };
        alive();
        Ok(self.wake())
    }

    fn has_news(&self) -> bool {
        self.news || self.stirred
    }

    fn wake(&mut self) -> Wake {
        if std::mem::take(&mut self.news) || self.stirred {
            Wake::News
        } else {
            Wake::Renew
        }
    }
}
