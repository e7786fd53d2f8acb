//! A login that proves a credential.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use jiff::Timestamp;

use crate::config::{self, Verify};
use crate::daemon::looking::Tools;
use crate::http::Http;
use crate::rotation::Answer;
use crate::salesforce::{self, Endpoint, Login};
use crate::secret::Secret;

/// A login that has been noted, and is to be made once.
pub(in crate::daemon) struct CheckJob {
    pub(in crate::daemon) account: config::Account,
    /// The keyed hashes of token and password, which name the pair.
    pub(in crate::daemon) token: String,
    pub(in crate::daemon) password: String,
    /// The two, as Salesforce wants them.
    pub(in crate::daemon) both: Secret,
}

/// Logs in once, has the worker take the answer in, and logs out again. The
/// worker has the answer first: the logout may take its time, or be cut off.
pub(super) async fn check(tools: Tools, job: CheckJob) {
    let CheckJob {
        account,
        token,
        password,
        both,
    } = job;
    // One that goes wrong is without an answer, and over all the same: the worker
    // begins no other login for the account before it has heard of this one.
    let made = AssertUnwindSafe(log_in(&tools, &account, &both));
    let made = made.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(event = "errand.panicked", username = %account.username,
            "a login went wrong");
        Err(Answer::Unknown)
    });
    let answer = made
        .as_ref()
        .map_or_else(|answer| *answer, |(.., login)| noted(login.answer));
    let told = tools.worker.run(move |worker| {
        let username = &account.username;
        worker.answered(username, token, password, answer, Timestamp::now())
    });
    // What cannot be written is on the board, and the worker writes it later.
    told.await.unwrap_or_default();
    if let Ok((http, endpoint, login)) = made {
        login.log_out(&http, &endpoint).await;
    }
}

/// A login that was made, and the way on which it was; else what there is to be
/// noted instead.
async fn log_in(
    tools: &Tools,
    account: &config::Account,
    both: &Secret,
) -> Result<(Http, Endpoint, Login), Answer> {
    match account.verify {
        Verify::Soap => {}
        // It was turned off meanwhile.
        Verify::Off => return Err(Answer::NotMade),
    }
    let (http, endpoint) = way(tools, account).await.map_err(|error| {
        tracing::error!(event = "salesforce.unusable", username = %account.username,
            error = %crate::chain(error.as_ref()),
            "no login can be made: see `login-url`, `ca-file` and `proxy` of the account");
        Answer::NotMade
    })?;
    let login = salesforce::log_in(&http, &endpoint, &account.username, both).await;
    Ok((http, endpoint, login))
}

async fn way(
    tools: &Tools,
    account: &config::Account,
) -> Result<(Http, Endpoint), Box<dyn std::error::Error + Send + Sync>> {
    let endpoint = Endpoint::new(&account.login_url, &account.api_version)?;
    let http = tools
        .doors
        .http(
            account.ca_file.as_deref(),
            &account.proxy,
            &account.login_url,
        )
        .await?;
    Ok((http, endpoint))
}

/// What Salesforce says, in the words of the rotation.
fn noted(answer: salesforce::Answer) -> Answer {
    match answer {
        salesforce::Answer::Works => Answer::Works,
        salesforce::Answer::PasswordExpired => Answer::PasswordExpired,
        salesforce::Answer::Refused => Answer::Refused,
        salesforce::Answer::Locked => Answer::Locked,
        salesforce::Answer::Restricted => Answer::Restricted,
        salesforce::Answer::NotAvailable => Answer::NotAvailable,
        salesforce::Answer::RateLimited => Answer::RateLimited,
        salesforce::Answer::Unreachable => Answer::Unreachable,
        salesforce::Answer::Unknown => Answer::Unknown,
    }
}
