//! What a run tells while it runs, on the standard error stream: one line that is rewritten on a terminal, and only whole
//! results elsewhere.

#![expect(clippy::print_stderr, reason = "a command-line tool talks to its user")]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Often enough to look alive, seldom enough to cost nothing.
const LIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Goes to the start of the line and clears it.
const CLEAR_LINE: &str = "\r\x1b[2K";
/// A longer line would wrap, and could not be rewritten.
const LIVE_WIDTH_MAX: usize = 118;

/// Who is told, and when last.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    /// In front of every live line: which turn this is.
    turn: String,
    last: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), turn: String::new(), last: Instant::now() }
    }

    /// A turn begins.
    pub(crate) fn begin(&mut self, turn: String) {
        self.turn = turn;
        self.live("starting");
    }

    /// Whether it is time for `live` again.
    pub(crate) fn is_due(&self) -> bool {
        self.last.elapsed() >= LIVE_INTERVAL
    }

    /// Where the turn stands now.
    pub(crate) fn live(&mut self, state: &str) {
        self.last = Instant::now();
        if self.is_terminal {
            let line: String = format!("{}: {state}", self.turn).chars().take(LIVE_WIDTH_MAX).collect();
            eprint!("{CLEAR_LINE}{line}");
            // Nobody is harmed by progress that is not seen.
            let _ = std::io::stderr().flush();
        }
    }

    /// What the turn came to.
    pub(crate) fn done(&mut self, result: &str) {
        let clear = if self.is_terminal { CLEAR_LINE } else { "" };
        eprintln!("{clear}{}: {result}", self.turn);
    }
}
