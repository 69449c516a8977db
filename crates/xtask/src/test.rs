//! `cargo xtask test`: the workspace's own tests, then real clients against the built binary.

use std::time::Duration;

use crate::process::{self, Outcome, cargo};
use crate::programs::{self, Program};
use crate::report::{Report, Stop};
use crate::{end_to_end, tools};

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
const TEST_DEADLINE: Duration = Duration::from_secs(900);

/// Programs that take minutes. They begin first, so that no lane ends long before the other.
const LONGEST: [&str; 3] =
    ["server/tests/stories/main.rs", "server/tests/stories/on_redis.rs", "loadtest/tests/scenarios.rs"];

pub(crate) fn run(report: &mut Report, filter: Option<&str>) -> Result<(), Stop> {
    let programs = build(report)?;
    let own = run_programs(report, programs, filter);
    end_to_end::run(report, filter).and(own)
}

/// Installs what the tests need, and builds the programs of the workspace's own.
pub(crate) fn build(report: &mut Report) -> Result<Vec<Program>, Stop> {
    report.prepare("programs", tools::system)?;
    report.prepare("JavaScript clients", tools::node_packages)?;
    report.prepare("peers of the load test", tools::peer_packages)?;
    report.prepare("Python clients", tools::python_packages)?;
    // Built first and for itself, so that the summary tells the time of compiling from that of testing.
    report.prepare("build", || {
        process::run(cargo(&["build", "--workspace", "--all-targets"]), BUILD_DEADLINE)
    })?;
    let mut programs = Vec::new();
    report.prepare("build of tests", || {
        programs = programs::build(&["test", "--workspace"])?;
        Ok(Outcome::DONE)
    })?;
    Ok(programs)
}

/// Runs the workspace's own tests whose name contains the filter.
pub(crate) fn run_programs(
    report: &mut Report,
    mut programs: Vec<Program>,
    filter: Option<&str>,
) -> Result<(), Stop> {
    programs.sort_by_key(|program| {
        let name = program.name();
        LONGEST.iter().position(|longest| name == *longest).unwrap_or(LONGEST.len())
    });
    let tests = programs.iter().map(|program| {
        let mut test = program.test();
        test.args(filter);
        (program.name(), test)
    });
    report.steps_in_lanes(tests.collect(), TEST_DEADLINE)
}
