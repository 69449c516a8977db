//! Redis' clock. Each heartbeat reads it, and a monotonic clock continues it, so the nodes' own clocks have no
//! influence on what they decide together.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::wall_clock;

pub(super) struct Clock {
    /// The base of the monotonic clock.
    started: Instant,
    /// Redis' time at `started`, in milliseconds since 1970.
    origin: AtomicI64,
    /// The node's own clock is wrong, which has been logged.
    is_wrong: AtomicBool,
}

impl Clock {
    const UNKNOWN: i64 = i64::MIN;
    /// The largest difference that is not logged.
    const DIFFERENCE_MAX: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            origin: AtomicI64::new(Self::UNKNOWN),
            is_wrong: AtomicBool::new(false),
        }
    }

    /// Sets the time that Redis has just returned, in milliseconds since 1970.
    pub(super) fn set(&self, now: i64) {
        self.origin.store(now.saturating_sub(self.elapsed()), Relaxed);
        self.compare(Duration::from_millis(now.try_into().unwrap_or_default()));
    }

    /// Returns the time since 1970, once it is known.
    pub(super) fn now(&self) -> Option<Duration> {
        let origin = Some(self.origin.load(Relaxed)).filter(|origin| *origin != Self::UNKNOWN)?;
        let now = origin.saturating_add(self.elapsed());
        Some(Duration::from_millis(now.try_into().unwrap_or_default()))
    }

    /// Returns the milliseconds since 1970, by the node's own clock until Redis' is known.
    pub(super) fn millis(&self) -> i64 {
        wall_clock::millis(self.now().unwrap_or_else(wall_clock::now))
    }

    fn elapsed(&self) -> i64 {
        self.started.elapsed().as_millis().try_into().unwrap_or(i64::MAX)
    }

    /// Logs once if the node's own clock is wrong.
    fn compare(&self, redis: Duration) {
        let difference = wall_clock::now().abs_diff(redis);
        let is_wrong = difference > Self::DIFFERENCE_MAX;
        if is_wrong && !self.is_wrong.swap(is_wrong, Relaxed) {
            tracing::warn!(
                seconds = difference.as_secs(),
                "this node's clock and Redis' differ. Nodes use Redis' clock, but tokens and expire_at are compared \
                 with this node's clock. Set both right"
            );
        }
        self.is_wrong.store(is_wrong, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_one_that_was_told_last() {
        let clock = Clock::new();
        assert_eq!(clock.now(), None);
        for told in [1_000_000, 5_000_000, 2_000_000] {
            clock.set(told);
            let now = clock.now().unwrap().as_millis();
            assert!((told as u128..told as u128 + 60_000).contains(&now), "{now}");
        }
        clock.set(-1);
        assert!(clock.now().is_some());
        clock.set(i64::MAX);
        assert!(clock.now().is_some());
    }
}
