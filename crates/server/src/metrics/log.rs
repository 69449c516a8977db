//! Lines of the log that were lost. A process has one log, so they are counted for the whole of it.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::{MetricFamily, MetricType};
use tracing::Level;

use super::{family, sample};

static DROPPED: [(Level, &str, AtomicU64); 5] = [
    (Level::ERROR, "error", AtomicU64::new(0)),
    (Level::WARN, "warn", AtomicU64::new(0)),
    (Level::INFO, "info", AtomicU64::new(0)),
    (Level::DEBUG, "debug", AtomicU64::new(0)),
    (Level::TRACE, "trace", AtomicU64::new(0)),
];

/// Counts a log line that was dropped. The program that sets the log up calls it.
pub fn count_dropped_log_line(level: Level) {
    for (_, _, lines) in DROPPED.iter().filter(|(of, ..)| *of == level) {
        lines.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn collect() -> MetricFamily {
    let samples = DROPPED.iter().map(|(_, level, lines)| {
        sample(MetricType::COUNTER, &[("level", level)], lines.load(Ordering::Relaxed) as f64)
    });
    let help = "Log lines that were dropped, as nobody read the log or it could not be written.";
    family("fanwire_log_lines_dropped_total", help, MetricType::COUNTER, samples.collect())
}
