//! The built tool against its own baseline: the whole path of a run without any other server.

use std::process::Command;

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
}

#[test]
fn the_baseline_delivers_everything_and_stores_each_turn() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let output = tool()
        .args(["raw", "--subscribers=40", "--rate=50", "--burst=3", "--seconds=1", "--rounds=2", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("raw send"), "{text}");

    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let turns = report["report"]["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 2);
    for turn in turns {
        assert_eq!(turn["deliveries"], 40 * 50 * 3);
        assert_eq!(turn["faults"]["lost"], 0);
        assert!(turn["server"]["nanoseconds"].as_u64().unwrap() > 0);
        assert!(turn["latency_ms"]["samples"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_server_that_cannot_run_is_an_error_with_its_reason() {
    let missing = tool().args(["idle", "--server=/nonexistent/fanwire"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(text.contains("start /nonexistent/fanwire"), "{text}");

    let ended = tool()
        .args(["fanout", "--rounds=1", "--seconds=1", "--subscribers=1", "--server=/bin/false"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let text = String::from_utf8(ended.stderr).unwrap();
    assert!(text.contains("the server ended with exit status: 1"), "{text}");
}
