//! The kernel's figures of a process: CPU time in nanoseconds, memory, and the cores it may use.
//!
//! Every figure is from /proc, so a server is measured from outside and needs no code for it.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Doing, LoadError};

/// Files that are not sockets to the server: standard streams, the epoll set, /proc, the publisher.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// CPU time of a process so far.
#[derive(Debug)]
pub(crate) struct CpuSnapshot {
    on_cpu_by_thread: HashMap<u32, u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time between two snapshots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuUse {
    pub(crate) nanoseconds: u64,
    /// The share outside the kernel, 0 to 1, from the 10 ms ticks of /proc/PID/stat: coarse in short runs.
    pub(crate) user_share: f64,
}

impl CpuUse {
    pub(crate) fn microseconds(&self) -> f64 {
        self.nanoseconds as f64 / 1e3
    }

    /// Returns the sum; the share outside the kernel is weighted by time.
    pub(crate) fn plus(self, other: Self) -> Self {
        let nanoseconds = self.nanoseconds + other.nanoseconds;
        let user = self.nanoseconds as f64 * self.user_share + other.nanoseconds as f64 * other.user_share;
        Self { nanoseconds, user_share: if nanoseconds == 0 { 0.0 } else { user / nanoseconds as f64 } }
    }
}

impl CpuSnapshot {
    pub(crate) fn of(pid: u32) -> Result<Self, LoadError> {
        let folder = format!("/proc/{pid}/task");
        let mut on_cpu_by_thread = HashMap::new();
        for entry in fs::read_dir(&folder).doing(format!("read {folder}"))? {
            let entry = entry.doing(format!("read {folder}"))?;
            let thread = entry.file_name().to_string_lossy().parse::<u32>();
            // A thread may end between the listing and the read.
            let (Ok(thread), Ok(text)) = (thread, fs::read_to_string(entry.path().join("schedstat"))) else {
                continue;
            };
            let nanoseconds = parse_schedstat(&text)
                .ok_or_else(|| LoadError::Unreadable(format!("{folder}/{thread}/schedstat")))?;
            on_cpu_by_thread.insert(thread, nanoseconds);
        }
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).doing(format!("read {path}"))?;
        let (user_ticks, system_ticks) = parse_stat(&text).ok_or(LoadError::Unreadable(path))?;
        Ok(Self { on_cpu_by_thread, user_ticks, system_ticks })
    }

    /// Returns the CPU time since an earlier snapshot. The time of a thread that ended meanwhile is missing; servers whose
    /// threads live as long as the process lose nothing.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUse {
        let nanoseconds = self
            .on_cpu_by_thread
            .iter()
            .map(|(thread, now)| {
                let before = earlier.on_cpu_by_thread.get(thread).copied().unwrap_or(0);
                // A new thread may have the number of one that ended.
                now.saturating_sub(before)
            })
            .sum();
        let user = self.user_ticks.saturating_sub(earlier.user_ticks);
        let total = user + self.system_ticks.saturating_sub(earlier.system_ticks);
        CpuUse { nanoseconds, user_share: if total == 0 { 0.0 } else { user as f64 / total as f64 } }
    }
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Heap and stacks without mapped files: the part that grows with connections.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Reads smaps_rollup, which walks the page tables; VmRSS of /proc/PID/status may lag by many pages per thread.
    pub(crate) fn of(pid: u32) -> Result<Self, LoadError> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).doing(format!("read {path}"))?;
        parse_smaps_rollup(&text).ok_or(LoadError::Unreadable(path))
    }
}

/// Returns resident bytes as the kernel counts them: cheaper and coarser than `Memory`.
pub(crate) fn resident_bytes_roughly(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The cores that a server's process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The server's core only.
    ServerCore,
    /// Every core, including the client's.
    AllCores,
}

/// The core of the server and the core of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) client: usize,
    /// All cores that this process was given.
    allowed: CpuSet,
}

impl Cores {
    /// Chooses the first and the last core this process may use, which are the same on a machine with one, and binds this
    /// process to the last one.
    pub(crate) fn choose() -> Result<Self, LoadError> {
        let allowed = sched_getaffinity(None).doing("read the CPU affinity")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = usable.next().ok_or_else(|| LoadError::Unreadable("the CPU affinity".to_owned()))?;
        let client = usable.next_back().unwrap_or(server);
        pin_this_thread(&only(client))?;
        Ok(Self { server, client, allowed })
    }

    /// Returns true if the server cannot run on this process' core.
    pub(crate) fn are_apart(self) -> bool {
        self.server != self.client
    }

    /// Starts the command on its cores. A child inherits the affinity of the thread that starts it, so all of its threads
    /// are bound from their first instruction.
    pub(crate) fn spawn(self, placement: Placement, command: &mut Command) -> Result<Child, LoadError> {
        pin_this_thread(&match placement {
            Placement::ServerCore => only(self.server),
            Placement::AllCores => self.allowed,
        })?;
        let child = command.spawn();
        pin_this_thread(&only(self.client))?;
        child.doing(format!("start {}", command.get_program().to_string_lossy()))
    }

    /// Returns the placement in words; `None` is an external server's.
    pub(crate) fn described(self, placement: Option<Placement>) -> String {
        match placement {
            Some(Placement::ServerCore) => format!("core {}", self.server),
            Some(Placement::AllCores) => format!("all {} cores", self.allowed.count()),
            None => "placed by its operator".to_owned(),
        }
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Raises the soft limit of open files to the hard one, and checks that it suffices for `connections`.
pub(crate) fn reserve_files(connections: usize) -> Result<(), LoadError> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .doing("raise the limit of open files")?;
    let needed = connections as u64 + FILES_BESIDE_CONNECTIONS;
    match maximum {
        Some(limit) if limit < needed => Err(LoadError::FileLimit { wanted: connections, needed, limit }),
        _ => Ok(()),
    }
}

/// Returns the machine-wide monotonic clock, comparable between processes, in nanoseconds.
pub(crate) fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let elapsed = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
    elapsed.as_nanos() as u64
}

fn pin_this_thread(cores: &CpuSet) -> Result<(), LoadError> {
    sched_setaffinity(None, cores).doing(format!("pin to {cores:?}"))
}

/// Parses schedstat, whose first number is the time spent on a CPU, in nanoseconds.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Parses `utime` and `stime`, fields 14 and 15; the name in field 2 may contain spaces, so counting starts after its
/// bracket.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn parse_smaps_rollup(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    Some(Memory { resident: bytes("Rss:")?, anonymous: bytes("Anonymous:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_spaces_and_brackets() {
        let text = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some((12, 34)));
        assert_eq!(parse_stat("7 (short) S 1"), None);
    }

    #[test]
    fn memory_is_read_from_the_rollup() {
        let text = "0-1 ---p 0 0:0 0 [rollup]\nRss:    2048 kB\nPss:  1 kB\nAnonymous:   12 kB\nAnonHugePages: 0 kB\n";
        assert_eq!(parse_smaps_rollup(text), Some(Memory { resident: 2048 * 1024, anonymous: 12 * 1024 }));
        assert_eq!(parse_smaps_rollup("Rss: much\n"), None);
    }

    #[test]
    fn a_thread_that_appears_or_ends_does_not_disturb_the_sum() {
        let snapshot = |threads: &[(u32, u64)]| CpuSnapshot {
            on_cpu_by_thread: threads.iter().copied().collect(),
            user_ticks: 0,
            system_ticks: 0,
        };
        let used = snapshot(&[(1, 150), (3, 7)]).since(&snapshot(&[(1, 100), (2, 90)]));
        assert_eq!(used.nanoseconds, 57);
    }

    #[test]
    fn this_process_can_be_measured() {
        let pid = std::process::id();
        let before = CpuSnapshot::of(pid).unwrap();
        let deadline = monotonic_nanoseconds() + 20_000_000;
        while monotonic_nanoseconds() < deadline {}
        assert!(CpuSnapshot::of(pid).unwrap().since(&before).nanoseconds > 0);
        assert!(Memory::of(pid).unwrap().resident > 0);
        assert!(resident_bytes_roughly(pid).unwrap() > 0);
    }
}
