//! Where a run was made: a figure without it means nothing.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::measure::process::Cores;

/// The machine and how it was shared out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// The longest queue of connections that wait to be accepted (net.core.somaxconn).
    pub(crate) backlog_max: String,
    pub(crate) pinned: Cores,
}

impl Machine {
    pub(crate) fn here(pinned: Cores) -> Self {
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
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: read("/proc/meminfo").lines().find_map(memory).unwrap_or(0) * 1024,
            backlog_max: read("/proc/sys/net/core/somaxconn").trim().to_owned(),
            pinned,
        }
    }
}
