//! `tokenwatch login`: a person signs in for a mailbox, and the refresh token
//! that comes of it goes into the vault.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::looking::Tools;
use super::worker::{self, SecretName, Worker};
use super::{DaemonError, InboxError, tokens};
use crate::api::{ErrorBody, SignInEvent};
use crate::config::{Auth, Config, Grant, Mailbox, Oauth2};
use crate::oauth;

/// Has a person sign in.
pub struct SignIn {
    config: Arc<Config>,
    tools: Tools,
}

/// A sign-in that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// No such mailbox.
    #[error("no mailbox {0:?} is configured")]
    UnknownMailbox(String),
    /// The mailbox has a password.
    #[error("mailbox {0} does not log in by OAuth 2")]
    NotOauth(String),
}

impl SignIn {
    pub(super) fn new(config: Arc<Config>, tools: Tools) -> Self {
        Self { config, tools }
    }

    /// For when no daemon runs.
    pub fn alone(config: Arc<Config>, worker: Worker) -> Result<Self, DaemonError> {
        // Who ends the worker is this process.
        let (handle, _end) = worker::start(worker).map_err(DaemonError::Thread)?;
        let tools = Tools::new(&config, handle)?;
        Ok(Self::new(config, tools))
    }

    /// Checks what is asked for, before anybody is told anything.
    pub fn find<'a>(
        config: &'a Config,
        mailbox: &str,
    ) -> Result<(&'a Mailbox, &'a Oauth2), SignInError> {
        let mailbox = config
            .mailbox(mailbox)
            .ok_or_else(|| SignInError::UnknownMailbox(mailbox.to_owned()))?;
        match &mailbox.auth {
            Auth::Oauth2(oauth2) => Ok((mailbox, oauth2)),
            Auth::Password(_) => Err(SignInError::NotOauth(mailbox.name.clone())),
        }
    }

    /// Does it, unless who asked goes away. What the person has to do, and how
    /// it ended, goes to `events`; `true` where a token was stored.
    pub async fn run(
        self,
        mailbox: &str,
        in_browser: bool,
        events: mpsc::Sender<SignInEvent>,
    ) -> bool {
        let Ok((mailbox, oauth2)) = Self::find(&self.config, mailbox) else {
            return false;
        };
        let signing_in = self.sign_in(mailbox, oauth2, in_browser, &events);
        let ended = tokio::select! {
            ended = signing_in => ended,
            () = events.closed() => return false,
        };
        let signed_in = ended.is_ok();
        let event = match ended {
            Ok(()) => SignInEvent::Done,
            Err(error) => SignInEvent::Failed(ErrorBody {
                error: error.to_string(),
                causes: crate::causes(&error).collect(),
                hint: Some(error.hint(&mailbox.name)),
                exit_code: exit_code(&error),
            }),
        };
        // Who asked may have gone.
        events.send(event).await.unwrap_or_default();
        signed_in
    }

    async fn sign_in(
        &self,
        mailbox: &Mailbox,
        oauth2: &Oauth2,
        in_browser: bool,
        events: &mpsc::Sender<SignInEvent>,
    ) -> Result<(), InboxError> {
        let worker = &self.tools.worker;
        let client = tokens::client(mailbox, oauth2, worker).await?;
        let http = tokens::http(mailbox, &client, self.tools.doors.roots()).await?;
        if oauth2.grant == Grant::ClientCredentials {
            // There is nobody to sign in; but that it works is worth knowing.
            client.client_credentials(&http).await?;
            return Ok(());
        }
        let tell = |event: SignInEvent| events.try_send(event).unwrap_or_default();
        let tokens = if client.endpoints.device.is_some() && !in_browser {
            let told = |prompt: oauth::DevicePrompt| {
                tell(SignInEvent::Device {
                    url: prompt.verification_uri,
                    code: prompt.user_code,
                    complete_url: prompt.verification_uri_complete,
                    seconds: prompt.expires_in.as_secs(),
                });
            };
            client.sign_in_by_device(&http, told).await?
        } else {
            let told = |prompt: oauth::BrowserPrompt| {
                tell(SignInEvent::Browser {
                    url: prompt.url,
                    port: prompt.port,
                    seconds: prompt.expires_in.as_secs(),
                });
            };
            client
                .sign_in_by_browser(&http, oauth2.redirect_port, told)
                .await?
        };
        let refresh = tokens
            .refresh
            .ok_or_else(|| InboxError::NoRefreshToken(mailbox.name.clone()))?;
        let name = SecretName::Oauth(mailbox.name.clone());
        worker
            .run(move |worker| worker.set_secret(&name, &refresh))
            .await?;
        self.tools.tokens.forget(&mailbox.name, true).await;
        Ok(())
    }
}

/// The exit code of a command that fails for it, as the contract has them.
fn exit_code(error: &InboxError) -> u8 {
    match error {
        InboxError::Oauth(error) => match error.class() {
            oauth::Class::Transient => 69,
            oauth::Class::SignIn => 77,
            oauth::Class::Person => 78,
        },
        InboxError::NoClientSecret(_) | InboxError::NoRefreshToken(_) => 78,
        InboxError::Mailbox(_)
        | InboxError::State(_)
        | InboxError::NoPassword(_)
        | InboxError::NotSignedIn(_)
        | InboxError::HeldBack { .. }
        | InboxError::Panicked => 1,
    }
}
