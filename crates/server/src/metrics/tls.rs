//! The metrics of TLS on the client port: handshakes, and the certificate's validity and reloads.

use std::sync::Arc;

use prometheus::proto::{MetricFamily, MetricType};

use super::{family, sample};
use crate::accept::tls::{TlsHandshake, TlsStats};
use crate::counters::Counters;

pub(super) fn collect(stats: &TlsStats, shards: &[Arc<Counters>]) -> Vec<MetricFamily> {
    let counter = |name, help, label, values: &[(&str, u64)]| {
        let samples =
            values.iter().map(|&(value, count)| sample(MetricType::COUNTER, &[(label, value)], count as f64));
        family(name, help, MetricType::COUNTER, samples.collect())
    };
    let handshakes = TlsHandshake::ALL.map(|(outcome, label)| {
        (label, shards.iter().map(|shard| shard.handshakes[outcome as usize].value()).sum())
    });
    vec![
        counter(
            "fanwire_tls_handshakes_total",
            "TLS handshakes. Full and resumed ones succeeded; refused: the client did not take the certificate; \
             invalid: no TLS, or none that both sides speak; left: the client went away.",
            "result",
            &handshakes,
        ),
        family(
            "fanwire_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that new connections are shown ends, in seconds since 1970.",
            MetricType::GAUGE,
            vec![sample(MetricType::GAUGE, &[], stats.expires as f64)],
        ),
        counter(
            "fanwire_tls_certificate_reloads_total",
            "Times that the certificate's files had changed; failed: they could not be used, and the certificate from \
             before stayed.",
            "result",
            &[("complete", stats.reloads), ("failed", stats.reloads_failed)],
        ),
    ]
}

#[cfg(test)]
pub(super) fn example() -> TlsStats {
    TlsStats { expires: 2_000_000_000, reloads: 3, reloads_failed: 1 }
}
