//! The schedule of messages: the same for the raw baseline and for the publisher, so both offer the same load.
//!
//! Due times are fixed at the start. A sender that falls behind catches up at once, so the offered load never shrinks.

use std::time::Duration;

use crate::measure::process::monotonic_nanoseconds;

/// Counts bursts and schedules each.
#[derive(Debug)]
pub(crate) struct Pace {
    started: u64,
    interval: u64,
    sent: u32,
    total: u32,
}

impl Pace {
    /// Makes a schedule of `total` bursts, the first one now.
    pub(crate) fn start(bursts_per_second: f64, total: u32) -> Self {
        let interval = (1e9 / bursts_per_second) as u64;
        Self { started: monotonic_nanoseconds(), interval, sent: 0, total }
    }

    /// Returns the time until the next burst is due, zero if it is, or `None` when all were sent.
    pub(crate) fn wait(&self) -> Option<Duration> {
        if self.sent == self.total {
            return None;
        }
        Some(Duration::from_nanos(self.due().saturating_sub(monotonic_nanoseconds())))
    }

    /// Returns the due time of the next burst, by the monotonic clock.
    pub(crate) fn due(&self) -> u64 {
        self.started + u64::from(self.sent) * self.interval
    }

    /// Marks the due burst as sent, and returns its number.
    pub(crate) fn advance(&mut self) -> u32 {
        self.sent += 1;
        self.sent - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_come_at_their_times_and_end() {
        let mut pace = Pace::start(0.5, 2);
        assert_eq!(pace.wait(), Some(Duration::ZERO));
        let first = pace.due();
        assert_eq!(pace.advance(), 0);
        assert_eq!(pace.due() - first, 2_000_000_000);
        let wait = pace.wait().unwrap();
        assert!(wait > Duration::from_secs(1) && wait <= Duration::from_secs(2), "{wait:?}");
        assert_eq!(pace.advance(), 1);
        assert_eq!(pace.wait(), None);
    }
}
