//! `cargo xtask attack`: attacks the built binary beside honest clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::end_to_end::{pytest, target_folder};
use crate::process::{self, Outcome, cargo};
use crate::report::{Report, Stop};
use crate::tools;

/// Planted faults run first: if they are not found, the other cases prove nothing.
pub(crate) const SUITES: &[&str] = &[
    "attack/planted.py",
    "attack/floods.py",
    "attack/amplification.py",
    "attack/trickle.py",
    "attack/sockets.py",
    "attack/emulation.py",
    "attack/subscribe.py",
    "attack/polls.py",
    "attack/unread.py",
    "attack/tls.py",
    "attack/http2.py",
    "attack/names.py",
    "attack/content.py",
    "attack/logs.py",
    "attack/descriptors.py",
    "attack/shared_redis.py",
    "attack/tasks.py",
];

/// Six minutes on two cores, and three more for a busy machine.
const DEADLINE: Duration = Duration::from_secs(540);
/// Figures need longer phases, and an old binary recovers slowly.
const REPORT_DEADLINE: Duration = Duration::from_secs(1800);
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// The arguments of `cargo xtask attack`.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only cases that pytest's `-k` selects by this.
    filter: Option<String>,
    /// Attack this binary instead of the debug build.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Measure longer, and write the table of figures to this file as Markdown.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Installs what the attacks need, and runs them.
pub(crate) fn run(report: &mut Report, arguments: &Arguments) -> Result<(), Stop> {
    report.prepare("programs", tools::system)?;
    report.prepare("Python clients", tools::python_packages)?;
    run_installed(report, arguments)
}

/// Builds the servers and attacks them when everything is installed, as after the tests of `cargo xtask ci`.
pub(crate) fn run_installed(report: &mut Report, arguments: &Arguments) -> Result<(), Stop> {
    if arguments.binary.is_none() {
        report.prepare("build", build)?;
    }
    report.step("attacks", || {
        let mut attacks = pytest(SUITES);
        if let Some(filter) = &arguments.filter {
            attacks.args(["-k", filter]);
        }
        let debug_build = target_folder().join("debug/fanwire");
        attacks.env("GATEWAY_BIN", absolute(arguments.binary.as_deref().unwrap_or(&debug_build))?);
        if arguments.binary.is_none() {
            attacks.env("PLANTED_BIN", planted_binary());
        }
        let Some(file) = &arguments.report else {
            return process::run(attacks, DEADLINE);
        };
        attacks.env("ATTACK_REPORT", absolute(file)?);
        process::run(attacks, REPORT_DEADLINE)
    })
}

/// The server whose tasks panic on demand.
fn planted_binary() -> PathBuf {
    target_folder().join("debug/fanwire-planted")
}

/// Builds the server with the feature `planted-faults`, copies it, and builds the usual one in its place. The two share
/// what they depend on, which they would not with a profile or a target folder for each.
fn build() -> Result<Outcome, String> {
    let built = target_folder().join("debug/fanwire");
    let usual = ["build", "--package", "fanwire"];
    let planted = [&usual[..], &["--features", "planted-faults"]].concat();
    process::run(cargo(&planted), BUILD_DEADLINE)?;
    let copied = std::fs::copy(&built, planted_binary());
    let outcome = process::run(cargo(&usual), BUILD_DEADLINE);
    copied.map_err(|error| format!("{}: {error}", built.display()))?;
    outcome
}

/// The suites run in a folder of their own, so that relative paths would mean something else there.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}
