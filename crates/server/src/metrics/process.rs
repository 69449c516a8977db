//! Resources of the process, under the names that every Prometheus client library uses. Without `/proc` there are none.
//!
//! The prometheus crate has a collector of its own, which counts CPU time in whole seconds: too coarse for the rate of a
//! lightly loaded node.

use std::fs;

use prometheus::proto::{MetricFamily, MetricType};

use super::{family, sample};

/// The unit of times in `/proc` on Linux, whatever the kernel's own clock (proc(5), sysconf(3)).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn collect() -> Vec<MetricFamily> {
    let text = |path| fs::read_to_string(path).ok();
    let (stat, status) = (text("/proc/self/stat"), text("/proc/self/status"));
    let counter = MetricType::COUNTER;
    let gauge = MetricType::GAUGE;
    let values = [
        (
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            counter,
            stat.as_deref().and_then(cpu_seconds),
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            gauge,
            status.as_deref().and_then(|status| kibibytes(status, "VmRSS:")),
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            gauge,
            status.as_deref().and_then(|status| kibibytes(status, "VmSize:")),
        ),
        (
            "process_open_fds",
            "Number of open file descriptors.",
            gauge,
            fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64),
        ),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            gauge,
            text("/proc/self/limits").as_deref().and_then(descriptors_max),
        ),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            gauge,
            stat.as_deref()
                .zip(text("/proc/stat").as_deref())
                .and_then(|(own, system)| start_seconds(own, system)),
        ),
    ];
    let known = values.into_iter().filter_map(|(name, help, kind, value)| Some((name, help, kind, value?)));
    known.map(|(name, help, kind, value)| family(name, help, kind, vec![sample(kind, &[], value)])).collect()
}

/// User and system time: fields 14 and 15.
fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

/// Field 22 counts from the start of the machine.
fn start_seconds(own: &str, system: &str) -> Option<f64> {
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + field(own, 22)? / TICKS_PER_SECOND)
}

/// A field of `/proc/self/stat`, counted from 1 as the manual does. The second is the program's name in brackets,
/// which may hold spaces and brackets itself.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kibibytes| kibibytes * 1024.0)
}

/// The soft limit, the first of the two.
fn descriptors_max(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_understood() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1000 12345 678 184 1 1\n";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_010.0));
        assert_eq!(kibibytes("Name:\ta\nVmSize:\t  4096 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12_288.0));
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024     4096     files\n";
        assert_eq!(descriptors_max(limits), Some(1024.0));
        assert_eq!(descriptors_max("Max open files  unlimited unlimited files"), None);
        for nonsense in ["", "7", "7 (a", ")", "7 (a) S x"] {
            assert_eq!(cpu_seconds(nonsense), None);
            assert_eq!(start_seconds(nonsense, "btime 1"), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let families = collect();
        assert_eq!(families.len(), 6);
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1.6e9);
    }
}
