//! `cargo xtask test`: the workspace's own tests, then real clients against the built binary.

use std::time::Duration;

use crate::process::{self, cargo};
use crate::report::{Report, Stop};
use crate::{end_to_end, tools};

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

pub(crate) fn run(report: &mut Report, filter: Option<&str>) -> Result<(), Stop> {
    report.prepare("programs", tools::system)?;
    report.prepare("JavaScript clients", tools::node_packages)?;
    report.prepare("peers of the load test", tools::peer_packages)?;
    report.prepare("Python clients", tools::python_packages)?;
    // Built first and for itself, so that the summary tells the time of compiling from that of testing.
    report.prepare("build", || {
        process::run(cargo(&["build", "--workspace", "--all-targets"]), BUILD_DEADLINE)
    })?;
    let own = report.step("cargo test", || {
        let mut test = cargo(&["test", "--workspace", "--no-fail-fast"]);
        test.args(filter);
        process::run(test, BUILD_DEADLINE)
    });
    end_to_end::run(report, filter).and(own)
}
