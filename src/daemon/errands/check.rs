//! A login that proves a credential.

use crate::config::{self, Verify};
use crate::daemon::looking::Tools;
use crate::http::Http;
use crate::rotation;
use crate::salesforce::{self, Answer, Endpoint};
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

/// Logs in once, and has the worker take the answer in.
pub(super) async fn check(tools: Tools, job: CheckJob) {
    let answer = match way(&tools, &job.account).await {
        Ok((http, endpoint)) => match job.account.verify {
            Verify::Soap => {
                salesforce::check(&http, &endpoint, &job.account.username, &job.both).await
            }
            // It was turned off meanwhile.
            Verify::Off => Answer::Unreachable,
        },
        Err(error) => {
            tracing::error!(event = "salesforce.unusable", username = %job.account.username,
                error = %crate::chain(error.as_ref()),
                "no login can be made: see `login-url`, `ca-file` and `proxy` of the account");
            Answer::Unreachable
        }
    };
    let answer = noted(answer);
    let told = tools
        .worker
        .run(move |worker| worker.answered(&job.account.username, job.token, job.password, answer));
    // What cannot be written is on the board, and the login counts all the same.
    told.await.unwrap_or_default();
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
fn noted(answer: Answer) -> rotation::Answer {
    match answer {
        Answer::Works => rotation::Answer::Works,
        Answer::PasswordExpired => rotation::Answer::PasswordExpired,
        Answer::Refused => rotation::Answer::Refused,
        Answer::Locked => rotation::Answer::Locked,
        Answer::Restricted => rotation::Answer::Restricted,
        Answer::NotAvailable => rotation::Answer::NotAvailable,
        Answer::RateLimited => rotation::Answer::RateLimited,
        Answer::Unreachable => rotation::Answer::Unreachable,
        Answer::Unknown => rotation::Answer::Unknown,
    }
}
