//! `cargo xtask ci`: every check that a change must pass, within 25 minutes on two cold cores.

use std::time::Duration;

use crate::process::{self, cargo};
use crate::report::{Report, Stop};
use crate::{attack, chart, fuzz, instructions, structure, test};

const CHECK_DEADLINE: Duration = Duration::from_secs(1200);
const FUZZ_SECONDS: u32 = 10;

pub(crate) fn run(report: &mut Report) -> Result<(), Stop> {
    // Nothing stops the run: one report has all faults.
    let format = report.step("format", || process::run(cargo(&["fmt", "--all", "--check"]), CHECK_DEADLINE));
    let lints = report.step("lints", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        process::run(cargo(&arguments), CHECK_DEADLINE)
    });
    let structured = structure::run(report);
    // Among the suites, metrics.py holds the metrics against `promtool check metrics`.
    let tests = test::run(report, None);
    let attacked = attack::run_installed(report, &attack::Arguments::default());
    let charted = chart::run(report);
    let counted = instructions::compare(report, None);
    let fuzzed = fuzz::run(report, None, FUZZ_SECONDS);
    format.and(lints).and(structured).and(tests).and(attacked).and(charted).and(counted).and(fuzzed)
}
