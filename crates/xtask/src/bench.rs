//! `cargo xtask bench`: runs the load tool's scenarios against the release build, and the Redis engine's own.

use std::time::Duration;

use crate::end_to_end::target_folder;
use crate::process::{self, cargo, command};
use crate::report::{Report, Stop};
use crate::tools;

/// Quick ones first: the last one alone takes as long as all others.
const SCENARIOS: [&str; 10] =
    ["fanout", "overload", "rooms", "users", "cluster", "storm", "parallel", "idle", "slow", "churn"];
/// Measures the engine that keeps topics in Redis, without a server around it.
const ENGINE: &str = "engine";
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
const RUN_DEADLINE: Duration = Duration::from_secs(1800);

pub(crate) fn run(report: &mut Report, scenario: Option<&str>, arguments: &[String]) -> Result<(), Stop> {
    if scenario == Some(ENGINE) {
        return engine(report, arguments);
    }
    report.prepare("programs", tools::load_test)?;
    report.prepare("peers of the load test", tools::peer_packages)?;
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
    if scenario.is_none() { result.and(engine(report, &[])) } else { result }
}

fn engine(report: &mut Report, arguments: &[String]) -> Result<(), Stop> {
    report.step(ENGINE, || {
        let mut bench = cargo(&["bench", "-p", "fanwire-broker", "--bench", ENGINE, "--"]);
        bench.args(arguments);
        process::run(bench, RUN_DEADLINE)
    })
}
