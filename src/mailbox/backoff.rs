//! When to try again.

use std::time::Duration;

/// Delays that double from a first to a last one, each with jitter, so that
/// many mailboxes do not come back in the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    /// From `first` to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            failures: 0,
        }
    }

    /// It failed again: how long to wait. `jitter` is a number from 0 to 1.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        // Between three quarters and the whole of it.
        doubled
            .min(self.last)
            .mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 4.0)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn delays_grow_to_the_last_and_never_beyond(
            jitters in prop::collection::vec(0.0..=1.0_f64, 1..100)
        ) {
            let (first, last) = (Duration::from_secs(2), Duration::from_secs(80));
            let mut backoff = Backoff::new(first, last);
            let mut before = Duration::ZERO;
            for jitter in jitters {
                let delay = backoff.next(jitter);
                prop_assert!(delay <= last && delay >= first.mul_f64(0.75));
                // Doubling outweighs the jitter, until the last is reached.
                prop_assert!(delay > before || delay >= last.mul_f64(0.75));
                before = delay;
            }
            backoff.reset();
            prop_assert!(backoff.next(1.0) <= first);
        }
    }
}
