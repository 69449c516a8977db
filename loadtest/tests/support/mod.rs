//! Runs the built tool and reads its reports.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::process::{Command, Output};

use tempfile::TempDir;

/// A finished run.
pub(crate) struct Run {
    pub(crate) output: Output,
    folder: TempDir,
}

/// Runs the tool with these words, and stores its report.
pub(crate) fn run(words: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"))
        .args(words)
        .arg("--json")
        .arg(folder.path().join("report.json"))
        .arg("--html")
        .arg(folder.path().join("report.html"))
        .output()
        .unwrap();
    Run { output, folder }
}

impl Run {
    /// Returns the report of a run that succeeded.
    pub(crate) fn clean(&self) -> serde_json::Value {
        assert_eq!(self.output.status.code(), Some(0), "{}", self.text());
        self.report()
    }

    /// Returns both standard streams.
    pub(crate) fn text(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        format!("{}{}", String::from_utf8_lossy(stderr), String::from_utf8_lossy(stdout))
    }

    /// Returns the stored report, of whatever result.
    pub(crate) fn report(&self) -> serde_json::Value {
        let html = std::fs::read_to_string(self.folder.path().join("report.html")).unwrap();
        assert!(html.contains("<html"), "{html}");
        serde_json::from_slice(&std::fs::read(self.folder.path().join("report.json")).unwrap()).unwrap()
    }
}

/// Returns a figure of the first turn of a subject.
pub(crate) fn figure(report: &serde_json::Value, subject: &str, name: &str) -> f64 {
    let turns = report["turns"].as_array().unwrap();
    let turn = turns
        .iter()
        .find(|turn| turn["subject"] == subject)
        .unwrap_or_else(|| panic!("no turn of {subject}"));
    let figures = turn["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.unwrap_or_else(|| panic!("{subject} has no {name}: {figures:?}"))["value"].as_f64().unwrap()
}
