//! The only commands that change a mailbox. They are sent where `after` says
//! so, for a mail whose outcome is durable (invariant 8).

use super::Session;
use crate::mailbox::MailboxError;
use crate::mailbox::wire::folder_name;

impl Session {
    /// Gives a mail a flag. It may have it, or be gone.
    pub async fn flag(&mut self, uid: u32, flag: &str) -> Result<(), MailboxError> {
        let line = format!("UID STORE {uid} +FLAGS.SILENT ({flag})");
        self.command("STORE", &line, |_| {}).await
    }

    /// Whether the server moves a mail in one step (RFC 6851).
    pub fn can_move(&self) -> bool {
        self.can("MOVE")
    }

    /// Moves a mail into another folder, in one step.
    pub async fn move_to(&mut self, uid: u32, folder: &str) -> Result<(), MailboxError> {
        let line = format!("UID MOVE {uid} {}", folder_name(folder)?);
        self.command("MOVE", &line, |_| {}).await
    }

    /// The first half of a move where the server has none. The second must be
    /// possible, or the mail would be copied for nothing.
    pub async fn copy_to(&mut self, uid: u32, folder: &str) -> Result<(), MailboxError> {
        if !self.can("UIDPLUS") {
            return Err(MailboxError::NoMove);
        }
        let line = format!("UID COPY {uid} {}", folder_name(folder)?);
        self.command("COPY", &line, |_| {}).await
    }

    /// The second half: this one mail is expunged (RFC 4315). A plain EXPUNGE
    /// would take other mails, too.
    pub async fn remove(&mut self, uid: u32) -> Result<(), MailboxError> {
        self.flag(uid, "\\Deleted").await?;
        let line = format!("UID EXPUNGE {uid}");
        self.command("EXPUNGE", &line, |_| {}).await
    }
}
