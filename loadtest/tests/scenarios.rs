//! Each scenario, tiny, with the built tool and the built server: it ends cleanly and has its figures.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod support;

use std::path::Path;
use std::process::Command;

use support::{figure, run};

/// Runs a scenario for one round with the server, which is built into the same folder.
fn scenario(words: &[&str]) -> serde_json::Value {
    let server = Path::new(env!("CARGO_BIN_EXE_fanwire-loadtest")).with_file_name("fanwire");
    assert!(server.exists(), "{} is missing: cargo build -p fanwire", server.display());
    let server = format!("--server={}", server.display());
    run(&[words, &["--rounds=1", &server]].concat()).clean()
}

#[test]
fn fanout_delivers_everything_in_every_dialect() {
    let subjects = ["raw", "fanwire", "fanwire+protobuf", "fanwire+sse", "fanwire+redis"];
    let list = format!("--subjects={}", subjects.join(","));
    let report = scenario(&["fanout", "--subscribers=20", "--rate=50", "--burst=2", "--seconds=1", &list]);
    for subject in subjects {
        assert_eq!(figure(&report, subject, "deliveries"), 20.0 * 50.0 * 2.0, "{subject}");
        assert!(figure(&report, subject, "server CPU per delivery") > 0.0, "{subject}");
        assert!(figure(&report, subject, "latency p50") > 0.0, "{subject}");
    }
    assert!(figure(&report, "fanwire+redis", "redis CPU per delivery") > 0.0);
    assert_eq!(report["bounds"][0]["name"], "fanwire / raw, server CPU per delivery");
    let bounds = report["bounds"].as_array().unwrap();
    assert!(bounds.iter().all(|bound| !bound["name"].as_str().unwrap().contains("nchan")), "{bounds:?}");
    assert!(report["servers"][1]["versions"][0].as_str().unwrap().starts_with("fanwire "), "{report}");
    assert!(report["servers"][4]["versions"][1].as_str().unwrap().starts_with("Redis "), "{report}");
    assert_eq!(report["summary"][1]["histograms"][0]["count"], 2000);
}

#[test]
fn every_transport_delivers_everything_and_is_compared_with_websocket() {
    let subjects = [
        "fanwire",
        "fanwire+protobuf",
        "fanwire+http_stream",
        "fanwire+http_stream+protobuf",
        "fanwire+uni_sse",
        "fanwire+uni_http_stream",
        "fanwire+uni_websocket",
        "fanwire+sse",
        "fanwire+ndjson",
        "fanwire+bare",
        "fanwire+poll",
    ];
    let list = format!("--subjects={}", subjects.join(","));
    let words = ["fanout", "--history", "--subscribers=10", "--rate=50", "--burst=2", "--seconds=1", &list];
    let report = scenario(&words);
    for subject in subjects {
        assert_eq!(figure(&report, subject, "deliveries"), 10.0 * 50.0 * 2.0, "{subject}");
    }
    let bounds = report["bounds"].as_array().unwrap();
    for (name, at_most) in [
        ("fanwire+sse / fanwire", 1.15),
        ("fanwire+ndjson / fanwire", 1.2),
        ("fanwire+bare / fanwire", 1.2),
        ("fanwire+http_stream / fanwire", 1.2),
        ("fanwire+http_stream+protobuf / fanwire+protobuf", 1.2),
        ("fanwire+uni_sse / fanwire", 1.15),
    ] {
        let name = format!("{name}, server CPU per delivery");
        let bound = bounds.iter().find(|bound| bound["name"] == *name).expect("each transport has its bound");
        assert_eq!(bound["at_most"], at_most, "{name}");
        // One round says too little to fail a run.
        assert_eq!(bound["fails_the_run"], false, "{name}");
    }
}

#[test]
fn clients_of_every_kind_of_transport_come_in_several_topics_stay_and_go() {
    let subjects = "--subjects=fanwire+http_stream,fanwire+uni_http_stream,fanwire+sse,fanwire+ndjson,fanwire+bare,\
                    fanwire+poll";
    let bytes_of_events = |words: &[&str]| {
        let report = scenario(&[&["fanout", "--subscribers=10", "--seconds=1"], words].concat());
        assert_eq!(figure(&report, "fanwire+sse", "deliveries"), 10.0 * 100.0);
        figure(&report, "fanwire+sse", "bytes per delivery")
    };
    let with_history = bytes_of_events(&["--history", "--subjects=fanwire+sse"]);
    let without = bytes_of_events(&["--subjects=fanwire+sse"]);
    assert!(with_history > without + 25.0, "each event has a cursor");
    let with_four = bytes_of_events(&["--history", "--topics=4", subjects]);
    assert!(with_four > with_history + 3.0 * 16.0, "each event has the places of four topics");
    let rooms = ["rooms", "--rooms=10", "--members=4", "--rate=100", "--seconds=1", subjects];
    let report = scenario(&rooms);
    assert_eq!(figure(&report, "fanwire+ndjson", "deliveries"), 400.0);
    let some = "--subjects=fanwire+http_stream,fanwire+sse,fanwire+poll";
    let report = scenario(&["idle", "--history", "--connections=20", "--window=1", "--further=2", some]);
    let bounds = report["bounds"].as_array().unwrap();
    let memory =
        bounds.iter().filter(|bound| bound["name"].as_str().unwrap().contains("memory per connection"));
    let memory: Vec<_> = memory.map(|bound| (bound["name"].as_str().unwrap(), &bound["at_most"])).collect();
    let (events, poll) = (serde_json::json!(1100.0), serde_json::json!(2048.0));
    let expected =
        [("fanwire+sse, memory per connection", &events), ("fanwire+poll, memory per connection", &poll)];
    assert_eq!(memory, expected);
    let both = "--subjects=fanwire+sse,fanwire+bare";
    scenario(&["churn", "--cycles=200", "--warm-up=50", "--topics=10", "--rest=8", both]);
}

#[test]
fn compressed_messages_are_delivered_too() {
    let words = ["fanout", "--subscribers=5", "--rate=20", "--seconds=1", "--payload=512"];
    let report = scenario(&[&words[..], &["--subjects=fanwire+deflate,fanwire+protobuf+deflate"]].concat());
    assert_eq!(figure(&report, "fanwire+deflate", "deliveries"), 100.0);
    assert!(figure(&report, "fanwire+deflate", "compressed share") > 0.99);
}

#[test]
fn overload_rooms_and_users_lose_nothing() {
    let load = ["--subscribers=10", "--rate=200", "--seconds=1", "--subjects=fanwire"];
    let report = scenario(&[&["overload"], &load[..]].concat());
    assert_eq!(figure(&report, "fanwire", "deliveries"), 2000.0);
    assert!(figure(&report, "fanwire", "published late p99") >= 0.0);
    let (sent, due) = ("latency p50", "latency from due time p50");
    assert!(figure(&report, "fanwire", due) >= figure(&report, "fanwire", sent), "{report}");
    let report = scenario(&["rooms", "--rooms=10", "--members=4", "--rate=100", "--seconds=1"]);
    assert_eq!(figure(&report, "fanwire", "deliveries"), 400.0);
    let report = scenario(&["users", "--users=20", "--rate=100", "--seconds=1"]);
    assert_eq!(figure(&report, "fanwire", "deliveries"), 100.0);
}

#[test]
fn nodes_of_a_cluster_deliver_to_all() {
    let report = scenario(&[
        "cluster",
        "--subscribers=12",
        "--topics=3",
        "--rate=30",
        "--seconds=1",
        "--subjects=fanwire+redis+nodes=2",
    ]);
    assert_eq!(figure(&report, "fanwire+redis+nodes=2", "deliveries"), 120.0);
}

#[test]
fn only_stalled_clients_are_closed() {
    let load = ["--rate=50", "--payload=65536", "--seconds=3"];
    let report = scenario(&[&["slow", "--subscribers=10", "--stalled=10"], &load[..]].concat());
    assert_eq!(figure(&report, "fanwire, none stalled", "deliveries"), 1500.0);
    assert_eq!(figure(&report, "fanwire, 10 % stalled", "deliveries"), 1350.0);
    assert_eq!(figure(&report, "fanwire, 10 % stalled", "stalled and still connected"), 0.0);
    let bounds = report["bounds"].as_array().unwrap();
    let memory = bounds.iter().find(|bound| bound["name"].as_str().unwrap().contains("memory peak")).unwrap();
    // The queue of one stalled client, and the noise.
    assert_eq!(memory["at_most"], (1 + 4) as f64 * 1024.0 * 1024.0);
    assert!(memory["measured"].is_number(), "{memory}");
}

#[test]
fn idle_connections_are_measured_part_by_part() {
    let subjects = "--subjects=fanwire,fanwire+redis,fanwire+sse";
    let report = scenario(&["idle", "--connections=50", "--window=1", "--further=2", "--split", subjects]);
    for name in ["memory per connection", "memory per further subscription", "memory of presence"] {
        assert!(figure(&report, "fanwire", name).is_finite(), "{name}");
    }
    assert!(figure(&report, "fanwire", "server set-up CPU per connection") > 0.0);
    assert!(figure(&report, "fanwire+redis", "redis set-up CPU per connection") > 0.0);
    // So few may fit into memory that Redis has anyway.
    assert!(figure(&report, "fanwire+redis", "Redis memory per connection").is_finite());
    let events = report["turns"].as_array().unwrap().iter().find(|turn| turn["subject"] == "fanwire+sse");
    assert!(events.unwrap()["notes"][0].as_str().unwrap().contains("not split"), "{report}");
}

#[test]
fn a_storm_refuses_nobody() {
    let report = scenario(&["storm", "--connections=100", "--in-flight=10"]);
    assert!(figure(&report, "fanwire, 10 in flight", "slowest") > 0.0);
    assert!(figure(&report, "fanwire, all at once", "server set-up CPU per connection") > 0.0);
}

#[test]
fn a_storm_waits_for_its_hook_within_the_bound_on_calls() {
    let report = scenario(&["storm", "--connections=200", "--in-flight=150", "--subjects=fanwire+hook"]);
    for subject in ["fanwire+hook, 150 in flight", "fanwire+hook, all at once"] {
        assert!((1.0..=128.0).contains(&figure(&report, subject, "calls at a time")), "{subject}");
        // One for each client, and one for the bystander.
        assert_eq!(figure(&report, subject, "calls"), 201.0, "{subject}");
        assert!(figure(&report, subject, "ping p99") > 0.0, "{subject}");
        assert!(figure(&report, subject, "set-up p50") >= 50.0, "{subject}");
    }
}

#[test]
fn churn_gives_everything_back() {
    let report = scenario(&[
        "churn",
        "--cycles=200",
        "--warm-up=50",
        "--topics=10",
        "--rest=8",
        "--subjects=fanwire+redis,fanwire+sse",
    ]);
    assert_eq!(figure(&report, "fanwire+redis", "Redis keys growth"), 0.0);
    assert_eq!(figure(&report, "fanwire+redis", "Redis keys at the end"), keys_before(&report));
    let series = report["turns"][0]["series"].as_array().unwrap();
    assert_eq!(series.len(), 3);
    assert!(series[0]["points"].as_array().unwrap().len() > 10);
}

/// Returns the first point of the series of keys, which is before the first client.
fn keys_before(report: &serde_json::Value) -> f64 {
    let series = report["turns"][0]["series"].as_array().unwrap();
    let keys = series.iter().find(|series| series["name"] == "Redis keys").unwrap();
    assert_eq!(keys["points"][0][0], 0.0);
    keys["points"][0][1].as_f64().unwrap()
}

#[test]
fn secrets_stay_out_of_what_is_stored() {
    let words = ["fanout", "--subscribers=1", "--rate=1", "--seconds=1", "--subjects=raw", "--rounds=1"];
    let run = run(&[&words[..], &["--api-key=hush", "--token-secret", "silence"]].concat());
    let stored = run.clean().to_string() + &run.text();
    for secret in ["hush", "silence", env!("CARGO_BIN_EXE_fanwire-loadtest")] {
        assert!(!stored.contains(secret), "{secret}: {stored}");
    }
    let command = run.report()["command"].to_string();
    assert!(command.contains("--api-key=REDACTED") && !command.contains('/'), "{command}");
}

#[test]
fn secrets_of_the_environment_are_no_configuration_of_the_server() {
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .args(["fanout", "--subjects=fanwire", "--subscribers=1", "--rate=1", "--seconds=1", "--rounds=1"])
        .env("FANWIRE_LOADTEST_API_KEY", "hush")
        .env("FANWIRE_LOADTEST_TOKEN_SECRET", "silence")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let help = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .args(["fanout", "--help"])
        .env("FANWIRE_LOADTEST_API_KEY", "hush")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("FANWIRE_LOADTEST_API_KEY") && !help.contains("hush"), "{help}");
}

#[test]
fn a_bound_on_what_is_not_there_is_refused_before_the_run() {
    for (bound, told) in [("nobody:slowest<=1", "nobody"), ("fanwire:no such figure<=1", "no such figure")] {
        let refused = run(&["fanout", "--bound", bound]);
        assert_eq!(refused.output.status.code(), Some(2), "{}", refused.text());
        assert!(refused.text().contains(told), "{}", refused.text());
    }
}

#[test]
fn shards_are_timed_while_clients_sleep() {
    let report = scenario(&["parallel", "--subscribers=50", "--publications=2"]);
    for subject in ["fanwire+shards=1", "fanwire+shards=2", "raw+shards=1", "raw+shards=2"] {
        assert!(figure(&report, subject, "first to last send") > 0.0);
        assert_eq!(figure(&report, subject, "deliveries"), 100.0);
        assert!(figure(&report, subject, "server CPU per delivery") > 1.0, "{subject}: a send costs more");
    }
    for server in report["servers"].as_array().unwrap() {
        assert_eq!(server["placement"], report["servers"][0]["placement"]);
    }
}

#[test]
fn a_server_that_cannot_run_is_an_error_with_its_reason() {
    let missing = run(&["idle", "--server=/nonexistent/fanwire"]);
    assert_eq!(missing.output.status.code(), Some(2));
    assert!(missing.text().contains("start /nonexistent/fanwire"), "{}", missing.text());

    let ended = run(&["fanout", "--subjects=fanwire", "--server=/bin/false"]);
    assert_eq!(ended.output.status.code(), Some(2));
    assert!(ended.text().contains("the server ended with exit status: 1"), "{}", ended.text());
}
