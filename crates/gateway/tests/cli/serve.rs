//! `serve`: its output, its signals and its failures.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::run::{self, Files, check_file, fanwire, fanwire_with};

#[test]
fn serve_says_what_it_opened_and_ends_on_a_signal() {
    use rustix::process::{Pid, Signal, kill_process};

    let mut node = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(["--dev", "--port", "0", "--internal-port", "0"])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    let banner: Vec<String> =
        lines.by_ref().take_while(|line| !line.contains("curl http://127.0.0.1:")).collect();
    for expected in
        ["for development", "Page         http://127.0.0.1:", "clients need no token", "the API needs no key"]
    {
        assert!(banner.iter().any(|line| line.contains(expected)), "{expected} not in {banner:#?}");
    }
    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("SIGTERM")));
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn a_certificate_is_checked_and_reloaded_on_a_signal() {
    use rustix::process::{Pid, Signal, kill_process};

    let files = Files::new();
    let (certificate, key) = run::certificate();
    let (certificate_file, key_file) = (files.write("tls.crt", &certificate), files.write("tls.key", &key));
    let config = files.write(
        "fanwire.toml",
        &format!("[server.tls]\ncertificate_file = '{certificate_file}'\nkey_file = '{key_file}'\nreload_interval = '0s'\n"),
    );
    fanwire(&["check", &config]).exits(0).says("0.0.0.0:8000, TLS until 4096-01-01T00:00:00Z");
    files.write("tls.key", &run::certificate().1);
    check_file(&config, &[&format!("server.tls.key_file: {key_file}: is not the key of the certificate")]);
    fanwire(&["serve", "--config", &config]).exits(2).complains("server.tls.key_file");
    files.write("tls.key", &key);

    let mut node = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(["serve", "--config", &config, "--address", "127.0.0.1", "--port", "0", "--internal-port", "0"])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"ready\"")));
    for (content, said) in [("", "was not reloaded"), (&*key, "was reloaded")] {
        files.write("tls.key", content);
        kill_process(Pid::from_child(&node), Signal::HUP).unwrap();
        assert!(lines.any(|line| line.contains(said)));
    }
    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("SIGTERM")));
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fanwire(&["serve", "--address", "127.0.0.1", "--port", &port, "--internal-port", "0"])
        .exits(1)
        .complains("in use");
    fanwire_with(&["serve"], &[("FANWIRE_SERVER__CONNECTIONS_MAX", "999999999999")])
        .exits(2)
        .complains("server.connections_max");
}
