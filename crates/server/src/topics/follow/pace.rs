//! The pause before a stream is asked again: none while it has the missing publications, and a growing one while it does
//! not.

use std::time::Duration;

use tokio::time::Instant;

use super::DirtyReason;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The time at which the stream was last asked without result.
    asked: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// The pause after the second question without result; doubles with each further one.
    const PAUSE_MIN: Duration = Duration::from_millis(50);
    /// The longest pause.
    pub(super) const PAUSE_MAX: Duration = Duration::from_secs(8);
    /// The longest pause where the stream may have what is missing.
    pub(super) const MISSED_PAUSE_MAX: Duration = Duration::from_secs(1);
    /// Questions without result that are further apart do not count.
    const QUIET: Duration = Duration::from_secs(1);

    /// The time at which to ask for that reason. A time in the past is now.
    pub(super) fn due(&self, reason: DirtyReason) -> Instant {
        let pause = match reason {
            DirtyReason::Epoch => self.pause,
            DirtyReason::Gap => self.pause.min(Self::MISSED_PAUSE_MAX),
        };
        self.asked.map_or_else(Instant::now, |asked| asked + pause)
    }

    /// Questions are being asked without result.
    pub(super) fn is_slow(&self) -> bool {
        !self.pause.is_zero()
    }

    /// The stream was asked and has answered.
    pub(super) fn asked(&mut self, in_vain: bool, now: Instant) {
        if !in_vain {
            *self = Self::default();
            return;
        }
        let since = self.asked.replace(now).map(|before| now.saturating_duration_since(before));
        self.pause = match since {
            Some(since) if since < self.pause + Self::QUIET => {
                (2 * self.pause).clamp(Self::PAUSE_MIN, Self::PAUSE_MAX)
            }
            _ => Duration::ZERO,
        };
    }
}
