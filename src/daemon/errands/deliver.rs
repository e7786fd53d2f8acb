//! A sink that is told of a credential.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;

use crate::config::{self, Config, FileFormat, Receiver, Webhook, WebhookFormat};
use crate::daemon::doors::{Doors, WayError};
use crate::daemon::looking::Tools;
use crate::daemon::state::StateError;
use crate::daemon::worker::{DeliveryJob, SecretName, Undelivered, Worker};
use crate::sink::{
    Body, Class, CommandOptions, Credential, FileOptions, Format, Options, Secrets, Sink,
    SinkError, WebhookOptions,
};

/// The sinks, by their names.
#[derive(Clone)]
pub(in crate::daemon) struct Receivers {
    sinks: Arc<BTreeMap<String, (Sink, config::Sink)>>,
}

/// A sink cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the sink {name} cannot be used")]
pub struct SetUpError {
    /// Its name.
    pub name: String,
    /// Why.
    #[source]
    pub source: UnusableSink,
}

/// Why a sink cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UnusableSink {
    /// What the configuration says of it.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The way to it.
    #[error(transparent)]
    Way(#[from] WayError),
}

impl SetUpError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match &self.source {
            UnusableSink::Sink(error) => error.hint().to_owned(),
            UnusableSink::Way(_) => "see `ca-file` and `proxy` of the sink".to_owned(),
        }
    }
}

/// Why a delivery failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("a secret of the sink cannot be read")]
    Secret(#[from] StateError),
    #[error("the sink is configured no more")]
    Unknown,
    #[error("telling the sink went wrong")]
    Panicked,
}

impl Receivers {
    /// Sets the configured sinks up.
    pub(in crate::daemon) async fn set_up(
        config: &Config,
        doors: &Doors,
    ) -> Result<Self, SetUpError> {
        let mut sinks = BTreeMap::new();
        for configured in &config.sinks {
            let name = configured.name.clone();
            let made = set_up(configured, doors).await;
            let sink = made.map_err(|source| SetUpError {
                name: name.clone(),
                source,
            })?;
            sinks.insert(name, (sink, configured.clone()));
        }
        Ok(Self {
            sinks: Arc::new(sinks),
        })
    }
}

/// Tells a sink once, and has the worker take in what came of it.
pub(super) async fn deliver(tools: Tools, receivers: Receivers, job: DeliveryJob) {
    let DeliveryJob { sink, credential } = job;
    // One that goes wrong is concluded, too, or the sink would be told no more.
    let ended = AssertUnwindSafe(tell(&tools, &receivers, &sink, &credential));
    let ended = ended.catch_unwind().await;
    let ended = ended.unwrap_or(Err(Failure::Panicked));
    let ended = ended.map_err(|failure| Undelivered {
        error: crate::chain(&failure),
        code: failure.code(),
        hint: failure.hint(),
        is_persons: failure.is_persons(),
        wait: failure.wait(),
    });
    let Credential { username, id, .. } = credential;
    let concluded = tools
        .worker
        .run(move |worker| worker.conclude((&sink, &username, &id), ended, Timestamp::now()));
    // What cannot be written is on the board, and the sink is told again.
    concluded.await.unwrap_or_default();
}

async fn tell(
    tools: &Tools,
    receivers: &Receivers,
    sink: &str,
    credential: &Credential,
) -> Result<(), Failure> {
    let (sink, configured) = receivers.sinks.get(sink).ok_or(Failure::Unknown)?;
    let secrets = match &configured.to {
        Receiver::Webhook(webhook) => secrets(tools, &configured.name, webhook).await?,
        Receiver::File { .. } | Receiver::Command { .. } | Receiver::Systemd { .. } => {
            Secrets::default()
        }
    };
    sink.deliver(credential, &secrets).await?;
    Ok(())
}

/// The secrets of a webhook, as they are now.
async fn secrets(tools: &Tools, name: &str, webhook: &Webhook) -> Result<Secrets, StateError> {
    let mut secrets = Secrets::default();
    if let Some(source) = &webhook.secret {
        let key = SecretName::Sink(name.to_owned());
        secrets.key = tools.worker.secret(source, key).await?;
    }
    for (field, source) in &webhook.headers {
        let key = SecretName::Sink(format!("{name}/{field}"));
        let value = tools.worker.secret(source, key).await?;
        // One that is missing is told of where it is needed.
        secrets
            .headers
            .extend(value.map(|value| (field.clone(), value)));
    }
    Ok(secrets)
}

/// At the start: tries what failed, and sees whether those that were told still
/// have it. A file may be gone after a reboot.
pub(super) async fn look_after(tools: &Tools, receivers: &Receivers) {
    // What fails here is on the board, and the wait is over some time.
    tools.worker.run(Worker::try_now).await.unwrap_or_default();
    let jobs = tools.worker.run(Worker::written_files).await;
    // All at once: a disk that does not answer keeps us waiting only once.
    let jobs = stream::iter(jobs.unwrap_or_default());
    jobs.for_each_concurrent(None, |job| async move {
        let Some((sink, _)) = receivers.sinks.get(&job.sink) else {
            return;
        };
        if sink.is_there(&job.credential).await {
            return;
        }
        let (sink, username) = (job.sink, job.credential.username);
        let again = tools
            .worker
            .run(move |worker| worker.deliver_again(&sink, &username));
        again.await.unwrap_or_default();
    })
    .await;
}

/// What keeps a sink from being told of these users' credentials, as far as that can be seen
/// without telling it: what was found, and what a person can do about it.
pub(in crate::daemon) async fn look_at(
    configured: &config::Sink,
    usernames: &[&str],
    tools: &Tools,
) -> Vec<(String, String)> {
    let mut ills = Vec::new();
    match set_up(configured, &tools.doors).await {
        Ok(sink) => {
            let programs = config::programs();
            for username in usernames {
                let looked = sink.look(username, &programs).await;
                let ill = looked.map_err(|error| (crate::chain(&error), error.hint().to_owned()));
                // Most often it is the same for all of them.
                ills.extend(ill.err().filter(|ill| !ills.contains(ill)));
            }
        }
        Err(source) => {
            let name = configured.name.clone();
            let error = SetUpError { name, source };
            ills.push((crate::chain(&error.source), error.hint()));
        }
    }
    for (name, source) in configured.secrets() {
        let Some(key) = SecretName::parse(&name) else {
            continue;
        };
        match tools.worker.secret(source, key).await {
            Ok(Some(_)) => {}
            Ok(None) => ills.push((
                format!("the secret {name} is not there"),
                format!("run `tokenwatch secret set {name}`"),
            )),
            Err(error) => ills.push((
                format!("the secret {name}: {}", crate::chain(&error)),
                error.hint(),
            )),
        }
    }
    ills
}

/// Sets one sink of the configuration up.
pub async fn sink(config: &Config, configured: &config::Sink) -> Result<Sink, UnusableSink> {
    set_up(configured, &Doors::new(config)).await
}

async fn set_up(configured: &config::Sink, doors: &Doors) -> Result<Sink, UnusableSink> {
    let options = match configured.to.clone() {
        Receiver::File {
            path,
            format,
            mode,
            owner,
        } => Options::File(FileOptions {
            path,
            format: match format {
                FileFormat::Env => Format::Env,
                FileFormat::DockerEnv => Format::DockerEnv,
                FileFormat::Json => Format::Json,
                FileFormat::Raw => Format::Raw,
                FileFormat::Template(path) => Format::Template(path),
            },
            mode,
            owner,
        }),
        Receiver::Command { argv, timeout } => Options::Command(CommandOptions {
            argv,
            timeout,
            hidden: config::not_for_children(),
        }),
        Receiver::Systemd { unit, timeout } => Options::Systemd {
            unit,
            timeout,
            hidden: config::not_for_children(),
        },
        Receiver::Webhook(webhook) => {
            let http = doors.http(webhook.ca_file.as_deref(), &webhook.proxy, &webhook.url);
            Options::Webhook(WebhookOptions {
                http: http.await?,
                body: match webhook.format {
                    WebhookFormat::Json => Body::Json,
                    WebhookFormat::Template(path) => Body::Template(path),
                    WebhookFormat::Kv2 => Body::Kv2,
                },
                url: webhook.url,
                put: webhook.put,
                include_secret: webhook.include_secret,
                signed: webhook.secret.is_some(),
                headers: webhook.headers.into_iter().map(|(name, _)| name).collect(),
                content_type: webhook.content_type,
                timeout: webhook.timeout,
            })
        }
    };
    Ok(Sink::new(&options)?)
}

impl Failure {
    fn is_persons(&self) -> bool {
        match self {
            Self::Sink(error) => error.class() == Class::Person,
            Self::Secret(error) => !error.is_transient(),
            Self::Unknown | Self::Panicked => true,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Sink(error) => error.code(),
            Self::Secret(_) => "secret",
            Self::Unknown => "unknown",
            Self::Panicked => "internal",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Sink(error) => error.hint().to_owned(),
            Self::Secret(error) => error.hint(),
            Self::Unknown => "restart the daemon".to_owned(),
            Self::Panicked => "this is a fault of tokenwatch: please report it".to_owned(),
        }
    }

    fn wait(&self) -> Option<std::time::Duration> {
        match self {
            Self::Sink(error) => error.retry_after(),
            Self::Secret(_) | Self::Unknown | Self::Panicked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::SecretError;
    use crate::vault::VaultError;

    #[test]
    fn a_secret_that_could_not_be_read_just_now_needs_nobody() {
        let of = |error: StateError| Failure::Secret(error).is_persons();
        for passes in [VaultError::TimedOut, VaultError::Stuck] {
            assert!(!of(passes.into()));
        }
        assert!(!of(SecretError::TimedOut("pass".into()).into()));
        assert!(of(VaultError::NoAccess.into()));
        assert!(of(SecretError::Command("pass".into()).into()));
    }
}
