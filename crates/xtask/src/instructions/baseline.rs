//! The cost of every case when it was last accepted: a file that is committed with the code it measures.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::count::Counts;
use crate::process::{self, Outcome, root};

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Baseline {
    made_with: Tools,
    /// Of one operation of each case.
    instructions: Counts,
}

/// The tools that change the number of instructions, beside our own code.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Tools {
    pub(super) rustc: String,
    pub(super) target: String,
    pub(super) libc: String,
    pub(super) valgrind: String,
}

impl Baseline {
    pub(super) fn new(made_with: Tools, instructions: Counts) -> Self {
        Self { made_with, instructions }
    }

    pub(super) fn read() -> Result<Self, String> {
        let path = path();
        let text = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        serde_json::from_slice(&text)
            .map_err(|error| format!("{} is not a baseline: {error}", path.display()))
    }

    pub(super) fn write(&self) -> Result<Outcome, String> {
        let path = path();
        let mut text = serde_json::to_string_pretty(self).expect("names and numbers have a form in JSON");
        text.push('\n');
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("written to {}", path.display());
        Ok(Outcome::DONE)
    }

    pub(super) fn instructions(&self) -> &Counts {
        &self.instructions
    }

    /// By how many percent a case costs more than it did; `None` for a new one.
    pub(super) fn change_percent(&self, case: &str, now: f64) -> Option<f64> {
        self.instructions.get(case).map(|before| (now / before - 1.0) * 100.0)
    }

    /// The tools that were others when the baseline was made.
    pub(super) fn unlike(&self, here: &Tools) -> Vec<Unlike> {
        let then = &self.made_with;
        [
            ("rustc", &then.rustc, &here.rustc),
            (TARGET, &then.target, &here.target),
            ("libc", &then.libc, &here.libc),
            ("valgrind", &then.valgrind, &here.valgrind),
        ]
        .into_iter()
        .filter(|(_, then, now)| then != now)
        .map(|(what, then, now)| Unlike { what, then: then.clone(), now: now.clone() })
        .collect()
    }
}

impl Tools {
    pub(super) fn here() -> Self {
        let rustc = process::output("rustc", &["-vV"]).unwrap_or_default();
        let field =
            |name| rustc.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(UNKNOWN).to_owned();
        let said = |program, argument| {
            process::output(program, &[argument]).map_or(UNKNOWN.to_owned(), |said| said.trim().to_owned())
        };
        Self {
            rustc: field("release: "),
            target: field("host: "),
            libc: said("getconf", "GNU_LIBC_VERSION"),
            valgrind: said("valgrind", "--version"),
        }
    }
}

/// A tool that was another then.
pub(super) struct Unlike {
    what: &'static str,
    then: String,
    now: String,
}

impl Unlike {
    pub(super) fn is_of_target(&self) -> bool {
        self.what == TARGET
    }
}

impl fmt::Display for Unlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {}, is {}", self.what, self.then, self.now)
    }
}

const TARGET: &str = "target";
const UNKNOWN: &str = "unknown";

fn path() -> PathBuf {
    root().join("crates/xtask/instructions-baseline.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_that_changed_are_named() {
        let tools =
            |rustc: &str, libc: &str| Tools { rustc: rustc.into(), libc: libc.into(), ..Tools::default() };
        let baseline = Baseline::new(tools("1", "2"), Counts::new());
        let named = |here| baseline.unlike(&here).iter().map(Unlike::to_string).collect::<Vec<_>>();
        assert!(named(tools("1", "2")).is_empty());
        assert_eq!(named(tools("3", "4")), ["rustc was 1, is 3", "libc was 2, is 4"]);
    }

    #[test]
    fn the_committed_baseline_is_one() {
        let baseline = Baseline::read().expect("it can be read");
        assert!(!baseline.instructions().is_empty());
    }
}
