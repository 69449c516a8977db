//! Progress of a run, on standard error: one line that is rewritten on a terminal, and only whole results elsewhere.

#![expect(clippy::print_stderr, reason = "a command-line tool talks to its user")]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Often enough to show progress, seldom enough to cost nothing.
const LIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Moves to the start of the line and clears it.
const CLEAR_LINE: &str = "\r\x1b[2K";
/// A longer line would wrap, and could not be rewritten.
const LIVE_WIDTH_MAX: usize = 118;

/// The terminal, if there is one, and the last output.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    /// The turn, at the start of every live line.
    turn: String,
    last: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), turn: String::new(), last: Instant::now() }
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, turn: String) {
        self.turn = turn;
        self.live("starting");
    }

    /// Returns true if it is time for `live` again.
    pub(crate) fn is_due(&self) -> bool {
        self.last.elapsed() >= LIVE_INTERVAL
    }

    /// Shows the progress of the turn.
    pub(crate) fn live(&mut self, state: &str) {
        self.last = Instant::now();
        if self.is_terminal {
            let line: String = format!("{}: {state}", self.turn).chars().take(LIVE_WIDTH_MAX).collect();
            eprint!("{CLEAR_LINE}{line}");
            // Progress that cannot be written is not missed.
            let _ = std::io::stderr().flush();
        }
    }

    /// Shows the result of the turn.
    pub(crate) fn done(&mut self, result: &str) {
        let clear = if self.is_terminal { CLEAR_LINE } else { "" };
        eprintln!("{clear}{}: {result}", self.turn);
    }
}
