//! Each peer under small loads by the built tool: everything arrives once and in order, and no process is left behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{figure, run};

const PEERS: [&str; 4] = ["nchan", "nats", "ws", "socketio"];

/// Runs a scenario for one round with every peer, without a fault.
fn scenario(words: &[&str]) -> serde_json::Value {
    let subjects = format!("--subjects={}", PEERS.join(","));
    run(&[words, &["--rounds=1", &subjects]].concat()).clean()
}

#[test]
fn bursts_to_one_topic_arrive_once_and_in_order() {
    let load = ["fanout", "--subscribers=20", "--rate=20", "--burst=8", "--seconds=1", "--publishers=3"];
    let report = scenario(&load);
    for peer in PEERS {
        assert_eq!(figure(&report, peer, "deliveries"), 20.0 * 20.0 * 8.0, "{peer}");
        assert!(figure(&report, peer, "server CPU per delivery") > 0.0, "{peer}");
    }
}

#[test]
fn a_client_of_several_topics_gets_the_messages_of_all() {
    let load = ["rooms", "--rooms=6", "--members=4", "--topics-per-client=3", "--rate=60", "--seconds=1"];
    let report = scenario(&load);
    for peer in PEERS {
        assert_eq!(figure(&report, peer, "deliveries"), 60.0 * 4.0, "{peer}");
    }
}

#[test]
fn memory_and_set_up_can_be_measured() {
    let report = scenario(&["idle", "--connections=30", "--window=1"]);
    for peer in PEERS {
        // So few connections may well fit into memory that a garbage-collected server has already.
        assert!(figure(&report, peer, "memory per connection").is_finite(), "{peer}");
        assert!(figure(&report, peer, "whole server before") > 1e6, "{peer}");
        assert!(figure(&report, peer, "server set-up CPU per connection") > 0.0, "{peer}");
    }
}

#[test]
fn nothing_runs_on_when_a_run_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .args(["fanout", "--subscribers=1", "--rate=1", "--seconds=1", "--rounds=1"])
        .arg(format!("--subjects={}", PEERS.join(",")))
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(processes_with_files_in(folder.path()), [] as [String; 0]);
}

#[test]
fn an_interrupted_run_ends_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .args(["fanout", "--subscribers=1", "--rate=1", "--seconds=600", "--rounds=1", "--subjects=nchan"])
        .env("TMPDIR", folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while processes_with_files_in(folder.path()).is_empty() {
        assert_eq!(run.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = Pid::from_child(&run);
    kill_process(pid, Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert_eq!(processes_with_files_in(folder.path()), [] as [String; 0]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_is_not_installed_is_named_with_the_way_to_get_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .args(["fanout", "--subjects=ws", "--rounds=1"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("node is not installed; `cargo xtask bench` installs"), "{text}");
}

/// Returns the names of this user's processes with open files in the folder, as every server's log is.
fn processes_with_files_in(folder: &Path) -> Vec<String> {
    let has_file = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.starts_with(folder))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
    let left = processes.filter(|process| has_file(process));
    left.map(|process| fs::read_to_string(process.join("comm")).unwrap_or_default()).collect()
}
