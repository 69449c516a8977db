//! `cargo xtask bench`: runs the load tool's scenarios against the release build.

use std::time::Duration;

use crate::end_to_end::target_folder;
use crate::process::{self, cargo, command};
use crate::report::{Report, Stop};

const SCENARIOS: [&str; 2] = ["idle", "fanout"];
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
const RUN_DEADLINE: Duration = Duration::from_secs(1800);

pub(crate) fn run(report: &mut Report, scenario: Option<&str>, arguments: &[String]) -> Result<(), Stop> {
    report.prepare("release build", || {
        let build = cargo(&["build", "--release", "-p", "fanwire", "-p", "fanwire-loadtest"]);
        process::run(build, BUILD_DEADLINE)
    })?;
    let scenarios = scenario.map_or_else(|| SCENARIOS.to_vec(), |scenario| vec![scenario]);
    let release = target_folder().join("release");
    let server = release.join("fanwire");
    let mut result = Ok(());
    for scenario in scenarios {
        let passed = report.step(scenario, || {
            let mut load = command(release.join("fanwire-loadtest"), &[scenario, "--server"]);
            load.arg(&server).args(arguments);
            process::run(load, RUN_DEADLINE)
        });
        result = result.and(passed);
    }
    result
}
