//! A server process with a folder of its own: started on its cores, watched until it is ready, killed at the end of the run.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::error::{Doing, LoadError};
use crate::interrupt;
use crate::measure::process::{Cores, Placement};

const READY_DEADLINE: Duration = Duration::from_secs(10);
const READY_RECHECK: Duration = Duration::from_millis(20);
const END_DEADLINE: Duration = Duration::from_secs(10);
const END_RECHECK: Duration = Duration::from_millis(5);
/// Maximum part of the server's log that is shown after a failure.
const LOG_LINES_SHOWN: usize = 20;

/// A running process and its folder; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    folder: TempDir,
}

impl ServerProcess {
    /// Starts `program` on the server's core, with its standard streams in a log; `prepare` writes files into the folder and
    /// returns the arguments.
    pub(crate) fn start(
        program: &Path,
        cores: Cores,
        prepare: impl FnOnce(&Path, &mut Command) -> Result<(), LoadError>,
    ) -> Result<Self, LoadError> {
        Self::start_at(Placement::ServerCore, program, cores, prepare)
    }

    pub(crate) fn start_at(
        placement: Placement,
        program: &Path,
        cores: Cores,
        prepare: impl FnOnce(&Path, &mut Command) -> Result<(), LoadError>,
    ) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir().doing("make a folder for the server")?;
        let log = File::create(folder.path().join("log")).doing("create the server's log")?;
        let log_too = log.try_clone().doing("create the server's log")?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        // Fanwire would read them as its configuration, and no server may get the secrets for an external one.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FANWIRE_") {
                command.env_remove(name);
            }
        }
        prepare(folder.path(), &mut command)?;
        Ok(Self { child: cores.spawn(placement, &mut command)?, folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls `is_ready` until it returns true. A process that ends or takes too long is an error with the end of its log.
    pub(crate) fn wait_until(&mut self, mut is_ready: impl FnMut() -> bool) -> Result<(), LoadError> {
        let started = Instant::now();
        while !is_ready() {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait().doing("wait for the server")? {
                return Err(self.explain(LoadError::Server(format!("ended with {status}"))));
            }
            if started.elapsed() > READY_DEADLINE {
                let late = LoadError::Server(format!("was not ready within {READY_DEADLINE:?}"));
                return Err(self.explain(late));
            }
            std::thread::sleep(READY_RECHECK);
        }
        Ok(())
    }

    /// Terminates the process, which dropping kills, and waits for its end.
    pub(crate) fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // It can only be gone, which the wait reports.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < END_DEADLINE {
            std::thread::sleep(END_RECHECK);
        }
    }

    /// Adds the process' log, and its exit, to an error that may be its fault.
    pub(crate) fn explain(&self, error: LoadError) -> LoadError {
        let error = if has_ended(self.pid()) {
            LoadError::Server(format!("has ended: {}", error.without_log()))
        } else {
            error
        };
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        if log.is_empty() { error } else { LoadError::Logged { error: Box::new(error), log } }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail only if the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for an ended child, which is a zombie until then.
fn has_ended(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Returns different addresses that are not in use. Another process may take one before the server does; then the server
/// fails and the run is repeated.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddrV4; N], LoadError> {
    let mut addresses = [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0); N];
    // All are held until the last is found, since the kernel might return one twice.
    let mut listeners = Vec::with_capacity(N);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).doing("find a free port")?;
        address.set_port(listener.local_addr().doing("find a free port")?.port());
        listeners.push(listener);
    }
    Ok(addresses)
}
