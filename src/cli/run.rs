//! `tokenwatch run`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Ended;
use crate::config::{self, Config};
use crate::daemon;

/// Threads for the mailboxes: one that judges a large mail must not keep the
/// others waiting, and more would each cost memory on a machine of many cores.
const THREADS: usize = 2;

pub(super) fn run(config: Config, once: bool) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        if once {
            daemon::once(config).await?;
        } else {
            let sockets = config::sockets_to_serve(&config.state_dir);
            let stop = CancellationToken::new();
            let reload = Arc::new(Notify::new());
            let signals = heed_signals(stop.clone(), Arc::clone(&reload))?;
            tokio::select! {
                // First: the daemon's own end wins.
                biased;
                ended = daemon::run(config, &sockets, reload, stop) => ended?,
                () = signals => {}
            }
        }
        Ok(ExitCode::SUCCESS)
    });
    // A look-up of a name cannot be cut off, and is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Cancels `stop` at SIGTERM and SIGINT, and at SIGHUP where a terminal hangs
/// up, and then waits for ever: the daemon ends by itself. Without a terminal
/// SIGHUP is somebody's wish for a reload.
fn heed_signals(
    stop: CancellationToken,
    reload: Arc<Notify>,
) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        let has_terminal = std::io::stderr().is_terminal();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    if has_terminal {
                        break;
                    }
                    reload.notify_one();
                }
            }
        }
        stop.cancel();
        std::future::pending::<()>().await;
    })
}
