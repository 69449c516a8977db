//! The report of a run, in one form for all scenarios: turns with figures, histograms and series, and bounds.
//!
//! It contains all measurements, so the text, the JSON and the page are views of the same values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) mod bound;
pub(crate) mod command;
pub(crate) mod json;
pub(crate) mod machine;
pub(crate) mod names;
pub(crate) mod page;
pub(crate) mod text;

pub(crate) use bound::{Bound, BoundRule};
pub(crate) use machine::{Machine, ServerNote};

use crate::measure::sequence::Faults;

/// One scenario with all of its turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    /// One sentence about the scenario and its main figure.
    pub(crate) about: String,
    /// The parts of the load by name, for people.
    pub(crate) load: Vec<(String, String)>,
    pub(crate) machine: Machine,
    /// The servers that took part, in the order of their first turns.
    #[serde(default)]
    pub(crate) servers: Vec<ServerNote>,
    /// The command line of the run, without private values.
    pub(crate) command: Vec<String>,
    /// In the order of their turns; the others are compared with the first.
    pub(crate) subjects: Vec<String>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) bounds: Vec<Bound>,
}

/// One subject under the whole load, once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) subject: String,
    /// Counted from 1.
    pub(crate) round: u32,
    pub(crate) figures: Vec<Figure>,
    pub(crate) histograms: Vec<NamedHistogram>,
    pub(crate) series: Vec<Series>,
    pub(crate) faults: Faults,
    /// Connections that ended unintentionally.
    pub(crate) connections_lost: u64,
    /// Reasons for the failure of the turn: the first lost connections, and anything else that went wrong.
    pub(crate) reasons: Vec<String>,
    /// Reasons for which the turn had another load than the stated one; its figures are of that load.
    #[serde(default)]
    pub(crate) not_at_pace: Option<String>,
    /// Notes for readers of the figures.
    pub(crate) notes: Vec<String>,
}

/// One number of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Plain words, the same for all subjects: "server CPU per delivery".
    pub(crate) name: String,
    /// "us", "ms", "s", "B", "ratio", "count" or "1/s".
    pub(crate) unit: String,
    pub(crate) value: f64,
}

/// A distribution with its raw buckets, so that several turns can be added up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NamedHistogram {
    pub(crate) name: String,
    /// The unit of buckets and percentiles: "ns".
    pub(crate) unit: String,
    /// Upper bound and count of each bucket that is not empty, in rising order.
    pub(crate) buckets: Vec<(u64, u64)>,
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

/// A value over time during a turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// The unit of x: "s" or "cycles".
    pub(crate) x_unit: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A report with its summary.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summarised<'a> {
    #[serde(flatten)]
    pub(crate) report: &'a Report,
    pub(crate) summary: Vec<Summary>,
}

/// The summary of one subject's rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) subject: String,
    pub(crate) figures: Vec<SummaryFigure>,
    /// The rounds' histograms, added up.
    pub(crate) histograms: Vec<NamedHistogram>,
}

/// A figure over the rounds, alone and beside the first subject.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SummaryFigure {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) spread: Spread,
    /// The ratio to the first subject: of the medians, with the range of the single rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_first: Option<Spread>,
}

/// Median and range of a few rounds; the range shows the noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Report {
    /// Returns true if every message arrived once and in order, no connection was lost, nothing else went wrong, and all
    /// required bounds are met.
    pub(crate) fn is_clean(&self) -> bool {
        self.turns.iter().all(Turn::is_clean) && !self.bounds.iter().any(|bound| bound.fails_the_run)
    }

    /// Returns the summaries of the subjects, in their order.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        self.subjects.iter().map(|subject| self.summary(subject)).collect()
    }

    /// Returns the rounds of one figure, or `None` if the subject has no such figure.
    pub(crate) fn spread(&self, subject: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.turns_of(subject).filter_map(|turn| turn.value(figure)))
    }

    /// Returns the ratio of two subjects' figures: of the medians, with the range of the single rounds.
    pub(crate) fn ratio(&self, above: &str, below: &str, figure: &str) -> Option<Spread> {
        let below_by_round: BTreeMap<u32, f64> =
            self.turns_of(below).filter_map(|turn| Some((turn.round, turn.value(figure)?))).collect();
        let by_round = self
            .turns_of(above)
            .filter_map(|turn| Some(turn.value(figure)? / below_by_round.get(&turn.round)?));
        let range = Spread::of(by_round.filter(|ratio| ratio.is_finite()))?;
        let median = self.spread(above, figure)?.median / self.spread(below, figure)?.median;
        median.is_finite().then_some(Spread { median, ..range })
    }

    fn turns_of<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Turn> {
        self.turns.iter().filter(move |turn| turn.subject == subject)
    }

    fn summary(&self, subject: &str) -> Summary {
        let first = self.subjects.first().filter(|first| *first != subject);
        let mut figures: Vec<SummaryFigure> = Vec::new();
        let mut histograms: Vec<NamedHistogram> = Vec::new();
        for turn in self.turns_of(subject) {
            for Figure { name, unit, .. } in &turn.figures {
                if figures.iter().any(|known| known.name == *name) {
                    continue;
                }
                let Some(spread) = self.spread(subject, name) else { continue };
                let ratio_to_first = first.and_then(|first| self.ratio(subject, first, name));
                figures.push(SummaryFigure {
                    name: name.clone(),
                    unit: unit.clone(),
                    spread,
                    ratio_to_first,
                });
            }
            for histogram in &turn.histograms {
                match histograms.iter_mut().find(|known| known.name == histogram.name) {
                    Some(known) => *known = known.merged(histogram),
                    None => histograms.push(histogram.clone()),
                }
            }
        }
        Summary { subject: subject.to_owned(), figures, histograms }
    }
}

impl Turn {
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_clean() && self.connections_lost == 0 && self.reasons.is_empty()
    }

    pub(crate) fn value(&self, figure: &str) -> Option<f64> {
        self.figures.iter().find(|known| known.name == figure).map(|known| known.value)
    }

    /// Adds a figure, unless it is not a number (a division by zero).
    pub(crate) fn figure(&mut self, name: &str, unit: &str, value: f64) {
        debug_assert_eq!(names::figure(name), Some(name), "bounds must be able to name it");
        if value.is_finite() {
            self.figures.push(Figure { name: name.to_owned(), unit: unit.to_owned(), value });
        }
    }
}

impl NamedHistogram {
    /// Computes the percentiles from the buckets, which are sorted by their upper bounds.
    pub(crate) fn of(name: &str, unit: &str, buckets: Vec<(u64, u64)>, min: u64, max: u64) -> Self {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut histogram = Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            buckets,
            count,
            min,
            max,
            ..Self::default()
        };
        histogram.p50 = histogram.quantile(0.5);
        histogram.p90 = histogram.quantile(0.9);
        histogram.p99 = histogram.quantile(0.99);
        histogram.p999 = histogram.quantile(0.999);
        histogram
    }

    /// Returns the smallest bound that at least this share of the values does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bound, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return (*bound).min(self.max);
            }
        }
        self.max
    }

    /// Returns the sum of both; their buckets have the same scale.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let mut buckets: BTreeMap<u64, u64> = self.buckets.iter().copied().collect();
        for (bound, count) in &other.buckets {
            *buckets.entry(*bound).or_default() += count;
        }
        let min = match (self.count, other.count) {
            (0, _) => other.min,
            (_, 0) => self.min,
            _ => self.min.min(other.min),
        };
        Self::of(&self.name, &self.unit, buckets.into_iter().collect(), min, self.max.max(other.max))
    }
}

impl Spread {
    /// Returns `None` without values.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two subjects, two rounds, one figure: 10, 30 for `raw` and 12, 33 for `fanwire`.
    pub(crate) fn sample() -> Report {
        let turn = |subject: &str, round, value| {
            let mut turn = Turn { subject: subject.to_owned(), round, ..Turn::default() };
            turn.figure("server CPU per delivery", "us", value);
            turn.histograms.push(NamedHistogram::of("latency", "ns", vec![(10, 98), (20, 2)], 3, 17));
            turn
        };
        Report {
            scenario: "fanout".to_owned(),
            about: "One topic.".to_owned(),
            load: vec![("subscribers".to_owned(), "10".to_owned())],
            machine: Machine::default(),
            servers: vec![ServerNote {
                subject: "fanwire".to_owned(),
                versions: vec!["fanwire 1".to_owned()],
                placement: "core 0".to_owned(),
            }],
            command: vec!["fanwire-loadtest".to_owned(), "fanout".to_owned()],
            subjects: vec!["raw".to_owned(), "fanwire".to_owned()],
            turns: vec![
                turn("raw", 1, 10.0),
                turn("fanwire", 1, 12.0),
                turn("raw", 2, 30.0),
                turn("fanwire", 2, 33.0),
            ],
            bounds: Vec::new(),
        }
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_ratio_is_of_medians_with_the_range_of_rounds() {
        let ratio = sample().ratio("fanwire", "raw", "server CPU per delivery").unwrap();
        assert_eq!(ratio, Spread { median: 22.5 / 20.0, min: 1.1, max: 1.2 });
        assert_eq!(sample().ratio("fanwire", "nobody", "server CPU per delivery"), None);
    }

    #[test]
    fn histograms_of_rounds_add_up() {
        let summaries = sample().summaries();
        let merged = &summaries[1].histograms[0];
        assert_eq!(merged.buckets, [(10, 196), (20, 4)]);
        assert_eq!((merged.count, merged.min, merged.max), (200, 3, 17));
        assert_eq!((merged.p50, merged.p90, merged.p99), (10, 10, 17));
        assert_eq!(summaries[0].figures[0].ratio_to_first, None);
        assert!(summaries[1].figures[0].ratio_to_first.is_some());
    }

    #[test]
    fn any_fault_makes_a_report_unclean() {
        let mut report = sample();
        assert!(report.is_clean());
        report.turns[0].reasons.push("no".to_owned());
        assert!(!report.is_clean());
        report = sample();
        report.turns[3].faults.lost = 1;
        assert!(!report.is_clean());
        report = sample();
        report.bounds.push(BoundRule::absolute("fanwire", "slowest", 1.0).judge(&report));
        assert!(report.is_clean());
        report.bounds[0].fails_the_run = true;
        assert!(!report.is_clean());
    }
}
