//! The login.
//!
//! A refusal is told from a server that is out of order, because the first must
//! not be tried again soon and the second must.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::MailboxError;
use super::session::{Answer, Session};
use super::wire::{login_error, quoted};
use crate::secret::Secret;

impl Session {
    /// Logs in with a password: AUTHENTICATE PLAIN (RFC 4616) where the server
    /// has it, LOGIN otherwise.
    pub async fn log_in(&mut self, user: &str, password: &Secret) -> Result<(), MailboxError> {
        match self.authenticate(user, password).await {
            // Some servers refuse by hanging up, and trying again at once
            // would be hammering.
            Err(MailboxError::Bye(_) | MailboxError::Lost(_)) => Err(MailboxError::LoginDropped),
            other => other,
        }?;
        if self.capabilities.is_empty() {
            self.command("CAPABILITY", "CAPABILITY", |_| {}).await?;
        }
        if self.can("ID") {
            // RFC 2971: an operator who reads the server's log sees who this is.
            let line = concat!(
                r#"ID ("name" "tokenwatch" "version" ""#,
                env!("CARGO_PKG_VERSION"),
                r#"")"#
            );
            match self.command("ID", line, |_| {}).await {
                // Some offer it and refuse it, and nothing depends on it.
                Err(MailboxError::Refused { text, .. }) => {
                    tracing::debug!(event = "mailbox.id", text, "the server refuses ID");
                }
                answered => answered?,
            }
        }
        Ok(())
    }

    async fn authenticate(&mut self, user: &str, password: &Secret) -> Result<(), MailboxError> {
        const DOING: &str = "the login";
        if [user, password.expose()].iter().any(|s| s.contains('\0')) {
            return Err(MailboxError::Unsendable);
        }
        let tag = if self.can("AUTH=PLAIN") {
            let plain = Zeroizing::new(format!("\0{user}\0{}", password.expose()));
            let answer = Zeroizing::new(BASE64.encode(plain.as_bytes()));
            if self.can("SASL-IR") {
                let line = Zeroizing::new(format!("AUTHENTICATE PLAIN {}", answer.as_str()));
                self.send(DOING, &line).await?
            } else {
                let tag = self.send(DOING, "AUTHENTICATE PLAIN").await?;
                if let Some(refused) = self.until_continue(DOING, &tag).await? {
                    return Err(login_error(&refused));
                }
                self.write(DOING, &answer, "").await?;
                tag
            }
        } else if self.can("LOGINDISABLED") {
            return Err(MailboxError::NoPasswordLogin);
        } else {
            let (user, password) = (quoted(user)?, quoted(password.expose())?);
            let line = Zeroizing::new(format!("LOGIN {} {}", user.as_str(), password.as_str()));
            self.send(DOING, &line).await?
        };
        self.capabilities.clear();
        match self.until_done(DOING, &tag, |_| {}).await? {
            Answer::Ok => Ok(()),
            Answer::Refused(words) => Err(login_error(&words)),
        }
    }
}
