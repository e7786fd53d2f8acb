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

    /// Moves a mail into another folder. Where the server has no MOVE
    /// (RFC 6851) it is copied, and then this one mail is expunged, which takes
    /// UIDPLUS (RFC 4315): without it other mails would go, too.
    pub async fn move_to(&mut self, uid: u32, folder: &str) -> Result<(), MailboxError> {
        let name = folder_name(folder)?;
        if self.can("MOVE") {
            let line = format!("UID MOVE {uid} {name}");
            return self.command("MOVE", &line, |_| {}).await;
        }
        if !self.can("UIDPLUS") {
            return Err(MailboxError::NoMove);
        }
        let line = format!("UID COPY {uid} {name}");
        self.command("COPY", &line, |_| {}).await?;
        self.flag(uid, "\\Deleted").await?;
        let line = format!("UID EXPUNGE {uid}");
        self.command("EXPUNGE", &line, |_| {}).await
    }
}
