//! Work on a disk, which may be slow, or gone with the network that it is on. It must hold up
//! neither the network's threads nor, for ever, whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::SinkError;

/// Longer than a disk takes that is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does one thing after the other. What was given up goes on in its thread, and may come to its
/// end when the disk is back; nothing newer is begun before, so that it cannot be undone.
#[derive(Debug)]
pub(super) struct Disk(Arc<Semaphore>);

impl Disk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SinkError> {
        self.within(PATIENCE, work).await
    }

    async fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SinkError> {
        let done = async {
            let turn = Arc::clone(&self.0).acquire_owned().await;
            let turn = turn.map_err(|_| SinkError::Stopped)?;
            let work = spawn_blocking(move || {
                let done = work();
                drop(turn);
                done
            });
            work.await.map_err(|_| SinkError::Stopped)
        };
        let done = timeout(limit, done).await;
        done.map_err(|_| SinkError::Disk(limit))?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_given_up_and_nothing_overtakes_it() {
        let disk = Disk::new();
        let short = Duration::from_millis(20);
        let (resume, hangs) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let late = tell.clone();
        let hung = disk.within(short, move || {
            hangs.recv().unwrap();
            late.send("old").unwrap();
        });
        assert!(matches!(hung.await, Err(SinkError::Disk(_))));
        let overtakes = tell.clone();
        let next = disk.within(short, move || overtakes.send("not done").unwrap());
        assert!(matches!(next.await, Err(SinkError::Disk(_))));

        resume.send(()).unwrap();
        disk.run(move || tell.send("new").unwrap()).await.unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["old", "new"]);
    }
}
