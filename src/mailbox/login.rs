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

/// What proves who we are.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A password.
    Password(Secret),
    /// An OAuth 2 access token (RFC 6750).
    Bearer(Secret),
}

impl Credential {
    fn is_token(&self) -> bool {
        matches!(self, Self::Bearer(_))
    }

    /// The password or the token.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Password(secret) | Self::Bearer(secret) => secret,
        }
    }
}

/// A SASL mechanism, its first message, and what is said to a challenge that
/// must be an error.
struct Mechanism {
    name: &'static str,
    message: Zeroizing<String>,
    acknowledgement: &'static str,
}

impl Session {
    /// Logs in: AUTHENTICATE PLAIN (RFC 4616) where the server has it, LOGIN
    /// otherwise; with an access token OAUTHBEARER (RFC 7628) or XOAUTH2.
    pub async fn log_in(
        &mut self,
        user: &str,
        credential: &Credential,
    ) -> Result<(), MailboxError> {
        match self.prove(user, credential).await {
            // Some servers refuse by hanging up, in good order or not, or by
            // silence, and trying again at once would be hammering.
            Err(
                MailboxError::Bye(_)
                | MailboxError::Lost(_)
                | MailboxError::Io { .. }
                | MailboxError::Deadline(_),
            ) => Err(MailboxError::LoginDropped),
            Err(MailboxError::LoginRefused { code }) if credential.is_token() => {
                Err(MailboxError::TokenRefused { code })
            }
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

    async fn prove(&mut self, user: &str, credential: &Credential) -> Result<(), MailboxError> {
        let secret = credential.secret().expose();
        if [user, secret].iter().any(|s| s.contains(['\0', '\x01'])) {
            return Err(MailboxError::Unsendable);
        }
        let mechanism = match credential {
            Credential::Password(_) if self.can("AUTH=PLAIN") => Mechanism {
                name: "PLAIN",
                message: Zeroizing::new(format!("\0{user}\0{secret}")),
                acknowledgement: "*",
            },
            Credential::Password(_) if self.can("LOGINDISABLED") => {
                return Err(MailboxError::NoPasswordLogin);
            }
            Credential::Password(_) => return self.log_in_plainly(user, secret).await,
            Credential::Bearer(_) if self.can("AUTH=OAUTHBEARER") => Mechanism {
                name: "OAUTHBEARER",
                message: Zeroizing::new(format!(
                    "n,a={},\x01host={}\x01port={}\x01auth=Bearer {secret}\x01\x01",
                    sasl_name(user),
                    self.host,
                    self.port
                )),
                // A single %x01 (RFC 7628, section 3.2.3).
                acknowledgement: "AQ==",
            },
            Credential::Bearer(_) if self.can("AUTH=XOAUTH2") => Mechanism {
                name: "XOAUTH2",
                message: Zeroizing::new(format!("user={user}\x01auth=Bearer {secret}\x01\x01")),
                acknowledgement: "",
            },
            Credential::Bearer(_) => return Err(MailboxError::NoBearerLogin),
        };
        self.authenticate(&mechanism).await
    }

    async fn authenticate(&mut self, mechanism: &Mechanism) -> Result<(), MailboxError> {
        let name = mechanism.name;
        let message = Zeroizing::new(BASE64.encode(mechanism.message.as_bytes()));
        let tag = if self.can("SASL-IR") {
            let line = Zeroizing::new(format!("AUTHENTICATE {name} {}", message.as_str()));
            self.send(DOING, &line).await?
        } else {
            let tag = self.send(DOING, &format!("AUTHENTICATE {name}")).await?;
            if let Some(refused) = self.until_continue(DOING, &tag).await? {
                return Err(login_error(&refused));
            }
            self.write(DOING, &message, "").await?;
            tag
        };
        self.capabilities.clear();
        // The error of an access token comes as a challenge, and the refusal
        // only after its acknowledgement.
        let answer = self
            .until_done_with(DOING, &tag, mechanism.acknowledgement)
            .await?;
        concluded(answer)
    }

    async fn log_in_plainly(&mut self, user: &str, password: &str) -> Result<(), MailboxError> {
        let (user, password) = (quoted(user)?, quoted(password)?);
        let line = Zeroizing::new(format!("LOGIN {} {}", user.as_str(), password.as_str()));
        let tag = self.send(DOING, &line).await?;
        self.capabilities.clear();
        let answer = self.until_done(DOING, &tag, |_| {}).await?;
        concluded(answer)
    }
}

const DOING: &str = "the login";

fn concluded(answer: Answer) -> Result<(), MailboxError> {
    answer
        .refusal()
        .map_or(Ok(()), |words| Err(login_error(&words)))
}

/// A name within a GS2 header (RFC 5801, section 4).
fn sasl_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
