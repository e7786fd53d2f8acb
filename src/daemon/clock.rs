//! Notices that the machine has slept.
//!
//! The timers of a process stand still while a machine sleeps, and connections
//! die without a word. The wall clock goes on: where it is far ahead of the
//! timers, every wait is ended and every line looked after at once.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the clocks are compared.
const TICK: Duration = Duration::from_secs(5);

/// The clocks of a machine that is awake do not part by so much. One that is
/// set forward costs a round trip a line, and no more.
const ASLEEP: Duration = Duration::from_secs(20);

/// Counts the times that the machine has slept.
pub(super) type Slept = watch::Receiver<u64>;

/// Compares the clocks for ever.
pub(super) async fn watch_over(slept: watch::Sender<u64>) {
    let mut before = (Timestamp::now(), Instant::now());
    loop {
        tokio::time::sleep(TICK).await;
        let now = (Timestamp::now(), Instant::now());
        if let Some(asleep) = slept_for(before, now) {
            tracing::info!(
                event = "daemon.woke",
                seconds = asleep.as_secs(),
                "the machine has slept; all connections are looked after"
            );
            slept.send_modify(|count| *count = count.wrapping_add(1));
        }
        before = now;
    }
}

/// How much further the wall clock went than the timers did.
fn slept_for(
    (wall_before, before): (Timestamp, Instant),
    (wall, now): (Timestamp, Instant),
) -> Option<Duration> {
    let wall = Duration::try_from(wall.duration_since(wall_before)).ok()?;
    let ahead = wall.checked_sub(now.saturating_duration_since(before))?;
    (ahead >= ASLEEP).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wall_clock_far_ahead_means_sleep() {
        let (wall, timer) = (Timestamp::now(), Instant::now());
        let after = |wall_seconds: i64, timer_seconds: u64| {
            let now = (
                wall + jiff::SignedDuration::from_secs(wall_seconds),
                timer + Duration::from_secs(timer_seconds),
            );
            slept_for((wall, timer), now).map(|asleep| asleep.as_secs())
        };
        assert_eq!(after(5, 5), None);
        assert_eq!(after(3605, 5), Some(3600));
        assert_eq!(after(-3600, 5), None, "set back");
        assert_eq!(after(60, 60), None, "a busy machine wakes us late");
        assert_eq!(after(24, 5), None);
    }
}
