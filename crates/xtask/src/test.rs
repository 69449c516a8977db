//! `cargo xtask test`: the workspace's own tests, then real clients against the built binary.

use std::time::Duration;

use crate::process::{self, Outcome, cargo};
use crate::programs::{self, Program};
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
    let names: Vec<String> = programs.iter().map(Program::name).collect();
    let own = report.steps_in_lanes(&names, |name| {
        let program = programs.iter().find(|program| program.name() == name).expect("it is one of the names");
        let mut test = program.test();
        test.args(filter);
        process::run_unshown(test, TEST_DEADLINE)
    });
    end_to_end::run(report, filter).and(own)
}
