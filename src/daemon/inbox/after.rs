//! What `after` says, done with the mails whose outcome is durable.
//!
//! The journal knows how far it is with each, so that a crash or a refusal
//! makes nothing be done twice, but for a copy that was made and not yet noted.

use super::folder::Watched;
use super::{InboxError, Line};
use crate::config::After;
use crate::journal::{self, Place};
use crate::mailbox::{MailboxError, Session};

impl Line {
    /// Does with the mails that are settled what `after` says. What the server
    /// refuses is tried again over the next connection.
    pub(super) async fn afterwards(
        &self,
        session: &mut Session,
        watched: &mut Watched,
    ) -> Result<(), InboxError> {
        let Some(position) = &watched.position else {
            return Ok(());
        };
        if self.mailbox.after == After::Nothing {
            return Ok(());
        }
        let (name, folder) = self.place(&watched.name);
        let uid_validity = position.uid_validity;
        let mut waiting = self
            .tools
            .worker
            .run(move |worker| worker.waiting_for_after(&name, &folder, uid_validity))
            .await?;
        waiting.retain(|(uid, _)| !watched.after_failed.contains(uid));
        for (uid, so_far) in waiting {
            let (mailbox, folder) = self.place(&watched.name);
            let place = Place {
                mailbox,
                folder,
                uid_validity,
                uid,
            };
            match self.after_one(session, place, so_far).await {
                Ok(()) => {}
                Err(InboxError::Mailbox(
                    error @ (MailboxError::Refused { .. } | MailboxError::NoMove),
                )) => {
                    tracing::error!(
                        event = "mailbox.after-failed",
                        uid,
                        error = crate::chain(&error),
                        hint = error.hint(),
                        "what is to be done with a mail afterwards cannot be done"
                    );
                    watched.after_failed.insert(uid);
                    let failure = Some(crate::chain(&error));
                    self.board.after(&self.place(&watched.name), failure);
                }
                Err(error) => return Err(error),
            }
        }
        if watched.after_failed.is_empty() {
            self.board.after(&self.place(&watched.name), None);
        }
        Ok(())
    }

    async fn after_one(
        &self,
        session: &mut Session,
        place: Place,
        so_far: journal::After,
    ) -> Result<(), InboxError> {
        let uid = place.uid;
        match &self.mailbox.after {
            After::Nothing => return Ok(()),
            After::Flag(flag) => session.flag(uid, flag).await?,
            After::Move(to) if session.can_move() && so_far == journal::After::Waits => {
                session.move_to(uid, to).await?;
            }
            After::Move(to) => {
                if so_far == journal::After::Waits {
                    session.copy_to(uid, to).await?;
                    self.keep_after(place.clone(), journal::After::Copied)
                        .await?;
                }
                session.remove(uid).await?;
            }
        }
        self.keep_after(place, journal::After::Done).await
    }

    async fn keep_after(&self, place: Place, after: journal::After) -> Result<(), InboxError> {
        let kept = self
            .tools
            .worker
            .run(move |worker| worker.after(&place, after));
        Ok(kept.await?)
    }
}
