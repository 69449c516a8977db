//! Topics in an order, from which the first is taken.
//!
//! Each topic has at most one place in an order, and remembers it in a [`Place`], without which it could not be found
//! again.

use std::collections::BTreeSet;
use std::time::Duration;

use fanwire_protocol::TopicName;
use tokio::time::Instant;

pub(super) struct TopicOrder<K>(BTreeSet<(K, TopicName)>);

/// A topic's place in one [`TopicOrder`].
pub(super) struct Place<K>(Option<K>);

impl<K: Copy + Ord> TopicOrder<K> {
    pub(super) fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Gives the topic a place instead of the one that it had.
    pub(super) fn set(&mut self, topic: &TopicName, place: &mut Place<K>, key: K) {
        if place.0 != Some(key) {
            self.cancel(topic, place);
            self.0.insert((key, topic.clone()));
            place.0 = Some(key);
        }
    }

    /// Takes the topic out, if it is in.
    pub(super) fn cancel(&mut self, topic: &TopicName, place: &mut Place<K>) {
        if let Some(key) = place.0.take() {
            self.0.remove(&(key, topic.clone()));
        }
    }

    pub(super) fn first(&self) -> Option<TopicName> {
        self.0.first().map(|(_, topic)| topic.clone())
    }

    pub(super) fn last(&self) -> Option<TopicName> {
        self.0.last().map(|(_, topic)| topic.clone())
    }
}

impl TopicOrder<u64> {
    /// The first topic, if its second has come.
    pub(super) fn first_past(&self, second: u64) -> Option<TopicName> {
        let (first, topic) = self.0.first()?;
        (*first <= second).then(|| topic.clone())
    }
}

impl<K> Place<K> {
    pub(super) fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}

impl<K> Default for Place<K> {
    fn default() -> Self {
        Self(None)
    }
}

/// Whole seconds, rounded up, make most changes of a place no change at all: a busy topic moves once a second, not at
/// every publication.
pub(super) fn second_of(start: Instant, at: Instant) -> u64 {
    let since_start = at.saturating_duration_since(start);
    since_start.as_secs() + u64::from(since_start > Duration::from_secs(since_start.as_secs()))
}
