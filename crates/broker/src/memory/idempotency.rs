//! The results of publishes with an idempotency key, kept until the key expires.
//!
//! All keys have the same lifetime, so the order of arrival is the order of expiry. Memory is bounded: above the bound
//! the oldest keys are removed early.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::{Position, TopicName};
use tokio::time::Instant;

use super::{MemorySettings, deadline};

/// A key belongs to one topic.
pub(super) type Key = (TopicName, Box<str>);

pub(super) struct Idempotency {
    ttl: Duration,
    bytes_max: usize,
    bytes: usize,
    results: HashMap<Rc<Key>, Remembered>,
    /// By expiry. May hold a key twice: an expired entry that is not swept yet, and the current one.
    order: VecDeque<(Instant, Rc<Key>)>,
}

struct Remembered {
    expires: Instant,
    position: Option<Position>,
}

impl Idempotency {
    /// Bytes of one key beside its text: an entry in each table and the shared key, rounded up.
    const OVERHEAD: usize = 160;

    /// The number of expired keys that each new key removes, so that removal keeps up with additions.
    const CLEARED_PER_KEY: usize = 2;

    pub(super) fn new(settings: &MemorySettings) -> Self {
        Self {
            ttl: settings.idempotency_ttl,
            bytes_max: settings.idempotency_bytes_max,
            bytes: 0,
            results: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Returns the result of the first publish with this key, if it is still known.
    pub(super) fn first_result(&self, now: Instant, key: &Key) -> Option<Option<Position>> {
        self.results.get(key).filter(|first| first.expires > now).map(|first| first.position)
    }

    pub(super) fn remember(&mut self, now: Instant, key: Key, position: Option<Position>) {
        self.clear(now, Self::CLEARED_PER_KEY);
        let expires = deadline(now, self.ttl);
        let key = Rc::new(key);
        self.bytes += Self::bytes(&key);
        self.order.push_back((expires, Rc::clone(&key)));
        self.results.insert(key, Remembered { expires, position });
        while self.bytes > self.bytes_max {
            self.forget_oldest();
        }
    }

    /// Removes at most `max` expired keys.
    pub(super) fn sweep(&mut self, now: Instant, max: usize) {
        self.clear(now, max);
        self.results.give_back();
        self.order.give_back();
    }

    fn clear(&mut self, now: Instant, max: usize) {
        for _ in 0..max {
            if self.order.front().is_none_or(|(expires, _)| *expires > now) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((expires, key)) = self.order.pop_front() else { return };
        self.bytes -= Self::bytes(&key);
        // A newer entry of the same key keeps its result.
        if self.results.get(&key).is_some_and(|result| result.expires == expires) {
            self.results.remove(&key);
        }
    }

    fn bytes(key: &Key) -> usize {
        Self::OVERHEAD + key.0.as_str().len() + key.1.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (TopicName::new("topic").unwrap(), name.into())
    }

    fn idempotency(bytes_max: usize) -> Idempotency {
        let settings = MemorySettings {
            idempotency_ttl: Duration::from_secs(10),
            idempotency_bytes_max: bytes_max,
            ..MemorySettings::default()
        };
        Idempotency::new(&settings)
    }

    #[test]
    fn a_key_that_is_used_again_after_its_time_outlives_its_first_life() {
        let mut keys = idempotency(usize::MAX);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        keys.remember(at(0), key("a"), None);
        keys.remember(at(0), key("b"), None);
        keys.remember(at(0), key("c"), None);
        assert_eq!(keys.first_result(at(10), &key("c")), None);

        keys.remember(at(10), key("c"), None);
        keys.sweep(at(11), usize::MAX);
        assert_eq!(keys.first_result(at(11), &key("c")), Some(None));
        assert_eq!(keys.order.len(), 1);

        keys.sweep(at(20), usize::MAX);
        assert_eq!((keys.bytes, keys.order.len(), keys.results.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_key_makes_room() {
        let mut keys = idempotency(3 * Idempotency::bytes(&key("1")));
        let now = Instant::now();
        for name in ["1", "2", "3", "4"] {
            keys.remember(now, key(name), None);
        }
        assert_eq!(keys.first_result(now, &key("1")), None);
        assert_eq!(keys.first_result(now, &key("2")), Some(None));
        assert_eq!(keys.results.len(), 3);
    }

    #[test]
    fn a_sweep_does_no_more_than_it_may() {
        let mut keys = idempotency(usize::MAX);
        let start = Instant::now();
        for number in 0..10 {
            keys.remember(start, key(&number.to_string()), None);
        }
        keys.sweep(start + Duration::from_secs(10), 4);
        assert_eq!(keys.results.len(), 6);
    }
}
