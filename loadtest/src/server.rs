//! Starts the built `fanwire` with a configuration of its own, on the server's core, and ends it with the run.
//!
//! Key names of the configuration and paths of the server are in this file only.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jsonwebtoken::EncodingKey;
use tempfile::TempDir;

use crate::client::Login;
use crate::error::{Doing, LoadError};
use crate::http::{call, write_post};
use crate::process::Cores;

/// Secrets of a server that lives for one run on loopback.
const TOKEN_SECRET: &str = "a-secret-that-only-this-load-test-uses";
pub(crate) const API_KEY: &str = "an-api-key-that-only-this-load-test-uses";

const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How much of the server's log is shown when it failed.
const LOG_LINES_SHOWN: usize = 20;

/// A running server; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    address: SocketAddrV4,
}

impl Server {
    /// Returns when the server says that it is ready.
    pub(crate) fn start(binary: &Path, cores: Cores) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir().doing("make a folder for the server's configuration")?;
        let (address, internal) = (free_address()?, free_address()?);
        let config = folder.path().join("fanwire.toml");
        fs::write(&config, configuration(address, internal)).doing(format!("write {}", config.display()))?;
        let log = File::create(folder.path().join("log")).doing("create the server's log")?;
        let log_too = log.try_clone().doing("create the server's log")?;
        let mut command = Command::new(binary);
        command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).stdout(log).stderr(log_too);
        let mut server = Self { child: cores.spawn_server(&mut command)?, folder, address };
        server.wait_until_ready(internal)?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// What a client needs to subscribe to `topic`.
    pub(crate) fn login(&self, topic: &str) -> Login {
        Login {
            host: self.address.to_string(),
            token_key: EncodingKey::from_secret(TOKEN_SECRET.as_bytes()),
            topic: topic.to_owned(),
        }
    }

    /// How many clients the server believes to be present in `topic`.
    pub(crate) fn present_clients(&self, topic: &str) -> Result<u64, LoadError> {
        let mut request = Vec::new();
        let body = format!(r#"{{"channel":"{topic}"}}"#);
        write_post(&mut request, &self.address.to_string(), "/api/presence_stats", API_KEY, body.as_bytes());
        let (status, body) = call(self.address, &request)?;
        let answer: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        answer.and_then(|answer| answer["result"]["num_clients"].as_u64()).ok_or_else(|| {
            LoadError::Api(format!("{status} to presence_stats: {}", String::from_utf8_lossy(&body)))
        })
    }

    /// Adds the server's own words to an error that may be its fault.
    pub(crate) fn explain(&self, error: LoadError) -> LoadError {
        let log = self.log_tail();
        if log.is_empty() { error } else { LoadError::Logged { error: Box::new(error), log } }
    }

    /// The end of what the server wrote to its standard streams.
    fn log_tail(&self) -> String {
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn wait_until_ready(&mut self, internal: SocketAddrV4) -> Result<(), LoadError> {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {internal}\r\n\r\n");
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().doing("wait for the server")? {
                return Err(self.explain(LoadError::Server(format!("ended with {status}"))));
            }
            if let Ok((200, _)) = call(internal, request.as_bytes()) {
                return Ok(());
            }
            if started.elapsed() > READY_DEADLINE {
                return Err(
                    self.explain(LoadError::Server(format!("was not ready within {READY_DEADLINE:?}")))
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One shard, since the server has one core; namespace `load` with presence on and everything else at its default.
fn configuration(address: SocketAddrV4, internal: SocketAddrV4) -> String {
    format!(
        r#"[server]
shards = 1
address = "{}"
port = {}

[internal]
address = "{}"
port = {}

[client]
allowed_origins = []

[client.token]
hmac_secret = "{TOKEN_SECRET}"

[api]
keys = ["{API_KEY}"]

[[topics.namespaces]]
name = "load"
presence = true
allow_subscribe_for_client = true
"#,
        address.ip(),
        address.port(),
        internal.ip(),
        internal.port(),
    )
}

/// A port that nobody uses now. Another process may take it before the server does; then the server says so and the run is
/// made again.
fn free_address() -> Result<SocketAddrV4, LoadError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("find a free port")?;
    let port = listener.local_addr().doing("find a free port")?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}
