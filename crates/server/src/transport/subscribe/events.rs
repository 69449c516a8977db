//! The response that begins a stream of Server-Sent Events.

use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::plain::event;
use rand::Rng;

/// The head of the stream. It ends with the connection, so it needs neither length nor chunks, and proxies are
/// asked not to buffer it.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    content-type: text/event-stream; charset=utf-8\r\n\
    cache-control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
    x-accel-buffering: no\r\n\
    connection: close\r\n";

/// Between these a client waits before it comes back, so that many do not come back together.
const RETRY_MILLIS: std::ops::RangeInclusive<u64> = 1000..=5000;

/// Returns the head, with these lines in it, and the time after which a client is to come back.
pub(super) fn accepted(headers: &[u8]) -> Bytes {
    let mut accepted = [HEAD, headers, &b"\r\n"[..]].concat();
    event::retry(Duration::from_millis(rand::rng().random_range(RETRY_MILLIS)), &mut accepted);
    accepted.into()
}
