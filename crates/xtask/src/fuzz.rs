//! `cargo xtask fuzz`: runs the parsers' fuzz targets for a while each, on the stable compiler.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Outcome, cargo, patient, root};
use crate::report::{Beside, Report, Stop};
use crate::tools;

const BUILD: &str = "build of fuzz targets";
const FUZZ_FOLDER: &str = "crates/protocol/fuzz";
const BUILD_DEADLINE: Duration = Duration::from_secs(1200);
/// Until a target that is built runs: cargo looks at its sources first, one at a time.
const START_DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn run(report: &mut Report, target: Option<&str>, seconds: u32) -> Result<(), Stop> {
    report.prepare("cargo fuzz", tools::cargo_fuzz)?;
    let targets = match target {
        Some(target) => vec![target.to_owned()],
        None => targets(),
    };
    if targets.is_empty() {
        return report.step("fuzz targets", none_found);
    }
    report.prepare(BUILD, || process::run(build(), BUILD_DEADLINE))?;
    let runs = targets.iter().map(|target| (name(target), fuzz(target, seconds)));
    report.steps_in_lanes(runs.collect(), deadline(seconds))
}

/// The same for all targets, one at a time, beside other steps. `cargo fuzz` has to be installed.
pub(crate) fn beside(seconds: u32) -> Vec<Beside> {
    let targets = targets();
    if targets.is_empty() {
        return vec![Beside::step("fuzz targets", none_found)];
    }
    let build = patient(&build());
    let build = Beside::preparation(BUILD, move || process::run_unshown(build, BUILD_DEADLINE));
    let runs = targets.into_iter().map(|target| {
        let fuzz = patient(&fuzz(&target, seconds));
        Beside::step(name(&target), move || process::run_unshown(fuzz, deadline(seconds)))
    });
    std::iter::once(build).chain(runs).collect()
}

fn none_found() -> Result<Outcome, String> {
    Err(format!("none found in {FUZZ_FOLDER}/fuzz_targets"))
}

fn name(target: &str) -> String {
    format!("fuzz {target}")
}

fn deadline(seconds: u32) -> Duration {
    START_DEADLINE + Duration::from_secs(seconds.into())
}

fn build() -> Command {
    cargo_fuzz("build", &[])
}

fn fuzz(target: &str, seconds: u32) -> Command {
    cargo_fuzz("run", &[target, "--", &format!("-max_total_time={seconds}"), "-timeout=10"])
}

/// A command of `cargo fuzz`. Sanitizers need the nightly compiler; without them the targets still catch panics, overflows
/// and inputs that take too long.
fn cargo_fuzz(verb: &str, arguments: &[&str]) -> Command {
    let begin = ["fuzz", verb, "--sanitizer", "none", "--fuzz-dir", FUZZ_FOLDER];
    cargo(&[&begin[..], arguments].concat())
}

/// One target for each file in the folder of targets.
fn targets() -> Vec<String> {
    let Ok(files) = fs::read_dir(root().join(FUZZ_FOLDER).join("fuzz_targets")) else { return Vec::new() };
    let mut names: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort_unstable();
    names
}
