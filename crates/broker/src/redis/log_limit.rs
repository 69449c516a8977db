//! A limit on how often a repeating log line is written.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Allows a repeating log line once in [`LogRateLimit::PAUSE`].
#[derive(Debug)]
pub(super) struct LogRateLimit(Mutex<Option<Instant>>);

impl LogRateLimit {
    const PAUSE: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(super) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= Self::PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
