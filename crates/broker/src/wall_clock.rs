//! This node's own clock of the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns a time since 1970 in milliseconds, as publications carry it.
pub(crate) fn millis(now: Duration) -> i64 {
    now.as_millis().try_into().unwrap_or(i64::MAX)
}
