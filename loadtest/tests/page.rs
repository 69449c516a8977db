//! The page of stored reports in a real browser: its script runs without an error, every plot is drawn, and a name that
//! looks like markup stays a name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Would end the data's element, run, and change the title of the page.
const HOSTILE: &str =
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";

#[test]
fn a_browser_draws_every_plot_of_every_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let stored = [
        report("fanout", &["raw", "fanwire", "nchan"], &[]),
        report(
            "churn",
            &["fanwire", "fanwire+redis"],
            &[series("resident memory", "B"), series("Redis keys", "count")],
        ),
    ];
    let document = draw(folder.path(), &stored);
    assert!(document.contains(r#"data-state="drawn""#), "the script failed: {}", body(&document));
    assert!(document.contains(r#"<p id="failure" class="alarm" role="alert" hidden"#), "it told an error");

    let body = body(&document);
    let sections: Vec<&str> = body.split(r#"<section class="scenario""#).skip(1).collect();
    // Server CPU above the client's, latency p99, and the two views of the histogram; then the series.
    for (section, plots) in sections.iter().zip([4, 6]) {
        assert!(section.contains(&format!("data-plots=\"{plots}\"")), "{section}");
        assert_eq!(section.matches(r#"<div class="plot"><svg viewBox="#).count(), plots, "{section}");
        assert!(!section.contains("NaN") && !section.contains("undefined"), "{section}");
    }
    assert_eq!(sections.len(), 2);

    // The medians of 10, 11, 12 and of 20, 22, 24 with their ratio, and the bounds' verdicts.
    for text in [
        "11.0\u{a0}µs",
        "22.0\u{a0}µs",
        "×2.00",
        "✓ met",
        "✗ not met",
        "– not judged",
        "1 of 6 turns were not at their pace",
        "2 of 6 bounds met",
        "1 message lost",
        "fanwire 7.8.9, core 0",
        "not at its pace: 0.5 s behind",
    ] {
        let escaped = text.replace('\u{a0}', "&nbsp;");
        assert!(body.contains(&escaped), "{text} is missing");
    }
}

#[test]
fn a_name_that_looks_like_markup_stays_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut stored = report("fanout", &["raw", HOSTILE], &[series(HOSTILE, "B")]);
    stored["about"] = json!(HOSTILE);
    stored["load"] = json!([[HOSTILE, HOSTILE]]);
    stored["machine"]["processor"] = json!(HOSTILE);
    stored["turns"][0]["notes"] = json!([HOSTILE]);
    stored["turns"][0]["reasons"] = json!([HOSTILE]);
    stored["bounds"][0]["name"] = json!(HOSTILE);
    let document = draw(folder.path(), &[stored]);
    assert!(document.contains(r#"data-state="drawn""#), "the script failed: {}", body(&document));
    assert!(document.contains("<title>Fanwire load test: fanout</title>"), "the title was taken");
    assert!(body(&document).contains("&lt;/script&gt;&lt;script&gt;"), "the name is missing");
    assert!(!document.contains("<img src=x"), "markup got into the page");
}

/// Stores the reports, makes a page of them with the tool, and returns the document after its script has run.
fn draw(folder: &Path, reports: &[Value]) -> String {
    let page = folder.join("page.html");
    let files: Vec<PathBuf> = (0..reports.len()).map(|index| folder.join(format!("{index}.json"))).collect();
    for (file, report) in files.iter().zip(reports) {
        std::fs::write(file, report.to_string()).unwrap();
    }
    let made = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .arg("page")
        .args(&files)
        .arg("--html")
        .arg(&page)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");

    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let drawn = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1280,900"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("Chromium is installed");
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    String::from_utf8(drawn.stdout).unwrap()
}

/// Returns the visible part: everything before the data and the script, whose source has the same words.
fn body(document: &str) -> &str {
    document.split_once(r#"<script type="application/json""#).expect("the data is in the page").0
}

/// Three rounds of each subject; the second costs twice the first, and its last round lost a message.
fn report(scenario: &str, subjects: &[&str], series: &[Value]) -> Value {
    let mut turns = Vec::new();
    for round in 1..=3 {
        for (index, subject) in subjects.iter().enumerate() {
            let cost = f64::from(9 + round) * (index + 1) as f64;
            let lost = u32::from(index == 1 && round == 3);
            turns.push(json!({
                "subject": subject,
                "round": round,
                "figures": [
                    { "name": "server CPU per delivery", "unit": "us", "value": cost },
                    { "name": "client CPU per delivery", "unit": "us", "value": cost / 2.0 },
                    { "name": "latency p99", "unit": "ms", "value": cost / 3.0 },
                    { "name": "messages", "unit": "count", "value": 500.0 },
                ],
                "histograms": [{
                    "name": "latency", "unit": "ns",
                    "buckets": [[1_000_000, 500], [2_000_000, 480], [9_000_000, 20]],
                    "count": 1000, "min": 900_000, "max": 8_900_000,
                    "p50": 1_000_000, "p90": 2_000_000, "p99": 8_900_000, "p999": 8_900_000,
                }],
                "series": series,
                "faults": { "lost": lost, "duplicated": 0, "reordered": 0, "unknown": 0 },
                "connections_lost": 0,
                "reasons": [],
                "not_at_pace": (index == 1 && round == 2).then_some("0.5 s behind"),
                "notes": [],
            }));
        }
    }
    json!({
        "scenario": scenario,
        "about": "What a delivery costs.",
        "load": [["subscribers", "1000"]],
        "machine": {
            "processor": "a processor", "kernel": "6.0", "cores": 2, "memory_bytes": 1u64 << 34, "backlog_max": "4096",
            "client_core": 1, "load_tool": "0.1.0 release build",
        },
        "servers": [{ "subject": "fanwire", "versions": ["fanwire 7.8.9"], "placement": "core 0" }],
        "command": ["fanwire-loadtest", scenario],
        "subjects": subjects,
        "turns": turns,
        "bounds": [
            { "name": "server CPU", "measured": 1.1, "at_most": 1.2, "unit": "ratio", "met": true, "verdict": "met" },
            { "name": "latency p99", "measured": 3.0, "at_most": 2.0, "unit": "ratio", "met": false, "verdict": "not met" },
            {
                "name": "client CPU", "measured": null, "at_most": 1.0, "unit": "us", "met": false,
                "verdict": "not judged: 1 of 6 turns were not at their pace",
            },
        ],
    })
}

fn series(name: &str, unit: &str) -> Value {
    json!({ "name": name, "unit": unit, "x_unit": "cycles", "points": [[0.0, 100.0], [500.0, 180.0], [1000.0, 101.0]] })
}
