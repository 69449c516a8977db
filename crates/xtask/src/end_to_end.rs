//! Runs the suites of real clients, each against its own servers started from the built binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{command, root};
use crate::report::{Report, Stop};
use crate::tools::{end_to_end_folder, python};

/// Quick ones first, so that a broken binary shows early.
pub(crate) const SUITES: &[&str] = &[
    "metrics.py",
    "handshakes.py",
    "bad_input.py",
    "server_api.py",
    "tokens.mjs",
    "providers.mjs",
    "hook_examples.mjs",
    "hook_answers.mjs",
    "events.mjs",
    "bare.mjs",
    "bare.py",
    "plain_http.py",
    "uni.mjs",
    "encrypted.mjs",
    "http2.mjs",
    "js_client.mjs",
    "js_recovery.mjs",
    "fallbacks.mjs",
    "hooks.mjs",
    "hooks_tls.mjs",
    "secrets.mjs",
    "compression.mjs",
    "python_client.py",
    "browser.mjs",
    "chat/room.mjs",
    "chat/chat.mjs",
    "chat/protocol.mjs",
    "chat/fallback.mjs",
    "old_browsers.mjs",
    "readme.mjs",
    "transports.mjs",
    "operations.py",
    "conformance.py",
    "lifecycle.py",
    "status.mjs",
    "events_webhook.py",
    "events_memory.py",
    "events/churn.py",
    "cluster/views.py",
    "cluster/orders.py",
    "cluster/blocks.py",
    "cluster/rates.py",
    "cluster/clocks.py",
    "cluster/recovery.py",
    "cluster/membership.py",
    "cluster/delivery.py",
    "cluster/echo.py",
    "cluster/proxied.py",
    "cluster/polls.py",
    "cluster/fallbacks.py",
    "cluster/restarts.py",
    "cluster/everywhere.py",
    "outages/planted.py",
    "outages/nodes.py",
    "outages/redis_lost.py",
    "outages/redis_wedged.py",
    "outages/bad_redis.py",
    "outages/shared_redis.py",
    "outages/rights.py",
    "outages/many_topics.py",
    "outages/interest.py",
    "outages/churn.py",
];

const SUITE_DEADLINE: Duration = Duration::from_secs(900);

/// Runs every suite whose name contains the filter, all of them whatever fails.
pub(crate) fn run(report: &mut Report, filter: Option<&str>) -> Result<(), Stop> {
    let wanted = SUITES.iter().filter(|suite| filter.is_none_or(|filter| suite.contains(filter)));
    let runners = wanted.map(|suite| (suite.to_string(), runner(suite)));
    report.steps_in_lanes(runners.collect(), SUITE_DEADLINE)
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
        .env("GATEWAY_BIN", target_folder().join("debug/fanwire"))
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
    use std::fs;

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
