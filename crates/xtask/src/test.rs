//! `cargo xtask test`: the workspace's own tests, then real clients against the built binary.

use std::time::Duration;

use crate::process::{self, Outcome, cargo};
use crate::programs;
use crate::report::{Report, Stop};
use crate::{end_to_end, tools};

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
const TEST_DEADLINE: Duration = Duration::from_secs(900);

pub(crate) fn run(report: &mut Report, filter: Option<&str>) -> Result<(), Stop> {
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
    let tests = programs.iter().map(|program| {
        let mut test = program.test();
        test.args(filter);
        (program.name(), test)
    });
    let own = report.steps_in_lanes(tests.collect(), TEST_DEADLINE);
    end_to_end::run(report, filter).and(own)
}
