//! Counters of the engine, for metrics. A call or message costs one or two atomic additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Totals since the start, and current values.
#[derive(Clone, Debug)]
pub struct RedisStats {
    /// Calls to Redis by kind, in the order of [`CallKind::ALL`].
    pub calls: [CallStats; CallKind::ALL.len()],
    /// Connections that were reopened after a loss.
    pub reconnects: u64,
    /// Messages received through the subscription connection, without the engine's own probes.
    pub messages: u64,
    /// Bytes of those messages' channel names and payloads, without protocol overhead.
    pub message_bytes: u64,
    /// Messages that could not be parsed.
    pub malformed: u64,
    /// Received publications that their topic's stream does not know.
    pub foreign: u64,
    /// True if such publications were received within the last minute.
    pub foreign_lately: bool,
    /// Probes of the subscription connection that did not arrive in time.
    pub probes_missed: u64,
    /// The round trip of the last probe that arrived: from before it was published until it was received, behind all
    /// other messages to this node. `None` before the first.
    pub round_trip: Option<Duration>,
    /// Topics whose channels are joined, are being joined, or are about to be left.
    pub topics: usize,
    /// The connections: first those for commands, of which the last carries heartbeats, then the one for
    /// subscriptions.
    pub links: Vec<LinkStats>,
}

/// The calls of one kind. A pipeline or a script is one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallStats {
    /// Calls that Redis refused or did not answer. Calls without a connection are not counted at all.
    pub errors: u64,
    /// The total time of all calls, until the answer or the timeout.
    pub time: Duration,
    /// The number of calls up to the bound of the same index in [`LATENCY_BOUNDS`] and above the bound before it; the
    /// last number counts calls above all bounds. The sum is the number of all calls of the kind.
    pub buckets: [u64; LATENCY_BOUNDS.len() + 1],
}

/// The purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Publications, joins and leaves. A group of publications is one call.
    Publish,
    /// Reading and removing history, and recovery.
    History,
    /// Members and leases.
    Presence,
    /// Joining and leaving channels, up to some hundreds in one call.
    Subscribe,
    /// Probes and loading scripts.
    Other,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// Its purpose.
    pub role: LinkRole,
    /// True if it is open.
    pub is_up: bool,
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// Commands and their answers.
    Commands,
    /// Messages of subscribed channels.
    Subscriptions,
}

/// The upper bounds of [`CallStats::buckets`].
pub const LATENCY_BOUNDS: [Duration; 10] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

impl CallKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Publish, Self::History, Self::Presence, Self::Subscribe, Self::Other];

    /// Returns the kind in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::History => "history",
            Self::Presence => "presence",
            Self::Subscribe => "subscribe",
            Self::Other => "other",
        }
    }
}

impl CallStats {
    /// Returns the number of calls.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counters, incremented from any thread.
#[derive(Debug, Default)]
pub(super) struct RedisCounters {
    calls: [CallCounters; CallKind::ALL.len()],
    messages: AtomicU64,
    message_bytes: AtomicU64,
    malformed: AtomicU64,
    foreign: AtomicU64,
    /// The time at which foreign publications were last counted.
    foreign_at: Mutex<Option<Instant>>,
    /// The last command that was not permitted, and its time.
    not_permitted: Mutex<Option<(Instant, String)>>,
    probes_missed: AtomicU64,
    /// In nanoseconds; 0 before the first.
    round_trip: AtomicU64,
}

#[derive(Debug, Default)]
struct CallCounters {
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; LATENCY_BOUNDS.len() + 1],
}

impl RedisCounters {
    const LATELY: Duration = Duration::from_secs(60);
    const NOT_PERMITTED_LATELY: Duration = Duration::from_secs(20);

    pub(super) fn call(&self, kind: CallKind, took: Duration, is_ok: bool) {
        let call = &self.calls[kind as usize];
        let bucket = LATENCY_BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(LATENCY_BOUNDS.len());
        add(&call.buckets[bucket], 1);
        add(&call.nanoseconds, nanoseconds(took));
        if !is_ok {
            add(&call.errors, 1);
        }
    }

    pub(super) fn message(&self, bytes: usize) {
        add(&self.messages, 1);
        add(&self.message_bytes, bytes as u64);
    }

    pub(super) fn malformed(&self) {
        add(&self.malformed, 1);
    }

    pub(super) fn foreign(&self, publications: u64) {
        add(&self.foreign, publications);
        *self.foreign_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn not_permitted(&self, what: String) {
        *self.not_permitted.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), what));
    }

    /// Returns the command that was not permitted in the last seconds. A node that lacks a right is refused regularly.
    pub(super) fn not_permitted_lately(&self) -> Option<String> {
        let last = self.not_permitted.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .filter(|(at, _)| at.elapsed() < Self::NOT_PERMITTED_LATELY)
            .map(|(_, what)| what.clone())
    }

    pub(super) fn probe_missed(&self) {
        add(&self.probes_missed, 1);
    }

    pub(super) fn round_trip(&self, took: Duration) {
        self.round_trip.store(nanoseconds(took).max(1), Ordering::Relaxed);
    }

    /// Returns all numbers, with those counted elsewhere.
    pub(super) fn stats(&self, reconnects: u64, topics: usize, links: Vec<LinkStats>) -> RedisStats {
        let round_trip = read(&self.round_trip);
        let foreign_at = *self.foreign_at.lock().unwrap_or_else(PoisonError::into_inner);
        RedisStats {
            calls: self.calls.each_ref().map(CallCounters::stats),
            reconnects,
            messages: read(&self.messages),
            message_bytes: read(&self.message_bytes),
            malformed: read(&self.malformed),
            foreign: read(&self.foreign),
            foreign_lately: foreign_at.is_some_and(|at| at.elapsed() < Self::LATELY),
            probes_missed: read(&self.probes_missed),
            round_trip: (round_trip > 0).then(|| Duration::from_nanos(round_trip)),
            topics,
            links,
        }
    }
}

impl CallCounters {
    fn stats(&self) -> CallStats {
        CallStats {
            errors: read(&self.errors),
            time: Duration::from_nanos(read(&self.nanoseconds)),
            buckets: self.buckets.each_ref().map(read),
        }
    }
}

/// Numbers are read one by one, so they may differ from each other by the latest calls.
fn add(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_kind_and_by_how_long_they_took() {
        let counters = RedisCounters::default();
        counters.call(CallKind::Publish, Duration::from_micros(250), true);
        counters.call(CallKind::Publish, Duration::from_micros(251), false);
        counters.call(CallKind::Other, Duration::from_secs(9), true);
        let stats = counters.stats(0, 0, Vec::new());
        let [publish, history, .., other] = stats.calls;
        assert_eq!((publish.count(), publish.errors), (2, 1));
        assert_eq!(publish.buckets[..3], [1, 1, 0]);
        assert_eq!(publish.time, Duration::from_micros(501));
        assert_eq!(history.count(), 0);
        assert_eq!(other.buckets.last(), Some(&1));
    }

    #[test]
    fn kinds_are_counted_where_they_are_listed() {
        for (index, kind) in CallKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        assert!(LATENCY_BOUNDS.is_sorted());
    }
}
