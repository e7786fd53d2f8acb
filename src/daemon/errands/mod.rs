//! What is done for the credentials outside: logins that prove them, sinks
//! that are told of them.
//!
//! The worker says what is due and takes in what came of it; here it is only
//! carried out, several at once. A login that is under way when the daemon
//! stops is waited for as long as a stop may take, since it counts whether or
//! not its answer is heard.

mod check;
mod deliver;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::looking::Tools;
use super::state::StateError;
use super::worker::Worker;
pub(super) use check::CheckJob;
pub(super) use deliver::{Receivers, look_at};
pub use deliver::{SetUpError, UnusableSink, sink};

/// How many are under way at once.
const AT_ONCE: usize = 8;

/// So often one that ends by itself tries again to write down what Salesforce has
/// said.
const TRIES: u32 = 4;

/// The longest sleep: the clock that says when something is due may be set.
const NAP: Duration = Duration::from_secs(30);

type Errand = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs errands, until it is stopped and what is under way is done.
pub(super) async fn run(tools: Tools, receivers: Receivers, stop: CancellationToken) {
    deliver::look_after(&tools, &receivers).await;
    let bell = tools.worker.bell();
    let mut under_way: FuturesUnordered<Errand> = FuturesUnordered::new();
    loop {
        // What fails is on the board.
        let next = begin(&tools, &receivers, &mut under_way).await;
        let nap = next.unwrap_or_default().unwrap_or(NAP).min(NAP);
        tokio::select! {
            () = stop.cancelled() => break,
            () = bell.notified() => {}
            Some(()) = under_way.next() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
    while under_way.next().await.is_some() {}
    // What Salesforce has said and could not be written so far, one last time.
    let written = tools.worker.run(|worker| {
        worker.write_answers(Timestamp::now(), Timestamp::MAX);
        Ok(())
    });
    written.await.unwrap_or_default();
}

/// Runs what is due now, and ends: how many sinks wait for something, and how
/// many credentials for their check.
pub(super) async fn finish(
    tools: &Tools,
    receivers: &Receivers,
) -> Result<(usize, usize), StateError> {
    // No look is under way any more.
    let settle = tools.worker.run(|worker| {
        worker.settle();
        Ok(())
    });
    settle.await?;
    deliver::look_after(tools, receivers).await;
    let mut under_way: FuturesUnordered<Errand> = FuturesUnordered::new();
    let mut tries = TRIES;
    loop {
        let begun = begin(tools, receivers, &mut under_way).await;
        // What was begun is done, whatever else cannot be begun.
        if under_way.next().await.is_some() {
            continue;
        }
        // What Salesforce has said and cannot be written is lost when we end.
        let kept = tools.worker.run(|worker| Ok(worker.next_answer())).await?;
        if let Some(at) = kept.filter(|_| tries > 0) {
            tries = tries.saturating_sub(1);
            tokio::time::sleep(until(at)).await;
            continue;
        }
        begun?;
        break;
    }
    tools.worker.run(Worker::waiting).await
}

/// Begins what is due, and says how long nothing else is.
async fn begin(
    tools: &Tools,
    receivers: &Receivers,
    under_way: &mut FuturesUnordered<Errand>,
) -> Result<Option<Duration>, StateError> {
    let room = AT_ONCE.saturating_sub(under_way.len());
    if room == 0 {
        return Ok(None);
    }
    // Each by itself: a login that was noted is made, and sinks are told, whatever
    // becomes of the rest.
    let now = Timestamp::now();
    let checks = tools.worker.run(move |worker| {
        worker.heed_clock(now)?;
        worker.begin_checks(now, room)
    });
    let (checks, failed) = parted(checks.await);
    for job in checks {
        under_way.push(guarded(check::check(tools.clone(), job)));
    }
    let room = AT_ONCE.saturating_sub(under_way.len());
    let begun = tools
        .worker
        .run(move |worker| worker.begin_deliveries(now, room));
    for job in begun.await? {
        under_way.push(guarded(deliver::deliver(
            tools.clone(),
            receivers.clone(),
            job,
        )));
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let next = tools.worker.run(|worker| worker.next_errand()).await?;
    Ok(next.map(until))
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

/// What there is to do, and what kept more from being there.
fn parted<T>(jobs: Result<Vec<T>, StateError>) -> (Vec<T>, Option<StateError>) {
    match jobs {
        Ok(jobs) => (jobs, None),
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// One that goes wrong keeps none of the others.
fn guarded(errand: impl Future<Output = ()> + Send + 'static) -> Errand {
    Box::pin(AssertUnwindSafe(errand).catch_unwind().map(|ended| {
        if ended.is_err() {
            tracing::error!(event = "errand.panicked", "an errand went wrong");
        }
    }))
}
