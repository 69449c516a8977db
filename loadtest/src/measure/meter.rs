//! CPU and memory of a target's parts and of this process, from the start to now.

use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::measure::process::{CpuSnapshot, CpuUse, Memory};
use crate::target::Part;

/// Started before what is measured.
#[derive(Debug)]
pub(crate) struct Meter {
    parts: Vec<(Part, CpuSnapshot)>,
    client: CpuSnapshot,
    started: Instant,
}

/// The usage since the start.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    /// By the name of the part, the measured one first.
    parts: Vec<(&'static str, CpuUse)>,
    pub(crate) client: CpuUse,
    pub(crate) seconds: f64,
}

impl Meter {
    pub(crate) fn start(parts: &[Part]) -> Result<Self, LoadError> {
        let client = CpuSnapshot::of(std::process::id())?;
        let parts: Result<_, LoadError> =
            parts.iter().map(|part| Ok((part.clone(), CpuSnapshot::of(part.pid)?))).collect();
        Ok(Self { parts: parts?, client, started: Instant::now() })
    }

    pub(crate) fn used(&self) -> Result<Used, LoadError> {
        let mut parts: Vec<(&'static str, CpuUse)> = Vec::new();
        for (part, before) in &self.parts {
            let used = CpuSnapshot::of(part.pid)?.since(before);
            match parts.iter_mut().find(|(name, _)| *name == part.name) {
                Some((_, sum)) => *sum = sum.plus(used),
                None => parts.push((part.name, used)),
            }
        }
        let client = CpuSnapshot::of(std::process::id())?.since(&self.client);
        Ok(Used { parts, client, seconds: self.started.elapsed().as_secs_f64() })
    }
}

impl Used {
    #[cfg(test)]
    pub(crate) fn of(parts: Vec<(&'static str, CpuUse)>, client: CpuUse, seconds: f64) -> Self {
        Self { parts, client, seconds }
    }

    /// Without the time in which this process was awake but had nothing to do.
    pub(crate) fn without_waiting(mut self, waited: Duration) -> Self {
        self.client.nanoseconds = self.client.nanoseconds.saturating_sub(waited.as_nanos() as u64);
        self
    }

    /// The CPU time of the measured part; `None` if it is not on this machine.
    pub(crate) fn server(&self) -> Option<CpuUse> {
        self.parts.first().map(|(_, used)| *used)
    }

    /// Every part.
    pub(crate) fn all(&self) -> impl Iterator<Item = CpuUse> {
        self.parts.iter().map(|(_, used)| *used)
    }

    /// The parts beside the measured one.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&'static str, CpuUse)> {
        self.parts.iter().skip(1).copied()
    }
}

/// Memory of the measured part, all of its processes together.
pub(crate) fn server_memory(parts: &[Part]) -> Result<Option<Memory>, LoadError> {
    let Some(measured) = parts.first().map(|part| part.name) else { return Ok(None) };
    let mut sum = Memory::default();
    for part in parts.iter().filter(|part| part.name == measured) {
        let memory = Memory::of(part.pid)?;
        sum.resident += memory.resident;
        sum.anonymous += memory.anonymous;
    }
    Ok(Some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_name_are_counted_together() {
        let pid = std::process::id();
        let part = |name| Part { name, pid };
        let meter = Meter::start(&[part("server"), part("redis"), part("server")]).unwrap();
        let used = meter.used().unwrap();
        assert!(used.server().is_some());
        assert_eq!(used.others().map(|(name, _)| name).collect::<Vec<_>>(), ["redis"]);
        let one = server_memory(&[part("server")]).unwrap().unwrap();
        let two = server_memory(&[part("server"), part("server"), part("redis")]).unwrap().unwrap();
        assert!(two.resident > one.resident);
        assert_eq!(server_memory(&[]).unwrap(), None);
    }
}
