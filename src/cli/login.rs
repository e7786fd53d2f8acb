//! `tokenwatch login`

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use hyper::Method;
use tokio::sync::mpsc;

use super::Ended;
use super::client::segment;
use super::error::CliError;
use super::reach::Reach;
use super::secret::store;
use crate::api::{ErrorBody, SignInEvent};
use crate::config::Config;
use crate::daemon::{DaemonError, SecretName, SignIn};

pub(super) async fn login(config: Config, mailbox: &str, browser: bool) -> Ended {
    SignIn::find(&config, mailbox)?;
    let config = Arc::new(config);
    match Reach::open(Arc::clone(&config)).await? {
        Reach::Daemon(mut daemon) => {
            let mut ended: Option<Result<(), ErrorBody>> = None;
            let show = |event: SignInEvent| -> anyhow::Result<()> {
                match event {
                    SignInEvent::Done => ended = Some(Ok(())),
                    SignInEvent::Failed(error) => ended = Some(Err(error)),
                    prompt @ (SignInEvent::Device { .. } | SignInEvent::Browser { .. }) => {
                        tell(prompt)?;
                    }
                }
                Ok(())
            };
            let path = format!("/v1/login/{}?browser={browser}", segment(mailbox));
            daemon.lines(Method::POST, &path, "", show).await?;
            match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(CliError::Daemon(error).into()),
                None => anyhow::bail!("the daemon stopped before the sign-in was done"),
            }
        }
        Reach::Alone(worker) => {
            let (configured, oauth2) = SignIn::find(&config, mailbox)?;
            let sign_in = SignIn::prepare_alone(&config, *worker, configured, oauth2).await?;
            let (events, mut received) = mpsc::channel(16);
            let showing = async {
                while let Some(event) = received.recv().await {
                    tell(event)?;
                }
                anyhow::Ok(())
            };
            let signing_in = async {
                let ended = sign_in.run(browser, &events).await;
                drop(events);
                ended
            };
            let (refresh, shown) = tokio::join!(signing_in, showing);
            shown?;
            let refresh = refresh.map_err(|error| DaemonError::sign_in(mailbox, error))?;
            if let Some(refresh) = refresh {
                // A daemon may run by now.
                store(&config, &SecretName::Oauth(mailbox.to_owned()), &refresh).await?;
            }
        }
    }
    let mut err = anstream::stderr().lock();
    writeln!(err, "signed in for mailbox {mailbox}")?;
    Ok(ExitCode::SUCCESS)
}

/// Says what is to be done.
fn tell(event: SignInEvent) -> anyhow::Result<()> {
    let mut err = anstream::stderr().lock();
    match event {
        SignInEvent::Device {
            url,
            code,
            complete_url,
            seconds,
        } => {
            writeln!(err, "open {url} and enter the code {code}")?;
            if let Some(complete) = complete_url {
                writeln!(err, "or open {complete}")?;
            }
            writeln!(err, "waiting for {} minutes …", minutes(seconds))?;
        }
        SignInEvent::Browser { url, port, seconds } => {
            writeln!(err, "open this in a browser on this machine:\n{url}")?;
            writeln!(
                err,
                "(from another machine, `ssh -L {port}:127.0.0.1:{port}` to here first)"
            )?;
            writeln!(err, "waiting for {} minutes …", minutes(seconds))?;
        }
        SignInEvent::Done | SignInEvent::Failed(_) => {}
    }
    Ok(())
}

fn minutes(seconds: u64) -> u64 {
    seconds.div_ceil(60)
}
