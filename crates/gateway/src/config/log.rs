//! `[log]`: the level and the format of the log.

use tracing_subscriber::EnvFilter;

use super::checks::Checks;
use super::defaults::LOG_QUEUE_BYTES_MAX;
use super::section::{choice, section};
use super::values::Size;

section! {
    /// Logs go to standard output. The node never waits for their reader.
    Log {
        /// "text" for people, "json" for machines, "auto": text on a terminal and JSON elsewhere.
        format: LogFormat = LogFormat::Auto,
        /// "error", "warn", "info", "debug", "trace" or "off"; also by part: "info,fanwire_server=debug".
        level: String = "info".into(),
        /// Maximum bytes of log lines that wait to be written. Further lines are dropped, counted in
        /// `fanwire_log_lines_dropped_total`, and reported in the log once it is read again. Lines at debug and trace
        /// may fill half of it, at info three quarters, at warn seven eighths.
        queue_bytes_max: Size = LOG_QUEUE_BYTES_MAX,
    }
}

/// A long line must fit.
const QUEUE_BYTES_MIN: Size = Size(4 << 10);

choice! {
    /// The format of log lines.
    LogFormat {
        Auto = "auto",
        Text = "text",
        Json = "json",
    }
}

impl Log {
    pub(super) fn check(&self, checks: &mut Checks) {
        if self.queue_bytes_max.0 < QUEUE_BYTES_MIN.0 {
            checks.error("log.queue_bytes_max", format!("must be at least {QUEUE_BYTES_MIN}"));
        }
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let directive_is_level = |directive: &str| {
            // EnvFilter reads a bare word as a target, so `level = "inof"` would silence everything else.
            directive.contains(['=', '[']) || LEVELS.contains(&directive.to_ascii_lowercase().as_str())
        };
        if !self.level.split(',').map(str::trim).all(directive_is_level) {
            checks.error(
                "log.level",
                format!("must be one of {}, or part=level, with commas between", LEVELS.join(", ")),
            );
        } else if let Err(error) = EnvFilter::builder().parse(&self.level) {
            checks.error("log.level", error.to_string());
        }
    }
}
