//! `cargo xtask fuzz`: runs the parsers' fuzz targets for a while each, on the stable compiler.

use std::fs;
use std::time::Duration;

use crate::process::{self, Outcome, cargo, root};
use crate::report::{Report, Stop};
use crate::tools;

const FUZZ_FOLDER: &str = "crates/protocol/fuzz";
const BUILD_DEADLINE: Duration = Duration::from_secs(1200);

pub(crate) fn run(report: &mut Report, target: Option<&str>, seconds: u32) -> Result<(), Stop> {
    report.prepare("cargo fuzz", tools::cargo_fuzz)?;
    let targets = match target {
        Some(target) => vec![target.to_owned()],
        None => targets(),
    };
    if targets.is_empty() {
        return report.step("fuzz targets", || Err(format!("none found in {FUZZ_FOLDER}/fuzz_targets")));
    }
    let mut result = Ok(());
    for target in targets {
        result = result.and(report.step(&format!("fuzz {target}"), || fuzz(&target, seconds)));
    }
    result
}

fn fuzz(target: &str, seconds: u32) -> Result<Outcome, String> {
    let limit = format!("-max_total_time={seconds}");
    // Sanitizers need the nightly compiler; without them the targets still catch panics, overflows and
    // inputs that take too long.
    let arguments = [
        "fuzz",
        "run",
        "--sanitizer",
        "none",
        "--fuzz-dir",
        FUZZ_FOLDER,
        target,
        "--",
        &limit,
        "-timeout=10",
    ];
    process::run(cargo(&arguments), BUILD_DEADLINE + Duration::from_secs(seconds.into()))
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
