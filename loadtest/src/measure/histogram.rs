//! Histograms of times, with a fixed number of buckets, so a long run needs no more memory than a short one.

use hdrhistogram::Histogram;

use crate::report::NamedHistogram;

/// Longer times count as this one: ten minutes.
const LONGEST_NANOSECONDS: u64 = 600_000_000_000;
/// Each bucket is a thousandth of its value wide. Percentiles are computed from them.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Stored buckets are a hundredth of their value wide: a plot shows no more, and files are several times shorter.
const SIGNIFICANT_DIGITS_STORED: u8 = 2;

/// Records times in nanoseconds.
#[derive(Debug)]
pub(crate) struct Recorder(Histogram<u64>);

impl Recorder {
    pub(crate) fn new() -> Self {
        Self(histogram(SIGNIFICANT_DIGITS))
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns percentiles so far, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e6
    }

    pub(crate) fn named(&self, name: &str) -> NamedHistogram {
        let fine = NamedHistogram::of(name, "ns", buckets(&self.0), self.0.min(), self.0.max());
        let mut coarse = histogram(SIGNIFICANT_DIGITS_STORED);
        coarse.add(&self.0).expect("both reach as far");
        NamedHistogram { buckets: buckets(&coarse), ..fine }
    }
}

fn histogram(significant_digits: u8) -> Histogram<u64> {
    Histogram::new_with_max(LONGEST_NANOSECONDS, significant_digits)
        .expect("the constants are within the library's limits")
}

fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|step| (histogram.highest_equivalent(step.value_iterated_to()), step.count_at_value()))
        .collect()
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
        assert_eq!(named.p50, (recorder.quantile_ms(0.5) * 1e6) as u64);
        assert!(within(named.min, 1) && within(named.max, 1000), "{named:?}");

        // What is stored is coarser, and still holds every value.
        assert!(named.buckets.len() <= 512, "{}", named.buckets.len());
        assert_eq!(named.buckets.iter().map(|(_, count)| count).sum::<u64>(), 1000);
        assert!(named.quantile(0.5).abs_diff(named.p50) <= named.p50 / 100, "{named:?}");
    }
}
