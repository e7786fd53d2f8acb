//! What is done every so often: the service manager is told how it goes
//! (`sd_notify(3)`; without one, nothing), and the worker tidies up.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::worker::Handle;

/// How often what did not go well is tried again.
const TIDY: Duration = Duration::from_secs(60);

/// Each so many rounds passwords that are kept elsewhere are read again.
const EVERYTHING: u64 = 5;

/// How often the summary for `systemctl status` is renewed at most.
const CALM: Duration = Duration::from_secs(1);

/// Configuration, vault and journal are open.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads again what it is given (`sd_notify(3)`, RELOADING=1).
fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(event = "systemd.notify", %error, "the service manager cannot be told");
    }
}

/// Keeps the summary fresh, and the watchdog content for as long as the worker
/// answers.
pub(super) async fn keep_informed(
    board: Arc<Board>,
    worker: Handle,
    reload: Arc<Notify>,
    stop: CancellationToken,
) {
    let summaries = async {
        let mut changes = board.changes();
        loop {
            tell(&[NotifyState::Status(&board.summary())]);
            tokio::time::sleep(CALM).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let watchdog = async {
        let Some(limit) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        loop {
            if worker.run(|_| Ok(())).await.is_ok() {
                tell(&[NotifyState::Watchdog]);
            }
            tokio::time::sleep(limit.div_f64(3.0)).await;
        }
    };
    let tidying = async {
        for round in 1_u64.. {
            let reloads = tokio::select! {
                () = tokio::time::sleep(TIDY) => false,
                () = reload.notified() => true,
            };
            if reloads {
                reloading();
            }
            let everything = reloads || round % EVERYTHING == 0;
            // What fails is on the board, and is tried again.
            let tidied = worker.run(move |worker| {
                if reloads {
                    worker.ask_again();
                }
                worker.tidy(everything)
            });
            tidied.await.unwrap_or_default();
            if reloads {
                ready();
                tracing::info!(
                    event = "daemon.reloaded",
                    "the secrets that are kept elsewhere were read again"
                );
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = summaries => {}
        () = tidying => {}
        () = watchdog => {}
    }
}
