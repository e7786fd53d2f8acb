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
use crate::api::{ErrorBody, SignInEvent};
use crate::config::Config;
use crate::daemon::SignIn;

pub(super) async fn login(config: Config, mailbox: &str, browser: bool) -> Ended {
    SignIn::find(&config, mailbox)?;
    let config = Arc::new(config);
    let mut ended: Option<Result<(), ErrorBody>> = None;
    let mut show = |event: SignInEvent| -> anyhow::Result<()> {
        if let Some(outcome) = tell(event)? {
            ended = Some(outcome);
        }
        Ok(())
    };
    match Reach::open(Arc::clone(&config)).await? {
        Reach::Daemon(mut daemon) => {
            let path = format!("/v1/login/{}?browser={browser}", segment(mailbox));
            daemon.lines(Method::POST, &path, "", show).await?;
        }
        Reach::Alone(worker) => {
            let (events, mut received) = mpsc::channel(16);
            let sign_in = SignIn::alone(config, *worker)?;
            let showing = async {
                while let Some(event) = received.recv().await {
                    show(event)?;
                }
                anyhow::Ok(())
            };
            let (_, shown) = tokio::join!(sign_in.run(mailbox, browser, events), showing);
            shown?;
        }
    }
    match ended {
        Some(Ok(())) => {
            let mut err = anstream::stderr().lock();
            writeln!(err, "signed in for mailbox {mailbox}")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Err(error)) => Err(CliError::Daemon(error).into()),
        None => anyhow::bail!("the daemon stopped before the sign-in was done"),
    }
}

/// Says what is to be done; `Some` is how it ended.
fn tell(event: SignInEvent) -> anyhow::Result<Option<Result<(), ErrorBody>>> {
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
        SignInEvent::Done => return Ok(Some(Ok(()))),
        SignInEvent::Failed(error) => return Ok(Some(Err(error))),
    }
    Ok(None)
}

fn minutes(seconds: u64) -> u64 {
    seconds.div_ceil(60)
}
