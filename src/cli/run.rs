//! `tokenwatch run`

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Ended;
use crate::config::{self, Config};
use crate::daemon;

pub(super) fn run(config: Config, once: bool) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if once {
            daemon::once(config).await?;
        } else {
            // There is always one: the state folder's.
            let socket = config::sockets(&config.state_dir)
                .into_iter()
                .next()
                .unwrap_or_else(|| config.state_dir.join("control.sock"));
            let stop = CancellationToken::new();
            let signals = stop_at_a_signal(stop.clone())?;
            tokio::select! {
                // First: the daemon's own end wins.
                biased;
                ended = daemon::run(config, socket, stop) => ended?,
                () = signals => {}
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Cancels `stop` at SIGTERM, SIGINT and SIGHUP, and then waits for ever: the
/// daemon ends by itself.
fn stop_at_a_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
        stop.cancel();
        std::future::pending::<()>().await;
    })
}
