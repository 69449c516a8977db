//! The metrics of the Redis engine.

use std::time::Duration;

use fanwire_broker::{CallKind, CallStats, LATENCY_BOUNDS, LinkRole, RedisStats};
use prometheus::proto::{self, Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::{family, sample};

/// `overruns` are events that were not sent to shards whose fan-out was full, `dropped` answers and letters of other nodes.
pub(super) fn collect(stats: &RedisStats, overruns: u64, dropped: u64) -> Vec<MetricFamily> {
    let counter = |name, help, value: u64| {
        family(name, help, MetricType::COUNTER, vec![sample(MetricType::COUNTER, &[], value as f64)])
    };
    let gauge = |name, help, value: f64| {
        family(name, help, MetricType::GAUGE, vec![sample(MetricType::GAUGE, &[], value)])
    };
    let round_trip = stats.round_trip.map(|time| {
        gauge(
            "fanwire_redis_round_trip_seconds",
            "How long this node's last probe took through its own channel, behind everything else that it is sent.",
            time.as_secs_f64(),
        )
    });
    [
        gauge(
            "fanwire_redis_up",
            "1 if every connection to Redis is there, 0 if any is missing.",
            f64::from(u8::from(stats.links.iter().all(|link| link.is_up))),
        ),
        family(
            "fanwire_redis_links",
            "Connections to Redis that are there.",
            MetricType::GAUGE,
            [("commands", LinkRole::Commands), ("subscriptions", LinkRole::Subscriptions)]
                .into_iter()
                .map(|(name, role)| {
                    let up = stats.links.iter().filter(|link| link.role == role && link.is_up).count();
                    sample(MetricType::GAUGE, &[("role", name)], up as f64)
                })
                .collect(),
        ),
        counter(
            "fanwire_redis_reconnects_total",
            "Connections to Redis that were opened anew after they had been lost.",
            stats.reconnects,
        ),
        family(
            "fanwire_redis_call_duration_seconds",
            "Time that calls to Redis took, failed ones included. A script, a pipeline or a batch is one call.",
            MetricType::HISTOGRAM,
            by_kind(stats).map(|(kind, calls)| histogram(kind, calls)).collect(),
        ),
        family(
            "fanwire_redis_call_errors_total",
            "Calls to Redis that it refused or did not answer.",
            MetricType::COUNTER,
            by_kind(stats)
                .map(|(kind, calls)| {
                    sample(MetricType::COUNTER, &[("kind", kind.as_str())], calls.errors as f64)
                })
                .collect(),
        ),
        counter(
            "fanwire_redis_messages_received_total",
            "Messages that Redis sent for topics of this node.",
            stats.messages,
        ),
        counter(
            "fanwire_redis_received_bytes_total",
            "Those messages' channel names and payloads.",
            stats.message_bytes,
        ),
        counter(
            "fanwire_redis_messages_malformed_total",
            "Those of the messages that could not be read.",
            stats.malformed,
        ),
        counter(
            "fanwire_redis_publications_foreign_total",
            "Publications that arrived and are not in their topic's history. They were dropped.",
            stats.foreign,
        ),
        counter(
            "fanwire_redis_messages_overrun_total",
            "Those of the messages that came faster than this node could deliver. Recoverable topics are repaired.",
            overruns,
        ),
        counter(
            "fanwire_node_messages_dropped_total",
            "Answers of other nodes, and calls that they forwarded for clients, that did not fit among those that wait.",
            dropped,
        ),
        counter(
            "fanwire_redis_probes_missed_total",
            "Probes through this node's own channel that did not come back in time.",
            stats.probes_missed,
        ),
        gauge(
            "fanwire_redis_topics",
            "Topics whose channels this node has joined, those included that it is about to leave.",
            stats.topics as f64,
        ),
    ]
    .into_iter()
    .chain(round_trip)
    .collect()
}

fn by_kind(stats: &RedisStats) -> impl Iterator<Item = (CallKind, &CallStats)> {
    CallKind::ALL.into_iter().zip(&stats.calls)
}

fn histogram(kind: CallKind, calls: &CallStats) -> Metric {
    let mut below = 0;
    let buckets =
        LATENCY_BOUNDS.iter().map(Duration::as_secs_f64).zip(calls.buckets).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            bucket
        });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(calls.count());
    histogram.set_sample_sum(calls.time.as_secs_f64());
    let mut label = proto::LabelPair::default();
    label.set_name("kind".to_owned());
    label.set_value(kind.as_str().to_owned());
    let mut metric = Metric::from_label(vec![label]);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
pub(super) fn example() -> RedisStats {
    use fanwire_broker::LinkStats;

    let mut calls = [CallStats::default(); CallKind::ALL.len()];
    calls[CallKind::Publish as usize].buckets[1] = 3;
    calls[CallKind::Publish as usize].errors = 1;
    RedisStats {
        calls,
        reconnects: 4,
        messages: 5,
        message_bytes: 600,
        malformed: 0,
        foreign: 2,
        foreign_lately: true,
        probes_missed: 1,
        round_trip: Some(Duration::from_millis(2)),
        topics: 7,
        links: vec![
            LinkStats { role: LinkRole::Commands, is_up: true },
            LinkStats { role: LinkRole::Subscriptions, is_up: false },
        ],
    }
}
