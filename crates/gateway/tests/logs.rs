//! Logs whose reader stops reading, goes away or never existed: the node keeps serving, stops on a signal, and counts
//! the lines that it could not write.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use node::{Node, wait_until};

const TOKENS: (&str, &str) = ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", "a secret of more than thirty-two bytes");
const API_KEY: (&str, &str) = ("FANWIRE_API__KEYS", "an API key of more than thirty-two bytes");

/// Returns both ends of a pipe that no other child inherits.
fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Returns both ends of a full pipe.
fn full_pipe() -> (File, OwnedFd) {
    use rustix::fs::{OFlags, fcntl_setfl};
    let (reader, writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let page = [b' '; 4096];
    while rustix::io::write(&writer, &page).is_ok() {}
    while rustix::io::write(&writer, b" ").is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader.into(), writer)
}

/// Checks that the node answers health and the API, refuses a token, and ends with 0 on SIGTERM.
fn serves_and_ends(mut node: Node) {
    node.wait_until_alive();
    for _ in 0..20 {
        node.refused_client();
    }
    let body = r#"{"channel":"news","data":1}"#;
    let publish = format!(
        "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nX-API-Key: {}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        node.port,
        API_KEY.1,
        body.len()
    );
    let answer = node::request(node.port, &publish).unwrap();
    assert!(answer.contains(r#"{"result":{}}"#), "{answer}");
    assert!(node.internal("/livez").starts_with("HTTP/1.1 200"));
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
}

fn start(stdout: Stdio, stderr: Stdio) -> Node {
    Node::start(&["serve", "--log-level", "debug"], &[TOKENS, API_KEY], stdout, stderr)
}

#[test]
fn a_full_pipe_holds_nobody_up() {
    let (_reader, stdout) = full_pipe();
    let (_other_reader, stderr) = full_pipe();
    serves_and_ends(start(stdout.into(), stderr.into()));
}

#[test]
fn a_closed_pipe_ends_nobody() {
    let (_, stdout) = pipe().unwrap();
    let (_, stderr) = pipe().unwrap();
    serves_and_ends(start(stdout.into(), stderr.into()));
}

/// The reader of `fanwire serve 2>&1 | head -1` goes away.
#[test]
fn a_reader_that_leaves_later_ends_nobody() {
    let (reader, stdout) = pipe().unwrap();
    let stderr = stdout.try_clone().unwrap();
    let node = start(stdout.into(), stderr.into());
    File::from(reader).read_exact(&mut [0]).unwrap();
    serves_and_ends(node);
}

#[test]
fn a_full_disk_ends_nobody() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    serves_and_ends(start(full().into(), full().into()));
}

/// `fanwire serve >&- 2>&-` has no streams.
#[test]
fn closed_descriptors_end_nobody() {
    let script = r#"exec "$@" >&- 2>&-"#;
    let node = Node::start_by(
        &["sh", "-c", script, "sh"],
        &["serve", "--log-level", "debug"],
        &[TOKENS, API_KEY],
        Stdio::null(),
        Stdio::null(),
    );
    serves_and_ends(node);
}

#[test]
fn the_banner_of_development_waits_for_nobody() {
    let (_reader, stdout) = full_pipe();
    let mut node = Node::start(&["serve", "--dev"], &[], stdout.into(), Stdio::null());
    node.wait_until_alive();
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn an_error_at_start_waits_for_nobody() {
    let (_reader, stderr) = full_pipe();
    let mut node = Node::start(&["serve", "--log-level", "x=y"], &[], Stdio::null(), stderr.into());
    assert_eq!(node.wait().code(), Some(2));
}

#[test]
fn lines_that_nobody_reads_are_dropped_counted_and_told() {
    const DROPPED: &str = r#"fanwire_log_lines_dropped_total{level="debug"}"#;
    let (mut reader, stdout) = full_pipe();
    let bound = ("FANWIRE_LOG__QUEUE_BYTES_MAX", "4KiB");
    let mut node =
        Node::start(&["serve", "--log-level", "debug"], &[TOKENS, bound], stdout.into(), Stdio::inherit());
    node.wait_until_alive();
    wait_until("lines are dropped", || {
        node.refused_client();
        node.metric(DROPPED) > 5.0
    });
    let mut text = String::new();
    let mut buffer = vec![0; 65536];
    // A read blocks without data, so a refused client makes a line first.
    while !text.contains("log lines were dropped") {
        node.refused_client();
        let count = reader.read(&mut buffer).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    let told = text.lines().find(|line| line.contains("log lines were dropped")).unwrap();
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert_eq!(told["level"], "WARN");
    assert!(told["lines"].as_u64().unwrap() > 5, "{told}");
    // Lines queued at the end are still written.
    node.terminate();
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        rest
    });
    assert_eq!(node.wait().code(), Some(0));
    assert!(rest.join().unwrap().contains("\"stopped\""));
}

#[test]
fn commands_take_a_closed_pipe_for_no_failure_and_a_full_disk_for_one() {
    let fanwire = |arguments: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire"));
        command.args(arguments).env_clear().stdout(stdout).stderr(stderr).output().unwrap()
    };
    let closed = || Stdio::from(pipe().unwrap().1);
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    for arguments in [
        &["config", "default"][..],
        &["check"],
        &["token", "connection", "--user", "1", "--secret", "a secret of more than thirty-two bytes"],
    ] {
        assert_eq!(fanwire(arguments, closed(), closed()).status.code(), Some(0), "{arguments:?}");
        let output = fanwire(arguments, full(), Stdio::piped());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("standard output cannot be written"), "{said}");
    }
    assert_eq!(fanwire(&["check", "/no/such.toml"], closed(), closed()).status.code(), Some(1));
    assert_eq!(fanwire(&["check", "/no/such.toml"], closed(), full()).status.code(), Some(1));
    assert_eq!(fanwire(&["token", "check", "x", "--secret", "y"], closed(), closed()).status.code(), Some(1));
}

#[test]
fn a_checked_token_cannot_forge_a_line_or_steer_the_terminal() {
    let user = "x\nvalid: a connection token of user \"admin\"\r\u{9b}2J\u{1b}[2J\u{202e}";
    let fanwire = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire"));
        let output = command.args(arguments).env_clear().output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let secret = "a secret of more than thirty-two bytes";
    let token = fanwire(&["token", "connection", "--user", user, "--secret", secret]);
    let said = fanwire(&["token", "check", token.trim(), "--secret", secret]);
    assert!(said.starts_with("valid: a connection token of user \"x\\nvalid: "), "{said}");
    assert!(!said.contains(|character: char| character.is_control() && character != '\n'), "{said:?}");
    assert!(!said.contains('\u{202e}'), "{said:?}");
    let (_, claims) = said.split_once('\n').unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(claims).unwrap()["sub"], user);
}
