//! The head of a response that stays open, and the query that may hold what the client asks for.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use fanwire_protocol::plain::event;
use hyper::Request;
use hyper::body::Incoming;
use rand::Rng;

use super::Gate;
use crate::cors;

pub(super) const EVENTS: &str = "text/event-stream; charset=utf-8";
pub(super) const LINES: &str = "application/x-ndjson";

/// Between these a browser's `EventSource` waits before it comes back, so that many do not come back together.
const RETRY_MILLIS: RangeInclusive<u64> = 1000..=5000;

/// Returns the head. The stream ends with the connection, so it needs neither length nor chunks, and proxies are asked not
/// to buffer it.
pub(super) fn head(gate: &Gate, request: &Request<Incoming>, content_type: &str) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 200 OK\r\n\
         content-type: {content_type}\r\n\
         cache-control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
         pragma: no-cache\r\n\
         expire: 0\r\n\
         x-accel-buffering: no\r\n\
         connection: close\r\n"
    )
    .into_bytes();
    head.extend_from_slice(&cors::lines(
        &gate.origins.judge(request.headers()),
        gate.node.settings.dev.is_some(),
    ));
    head.extend_from_slice(b"\r\n");
    if content_type == EVENTS {
        // Some clients and proxies wait for a first byte of the body.
        head.extend_from_slice(b"\r\n");
    }
    head
}

/// Tells an `EventSource` the time after which it is to come back.
pub(super) fn retry(to: &mut Vec<u8>) {
    event::retry(Duration::from_millis(rand::rng().random_range(RETRY_MILLIS)), to);
}

/// Returns the parameter `cf_connect` of the query.
pub(super) fn cf_connect(request: &Request<Incoming>) -> Option<Cow<'_, str>> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cf_connect").map(|(_, value)| value)
}
