//! Access tokens of the mailboxes that log in by OAuth 2.
//!
//! Every connection logs in with a token of its own age: it is renewed before
//! it expires and whenever a line comes back, and shared only by lines that
//! come back together. Where the provider hands out another refresh token with
//! it, that one is in the vault before the access token is used, and what is in
//! memory is let go only then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::doors::{Doors, WayError};
use super::looking::Tools;
use super::worker::{Handle, SecretName};
use super::{InboxError, StateError};
use crate::config::{self, Config, Grant, Oauth2, Provider, SecretSource};
use crate::http::Http;
use crate::oauth::{
    Client, Endpoints, GOOGLE_SCOPES, MICROSOFT_SCOPES, MICROSOFT_SERVICE_SCOPES, OauthError,
};
use crate::secret::Secret;

/// How long lines that come back together share a token.
const TOGETHER: Duration = Duration::from_secs(60);

/// How long before its end a token is not used any more.
const BEFORE_ITS_END: Duration = Duration::from_secs(60);

/// The tokens of all mailboxes.
pub(super) struct Tokens {
    slots: BTreeMap<String, Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    access: Option<(Secret, Moment)>,
    /// A refresh token that could not be stored yet. The one in the vault may
    /// be dead.
    unsaved: Option<Secret>,
}

/// A moment by both clocks. The timers stand still while the machine sleeps,
/// and the wall clock may be set back.
#[derive(Clone, Copy)]
struct Moment {
    timer: Instant,
    wall: Timestamp,
}

impl Moment {
    fn now() -> Self {
        Self {
            timer: Instant::now(),
            wall: Timestamp::now(),
        }
    }

    fn checked_add(self, time: Duration) -> Option<Self> {
        Some(Self {
            timer: self.timer.checked_add(time)?,
            wall: self.wall.checked_add(time).ok()?,
        })
    }

    /// It is still to come, whichever clock is asked.
    fn is_after(self, now: Self) -> bool {
        self.timer > now.timer && self.wall > now.wall
    }
}

impl Tokens {
    pub(super) fn new(config: &Config) -> Self {
        let slots = config
            .mailboxes
            .iter()
            .map(|mailbox| (mailbox.name.clone(), Mutex::default()));
        Self {
            slots: slots.collect(),
        }
    }

    /// A token to log in with. A renewal is seen through once the provider is
    /// asked for it, whoever goes away meanwhile: it may have let the old refresh
    /// token die. Before that, who goes away ends it, so that at a stop there is
    /// no more to wait for than an answer.
    pub(super) async fn access(
        self: &Arc<Self>,
        mailbox: &config::Mailbox,
        oauth2: &Oauth2,
        tools: &Tools,
    ) -> Result<Secret, InboxError> {
        let (tokens, mailbox, oauth2) = (Arc::clone(self), mailbox.clone(), oauth2.clone());
        let (worker, doors) = (tools.worker.clone(), tools.doors.clone());
        let gone = CancellationToken::new();
        let _here = gone.clone().drop_guard();
        let obtaining = async move {
            tokens
                .obtain(&mailbox, &oauth2, &worker, &doors, &gone)
                .await
        };
        tools
            .tasks
            .spawn(obtaining)
            .await
            .unwrap_or(Err(InboxError::Panicked))
    }

    async fn obtain(
        &self,
        mailbox: &config::Mailbox,
        oauth2: &Oauth2,
        worker: &Handle,
        doors: &Doors,
        gone: &CancellationToken,
    ) -> Result<Secret, InboxError> {
        let strange = || InboxError::NotSignedIn(mailbox.name.clone());
        let slot = self.slots.get(&mailbox.name).ok_or_else(strange)?;
        // Nobody hears of it.
        let nobody_waits = || StateError::Stopped;
        let turn = gone.run_until_cancelled(slot.lock()).await;
        let mut slot = turn.ok_or_else(nobody_waits)?;
        if let Some((token, good_until)) = &slot.access
            && good_until.is_after(Moment::now())
        {
            return Ok(token.clone());
        }
        // Another line may have found out meanwhile that there is none to be had.
        doors.gate(&mailbox.name).is_open()?;
        slot.access = None;
        let preparing = async {
            slot.save(mailbox, worker).await?;
            let client = client(mailbox, oauth2, worker).await?;
            let http = http(mailbox, &client, doors).await?;
            let refresh = match oauth2.grant {
                Grant::ClientCredentials => None,
                Grant::RefreshToken => Some(refresh_token(mailbox, worker).await?),
            };
            Ok::<_, InboxError>((client, http, refresh))
        };
        let prepared = gone.run_until_cancelled(preparing).await;
        let (client, http, refresh) = prepared.ok_or_else(nobody_waits)??;
        let tokens = if let Some(refresh) = refresh {
            client.refresh(&http, &refresh).await?
        } else {
            let asking = gone.run_until_cancelled(client.client_credentials(&http));
            asking.await.ok_or_else(nobody_waits)??
        };
        if let Some(refresh) = tokens.refresh {
            slot.unsaved = Some(refresh);
            slot.save(mailbox, worker).await?;
        }
        tracing::debug!(
            event = "mailbox.token",
            mailbox = mailbox.name,
            "an access token was obtained"
        );
        let good_for = tokens
            .expires_in
            .map_or(TOGETHER, |end| end.saturating_sub(BEFORE_ITS_END))
            .min(TOGETHER);
        slot.access = Moment::now()
            .checked_add(good_for)
            .map(|until| (tokens.access.clone(), until));
        Ok(tokens.access)
    }

    /// The server refused the access token.
    pub(super) async fn forget(&self, mailbox: &str) {
        if let Some(slot) = self.slots.get(mailbox) {
            slot.lock().await.access = None;
        }
    }

    /// Does what changes a secret, between two renewals of the mailbox whose login
    /// it is for and not within one: what is known of the old one is forgotten with
    /// it. With any other secret, a refresh token that is not stored stays: it is
    /// the only one that lives.
    pub(super) async fn change<T, E>(
        &self,
        name: &SecretName,
        change: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(slot) = name.mailbox().and_then(|mailbox| self.slots.get(mailbox)) else {
            return change.await;
        };
        let mut slot = slot.lock().await;
        let changed = change.await?;
        slot.access = None;
        if let SecretName::Oauth(_) = name {
            slot.unsaved = None;
        }
        Ok(changed)
    }
}

impl Slot {
    /// Stores the refresh token that is not stored yet.
    async fn save(&mut self, mailbox: &config::Mailbox, worker: &Handle) -> Result<(), InboxError> {
        if let Some(refresh) = self.unsaved.clone() {
            let name = SecretName::Oauth(mailbox.name.clone());
            worker
                .run(move |worker| worker.keep(&name, &refresh))
                .await?;
            self.unsaved = None;
        }
        Ok(())
    }
}

async fn refresh_token(mailbox: &config::Mailbox, worker: &Handle) -> Result<Secret, InboxError> {
    let name = SecretName::Oauth(mailbox.name.clone());
    let kept = worker.secret(&SecretSource::Vault, name).await?;
    kept.ok_or_else(|| InboxError::NotSignedIn(mailbox.name.clone()))
}

/// Whether there is what access tokens are asked for with. The provider is not asked.
pub(super) async fn is_signed_in(
    mailbox: &config::Mailbox,
    oauth2: &Oauth2,
    worker: &Handle,
) -> Result<(), InboxError> {
    client(mailbox, oauth2, worker).await?;
    match oauth2.grant {
        Grant::ClientCredentials => Ok(()),
        Grant::RefreshToken => refresh_token(mailbox, worker).await.map(drop),
    }
}

/// Who we are at the provider.
pub(super) async fn client(
    mailbox: &config::Mailbox,
    oauth2: &Oauth2,
    worker: &Handle,
) -> Result<Client, InboxError> {
    let client_secret = match &oauth2.client_secret {
        None => None,
        Some(source) => {
            let name = SecretName::Client(mailbox.name.clone());
            let read = worker.secret(source, name).await?;
            let missing = || InboxError::NoClientSecret(mailbox.name.clone());
            Some(read.ok_or_else(missing)?)
        }
    };
    let usual: &[&str] = match (&oauth2.provider, oauth2.grant) {
        (Provider::Google, _) => GOOGLE_SCOPES,
        (Provider::Microsoft { .. }, Grant::RefreshToken) => MICROSOFT_SCOPES,
        (Provider::Microsoft { .. }, Grant::ClientCredentials) => MICROSOFT_SERVICE_SCOPES,
        (Provider::Other { .. }, _) => &[],
    };
    let usual = || usual.iter().map(|&scope| scope.to_owned()).collect();
    Ok(Client {
        endpoints: match &oauth2.provider {
            Provider::Google => Endpoints::google(),
            Provider::Microsoft { tenant } => Endpoints::microsoft(tenant),
            Provider::Other {
                token,
                authorization,
                device,
            } => Endpoints {
                token: token.clone(),
                authorization: authorization.clone(),
                device: device.clone(),
                authorization_extra: Vec::new(),
                redirect_by_name: false,
            },
        },
        client_id: oauth2.client_id.clone(),
        client_secret,
        scopes: oauth2.scopes.clone().unwrap_or_else(usual),
    })
}

/// The way to the provider: what is trusted for the mail server is trusted for
/// it, too, and it is behind the same proxy.
pub(super) async fn http(
    mailbox: &config::Mailbox,
    client: &Client,
    doors: &Doors,
) -> Result<Http, InboxError> {
    let (ca_file, url) = (mailbox.ca_file.as_deref(), &client.endpoints.token);
    match doors.http(ca_file, &mailbox.proxy, url).await {
        Ok(http) => Ok(http),
        Err(WayError::Roots(error)) => Err(error.into()),
        Err(WayError::Http(error)) => Err(OauthError::from(error).into()),
    }
}

#[cfg(test)]
mod tests;
