//! Runs the suites of real clients, each against its own servers started from the built binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Outcome, command, root};
use crate::report::{Report, Stop};
use crate::tools::{end_to_end_folder, python};

/// Some quick ones first, so that a broken binary shows early; then the longest, so that no lane ends long before the other,
/// with a browser mostly in one lane alone; then the rest.
pub(crate) const SUITES: &[&str] = &[
    "metrics.py",
    "handshakes.py",
    "bad_input.py",
    "outages/planted.py",
    "chat/chat.mjs",
    "js_client.mjs",
    "cluster/polls.py",
    "chat/protocol.mjs",
    "conformance.py",
    "cluster/everywhere.py",
    "chat/fallback.mjs",
    "outages/redis_wedged.py",
    "outages/redis_lost.py",
    "transports.mjs",
    "outages/nodes.py",
    "fallbacks.mjs",
    "cluster/fallbacks.py",
    "outages/shared_redis.py",
    "outages/churn.py",
    "cluster/proxied.py",
    "outages/bad_redis.py",
    "cluster/restarts.py",
    "old_browsers.mjs",
    "python_client.py",
    "cluster/orders.py",
    "js_recovery.mjs",
    "cluster/membership.py",
    "cluster/delivery.py",
    "outages/many_topics.py",
    "browser.mjs",
    "http2.mjs",
    "server_api.py",
    "tokens.mjs",
    "events.mjs",
    "bare.mjs",
    "bare.py",
    "plain_http.py",
    "uni.mjs",
    "encrypted.mjs",
    "compression.mjs",
    "readme.mjs",
    "operations.py",
    "cluster/views.py",
    "cluster/clocks.py",
    "cluster/recovery.py",
    "outages/rights.py",
    "outages/interest.py",
];

const SUITE_DEADLINE: Duration = Duration::from_secs(900);

/// Runs every suite whose name contains the filter, all of them whatever fails.
pub(crate) fn run(report: &mut Report, filter: Option<&str>) -> Result<(), Stop> {
    let wanted = SUITES.iter().filter(|suite| filter.is_none_or(|filter| suite.contains(filter)));
    let runners: Vec<_> = wanted.map(|suite| (suite.to_string(), runner(suite))).collect();
    if runners.is_empty() {
        return Ok(());
    }
    report.prepare("binary for the suites", copy)?;
    report.steps_in_lanes(runners, SUITE_DEADLINE)
}

/// The binary that the suites start: a copy, so that others may be built meanwhile.
fn tested_binary() -> PathBuf {
    target_folder().join("debug/fanwire-tested")
}

fn copy() -> Result<Outcome, String> {
    let (built, tested) = (target_folder().join("debug/fanwire"), tested_binary());
    // One that still runs cannot be written to.
    let _ = fs::remove_file(&tested);
    fs::copy(&built, &tested).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(Outcome::DONE)
}

/// The folder that cargo, which runs in the root, builds into.
pub(crate) fn target_folder() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

fn runner(suite: &str) -> Command {
    if Path::new(suite).extension().is_some_and(|extension| extension == "py") {
        return pytest(&[suite]);
    }
    in_its_place(command("node", &["--test", "--test-reporter=spec", suite]))
}

/// pytest over these suites, in one run.
pub(crate) fn pytest(suites: &[&str]) -> Command {
    // Named files, since no suite is called test_*; no cache, since the folder is the repository's.
    let arguments = ["-m", "pytest", "-v", "--tb=short", "--color=no", "-p", "no:cacheprovider"];
    let mut runner = command(python(), &arguments);
    runner.args(suites);
    in_its_place(runner)
}

/// A runner in the folder of the suites, with what they read from the environment.
fn in_its_place(mut runner: Command) -> Command {
    runner
        .current_dir(end_to_end_folder())
        .env("GATEWAY_BIN", tested_binary())
        .env("SCREENSHOTS", target_folder().join("screenshots"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // So wide that pytest's last lines say why a test failed, and not only which.
        .env("COLUMNS", "240")
        // Servers under test are on loopback, whatever proxy the machine has.
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("no_proxy", "127.0.0.1,localhost");
    runner
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::attack;

    /// Returns the files below a folder that define tests, by their paths from it.
    fn suites_below(folder: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    if entry.file_name().is_none_or(|name| name != "node_modules") {
                        folders.push(entry);
                    }
                    continue;
                }
                let is_test = |line: &str| match entry.extension().and_then(|extension| extension.to_str()) {
                    // A method of a fixture may be named so.
                    Some("py") => line.starts_with("def test_") || line.starts_with("async def test_"),
                    Some("mjs") => ["check(", "test("].iter().any(|call| line.trim_start().starts_with(call)),
                    _ => false,
                };
                if fs::read_to_string(&entry).unwrap().lines().any(is_test) {
                    found.insert(entry.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found
    }

    #[test]
    fn every_file_with_tests_is_run() {
        let listed: BTreeSet<String> =
            SUITES.iter().chain(attack::SUITES).map(|suite| (*suite).to_owned()).collect();
        assert_eq!(suites_below(&end_to_end_folder()), listed);
    }
}
