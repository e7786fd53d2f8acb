//! `tokenwatch login`: a person signs in for a mailbox, and the refresh token
//! that comes of it goes into the vault.
//!
//! In two steps, since a person takes his time: what is needed of the vault is
//! read first, and only then somebody is asked. Where no daemon runs, the vault
//! is free meanwhile.

use tokio::sync::mpsc;

use super::looking::Tools;
use super::worker::Worker;
use super::{DaemonError, InboxError, tokens};
use crate::api::SignInEvent;
use crate::config::{Auth, Config, Grant, Mailbox, Oauth2};
use crate::http::Http;
use crate::oauth::{self, Client};
use crate::secret::Secret;

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

/// A sign-in that can begin.
pub struct SignIn {
    mailbox: String,
    client: Client,
    http: Http,
    grant: Grant,
    redirect_port: Option<u16>,
}

impl SignIn {
    /// Checks what is asked for.
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

    /// Reads what is needed for it.
    pub(super) async fn prepare(
        mailbox: &Mailbox,
        oauth2: &Oauth2,
        tools: &Tools,
    ) -> Result<Self, InboxError> {
        let client = tokens::client(mailbox, oauth2, &tools.worker).await?;
        let http = tokens::http(mailbox, &client, &tools.doors).await?;
        Ok(Self {
            mailbox: mailbox.name.clone(),
            client,
            http,
            grant: oauth2.grant,
            redirect_port: oauth2.redirect_port,
        })
    }

    /// Reads what is needed for it, where no daemon runs. The vault is let go.
    pub async fn prepare_alone(
        config: &Config,
        worker: Worker,
        mailbox: &Mailbox,
        oauth2: &Oauth2,
    ) -> Result<Self, DaemonError> {
        let (tools, ended) = Tools::alone(config, worker)?;
        let prepared = Self::prepare(mailbox, oauth2, &tools).await;
        drop(tools);
        // The sender is the worker's own thread: it answers, or is gone.
        ended.await.unwrap_or_default();
        prepared.map_err(|error| DaemonError::sign_in(&mailbox.name, error))
    }

    /// Has a person sign in: the refresh token that comes of it. What the person
    /// has to do goes to `events`. Where nobody has to sign in, it is seen that
    /// the provider lets the application in.
    pub async fn run(
        &self,
        in_browser: bool,
        events: &mpsc::Sender<SignInEvent>,
    ) -> Result<Option<Secret>, InboxError> {
        let client = &self.client;
        if self.grant == Grant::ClientCredentials {
            client.client_credentials(&self.http).await?;
            return Ok(None);
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
            client.sign_in_by_device(&self.http, told).await?
        } else {
            let told = |prompt: oauth::BrowserPrompt| {
                tell(SignInEvent::Browser {
                    url: prompt.url,
                    port: prompt.port,
                    seconds: prompt.expires_in.as_secs(),
                });
            };
            client
                .sign_in_by_browser(&self.http, self.redirect_port, told)
                .await?
        };
        let missing = || InboxError::NoRefreshToken(self.mailbox.clone());
        tokens.refresh.ok_or_else(missing).map(Some)
    }
}
