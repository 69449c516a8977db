//! Topics sorted by a key.
//!
//! Each topic has at most one entry in an order and keeps its key in a [`Place`], by which the entry is found.

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

    /// Moves the topic to a new place.
    pub(super) fn set(&mut self, topic: &TopicName, place: &mut Place<K>, key: K) {
        if place.0 != Some(key) {
            self.cancel(topic, place);
            self.0.insert((key, topic.clone()));
            place.0 = Some(key);
        }
    }

    /// Removes the topic if it has a place.
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
    /// Returns the first topic if its second has passed.
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

/// Returns the whole seconds since `start`, rounded up. A busy topic moves once a second instead of at every
/// publication.
pub(super) fn second_of(start: Instant, at: Instant) -> u64 {
    let since_start = at.saturating_duration_since(start);
    since_start.as_secs() + u64::from(since_start > Duration::from_secs(since_start.as_secs()))
}
