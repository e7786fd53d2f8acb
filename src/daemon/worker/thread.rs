//! The worker on a thread of its own, and the way to it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::super::board::Board;
use super::super::elsewhere::Elsewhere;
use super::super::state::StateError;
use super::{SecretName, Worker};
use crate::config::SecretSource;
use crate::secret::Secret;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The way to a worker on its own thread. The worker ends, and lets go of the
/// vault, when the last handle is dropped.
#[derive(Clone)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
    board: Arc<Board>,
    elsewhere: Elsewhere,
    bell: Arc<Notify>,
    again: watch::Sender<()>,
}

/// Puts a worker on its own thread. The receiver hears of its end.
pub(in crate::daemon) fn start(
    mut worker: Worker,
) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let (jobs, mut queue) = mpsc::channel::<Job>(64);
    let (ended, end) = oneshot::channel();
    let (board, bell) = (Arc::clone(&worker.board), Arc::clone(&worker.bell));
    let elsewhere = worker.elsewhere.clone();
    let again = worker.again.clone();
    std::thread::Builder::new()
        .name("worker".into())
        .spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                // What is on the disk is whole at any moment, so one piece of
                // work that goes wrong is no reason to stop.
                if catch_unwind(AssertUnwindSafe(|| job(&mut worker))).is_err() {
                    tracing::error!(event = "worker.panicked", "a piece of work went wrong");
                }
            }
            drop(worker);
            // Nobody needs to be there any more.
            ended.send(()).unwrap_or_default();
        })?;
    let handle = Handle {
        jobs,
        board,
        elsewhere,
        bell,
        again,
    };
    Ok((handle, end))
}

impl Handle {
    /// Rung where an errand may be due.
    pub(in crate::daemon) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Tells where mails that were held have become undecided.
    pub(in crate::daemon) fn again(&self) -> watch::Receiver<()> {
        self.again.subscribe()
    }

    /// A secret from where the configuration says that it is; `None` where the
    /// vault has none. The worker is asked for the vault's alone: no other place
    /// keeps it waiting.
    pub(in crate::daemon) async fn secret(
        &self,
        source: &SecretSource,
        name: SecretName,
    ) -> Result<Option<Secret>, StateError> {
        if *source == SecretSource::Vault {
            return self.run(move |worker| worker.secret(&name)).await;
        }
        let (elsewhere, source) = (self.elsewhere.clone(), source.clone());
        let read = tokio::task::spawn_blocking(move || elsewhere.read(&source));
        let read = read.await.map_err(|_| StateError::Stopped)?;
        Ok(read?)
    }

    /// Has something done, and waits for it. A failure is put on the board.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // Who asked may have gone; the work was done all the same.
            answer.send(work(worker)).unwrap_or(());
        });
        self.jobs.send(job).await.map_err(|_| StateError::Stopped)?;
        let result = result.await.unwrap_or(Err(StateError::Stopped));
        match &result {
            Ok(_) => self.board.worker_is_well(),
            // Where a secret is elsewhere, that is not the storage's fault.
            Err(StateError::Secret(_)) => {}
            // The account's problem is on the board.
            Err(error) if error.is_of_one_account() => {}
            Err(error) => self.board.worker_failed(crate::chain(error), error.hint()),
        }
        result
    }
}
