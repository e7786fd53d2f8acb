//! Secrets that are kept elsewhere, for those who must not wait for ever: a
//! program may wait for somebody, and a disk may be gone with its network.
//!
//! Each is read on a thread that is given up at a deadline. While that thread
//! hangs the same place is not read again, so that no more of them hang than
//! there are places. The worker, which everybody waits for, does not come back
//! to a place that was silent for a while either.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::secrets::{self, DEADLINE, SecretError};
use crate::config::SecretSource;
use crate::secret::Secret;

/// How long a command that was killed at the deadline has to be gone.
const DYING: Duration = Duration::from_secs(1);

/// How long the worker leaves a place alone that was silent.
const REST: Duration = Duration::from_secs(60);

/// So many are read at the same time.
const AT_ONCE: usize = 16;

/// What was read in a place; `None` where that is the vault.
type Read = Result<Option<Secret>, SecretError>;

/// The same, for all that ask for it.
pub(super) type Shared = Result<Option<Secret>, Arc<SecretError>>;

/// The way to the secrets that are kept elsewhere. Clones share what they know
/// of the places.
#[derive(Clone, Default)]
pub(super) struct Elsewhere {
    silent: Arc<Mutex<BTreeMap<SecretSource, Silent>>>,
}

/// A place that did not answer in time.
struct Silent {
    since: Instant,
    /// Alive for as long as the thread that was given up.
    reader: Weak<()>,
}

impl Elsewhere {
    /// Reads a secret, which takes no longer than the deadline.
    pub(super) fn read(&self, source: &SecretSource) -> Read {
        let limit = DEADLINE.saturating_add(match source {
            SecretSource::Command(_) => DYING,
            SecretSource::Vault | SecretSource::Credential(_) | SecretSource::File(_) => {
                Duration::ZERO
            }
        });
        let place = source.clone();
        self.read_within(limit, source, move || secrets::read(&place))
    }

    fn read_within(
        &self,
        limit: Duration,
        source: &SecretSource,
        read: impl FnOnce() -> Read + Send + 'static,
    ) -> Read {
        if self.known().get(source).is_some_and(Silent::hangs) {
            return Err(SecretError::TimedOut(name(source)));
        }
        let running = Arc::new(());
        let reader = Arc::downgrade(&running);
        let read = within(limit, move || {
            let read = read();
            drop(running);
            read
        });
        let read = read
            .map_err(SecretError::Thread)?
            .unwrap_or_else(|| Err(SecretError::TimedOut(name(source))));
        if matches!(read, Err(SecretError::TimedOut(_))) {
            let since = Instant::now();
            self.known()
                .insert(source.clone(), Silent { since, reader });
        } else {
            self.known().remove(source);
        }
        read
    }

    /// Reads secrets for the worker, several at the same time. That a place is
    /// silent costs the deadline once, for all of them and for a while.
    pub(super) fn read_all(
        &self,
        sources: BTreeSet<SecretSource>,
    ) -> BTreeMap<SecretSource, Shared> {
        self.read_all_by(sources, |source| self.read(source))
    }

    fn read_all_by(
        &self,
        sources: BTreeSet<SecretSource>,
        read: impl Fn(&SecretSource) -> Read + Sync,
    ) -> BTreeMap<SecretSource, Shared> {
        let mut found = BTreeMap::new();
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for source in sources {
            match self.known().get(&source) {
                Some(silent) if silent.is_left_alone() => {
                    let silent = Err(Arc::new(SecretError::TimedOut(name(&source))));
                    found.insert(source, silent);
                }
                // Those that have answered so far do not wait for the others.
                Some(_) => last.push(source),
                None => first.push(source),
            }
        }
        first.extend(last);
        let threads = first.len().min(AT_ONCE);
        let turns = Mutex::new(first.into_iter());
        let turn = || turns.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (done, results) = mpsc::channel();
        let work = |done: mpsc::Sender<_>| {
            while let Some(source) = turn() {
                let read = read(&source);
                let is_silent = matches!(read, Err(SecretError::TimedOut(_)));
                // The receiver is there until all have ended.
                done.send((source, read.map_err(Arc::new)))
                    .unwrap_or_default();
                if is_silent {
                    // Another deadline would be too much.
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                let (thread, done) = (thread::Builder::new(), done.clone());
                let started = thread
                    .name("secrets".into())
                    .spawn_scoped(scope, || work(done));
                if started.is_err() {
                    // The others take the turns.
                    break;
                }
            }
            work(done);
        });
        found.extend(results);
        while let Some(source) = turn() {
            let error = SecretError::NoTurn(name(&source));
            found.insert(source, Err(Arc::new(error)));
        }
        found
    }

    /// A person may have mended what was silent.
    pub(super) fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SecretSource, Silent>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silent {
    fn hangs(&self) -> bool {
        self.reader.strong_count() > 0
    }

    fn is_left_alone(&self) -> bool {
        self.hangs() || self.since.elapsed() < REST
    }
}

/// Does something on a thread of its own; `None` where that is given up, and
/// goes on by itself for as long as it takes.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (send, done) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("secret".into())
        .spawn(move || {
            // Nobody waits any more after the limit.
            send.send(work()).unwrap_or_default();
        })?;
    Ok(done.recv_timeout(limit).ok())
}

/// What people know a place by.
fn name(source: &SecretSource) -> String {
    match source {
        SecretSource::Vault => "the vault".to_owned(),
        SecretSource::Credential(id) => format!("the credential {id}"),
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Command(argv) => argv.first().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn place(number: usize) -> SecretSource {
        SecretSource::Credential(format!("{number:03}"))
    }

    fn places(numbers: std::ops::Range<usize>) -> BTreeSet<SecretSource> {
        numbers.map(place).collect()
    }

    fn answer(is_well: bool) -> Read {
        if is_well {
            Ok(Some(Secret::new("password".into())))
        } else {
            Err(SecretError::TimedOut("x".into()))
        }
    }

    /// How many were read, were silent, and had no turn.
    fn counted(found: &BTreeMap<SecretSource, Shared>) -> (usize, usize, usize) {
        let is = |which: fn(&SecretError) -> bool| {
            let errors = found.values().filter_map(|read| read.as_ref().err());
            errors.filter(|error| which(error)).count()
        };
        (
            found.values().filter(|read| read.is_ok()).count(),
            is(|error| matches!(error, SecretError::TimedOut(_))),
            is(|error| matches!(error, SecretError::NoTurn(_))),
        )
    }

    #[test]
    fn what_hangs_is_given_up_and_not_begun_again_before_it_is_back() {
        let elsewhere = Elsewhere::default();
        let (resume, hangs) = mpsc::channel::<()>();
        let short = Duration::from_millis(20);
        let hung = elsewhere.read_within(short, &place(1), move || {
            hangs.recv().unwrap();
            answer(true)
        });
        let hung = hung.unwrap_err();
        assert!(matches!(hung, SecretError::TimedOut(_)), "{hung}");
        for _ in 0..3 {
            // It would answer, if it were begun.
            let again = elsewhere.read_within(DEADLINE, &place(1), || answer(true));
            assert_eq!(again.unwrap_err().to_string(), hung.to_string());
        }
        // Others are not kept from anything.
        let other = elsewhere.read_within(DEADLINE, &place(2), || answer(true));
        assert!(other.unwrap().is_some());

        resume.send(()).unwrap();
        let begun = Instant::now();
        while elsewhere.known()[&place(1)].hangs() {
            assert!(begun.elapsed() < DEADLINE, "it does not come back");
            thread::yield_now();
        }
        let back = elsewhere.read_within(DEADLINE, &place(1), || answer(true));
        assert!(back.unwrap().is_some());
        assert!(elsewhere.known().is_empty());
    }

    #[test]
    fn the_worker_leaves_alone_what_was_silent_until_somebody_may_have_mended_it() {
        let elsewhere = Elsewhere::default();
        let runs = AtomicUsize::new(0);
        let look = |well: bool| {
            let found = elsewhere.read_all_by(places(0..8), |source| {
                runs.fetch_add(1, Ordering::Relaxed);
                elsewhere.read_within(DEADLINE, source, move || answer(well))
            });
            counted(&found)
        };
        assert_eq!(look(false), (0, 8, 0));
        assert_eq!(look(true), (0, 8, 0), "it is the same error");
        assert_eq!(runs.load(Ordering::Relaxed), 8);
        elsewhere.forget();
        assert_eq!(look(true), (8, 0, 0));
        assert_eq!(runs.load(Ordering::Relaxed), 16);
    }

    /// All hang until all have begun: one after the other they would for ever.
    #[test]
    fn several_are_read_at_the_same_time() {
        let together = std::sync::Barrier::new(AT_ONCE);
        let found = Elsewhere::default().read_all_by(places(0..AT_ONCE), |_| {
            together.wait();
            answer(true)
        });
        assert_eq!(counted(&found), (AT_ONCE, 0, 0));
    }

    #[test]
    fn that_many_are_silent_is_waited_for_once() {
        let elsewhere = Elsewhere::default();
        let read = |source: &SecretSource| {
            let is_well = *source > place(99);
            elsewhere.read_within(DEADLINE, source, move || answer(is_well))
        };
        let found = elsewhere.read_all_by(places(0..200), read);
        assert_eq!(counted(&found), (0, AT_ONCE, 200 - AT_ONCE));
        let few = elsewhere.read_all_by(places(90..200), read);
        let (well, silent, _) = counted(&few);
        assert_eq!((well, silent), (100, 10), "few that are silent keep nobody");
    }

    #[test]
    fn what_was_silent_is_read_after_what_was_not() {
        let elsewhere = Elsewhere::default();
        for number in 0..AT_ONCE {
            let silent = Silent {
                since: Instant::now().checked_sub(REST).unwrap(),
                reader: Weak::new(),
            };
            elsewhere.known().insert(place(number), silent);
        }
        let found = elsewhere.read_all_by(places(0..AT_ONCE * 2), |source| {
            answer(*source >= place(AT_ONCE))
        });
        assert_eq!(counted(&found), (AT_ONCE, AT_ONCE, 0));
    }
}
