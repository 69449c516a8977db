//! `cargo xtask ci`: every check that a change must pass, within 25 minutes on two cold cores.

use std::time::Duration;

use crate::process::{self, cargo};
use crate::report::{Report, Stop};
use crate::{attack, chart, end_to_end, fuzz, instructions, structure, test, tools};

const CHECK_DEADLINE: Duration = Duration::from_secs(1200);
/// With what the tests leave of the processors.
const FUZZ_SECONDS: u32 = 20;

pub(crate) fn run(report: &mut Report) -> Result<(), Stop> {
    // Nothing stops the run: one report has all faults.
    let format = report.step("format", || process::run(cargo(&["fmt", "--all", "--check"]), CHECK_DEADLINE));
    let lints = report.step("lints", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        process::run(cargo(&arguments), CHECK_DEADLINE)
    });
    let structured = structure::run(report);
    let tests = run_tests(report);
    let attacked = attack::run_installed(report, &attack::Arguments::default());
    let charted = chart::run(report);
    let counted = instructions::compare(report, None);
    format.and(lints).and(structured).and(tests).and(attacked).and(charted).and(counted)
}

/// The tests wait more than they compute. So parsers are fuzzed beside them, and beside the suites, which have a copy of the
/// binary, is built what later steps need. Attacks run alone, since they measure.
fn run_tests(report: &mut Report) -> Result<(), Stop> {
    let programs = test::build(report)?;
    let fuzzing = match report.prepare("cargo fuzz", tools::cargo_fuzz) {
        Ok(()) => fuzz::beside(FUZZ_SECONDS),
        Err(Stop) => Vec::new(),
    };
    report.beside(fuzzing, |report| {
        let own = test::run_programs(report, programs, None);
        // Among the suites, metrics.py holds the metrics against `promtool check metrics`.
        let suites = report.beside(vec![attack::build_beside(), instructions::build_beside()], |report| {
            end_to_end::run(report, None)
        });
        own.and(suites)
    })
}
