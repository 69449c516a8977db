//! One Redis for all tests of a process, each under a prefix of its own.

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

/// Starts the server with the first test that wants it.
fn server_port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let (tell, started) = std::sync::mpsc::channel();
        // The server ends with the thread that started it, and that ends with the process.
        std::thread::spawn(move || {
            tell.send(start()).unwrap();
            loop {
                std::thread::park();
            }
        });
        started.recv().unwrap()
    })
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
