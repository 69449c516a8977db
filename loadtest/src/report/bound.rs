//! Bounds that a run is held against: `fanwire/raw:server CPU per delivery<=1.2`.
//!
//! A bound says met or not met in the report. It never fails a run: only wrong deliveries do.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// A bound and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) measured: f64,
    pub(crate) at_most: f64,
    /// Of both numbers.
    pub(crate) unit: String,
    pub(crate) met: bool,
}

/// A figure of one subject, or its ratio to another's, and the most it may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BoundRule {
    subject: String,
    divided_by: Option<String>,
    figure: String,
    at_most: f64,
}

impl BoundRule {
    /// The figure's median itself.
    pub(crate) fn absolute(subject: &str, figure: &str, at_most: f64) -> Self {
        Self { subject: subject.to_owned(), divided_by: None, figure: figure.to_owned(), at_most }
    }

    /// The ratio of two subjects' medians.
    pub(crate) fn ratio(subject: &str, divided_by: &str, figure: &str, at_most: f64) -> Self {
        Self { divided_by: Some(divided_by.to_owned()), ..Self::absolute(subject, figure, at_most) }
    }

    /// `None` if the run has not measured it.
    pub(crate) fn judge(&self, report: &Report) -> Option<Bound> {
        let mut figures = report.turns.iter().flat_map(|turn| &turn.figures);
        let figure = figures.find(|figure| same_words(&figure.name, &self.figure))?;
        let (name, unit, measured) = match &self.divided_by {
            Some(below) => {
                let ratio = report.ratio(&self.subject, below, &figure.name)?;
                (format!("{} / {below}, {}", self.subject, figure.name), "ratio", ratio.median)
            }
            None => {
                let spread = report.spread(&self.subject, &figure.name)?;
                (format!("{}, {}", self.subject, figure.name), &*figure.unit, spread.median)
            }
        };
        let met = measured <= self.at_most;
        Some(Bound { name, measured, at_most: self.at_most, unit: unit.to_owned(), met })
    }
}

impl FromStr for BoundRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not like \"fanwire/raw:server CPU per delivery<=1.2\"");
        let (subjects, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (figure, at_most) = rest.split_once("<=").ok_or_else(wrong)?;
        let at_most: f64 = at_most.trim().parse().map_err(|_| wrong())?;
        let (subject, divided_by) = match subjects.split_once('/') {
            Some((subject, below)) => (subject, Some(below.trim().to_owned())),
            None => (subjects, None),
        };
        let (subject, figure) = (subject.trim().to_owned(), figure.trim().to_owned());
        let empty = subject.is_empty() || figure.is_empty() || divided_by.as_deref() == Some("");
        if empty || !at_most.is_finite() {
            return Err(wrong());
        }
        Ok(Self { subject, divided_by, figure, at_most })
    }
}

/// `Server-CPU_per delivery` is `server CPU per delivery`.
fn same_words(left: &str, right: &str) -> bool {
    let plain = |text: &str| text.replace(['-', '_'], " ").to_lowercase();
    plain(left) == plain(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_bound_is_read_and_judged() {
        let rule: BoundRule = "fanwire/raw:server-cpu-per-delivery<=1.2".parse().unwrap();
        let bound = rule.judge(&sample()).unwrap();
        assert_eq!(bound.name, "fanwire / raw, server CPU per delivery");
        assert!(bound.met && (bound.measured - 1.125).abs() < 1e-9);

        let rule: BoundRule = "fanwire: server CPU per delivery <= 20".parse().unwrap();
        let bound = rule.judge(&sample()).unwrap();
        assert_eq!((bound.measured, bound.met, &*bound.unit), (22.5, false, "us"));
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        for text in [
            "nobody:server CPU per delivery<=1",
            "fanwire:memory<=1",
            "fanwire/nobody:server CPU per delivery<=1",
        ] {
            assert_eq!(text.parse::<BoundRule>().unwrap().judge(&sample()), None, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "fanwire", "fanwire:cpu", "fanwire:cpu<=", "fanwire:cpu<=NaN", ":cpu<=1", "a/:cpu<=1"]
        {
            assert!(text.parse::<BoundRule>().is_err(), "{text}");
        }
    }
}
