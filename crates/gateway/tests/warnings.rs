//! Warnings of `check`, of `config import` and at start about valid settings that are insecure.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::process::{Command, Stdio};

use node::{Node, wait_until};

/// Runs a command that ends with 0, and returns standard output and standard error.
fn fanwire(arguments: &[&str], environment: &[(&str, &str)]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    (out, err)
}

const SKIP: (&str, &str) = ("FANWIRE_CLIENT__TOKEN__INSECURE_SKIP_SIGNATURE", "true");
const OPEN: (&str, &str) = ("FANWIRE_API__INSECURE", "true");
const PLACEHOLDER: (&str, &str) = ("FANWIRE_CLIENT__TOKEN__HMAC_SECRET", "${SECRET}");

#[test]
fn check_counts_them_and_does_not_call_the_configuration_fine() {
    let (out, err) = fanwire(&["check"], &[SKIP, OPEN]);
    assert!(out.starts_with("The configuration can be used. There are 2 warnings."), "{out}");
    assert!(out.contains("any signature: clients may be any user"), "{out}");
    assert!(!out.contains("cannot connect"), "{out}");
    assert!(err.contains("warning: FANWIRE_API__INSECURE (api.insecure): is on"), "{err}");
    let (out, err) = fanwire(&["check"], &[PLACEHOLDER]);
    assert!(out.contains("There is 1 warning."), "{out}");
    assert!(err.contains("(client.token.hmac_secret): looks like a reference"), "{err}");
}

#[test]
fn import_tells_them_of_what_it_copies() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let text = "client:\n  token:\n    hmac_secret_key: <SECRET>\n  insecure: true\n\
                http_api:\n  key: changeme\n  insecure: true\n";
    std::fs::write(&file, text).unwrap();
    let (out, err) = fanwire(&["config", "import", "centrifugo", file.to_str().unwrap()], &[]);
    assert!(out.contains("<SECRET>"), "{out}");
    for expected in [
        "warning: the translation: client.token.hmac_secret: looks like a reference",
        "warning: the translation: api.keys: is a word from examples",
        "warning: the translation: client.insecure: is on",
        "warning: the translation: api.insecure: is on",
    ] {
        assert!(err.contains(expected), "{expected}\nnot in\n{err}");
    }
}

#[test]
fn a_node_logs_them_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let stdout = std::fs::File::create(&log).unwrap();
    let node = Node::start(&["serve"], &[SKIP], stdout.into(), Stdio::inherit());
    node.wait_until_alive();
    let lines = || std::fs::read_to_string(&log).unwrap();
    wait_until("the start is logged", || lines().contains("\"ready\""));
    let is_told = |line: &str| line.contains("\"level\":\"WARN\"") && line.contains(SKIP.0);
    assert!(lines().lines().any(is_told), "{}", lines());
}
