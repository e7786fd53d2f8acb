//! The sign-in by device code (RFC 8628): a person opens a page somewhere else
//! and enters the code that we show.

use std::time::Duration;

use oauth2::{StandardDeviceAuthorizationResponse, VerificationUriComplete};

use super::{Client, OauthError, Tokens};
use crate::http::Http;

/// The longest that a provider may make us wait for a person.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The longest time between two questions that makes sense.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What a person has to be told.
#[derive(Clone, Debug)]
pub struct DevicePrompt {
    /// The page to open.
    pub verification_uri: String,
    /// The code to enter there.
    pub user_code: String,
    /// A page where the code is filled in already.
    pub verification_uri_complete: Option<String>,
    /// How long the code is good for.
    pub expires_in: Duration,
}

impl Client {
    /// Asks for a code, hands it to `tell`, and waits until somebody has entered it.
    ///
    /// # Errors
    ///
    /// [`OauthError::Denied`] and [`OauthError::Expired`], [`OauthError::NoEndpoint`] where the
    /// provider has no device flow, and whatever keeps the provider from being asked. While a
    /// person is waited for a provider that cannot be reached is asked again.
    pub async fn sign_in_by_device(
        &self,
        http: &Http,
        tell: impl FnOnce(DevicePrompt) + Send,
    ) -> Result<Tokens, OauthError> {
        let client = self.protocol()?;
        let codes: StandardDeviceAuthorizationResponse = client
            .exchange_device_code()
            .map_err(|_| OauthError::NoEndpoint("device authorization endpoint"))?
            .add_scopes(self.scopes())
            .request_async(http)
            .await
            .map_err(OauthError::from_request)?;
        let patience = codes.expires_in().min(PATIENCE);
        tell(prompt(&codes)?);
        let waiting =
            client
                .exchange_device_access_token(&codes)
                .request_async(http, pause, Some(patience));
        let answer = tokio::time::timeout(patience, waiting).await;
        Tokens::of(answer.map_err(|_| OauthError::Expired)?)
    }
}

/// An interval of nothing would make us ask as fast as the line allows.
async fn pause(interval: Duration) {
    tokio::time::sleep(interval.max(Duration::from_secs(1))).await;
}

/// A terminal obeys control characters, so none may come from a provider.
fn prompt(codes: &StandardDeviceAuthorizationResponse) -> Result<DevicePrompt, OauthError> {
    let complete = codes
        .verification_uri_complete()
        .map(VerificationUriComplete::secret);
    let prompt = DevicePrompt {
        verification_uri: codes.verification_uri().url().to_string(),
        user_code: codes.user_code().secret().clone(),
        verification_uri_complete: complete.cloned(),
        expires_in: codes.expires_in().min(PATIENCE),
    };
    let shown = [Some(&prompt.user_code), complete];
    let web = ["http", "https"].contains(&codes.verification_uri().url().scheme());
    if !web
        || shown
            .into_iter()
            .flatten()
            .any(|text| text.chars().any(char::is_control))
    {
        return Err(OauthError::Unintelligible(
            "holds a code that cannot be shown",
        ));
    }
    if codes.interval() > INTERVAL {
        return Err(OauthError::Unintelligible("wants us to wait too long"));
    }
    Ok(prompt)
}
