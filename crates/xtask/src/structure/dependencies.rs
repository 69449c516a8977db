//! Crates that do input or output, among those that pure crates are built from.

use std::time::Duration;

use crate::process::{self, cargo};

/// Crates without sockets, runtimes and clocks.
pub(super) const PURE: [&str; 2] = ["fanwire-protocol", "fanwire-hub"];

/// Crates that open sockets or files, or run tasks.
const IO: [&str; 14] = [
    "fastwebsockets",
    "futures-executor",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "nix",
    "redis",
    "reqwest",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "ureq",
];
/// Beginnings of the names of such crates.
const IO_FAMILIES: [&str; 2] = ["async-", "tokio"];

const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the ways from pure crates to a crate that does input or output.
pub(super) fn check() -> Result<Vec<String>, String> {
    let mut ways = Vec::new();
    for package in PURE {
        let arguments =
            ["tree", "--locked", "--edges", "normal", "--prefix", "depth", "--no-dedupe", "--format"];
        let mut tree = cargo(&arguments);
        tree.args(["{p}", "--package", package]);
        ways.extend(ways_to_io(&process::capture(tree, DEADLINE)?));
    }
    Ok(ways)
}

/// Reads the lines of `cargo tree`: the depth, then the name and version of a crate.
fn ways_to_io(tree: &str) -> Vec<String> {
    let mut ways = Vec::new();
    let mut way: Vec<&str> = Vec::new();
    let mut found_at = None;
    for line in tree.lines() {
        let (depth, package) = line.split_at(line.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(0));
        let Ok(depth) = depth.parse() else { continue };
        // Crates below one that was found add nothing.
        if found_at.is_some_and(|found_at| depth > found_at) {
            continue;
        }
        found_at = None;
        way.truncate(depth);
        let name = package.split(' ').next().unwrap_or(package);
        way.push(name);
        if IO.contains(&name) || IO_FAMILIES.iter().any(|family| name.starts_with(family)) {
            found_at = Some(depth);
            ways.push(way.join(" -> "));
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_runtime_is_found_and_how_it_came_in() {
        let tree = "0fanwire-hub v0.1.0 (/source/crates/hub)\n1bytes v1.12.1\n1fanwire-protocol v0.1.0\n\
                    2fastwebsockets v0.10.0\n3tokio v1.54.1\n2serde v1.0.229\n1tokio v1.54.1\n2mio v1.2.3\n\
                    1slab v0.4.12\n";
        let expected = ["fanwire-hub -> fanwire-protocol -> fastwebsockets", "fanwire-hub -> tokio"];
        assert_eq!(ways_to_io(tree), expected);
    }

    #[test]
    fn crates_without_io_pass() {
        let tree =
            "0fanwire-hub v0.1.0\n1bytes v1.12.1\n1serde v1.0.229\n2serde_derive v1.0.229 (proc-macro)\n";
        assert!(ways_to_io(tree).is_empty());
    }
}
