//! A limit on how often a repeating log line is written.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Allows a repeating log line once in [`LogRateLimit::PAUSE`].
#[derive(Debug, Default)]
pub struct LogRateLimit(Mutex<Option<Instant>>);

impl LogRateLimit {
    const PAUSE: Duration = Duration::from_secs(10);

    /// Returns true if the line is to be written, and counts it as written then.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= Self::PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_repeats_is_written_now_and_then() {
        let limit = LogRateLimit::default();
        let lines = || (0..100).filter(|_| limit.is_due()).count();
        assert_eq!((lines(), lines()), (1, 0));
        tokio::time::advance(LogRateLimit::PAUSE).await;
        assert_eq!(lines(), 1);
    }
}
