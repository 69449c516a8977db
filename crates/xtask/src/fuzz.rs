//! `cargo xtask fuzz`: runs the parsers' fuzz targets for a while each, on the stable compiler.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::process::{self, cargo, root};
use crate::report::{Report, Stop};
use crate::tools;

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
        return report.step("fuzz targets", || Err(format!("none found in {FUZZ_FOLDER}/fuzz_targets")));
    }
    report.prepare("build of fuzz targets", || process::run(cargo_fuzz("build", &[]), BUILD_DEADLINE))?;
    let limit = format!("-max_total_time={seconds}");
    let deadline = START_DEADLINE + Duration::from_secs(seconds.into());
    let runs = targets
        .iter()
        .map(|target| (format!("fuzz {target}"), cargo_fuzz("run", &[target, "--", &limit, "-timeout=10"])));
    report.steps_in_lanes(runs.collect(), deadline)
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
