//! A session's own list of what it is subscribed to. Small: a client has a few, and each costs 32 bytes.

use std::sync::Arc;

use fanwire_protocol::ClientInfo;

use crate::namespace::SlowPolicy;
use crate::registry::TopicSlot;

/// The properties of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// A member of the topic: listed in its presence, or kept for its events.
    pub presence: bool,
    /// Its coming and going is told to others.
    pub join_leave: bool,
    /// It is told of others' coming and going.
    pub joins: bool,
    pub positioned: bool,
    pub recoverable: bool,
    /// Made by the server: by a token's claim or the API.
    pub server_side: bool,
    /// The treatment of publications for which the client is too slow.
    pub slow: SlowPolicy,
}

#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub topic: TopicSlot,
    /// Its place in the topic's list of subscribers.
    pub place: u32,
    /// Seconds since the node started at which it is ended unless refreshed; 0: never.
    pub close_at: u32,
    pub traits: Traits,
    /// Set only if the subscription's credentials said something of the client.
    pub info: Option<Arc<ClientInfo>>,
}

#[derive(Debug, Default)]
pub(super) struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn find(&self, topic: TopicSlot) -> Option<&Subscription> {
        self.0.iter().find(|subscription| subscription.topic == topic)
    }

    pub(super) fn find_mut(&mut self, topic: TopicSlot) -> Option<&mut Subscription> {
        self.0.iter_mut().find(|subscription| subscription.topic == topic)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.0.iter_mut()
    }

    pub(super) fn add(&mut self, subscription: Subscription) {
        // One at a time, then by a quarter: most clients have one to three, and doubling would waste more than it saves.
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact((self.0.len() / 4).max(1));
        }
        self.0.push(subscription);
    }

    pub(super) fn remove(&mut self, topic: TopicSlot) -> Option<Subscription> {
        let place = self.0.iter().position(|subscription| subscription.topic == topic)?;
        let subscription = self.0.swap_remove(place);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(subscription)
    }

    pub(super) fn moved(&mut self, topic: TopicSlot, place: u32) {
        if let Some(subscription) = self.find_mut(topic) {
            subscription.place = place;
        }
    }
}

impl IntoIterator for Subscriptions {
    type Item = Subscription;
    type IntoIter = std::vec::IntoIter<Subscription>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
