//! The metrics of the keys that identity providers publish.

use prometheus::proto::{MetricFamily, MetricType};

use super::{family, sample};
use crate::auth::KeySetStats;

pub(super) fn collect(stats: &KeySetStats) -> Vec<MetricFamily> {
    let results = [("complete", stats.fetched), ("failed", stats.failed)];
    let results =
        results.map(|(result, count)| sample(MetricType::COUNTER, &[("result", result)], count as f64));
    vec![
        family(
            "fanwire_jwks_fetches_total",
            "Fetches of the keys of identity providers; failed: the keys from before are used for a while.",
            MetricType::COUNTER,
            results.into(),
        ),
        family(
            "fanwire_jwks_age_seconds",
            "The time since the oldest set of keys was fetched.",
            MetricType::GAUGE,
            vec![sample(MetricType::GAUGE, &[], stats.age.as_secs_f64())],
        ),
    ]
}

#[cfg(test)]
pub(super) fn example() -> KeySetStats {
    KeySetStats { fetched: 7, failed: 2, age: std::time::Duration::from_secs(60) }
}
