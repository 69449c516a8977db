//! Bounds on the figures of a run, such as `fanwire/raw:server CPU per delivery<=1.2`.
//!
//! The report says whether a bound is met. Most bounds fail no run. One that is required does, once there are rounds enough to
//! tell noise from cost. A figure that was not measured, or was measured under another load than the stated one, never meets
//! its bound.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::report::{Report, Turn, names};

/// A bound and the measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) measured: Option<f64>,
    pub(crate) at_most: f64,
    /// The unit of both numbers.
    pub(crate) unit: String,
    pub(crate) met: bool,
    /// "met", "not met", "not measured" or "not judged", and the reason.
    #[serde(default)]
    pub(crate) verdict: String,
    /// The bound is required, and not met.
    #[serde(default)]
    pub(crate) fails_the_run: bool,
}

/// A process is fast or slow by up to a tenth from its start, so fewer rounds fail nothing.
const ROUNDS_TO_FAIL_MIN: u32 = 3;

/// A figure of one subject, alone or compared with another's, and its maximum.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BoundRule {
    subject: String,
    beside: Beside,
    figure: &'static str,
    at_most: f64,
    is_required: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Beside {
    Nobody,
    DividedBy(String),
    Minus(String),
}

impl BoundRule {
    /// The median of the figure itself.
    pub(crate) fn absolute(subject: &str, figure: &str, at_most: f64) -> Self {
        let figure = names::figure(figure).expect("scenarios hold their own figures against bounds");
        Self { subject: subject.to_owned(), beside: Beside::Nobody, figure, at_most, is_required: false }
    }

    /// The ratio of two subjects' medians.
    pub(crate) fn ratio(subject: &str, divided_by: &str, figure: &str, at_most: f64) -> Self {
        let beside = Beside::DividedBy(divided_by.to_owned());
        Self { beside, ..Self::absolute(subject, figure, at_most) }
    }

    /// The difference of two subjects' medians.
    pub(crate) fn difference(subject: &str, minus: &str, figure: &str, at_most: f64) -> Self {
        Self { beside: Beside::Minus(minus.to_owned()), ..Self::absolute(subject, figure, at_most) }
    }

    /// Returns the rule as one that fails the run if it is not met.
    pub(crate) fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// Returns the subjects whose figures are needed.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &str> {
        let beside = match &self.beside {
            Beside::Nobody => None,
            Beside::DividedBy(other) | Beside::Minus(other) => Some(&**other),
        };
        std::iter::once(&*self.subject).chain(beside)
    }

    pub(crate) fn judge(&self, report: &Report) -> Bound {
        let Self { subject, figure, at_most, .. } = self;
        let (name, measured) = match &self.beside {
            Beside::Nobody => {
                (format!("{subject}, {figure}"), report.spread(subject, figure).map(|spread| spread.median))
            }
            Beside::DividedBy(below) => (
                format!("{subject} / {below}, {figure}"),
                report.ratio(subject, below, figure).map(|ratio| ratio.median),
            ),
            Beside::Minus(other) => {
                let both = report.spread(subject, figure).zip(report.spread(other, figure));
                let difference = both.map(|(one, other)| one.median - other.median);
                (format!("{subject} - {other}, {figure}"), difference)
            }
        };
        let unit = match &self.beside {
            Beside::DividedBy(_) => "ratio".to_owned(),
            Beside::Nobody | Beside::Minus(_) => {
                let mut figures = report.turns.iter().flat_map(|turn| &turn.figures);
                figures
                    .find(|known| known.name == *figure)
                    .map(|known| known.unit.clone())
                    .unwrap_or_default()
            }
        };
        let verdict = self.verdict(report, measured);
        let met = verdict == MET;
        let rounds = report.turns.iter().map(|turn| turn.round).max().unwrap_or(0);
        let fails_the_run = self.is_required && !met && rounds >= ROUNDS_TO_FAIL_MIN;
        Bound { name, measured, at_most: *at_most, unit, met, verdict, fails_the_run }
    }

    fn verdict(&self, report: &Report, measured: Option<f64>) -> String {
        let turns: Vec<&Turn> = self
            .subjects()
            .flat_map(|subject| report.turns.iter().filter(move |turn| turn.subject == subject))
            .collect();
        let failed = turns.iter().filter(|turn| !turn.is_clean()).count();
        let off = turns.iter().filter(|turn| turn.not_at_pace.is_some()).count();
        let all = turns.len();
        match measured {
            _ if failed > 0 => format!("not met: {failed} of {all} turns failed"),
            None => "not measured".to_owned(),
            Some(_) if off > 0 => format!("not judged: {off} of {all} turns were not at their pace"),
            Some(measured) if measured <= self.at_most => MET.to_owned(),
            Some(_) => "not met".to_owned(),
        }
    }
}

const MET: &str = "met";

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
        let (subject, figure) = (subject.trim().to_owned(), figure.trim());
        if subject.is_empty() || divided_by.as_deref() == Some("") || !at_most.is_finite() {
            return Err(wrong());
        }
        let figure = names::figure(figure).ok_or_else(|| format!("no scenario has a figure {figure:?}"))?;
        let beside = divided_by.map_or(Beside::Nobody, Beside::DividedBy);
        Ok(Self { subject, beside, figure, at_most, is_required: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn judged(rule: &str, report: &Report) -> Bound {
        rule.parse::<BoundRule>().unwrap().judge(report)
    }

    #[test]
    fn a_bound_is_read_and_judged() {
        let bound = judged("fanwire/raw:server-cpu-per-delivery<=1.2", &sample());
        assert_eq!(bound.name, "fanwire / raw, server CPU per delivery");
        assert!(bound.met && (bound.measured.unwrap() - 1.125).abs() < 1e-9);

        let bound = judged("fanwire: server CPU per delivery <= 20", &sample());
        assert_eq!((bound.measured, &*bound.verdict, &*bound.unit), (Some(22.5), "not met", "us"));

        let rule = BoundRule::difference("fanwire", "raw", "server CPU per delivery", 2.5);
        assert_eq!((rule.judge(&sample()).measured, rule.judge(&sample()).met), (Some(2.5), true));
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_so() {
        for text in ["nobody:server CPU per delivery<=1", "fanwire:slowest<=1", "fanwire/nobody:slowest<=1"] {
            let bound = judged(text, &sample());
            assert_eq!((bound.measured, bound.met, &*bound.verdict), (None, false, "not measured"), "{text}");
        }
    }

    #[test]
    fn a_failed_turn_meets_no_bound() {
        let mut report = sample();
        report.turns[2].connections_lost = 1;
        let bound = judged("fanwire/raw:server CPU per delivery<=9", &report);
        assert_eq!((bound.met, &*bound.verdict), (false, "not met: 1 of 4 turns failed"));
        assert!(judged("fanwire:server CPU per delivery<=99", &report).met, "it is about the other subject");
    }

    #[test]
    fn a_turn_that_was_not_at_its_pace_is_not_judged() {
        let mut report = sample();
        report.turns[3].not_at_pace = Some("1.0 s behind".to_owned());
        let bound = judged("fanwire/raw:server CPU per delivery<=9", &report);
        let told = "not judged: 1 of 4 turns were not at their pace";
        assert_eq!((bound.measured.is_some(), bound.met, &*bound.verdict), (true, false, told));
    }

    #[test]
    fn a_required_bound_fails_a_run_of_rounds_enough() {
        let figure = "server CPU per delivery";
        let mut report = sample();
        let judge = |report: &Report, at_most| {
            BoundRule::ratio("fanwire", "raw", figure, at_most).required().judge(report).fails_the_run
        };
        assert!(!judge(&report, 1.0), "two rounds tell nothing");
        for turn in &mut report.turns {
            turn.round += 1;
        }
        assert!(judge(&report, 1.0) && !judge(&report, 1.2));
        assert!(!BoundRule::ratio("fanwire", "raw", figure, 1.0).judge(&report).fails_the_run);
        report.turns[0].not_at_pace = Some("1.0 s behind".to_owned());
        assert!(judge(&report, 1.2), "what cannot be judged is not met");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "fanwire",
            "fanwire:slowest",
            "fanwire:slowest<=",
            "fanwire:slowest<=NaN",
            ":slowest<=1",
            "a/:slowest<=1",
            "fanwire:no such figure<=1",
        ] {
            assert!(text.parse::<BoundRule>().is_err(), "{text}");
        }
    }
}
