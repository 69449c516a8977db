//! The bound of memory of all streams, their expiry, and the order of eviction.
//!
//! Publications, names and positions count. Above the bound, streams are evicted in this order:
//! 1. young ones without a subscriber, the youngest first, while these take more than an eighth of the bound;
//! 2. older ones that were never used again, the oldest first, while these take more than an eighth;
//! 3. the one with the largest history, and of roughly equal ones the first to expire;
//! 4. the position that expires first.
//!
//! A stream loses its oldest publications first and then its position. So a flood of new names evicts itself, and a
//! flood of publications evicts those of its own topics.

use std::cmp::Reverse;
use std::time::Duration;

use fanwire_protocol::{Publication, TopicName};
use tokio::time::Instant;

use super::deadline;
use super::life::{Life, RETURN_AFTER, YOUNG_FOR, publication_bytes};
use super::order::{TopicOrder, second_of};

/// Invariants: a stream is in `streams_due` once, in `history_due` and `sizes` exactly when it has publications, and in
/// at most one of `young` and `unused`; the counts are sums over all streams.
pub(super) struct Retention {
    bytes_max: usize,
    /// Second 0.
    start: Instant,
    history_due: TopicOrder<u64>,
    streams_due: TopicOrder<u64>,
    sizes: TopicOrder<(Reverse<u32>, u64)>,
    young: TopicOrder<Reverse<u64>>,
    unused: TopicOrder<u64>,
    young_bytes: usize,
    unused_bytes: usize,
    pub(super) streams: usize,
    pub(super) publications: usize,
    pub(super) bytes: usize,
    /// The number of streams ever created.
    made: u64,
}

impl Retention {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            start: Instant::now(),
            history_due: TopicOrder::new(),
            streams_due: TopicOrder::new(),
            sizes: TopicOrder::new(),
            young: TopicOrder::new(),
            unused: TopicOrder::new(),
            young_bytes: 0,
            unused_bytes: 0,
            streams: 0,
            publications: 0,
            bytes: 0,
            made: 0,
        }
    }

    pub(super) fn make(&mut self, topic: &TopicName, is_subscribed: bool, now: Instant) -> Life {
        self.made += 1;
        self.streams += 1;
        let mut life = Life::new(topic, self.made, now);
        self.bytes += life.bytes;
        self.classify(topic, &mut life, is_subscribed, now);
        life
    }

    /// Notes a read or publish: the stream stays for another `meta_ttl`.
    pub(super) fn use_again(
        &mut self,
        topic: &TopicName,
        life: &mut Life,
        is_subscribed: bool,
        now: Instant,
        meta_ttl: Duration,
    ) {
        if !life.has_returned && life.created + RETURN_AFTER <= now {
            life.has_returned = true;
            self.classify(topic, life, is_subscribed, now);
        }
        life.expires = deadline(now, meta_ttl);
        self.streams_due.set(topic, &mut life.due, second_of(self.start, life.expires));
    }

    /// Updates a stream's place among `young` and `unused`.
    pub(super) fn classify(&mut self, topic: &TopicName, life: &mut Life, is_subscribed: bool, now: Instant) {
        self.declassify(topic, life);
        if is_subscribed || life.has_returned {
            return;
        }
        if life.created + YOUNG_FOR > now {
            self.young.set(topic, &mut life.young, Reverse(life.number));
            self.young_bytes += life.bytes;
        } else {
            self.unused.set(topic, &mut life.unused, life.number);
            self.unused_bytes += life.bytes;
        }
    }

    fn declassify(&mut self, topic: &TopicName, life: &mut Life) {
        if life.young.is_taken() {
            self.young.cancel(topic, &mut life.young);
            self.young_bytes -= life.bytes;
        }
        if life.unused.is_taken() {
            self.unused.cancel(topic, &mut life.unused);
            self.unused_bytes -= life.bytes;
        }
    }

    /// Counts a publication added to the stream.
    pub(super) fn keep(
        &mut self,
        topic: &TopicName,
        life: &mut Life,
        publication: &Publication,
        expires: Instant,
    ) {
        self.publications += 1;
        self.set_bytes(life, life.bytes + publication_bytes(publication));
        life.history_expires = expires;
        self.history_due.set(topic, &mut life.history_due, second_of(self.start, expires));
        self.place_by_size(topic, life);
    }

    /// Removes a stream's oldest publication; returns false if it has none.
    pub(super) fn release_oldest(&mut self, topic: &TopicName, life: &mut Life) -> bool {
        let Some(oldest) = life.stream.pop_oldest() else { return false };
        self.publications -= 1;
        self.set_bytes(life, life.bytes - publication_bytes(&oldest));
        if life.stream.len() == 0 {
            self.release_history(topic, life);
        } else {
            self.place_by_size(topic, life);
        }
        true
    }

    /// Removes all publications of a stream but not its position; returns their number.
    pub(super) fn release_history(&mut self, topic: &TopicName, life: &mut Life) -> usize {
        self.history_due.cancel(topic, &mut life.history_due);
        self.sizes.cancel(topic, &mut life.size);
        let publications = life.stream.take_all();
        let bytes: usize = publications.iter().map(|publication| publication_bytes(publication)).sum();
        self.publications -= publications.len();
        self.set_bytes(life, life.bytes - bytes);
        publications.len()
    }

    /// Removes a stream from all orders and counts; returns the number of its publications.
    pub(super) fn forget(&mut self, topic: &TopicName, life: &mut Life) -> usize {
        let publications = self.release_history(topic, life);
        self.declassify(topic, life);
        self.streams_due.cancel(topic, &mut life.due);
        self.bytes -= life.bytes;
        self.streams -= 1;
        publications
    }

    /// Changes the counted bytes of a stream.
    pub(super) fn set_bytes(&mut self, life: &mut Life, bytes: usize) {
        let counts = [
            Some(&mut self.bytes),
            life.young.is_taken().then_some(&mut self.young_bytes),
            life.unused.is_taken().then_some(&mut self.unused_bytes),
        ];
        for count in counts.into_iter().flatten() {
            *count = *count - life.bytes + bytes;
        }
        life.bytes = bytes;
    }

    fn place_by_size(&mut self, topic: &TopicName, life: &mut Life) {
        let expires = second_of(self.start, life.history_expires);
        self.sizes.set(topic, &mut life.size, (Reverse(life.bytes.ilog2()), expires));
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Returns the oldest of the young streams.
    pub(super) fn oldest_young(&self) -> Option<TopicName> {
        self.young.last()
    }

    /// Returns the next stream to evict from.
    pub(super) fn victim(&self) -> Option<TopicName> {
        let share = self.bytes_max / 8;
        if self.young_bytes > share {
            self.young.first()
        } else if self.unused_bytes > share {
            self.unused.first()
        } else {
            self.sizes.first().or_else(|| self.streams_due.first())
        }
    }

    pub(super) fn history_past(&self, now: Instant) -> Option<TopicName> {
        self.history_due.first_past(self.past(now))
    }

    pub(super) fn stream_past(&self, now: Instant) -> Option<TopicName> {
        self.streams_due.first_past(self.past(now))
    }

    fn past(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}
