//! What a run prints and stores: medians with their range, aligned tables, and JSON with every single turn.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Doing, LoadError};
use crate::process::Cores;

/// Median and range of a few runs; the range shows the noise that a ratio must be read with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:.2} [{:.2}-{:.2}]", self.median, self.min, self.max)
    }
}

/// The usual points of a distribution of times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) samples: usize,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// `None` without samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut samples: Vec<Duration> = samples.into_iter().collect();
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        let at = |share: f64| samples[(last as f64 * share).round() as usize].as_secs_f64() * 1e3;
        Some(Self { samples: samples.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) })
    }
}

/// Where a run was made: a figure without it means nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    kernel: String,
    cores: usize,
    /// The longest queue of connections that wait to be accepted.
    backlog_max: String,
    pinned: Cores,
}

impl Machine {
    pub(crate) fn here(pinned: Cores) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |line: &str| {
            line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        Self {
            processor: cpuinfo.lines().find_map(field).unwrap_or_else(|| "unknown".to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            backlog_max: read("/proc/sys/net/core/somaxconn").trim().to_owned(),
            pinned,
        }
    }
}

/// Rows under a heading, columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Stores everything a run found, beside the command that made it.
pub(crate) fn write_json(path: &Path, machine: &Machine, report: &impl Serialize) -> Result<(), LoadError> {
    #[derive(Serialize)]
    struct Document<'a, R> {
        command: Vec<String>,
        machine: &'a Machine,
        report: &'a R,
    }
    let document = Document { command: std::env::args().collect(), machine, report };
    let json = serde_json::to_vec_pretty(&document).map_err(|error| LoadError::Io {
        doing: "make JSON of the report".to_owned(),
        source: error.into(),
    })?;
    fs::write(path, json).doing(format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn percentiles_of_a_hundred_and_one() {
        let percentiles = Percentiles::of((0..=100).rev().map(Duration::from_millis)).unwrap();
        assert_eq!(
            (percentiles.p50, percentiles.p90, percentiles.p99, percentiles.max),
            (50.0, 90.0, 99.0, 100.0)
        );
        assert_eq!(Percentiles::of([]), None);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a     b\nlong  c\n");
    }
}
