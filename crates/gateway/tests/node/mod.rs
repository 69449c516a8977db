//! A running `fanwire serve`, and raw requests to it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Time allowed for any step on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed if the test ends first.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) internal_port: u16,
}

impl Node {
    /// Starts `fanwire` with these arguments on two free ports.
    pub(crate) fn start(
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdout: Stdio,
        stderr: Stdio,
    ) -> Self {
        Self::start_by(&[], arguments, environment, stdout, stderr)
    }

    /// Starts `fanwire` through another program, whose command line ends with that of `fanwire`.
    pub(crate) fn start_by(
        launcher: &[&str],
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdout: Stdio,
        stderr: Stdio,
    ) -> Self {
        let free: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(free);
        let words: Vec<&str> =
            launcher.iter().chain(&[env!("CARGO_BIN_EXE_fanwire")]).chain(arguments).copied().collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["--address", "127.0.0.1", "--shards", "2"])
            .args(["--port", &ports[0].to_string(), "--internal-port", &ports[1].to_string()])
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, port: ports[0], internal_port: ports[1] }
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the response to `GET path` on the internal port.
    pub(crate) fn internal(&self, path: &str) -> String {
        request(
            self.internal_port,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
                self.internal_port
            ),
        )
        .unwrap_or_default()
    }

    /// Returns the value of a metric, which is named with its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.internal("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    pub(crate) fn wait_until_alive(&self) {
        wait_until("the node answers", || self.internal("/livez").starts_with("HTTP/1.1 200"));
    }

    /// Returns the first line of the response to a request after which the connection stays open.
    pub(crate) fn first_line(&self, head: &str) -> String {
        let mut stream = connect(self.port).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    /// Connects a WebSocket client whose token is refused; returns when the node has closed it.
    pub(crate) fn refused_client(&self) {
        let mut stream = connect(self.port).unwrap();
        let handshake = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            self.port
        );
        stream.write_all(handshake.as_bytes()).unwrap();
        let command = br#"{"id":1,"connect":{"token":"no.such.token"}}"#;
        // A text frame whose mask is zero.
        let mut frame = vec![0x81, 0x80 | command.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(command);
        stream.write_all(&frame).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends these bytes, and returns the response until the server closes.
pub(crate) fn request(port: u16, bytes: &str) -> std::io::Result<String> {
    let mut stream = connect(port)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(bytes.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "it does not come true that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
