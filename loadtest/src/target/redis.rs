//! A Redis for one run, without persistence, on a free port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::error::{Doing, LoadError};
use crate::measure::process::{Cores, Placement};
use crate::target::installed;
use crate::target::process::{ServerProcess, free_addresses};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// `INFO memory` is about 2 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The contents of a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

/// A running Redis; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Redis {
    process: ServerProcess,
    address: SocketAddrV4,
}

impl Redis {
    pub(crate) fn start(program: &Path, placement: Placement, cores: Cores) -> Result<Self, LoadError> {
        let [address] = free_addresses()?;
        let process = ServerProcess::start_at(placement, program, cores, |folder, command| {
            let port = address.port().to_string();
            command.current_dir(folder);
            command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
            Ok(())
        })?;
        let mut redis = Self { process, address };
        redis.process.wait_until(|| ask(address, "PING").is_ok_and(|answer| answer.starts_with("+PONG")))?;
        Ok(redis)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Returns a text such as "Redis 7.0.15".
    pub(crate) fn version(program: &Path) -> String {
        let told = installed::version(program, "--version");
        let number = told.split_whitespace().find_map(|word| word.strip_prefix("v="));
        number.map_or(told.clone(), |number| format!("Redis {number}"))
    }

    pub(crate) fn usage(&self) -> Result<Use, LoadError> {
        let keys = ask(self.address, "DBSIZE")?;
        let keys = keys.trim().strip_prefix(':').and_then(|count| count.parse().ok());
        let info = ask(self.address, "INFO memory")?;
        let bytes = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        match keys.zip(bytes) {
            Some((keys, bytes)) => Ok(Use { keys, bytes }),
            None => Err(LoadError::Unreadable(format!("Redis' answer {info:?}"))),
        }
    }
}

/// Sends one inline command on a new connection, and returns the reply as text.
fn ask(address: SocketAddrV4, command: &str) -> Result<String, LoadError> {
    let doing = || format!("ask Redis at {address}");
    let mut stream = TcpStream::connect_timeout(&address.into(), ANSWER_TIMEOUT).doing(doing())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).doing(doing())?;
    // Redis ends the connection after QUIT, so the reply is everything before the end.
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).doing(doing())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).doing(doing())?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.trim_end().strip_suffix("+OK").unwrap_or(&text).to_owned())
}
