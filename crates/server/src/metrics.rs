//! The metrics for Prometheus: names, texts, labels and sources.
//!
//! The counters of shards are summed when a scrape asks, so counting is cheap for them. Labels come from closed sets:
//! never a topic, a user, a client or an address.

mod events;
mod hooks;
mod http;
mod jwks;
mod log;
mod process;
mod redis;
mod shards;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::RedisStats;
use fanwire_protocol::json;
use fanwire_protocol::wire::Wire;
use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, TextEncoder};

use crate::accept::admission::HttpConnections;
use crate::accept::tls::TlsStats;
use crate::auth::KeySetStats;
use crate::counters::Counters;
use crate::tasks::Task;

pub(crate) use events::{EventMetrics, PostResult};
pub(crate) use hooks::{HookMetrics, HookOutcome};
pub use log::count_dropped_log_line;

/// The scrape's content type, which names the version of its format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From a publish in memory to a call that waits for another machine.
const API_SECONDS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];

pub(crate) struct Metrics {
    shards: Vec<Arc<Counters>>,
    /// Those that a route serves.
    wires: Vec<Wire>,
    api_requests: IntCounterVec,
    api_seconds: HistogramVec,
    pub(crate) hooks: HookMetrics,
    pub(crate) events: EventMetrics,
}

/// The figures that are counted elsewhere.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub is_draining: bool,
    /// The restarts of long-lived tasks.
    pub restarts: [(Task, u64); Task::ALL.len()],
    /// HTTP connections of every listener.
    pub http_connections: Vec<Arc<HttpConnections>>,
    /// With the Redis engine.
    pub redis: Option<RedisStats>,
    /// With TLS on the client port.
    pub tls: Option<TlsStats>,
    /// With keys of an identity provider.
    pub keys: Option<KeySetStats>,
    /// Events of Redis that were not sent to shards whose fan-out was full.
    pub overruns: u64,
    /// Answers and letters of other nodes that did not fit among those that wait.
    pub messages_dropped: u64,
}

impl Metrics {
    /// `wires` are those that a route serves, `api_methods` the labels of the methods of the API.
    pub(crate) fn new(shards: Vec<Arc<Counters>>, wires: Vec<Wire>, api_methods: &[&str]) -> Self {
        const VALID: &str = "names and labels are constants, and a test makes them all";
        let api_requests = Opts::new(
            "fanwire_api_requests_total",
            "Calls of the HTTP API. The result is ok, the code of an error, or the HTTP status of a refusal; \
             commands of a batch or a pipeline count each, and a batch as a whole as well.",
        );
        let api_seconds = HistogramOpts::new(
            "fanwire_api_request_duration_seconds",
            "Time that a call of the HTTP API took; for a refused request, from its head to its refusal.",
        );
        let metrics = Self {
            shards,
            wires,
            api_requests: IntCounterVec::new(api_requests, &["method", "result"]).expect(VALID),
            api_seconds: HistogramVec::new(api_seconds.buckets(API_SECONDS.into()), &["method"])
                .expect(VALID),
            hooks: HookMetrics::default(),
            events: EventMetrics::default(),
        };
        // A rate needs the zero before the first.
        for method in api_methods {
            metrics.api_requests.with_label_values(&[*method, "ok"]);
            metrics.api_seconds.with_label_values(&[*method]);
        }
        metrics
    }

    /// Counts a call of the API: its method's label, and the code of its error or of its refusal.
    pub(crate) fn api_request(&self, method: &'static str, error: Option<u32>, took: Duration) {
        let result = error.map_or_else(|| "ok".to_owned(), |code| code.to_string());
        self.api_requests.with_label_values(&[method, &result]).inc();
        self.api_seconds.with_label_values(&[method]).observe(took.as_secs_f64());
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn encode(&self, snapshot: &Snapshot) -> String {
        let mut families = shards::collect(&self.shards, &self.wires);
        families.extend(self.api_requests.collect());
        families.extend(self.api_seconds.collect());
        families.extend(self.hooks.collect());
        families.extend(self.events.collect());
        let draining = sample(MetricType::GAUGE, &[], f64::from(u8::from(snapshot.is_draining)));
        let help = "1 while the node shuts down and sends its clients away.";
        families.push(family("fanwire_draining", help, MetricType::GAUGE, vec![draining]));
        let in_base64 = sample(MetricType::COUNTER, &[], json::payload::written_in_base64() as f64);
        let help = "Payloads that are not JSON, sent to JSON clients in Base64. Counted once for each encoded message.";
        families.push(family("fanwire_payloads_in_base64_total", help, MetricType::COUNTER, vec![in_base64]));
        let restarts = snapshot
            .restarts
            .map(|(task, count)| sample(MetricType::COUNTER, &[("task", task.label())], count as f64));
        let help = "Long-lived tasks that ended and were started again.";
        families.push(family("fanwire_task_restarts_total", help, MetricType::COUNTER, restarts.into()));
        families.extend(http::collect(&snapshot.http_connections));
        let (overruns, dropped) = (snapshot.overruns, snapshot.messages_dropped);
        families.extend(snapshot.redis.iter().flat_map(|stats| redis::collect(stats, overruns, dropped)));
        families.extend(snapshot.tls.iter().flat_map(|stats| tls::collect(stats, &self.shards)));
        families.extend(snapshot.keys.iter().flat_map(jwks::collect));
        families.push(log::collect());
        families.extend(process::collect());
        let encoded = TextEncoder::new().encode_to_string(&families);
        encoded.expect("every family has a name and a sample, and text is UTF-8")
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn family(name: &str, help: &str, kind: MetricType, samples: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

/// The format knows floating point only; counts stay exact up to 2^53.
fn sample(kind: MetricType, labels: &[(&str, &str)], value: f64) -> proto::Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    let mut sample = proto::Metric::from_label(labels.collect());
    if kind == MetricType::COUNTER {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        sample.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        sample.set_gauge(gauge);
    }
    sample
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::accept::tls::TlsHandshake;
    use crate::api::METHOD_LABELS;

    fn shards() -> Vec<Arc<Counters>> {
        let shards: Vec<Arc<Counters>> = vec![Arc::default(), Arc::default()];
        for shard in &shards {
            shard.connections[Wire::CentrifugeProtobuf as usize].add(2);
            shard.connections_closed.count(3008);
            shard.connections_closed.count(u32::MAX);
            shard.errors.count(103);
            shard.recoveries_failed.add(3);
            shard.bytes_sent.add(1 << 40);
            shard.handshakes[TlsHandshake::TimedOut as usize].add(4);
        }
        shards
    }

    fn metrics() -> Metrics {
        let wires = vec![Wire::CentrifugeJson, Wire::CentrifugeProtobuf, Wire::Events];
        let metrics = Metrics::new(shards(), wires, &METHOD_LABELS);
        metrics.events.serve();
        metrics
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            is_draining: false,
            restarts: Task::ALL.map(|task| (task, 1)),
            http_connections: vec![http::example(), http::example()],
            redis: Some(redis::example()),
            tls: Some(tls::example()),
            keys: Some(jwks::example()),
            overruns: 9,
            messages_dropped: 8,
        }
    }

    #[test]
    fn shards_are_summed() {
        let metrics = metrics();
        metrics.api_request("publish", None, Duration::from_millis(2));
        metrics.api_request("publish", Some(102), Duration::from_millis(2));
        metrics.api_request("other", Some(404), Duration::ZERO);
        let text = metrics.encode(&snapshot());
        for sample in [
            r#"fanwire_build_info{version="0.1.0"} 1"#,
            r#"fanwire_connections{transport="websocket",protocol="protobuf"} 4"#,
            r#"fanwire_connections{transport="subscribe",protocol="sse"} 0"#,
            r#"fanwire_connections_closed_total{code="3008"} 2"#,
            r#"fanwire_connections_closed_total{code="1000"} 0"#,
            r#"fanwire_connections_closed_total{code="other"} 2"#,
            r#"fanwire_reply_errors_total{code="103"} 2"#,
            r#"fanwire_recoveries_total{result="complete"} 0"#,
            r#"fanwire_recoveries_total{result="failed"} 6"#,
            r#"fanwire_sent_bytes_total 2199023255552"#,
            r#"fanwire_api_requests_total{method="publish",result="ok"} 1"#,
            r#"fanwire_api_requests_total{method="publish",result="102"} 1"#,
            r#"fanwire_api_requests_total{method="history",result="ok"} 0"#,
            r#"fanwire_api_requests_total{method="other",result="404"} 1"#,
            r#"fanwire_api_request_duration_seconds_bucket{method="publish",le="0.0025"} 2"#,
            r#"fanwire_api_request_duration_seconds_count{method="publish"} 2"#,
            r#"fanwire_tls_handshakes_total{result="timeout"} 8"#,
            r#"fanwire_tls_handshakes_total{result="full"} 0"#,
            r#"fanwire_tls_certificate_expiry_timestamp_seconds 2000000000"#,
            r#"fanwire_tls_certificate_reloads_total{result="complete"} 3"#,
            r#"fanwire_tls_certificate_reloads_total{result="failed"} 1"#,
            r#"fanwire_task_restarts_total{task="accept"} 1"#,
            r#"fanwire_http_connections{port="client",state="silent"} 2"#,
            r#"fanwire_http_connections{port="internal",state="silent"} 0"#,
            r#"fanwire_http_connections_dropped_total{port="client",reason="silent"} 2"#,
            r#"fanwire_redis_up 0"#,
            r#"fanwire_redis_links{role="commands"} 1"#,
            r#"fanwire_redis_call_duration_seconds_bucket{kind="publish",le="0.00025"} 0"#,
            r#"fanwire_redis_call_duration_seconds_bucket{kind="publish",le="0.001"} 3"#,
            r#"fanwire_redis_call_duration_seconds_count{kind="publish"} 3"#,
            r#"fanwire_redis_call_errors_total{kind="publish"} 1"#,
            r#"fanwire_redis_messages_overrun_total 9"#,
            "fanwire_node_messages_dropped_total 8",
            r#"fanwire_redis_round_trip_seconds 0.002"#,
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} is not in\n{text}");
        }
    }

    #[test]
    fn every_name_is_ours_and_there_once() {
        let text = metrics().encode(&snapshot());
        let mut names = HashSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(name.starts_with("fanwire_") || name.starts_with("process_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
        assert!(names.len() > shards::FAMILIES.len());
    }

    /// Prometheus' own check, where its tool is installed.
    #[test]
    fn promtool_finds_nothing_to_mend() {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else { return };
        let text = metrics().encode(&snapshot());
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let checked = promtool.wait_with_output().unwrap();
        let said = [checked.stdout, checked.stderr].concat();
        assert!(checked.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}
