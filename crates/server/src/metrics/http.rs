//! HTTP connections: how many there are, and those that were dropped.

use std::sync::Arc;

use prometheus::proto::{MetricFamily, MetricType};

use super::{family, sample};
use crate::accept::admission::{ConnectionGroup, HttpConnections, Port, Reason};

pub(super) fn collect(http_connections: &[Arc<HttpConnections>]) -> Vec<MetricFamily> {
    let sum = |port: Port, number: &dyn Fn(&HttpConnections) -> u64| -> f64 {
        http_connections
            .iter()
            .filter(|connections| connections.port == port)
            .map(|connections| number(connections))
            .sum::<u64>() as f64
    };
    let mut open = Vec::new();
    let mut dropped = Vec::new();
    for port in Port::ALL {
        for group in ConnectionGroup::ALL {
            let labels = [("port", port.label()), ("state", group.label())];
            open.push(sample(
                MetricType::GAUGE,
                &labels,
                sum(port, &|connections| connections.count(group) as u64),
            ));
        }
        for reason in Reason::ALL {
            let labels = [("port", port.label()), ("reason", reason.label())];
            dropped.push(sample(
                MetricType::COUNTER,
                &labels,
                sum(port, &|connections| connections.dropped(reason)),
            ));
        }
    }
    vec![
        family(
            "fanwire_http_connections",
            "Open HTTP connections. Silent ones have sent nothing; post: the last request was a publication or \
             commands of a client; api: it was a call of the API. An open WebSocket or stream is none of them.",
            MetricType::GAUGE,
            open,
        ),
        family(
            "fanwire_http_connections_dropped_total",
            "HTTP connections that the node dropped. silent, request, post, api: they gave way to others at a limit; \
             files: the same at the limit of open files; \
             head_timeout: no whole request came; write_timeout: the answer was not taken.",
            MetricType::COUNTER,
            dropped,
        ),
    ]
}

/// A listener with one silent connection, which another had to give way to.
#[cfg(test)]
pub(super) fn example() -> Arc<HttpConnections> {
    use crate::accept::admission::{GroupLimit, GroupLimits, OpenFiles};

    let limit = GroupLimit { max: 1, patience: std::time::Duration::ZERO };
    let limits = GroupLimits { silent: limit, requests: limit, posts: limit, api: limit };
    let connections = HttpConnections::new(Port::Client, limits, Arc::new(OpenFiles::new(usize::MAX)));
    for _ in 0..2 {
        // It is never given up.
        std::mem::forget(connections.enter(std::net::Ipv4Addr::LOCALHOST.into()));
    }
    connections
}
