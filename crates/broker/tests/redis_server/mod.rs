//! A Redis server for one test: on a free port, with its own folder, stopped when the value is dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fanwire_broker::{LinkState, Redis, RedisSettings};
use redis::{FromRedisValue, cmd};
use tempfile::TempDir;

pub(crate) struct RedisServer {
    pub(crate) port: u16,
    /// Kept for its folder, in which the server runs.
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        // Another process may take the port before the server starts.
        for _ in 0..10 {
            let port = free_port();
            let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            let folder = TempDir::new().unwrap();
            let mut server = Self { port, folder, arguments, process: None };
            if server.try_resume() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    /// Ends the server at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again with its saved data.
    pub(crate) fn resume(&mut self) {
        assert!(self.try_resume());
    }

    /// Runs one command, given as words.
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut request = cmd(words.next().unwrap());
        request.arg(words.collect::<Vec<_>>());
        request.query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    pub(crate) fn client(&self) -> redis::Client {
        let password = self.arguments.iter().skip_while(|argument| *argument != "--requirepass").nth(1);
        let password = password.map(|password| format!(":{password}@")).unwrap_or_default();
        redis::Client::open(format!("redis://{password}127.0.0.1:{}", self.port)).unwrap()
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings { port: self.port, ..RedisSettings::default() }
    }

    fn try_resume(&mut self) -> bool {
        let mut process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", self.folder.path().to_str().unwrap()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let client = self.client();
        for _ in 0..500 {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            // Another server on the port would have made this one end.
            if let Ok(mut connection) = client.get_connection()
                && cmd("PING").query::<String>(&mut connection).is_ok()
            {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port. It is below those that the kernel assigns to outgoing connections and to listeners on port 0, so that a
/// server finds it free again after a pause.
fn free_port() -> u16 {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    loop {
        // Tests in other processes begin at other ports.
        let look = std::process::id().wrapping_mul(31).wrapping_add(LOOKS.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(look % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until the engine can be used.
pub(crate) async fn wait_until_up(redis: &Redis) {
    let mut state = redis.state();
    let up = state.wait_for(|state| *state == LinkState::Up);
    let up = tokio::time::timeout(Duration::from_secs(20), up).await.is_ok();
    assert!(up, "{redis:?}");
}
