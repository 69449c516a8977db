//! The counters of shards, summed over the shards.

use std::sync::Arc;

use fanwire_protocol::wire::Wire;
use prometheus::proto::{self, MetricFamily, MetricType};

use super::{family, sample};
use crate::counters::{ByCode, Counter, Counters};

pub(super) fn collect(shards: &[Arc<Counters>], wires: &[Wire]) -> Vec<MetricFamily> {
    FAMILIES.iter().map(|family| family.collect(shards, wires)).collect()
}

/// A number that is summed over the shards.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: Value,
}

/// Finds what a shard counts.
type Find<T> = fn(&Counters) -> &T;

enum Value {
    One(Find<Counter>),
    ByWire(Find<[Counter; Wire::COUNT]>),
    ByCode(Find<ByCode>),
    /// Two numbers told apart by the label `result`.
    Results(&'static [(&'static str, Find<Counter>)]),
    /// Numbers told apart by the labels `from` and `result`.
    ResultsFrom(&'static [(&'static str, &'static str, Find<Counter>)]),
    /// 1, and a label that says everything.
    Info(&'static str, &'static str),
}

pub(super) const FAMILIES: [Family; 34] = [
    Family {
        name: "fanwire_build_info",
        help: "Always 1; the label names the version that runs.",
        kind: MetricType::GAUGE,
        value: Value::Info("version", env!("CARGO_PKG_VERSION")),
    },
    Family {
        name: "fanwire_connections",
        help: "Open client connections.",
        kind: MetricType::GAUGE,
        value: Value::ByWire(|shard| &shard.connections),
    },
    Family {
        name: "fanwire_connections_opened_total",
        help: "Client connections that a shard has taken, also to refuse their token or topics.",
        kind: MetricType::COUNTER,
        value: Value::ByWire(|shard| &shard.connections_opened),
    },
    Family {
        name: "fanwire_connections_closed_total",
        help: "Client connections that ended, by what the client was told: a code, or an HTTP status if its stream was \
               refused; other: it left by itself.",
        kind: MetricType::COUNTER,
        value: Value::ByCode(|shard| &shard.connections_closed),
    },
    Family {
        name: "fanwire_connections_rejected_total",
        help: "Client connections that a limit of the node or its shutdown kept out.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.connections_rejected),
    },
    Family {
        name: "fanwire_connections_compressed",
        help: "Open WebSocket connections whose messages are compressed.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.connections_compressed),
    },
    Family {
        name: "fanwire_clients",
        help: "Clients that are connected, their connect command answered.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.clients),
    },
    Family {
        name: "fanwire_users",
        help: "Different users among the clients.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.users),
    },
    Family {
        name: "fanwire_rates_uncounted_total",
        help: "Busy users and addresses that were not counted on all nodes with client.cluster_rates, each time that Redis \
               did not answer; the node counted alone.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.rates_uncounted),
    },
    Family {
        name: "fanwire_subscriptions",
        help: "Subscriptions of all clients.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.subscriptions),
    },
    Family {
        name: "fanwire_topics",
        help: "Topics that have subscribers.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.topics),
    },
    Family {
        name: "fanwire_commands_received_total",
        help: "Commands from clients.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.requests_received),
    },
    Family {
        name: "fanwire_session_calls_total",
        help: "Requests with commands for a session, by the session's answer, or why there was none; from: a shard of this \
               node took the request, or another node.",
        kind: MetricType::COUNTER,
        value: Value::ResultsFrom(&[
            ("shard", "taken", |shard| &shard.session_calls.from_shards.taken),
            ("shard", "waits", |shard| &shard.session_calls.from_shards.waits),
            ("shard", "gone", |shard| &shard.session_calls.from_shards.gone),
            ("shard", "full", |shard| &shard.session_calls.from_shards.full),
            ("shard", "too_often", |shard| &shard.session_calls.from_shards.too_often),
            ("shard", "refused", |shard| &shard.session_calls.refused),
            ("shard", "busy", |shard| &shard.session_calls.busy),
            ("shard", "late", |shard| &shard.session_calls.late),
            ("shard", "unreachable", |shard| &shard.session_calls.unreachable),
            ("shard", "polled", |shard| &shard.session_calls.from_shards.polled),
            ("node", "taken", |shard| &shard.session_calls.from_nodes.taken),
            ("node", "waits", |shard| &shard.session_calls.from_nodes.waits),
            ("node", "gone", |shard| &shard.session_calls.from_nodes.gone),
            ("node", "full", |shard| &shard.session_calls.from_nodes.full),
            ("node", "too_often", |shard| &shard.session_calls.from_nodes.too_often),
            ("node", "polled", |shard| &shard.session_calls.from_nodes.polled),
        ]),
    },
    Family {
        name: "fanwire_publications_total",
        help: "Publications taken in, from clients and from the API.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.publications),
    },
    Family {
        name: "fanwire_messages_delivered_total",
        help: "Publications, joins and leaves written to subscribers or queued for them.",
        kind: MetricType::COUNTER,
        value: Value::ByWire(|shard| &shard.deliveries),
    },
    Family {
        name: "fanwire_publications_dropped_total",
        help: "Publications that gave way to newer ones while they waited for a slow client, as the namespace's \
               slow_policy says.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.dropped),
    },
    Family {
        name: "fanwire_replies_total",
        help: "Replies to clients' commands, and pushes that are no delivery.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.replies),
    },
    Family {
        name: "fanwire_reply_errors_total",
        help: "Commands of clients that were answered with an error.",
        kind: MetricType::COUNTER,
        value: Value::ByCode(|shard| &shard.errors),
    },
    Family {
        name: "fanwire_unsubscribes_total",
        help: "Subscriptions that the server ended.",
        kind: MetricType::COUNTER,
        value: Value::ByCode(|shard| &shard.unsubscribes),
    },
    Family {
        name: "fanwire_recoveries_total",
        help: "Subscriptions that asked for what they had missed; failed: not all of it was left; too_long: it was \
               more than client.recovery_bytes_max, or the shard had no room for it.",
        kind: MetricType::COUNTER,
        value: Value::Results(&[
            ("complete", |shard| &shard.recoveries),
            ("failed", |shard| &shard.recoveries_failed),
            ("too_long", |shard| &shard.recoveries_too_long),
        ]),
    },
    Family {
        name: "fanwire_position_checks_total",
        help: "Times that this node compared what it had delivered of a topic with the topic's stream.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.position_checks),
    },
    Family {
        name: "fanwire_repairs_total",
        help: "Times that this node had missed something of a topic's stream and read it; failed: some of it was gone, \
               and subscribers with a position were told.",
        kind: MetricType::COUNTER,
        value: Value::Results(&[
            ("complete", |shard| &shard.repairs),
            ("failed", |shard| &shard.repairs_failed),
        ]),
    },
    Family {
        name: "fanwire_socket_writes_total",
        help: "Writes to clients' sockets.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.writes),
    },
    Family {
        name: "fanwire_sent_bytes_total",
        help: "Bytes written to clients' sockets.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.bytes_sent),
    },
    Family {
        name: "fanwire_compression_input_bytes_total",
        help: "Bytes of messages that were compressed, each counted once, however many clients got it.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.bytes_uncompressed),
    },
    Family {
        name: "fanwire_compression_output_bytes_total",
        help: "Bytes that those messages were compressed to.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.bytes_compressed),
    },
    Family {
        name: "fanwire_received_bytes_total",
        help: "Bytes read from clients' sockets.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.bytes_received),
    },
    Family {
        name: "fanwire_answer_bytes",
        help: "Bytes of answers that are in work, or that clients have not taken.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.answer_bytes),
    },
    Family {
        name: "fanwire_send_queue_bytes",
        help: "Bytes that wait for slow clients.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.queued_bytes),
    },
    Family {
        name: "fanwire_memory_engine_streams",
        help: "Topics that have a position in the embedded engine; 0 with Redis.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.engine_streams),
    },
    Family {
        name: "fanwire_memory_engine_publications",
        help: "Publications that the embedded engine keeps; 0 with Redis.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.engine_publications),
    },
    Family {
        name: "fanwire_memory_engine_bytes",
        help: "What names, positions and publications take in the embedded engine, of engine.memory.history_bytes_max.",
        kind: MetricType::GAUGE,
        value: Value::One(|shard| &shard.engine_bytes),
    },
    Family {
        name: "fanwire_memory_engine_publications_evicted_total",
        help: "Publications that left history before their time because engine.memory.history_bytes_max was reached.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.publications_evicted),
    },
    Family {
        name: "fanwire_memory_engine_positions_forgotten_total",
        help: "Positions that were forgotten for the same reason; their clients are not recovered.",
        kind: MetricType::COUNTER,
        value: Value::One(|shard| &shard.positions_forgotten),
    },
];

impl Family {
    fn collect(&self, shards: &[Arc<Counters>], wires: &[Wire]) -> MetricFamily {
        family(self.name, self.help, self.kind, self.samples(shards, wires))
    }

    fn samples(&self, shards: &[Arc<Counters>], wires: &[Wire]) -> Vec<proto::Metric> {
        let sample = |labels: &[(&str, &str)], value: u64| sample(self.kind, labels, value as f64);
        let sum = |value: &dyn Fn(&Counters) -> u64| shards.iter().map(|shard| value(shard)).sum::<u64>();
        match self.value {
            Value::One(counter) => vec![sample(&[], sum(&|shard| counter(shard).value()))],
            Value::ByWire(counters) => wires
                .iter()
                .map(|&wire| {
                    let (transport, protocol) = wire.labels();
                    let labels = [("transport", transport), ("protocol", protocol)];
                    sample(&labels, sum(&|shard| counters(shard)[wire as usize].value()))
                })
                .collect(),
            Value::ByCode(counters) => {
                let mut codes: Vec<(String, u64)> = Vec::new();
                for shard in shards {
                    // Every shard lists the same codes in the same order.
                    for (place, (code, count)) in counters(shard).iter().enumerate() {
                        match codes.get_mut(place) {
                            Some((_, total)) => *total += count,
                            None => codes.push((code, count)),
                        }
                    }
                }
                codes.iter().map(|(code, count)| sample(&[("code", code)], *count)).collect()
            }
            Value::Results(results) => results
                .iter()
                .map(|(result, counter)| sample(&[("result", result)], sum(&|shard| counter(shard).value())))
                .collect(),
            Value::ResultsFrom(results) => results
                .iter()
                .map(|(from, result, counter)| {
                    let labels = [("from", *from), ("result", *result)];
                    sample(&labels, sum(&|shard| counter(shard).value()))
                })
                .collect(),
            Value::Info(label, value) => vec![sample(&[(label, value)], 1)],
        }
    }
}
