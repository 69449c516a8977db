//! Times are recorded into a fixed number of buckets, so a long run takes no more memory than a short one.

use hdrhistogram::Histogram;

use crate::report::NamedHistogram;

/// The longest time that is told apart from longer ones: ten minutes.
const LONGEST_NANOSECONDS: u64 = 600_000_000_000;
/// Each bucket is a thousandth of its value wide.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Takes times in nanoseconds.
#[derive(Debug)]
pub(crate) struct Recorder(Histogram<u64>);

impl Recorder {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_max(LONGEST_NANOSECONDS, SIGNIFICANT_DIGITS);
        Self(histogram.expect("the constants are within the library's limits"))
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In milliseconds, so far.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e6
    }

    pub(crate) fn named(&self, name: &str) -> NamedHistogram {
        let buckets = self
            .0
            .iter_recorded()
            .map(|step| (self.0.highest_equivalent(step.value_iterated_to()), step.count_at_value()))
            .collect();
        NamedHistogram::of(name, "ns", buckets, self.0.min(), self.0.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tell_the_same_percentiles_as_the_recorder() {
        let mut recorder = Recorder::new();
        assert!(recorder.is_empty());
        for milliseconds in 1..=1000 {
            recorder.record(milliseconds * 1_000_000);
        }
        let named = recorder.named("latency");
        assert_eq!(named.count, 1000);
        let within =
            |value: u64, milliseconds: u64| value.abs_diff(milliseconds * 1_000_000) <= milliseconds * 1000;
        assert!(within(named.p50, 500) && within(named.p90, 900) && within(named.p99, 990), "{named:?}");
        assert_eq!(named.quantile(0.5), (recorder.quantile_ms(0.5) * 1e6) as u64);
        assert!(within(named.min, 1) && within(named.max, 1000), "{named:?}");
    }
}
