//! The machine and programs of a run, without which a figure means nothing.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::measure::process::Cores;

/// The machine, and the core of this program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Major and minor version.
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// Maximum number of connections that wait to be accepted (net.core.somaxconn).
    pub(crate) backlog_max: String,
    /// The core on which this program ran all clients.
    #[serde(default)]
    pub(crate) client_core: usize,
    /// The build profile of this program.
    #[serde(default)]
    pub(crate) load_tool: String,
}

/// A server that took part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerNote {
    pub(crate) subject: String,
    /// The versions of all its programs; empty if not known.
    pub(crate) versions: Vec<String>,
    pub(crate) placement: String,
}

impl Machine {
    pub(crate) fn here(cores: Cores) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |line: &str| {
            line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        let memory = |line: &str| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        Self {
            processor: cpuinfo.lines().find_map(field).unwrap_or_else(|| "unknown".to_owned()),
            kernel: major_and_minor(&read("/proc/sys/kernel/osrelease")),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: read("/proc/meminfo").lines().find_map(memory).unwrap_or(0) * 1024,
            backlog_max: read("/proc/sys/net/core/somaxconn").trim().to_owned(),
            client_core: cores.client,
            load_tool: format!("{} {}", env!("CARGO_PKG_VERSION"), build_note(env!("OPT_LEVEL"))),
        }
    }
}

fn build_note(opt_level: &str) -> &'static str {
    match opt_level {
        _ if cfg!(debug_assertions) => "DEBUG BUILD, figures are not to be compared",
        "3" => "build for production",
        _ => "NOT FULLY OPTIMIZED, figures are not to be compared; build with --profile dist",
    }
}

impl ServerNote {
    /// Returns a text such as "fanwire+redis: fanwire 0.1.0, Redis 7.0; core 0".
    pub(crate) fn described(&self) -> String {
        let versions =
            if self.versions.is_empty() { "version unknown".to_owned() } else { self.versions.join(", ") };
        format!("{}: {versions}; {}", self.subject, self.placement)
    }
}

/// Returns the first two numbers of a release; the rest names its maker.
fn major_and_minor(release: &str) -> String {
    let mut numbers = release.trim().splitn(3, '.');
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => format!("{}.{}", digits(major), digits(minor)),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_told_by_two_numbers() {
        assert_eq!(major_and_minor("6.12.4-somebody-v2\n"), "6.12");
        assert_eq!(major_and_minor("6.1-rc2"), "6.1");
        assert_eq!(major_and_minor("odd"), "unknown");
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::here(Cores::default());
        assert!(machine.cores > 0 && machine.memory_bytes > 0);
        assert!(
            machine.load_tool.contains("DEBUG BUILD"),
            "tests are built for debugging: {}",
            machine.load_tool
        );
    }
}
