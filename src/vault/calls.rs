//! Calls to a store: one thread, a deadline each, and a breaker.
//!
//! While a call that timed out has not come back, further ones fail at once
//! instead of queueing behind it. It is done all the same when the store comes
//! back: whoever writes must read before. A store that panics has failed: it is
//! opened again, as one that fails in any other way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keyring_core::CredentialStore;

use super::VaultError;

/// How long a call to the store may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The way to a store's thread. Clones share it.
#[derive(Clone)]
pub(super) struct Calls {
    jobs: mpsc::Sender<Job>,
    stuck: Arc<AtomicBool>,
    deadline: Duration,
}

/// Work, which says whether the store answered as it should.
type Job = Box<dyn FnOnce(&CredentialStore) -> bool + Send>;

impl Calls {
    /// Opens a store on a thread of its own.
    pub(super) fn start(
        open: impl Fn() -> Result<Arc<CredentialStore>, VaultError> + Send + 'static,
    ) -> Result<Self, VaultError> {
        Self::start_with(open, DEADLINE)
    }

    pub(super) fn start_with(
        open: impl Fn() -> Result<Arc<CredentialStore>, VaultError> + Send + 'static,
        deadline: Duration,
    ) -> Result<Self, VaultError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, result) = mpsc::sync_channel(1);
        let stuck = Arc::new(AtomicBool::new(false));
        let free = Arc::clone(&stuck);
        std::thread::Builder::new()
            .name("vault".into())
            .spawn(move || {
                let mut store = match caught(&open) {
                    Ok(store) => store,
                    Err(error) => {
                        // The receiver is gone only after its deadline.
                        opened.send(Err(error)).unwrap_or_default();
                        return;
                    }
                };
                if opened.send(Ok(())).is_err() {
                    return;
                }
                let mut well = true;
                for job in queue {
                    // A service that was started anew does not know us any more.
                    if !well && let Ok(again) = caught(&open) {
                        store = again;
                    }
                    well = job(store.as_ref());
                    free.store(false, Ordering::Release);
                }
            })
            .map_err(VaultError::Thread)?;
        result
            .recv_timeout(deadline)
            .unwrap_or(Err(VaultError::TimedOut))?;
        Ok(Self {
            jobs,
            stuck,
            deadline,
        })
    }

    /// Has the store do something.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CredentialStore) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        if self.stuck.load(Ordering::Acquire) {
            return Err(VaultError::Stuck);
        }
        let (answer, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |store| {
            let done = caught(|| work(store));
            let well = !matches!(done, Err(VaultError::Store(_) | VaultError::NoAccess));
            // Nobody waits any more after the deadline; the work was done all the same.
            answer.send(done).unwrap_or_default();
            well
        });
        self.jobs.send(job).map_err(|_| VaultError::Stopped)?;
        match result.recv_timeout(self.deadline) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.stuck.store(true, Ordering::Release);
                // It may have come in between, and then nobody clears the mark.
                match result.try_recv() {
                    Ok(late) => {
                        self.stuck.store(false, Ordering::Release);
                        late
                    }
                    Err(_) => Err(VaultError::TimedOut),
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(VaultError::Stopped),
        }
    }
}

/// A library's panic must not take the thread, and with it the vault.
fn caught<T>(work: impl FnOnce() -> Result<T, VaultError>) -> Result<T, VaultError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(
            event = "vault.panicked",
            "the credential store's library went wrong"
        );
        Err(VaultError::Store("its library went wrong"))
    })
}
