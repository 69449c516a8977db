//! One Redis for all tests of a process, each under a prefix of its own, and one for a test that needs its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use fanwire_server::settings::RedisSettings;

/// Settings for a cluster that no other test has.
pub(crate) fn redis_settings() -> RedisSettings {
    RedisSettings {
        port: server_port(),
        prefix: format!("test-{:016x}", rand::random::<u64>()).into(),
        allow_other_prefixes: true,
        lease: Duration::from_secs(3),
        ..RedisSettings::default()
    }
}

/// A Redis of a test's own, which it does to what it wants.
pub(crate) struct OwnRedis {
    pub(crate) settings: RedisSettings,
    connection: TcpStream,
}

impl OwnRedis {
    pub(crate) fn start() -> Self {
        let settings = RedisSettings { port: serve(), ..redis_settings() };
        let connection = TcpStream::connect(("127.0.0.1", settings.port)).unwrap();
        Self { settings, connection }
    }

    /// From now on nodes hear nothing of what is published.
    pub(crate) fn silence(&mut self) {
        self.run("CONFIG SET maxclients 1");
        self.run("CLIENT KILL TYPE pubsub");
    }

    /// Lets nodes hear again.
    pub(crate) fn speak(&mut self) {
        self.run("CONFIG SET maxclients 1000");
    }

    /// Lets everything that nodes ask wait for so long.
    pub(crate) fn pause(&mut self, time: Duration) {
        self.run(&format!("CLIENT PAUSE {}", time.as_millis()));
    }

    fn run(&mut self, command: &str) {
        self.connection.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 256];
        let length = self.connection.read(&mut answer).unwrap();
        assert!(matches!(answer[0], b'+' | b':'), "{}", String::from_utf8_lossy(&answer[..length]));
    }
}

/// The server of the process, which starts with the first test that wants it.
fn server_port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(serve)
}

/// Starts a server, and returns its port.
fn serve() -> u16 {
    let (tell, started) = std::sync::mpsc::channel();
    // The server ends with the thread that started it, and that ends with the process.
    std::thread::spawn(move || {
        tell.send(start()).unwrap();
        loop {
            std::thread::park();
        }
    });
    started.recv().unwrap()
}

fn start() -> u16 {
    // Another process may take the port between the look and the server's start.
    for _ in 0..10 {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--save", ""])
            .args(["--port", &port.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv and redis-server are installed");
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() && server.try_wait().unwrap().is_none() {
                return port;
            }
            if server.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("redis-server does not start");
}
