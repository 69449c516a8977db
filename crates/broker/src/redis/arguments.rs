//! The arguments of scripts and commands, as Redis takes them.

use std::time::Duration;

use fanwire_protocol::Epoch;

use crate::contract::Since;

/// Offset and epoch; an empty offset means that there is none.
pub(super) fn since_arguments(since: Option<Since<'_>>) -> (String, &str) {
    since.map_or_else(Default::default, |since| (since.offset.to_string(), since.epoch))
}

/// A limit within the numbers that a script counts exactly.
pub(super) fn limit_argument(limit: usize) -> String {
    const LIMIT_MAX: usize = 1 << 40;
    limit.min(LIMIT_MAX).to_string()
}

/// A TTL that Redis accepts.
pub(super) fn milliseconds(ttl: Duration) -> u64 {
    const TTL_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
    u64::try_from(ttl.as_millis()).unwrap_or(TTL_MAX).clamp(1, TTL_MAX)
}

pub(super) fn fresh_epoch() -> Epoch {
    Epoch::from_random(rand::random())
}
