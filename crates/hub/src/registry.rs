//! The subscribers of each topic among a shard's connections.
//!
//! A topic is here exactly as long as it has a subscriber on the shard. A subscription and its place in the
//! topic's list point at each other, so joining and leaving cost the same in a topic of two and of a million.

use std::collections::HashMap;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::wire::Wire;
use fanwire_protocol::{Position, TopicName};
use slab::Slab;

use crate::namespace::SlowPolicy;

/// A topic's place in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicSlot(u32);

/// The properties by which subscribers get their bytes: those of one kind get the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberKind {
    pub wire: Wire,
    /// It is told of joins and leaves.
    pub joins: bool,
    /// The fate of publications for which it is too slow.
    pub slow: SlowPolicy,
}

/// One connection's part in a topic: all that fan-out reads about it.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// The connection's slot in its shard.
    pub connection: u32,
    /// The place of its kind in [`Registry::kinds`].
    pub kind: u8,
    /// It has a position, which it must be told when it is lost.
    pub positioned: bool,
}

const _: () = assert!(Wire::COUNT * 2 * SlowPolicy::COUNT <= Registry::KINDS_MAX);

/// A topic with its subscribers on this shard.
#[derive(Debug)]
pub struct LocalTopic {
    pub name: TopicName,
    pub subscribers: Vec<Subscriber>,
    /// The place in the topic's stream up to which its subscribers were sent everything. All stand there alike, so none has
    /// to keep its own. `None` until one of them has a position, or something comes that is kept.
    pub position: Option<Position>,
}

/// Says that a subscriber's place changed because another left: its subscription has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub connection: u32,
    pub topic: TopicSlot,
    pub place: u32,
}

#[derive(Debug, Default)]
pub struct Registry {
    topics: Slab<LocalTopic>,
    /// Clients choose these names, so the hash is keyed.
    slots: HashMap<TopicName, TopicSlot>,
    subscriptions: usize,
    /// The kinds of subscribers so far, few on any shard. None is ever removed.
    kinds: Vec<SubscriberKind>,
}

impl Registry {
    /// Places of kinds: as many as one byte tells apart, so a table of this length needs no check of its bounds.
    pub const KINDS_MAX: usize = 1 << u8::BITS;

    pub fn find(&self, topic: &TopicName) -> Option<TopicSlot> {
        self.slots.get(topic).copied()
    }

    pub fn topic(&self, slot: TopicSlot) -> &LocalTopic {
        &self.topics[slot.0 as usize]
    }

    /// Notes the place up to which a topic's subscribers were sent everything.
    pub fn set_position(&mut self, slot: TopicSlot, position: Position) {
        self.topics[slot.0 as usize].position = Some(position);
    }

    /// Adds a subscriber and returns its place.
    pub fn add(
        &mut self,
        topic: &TopicName,
        connection: u32,
        kind: SubscriberKind,
        positioned: bool,
    ) -> (TopicSlot, u32) {
        let subscriber = Subscriber { connection, kind: self.place_of(kind), positioned };
        let slot = *self.slots.entry(topic.clone()).or_insert_with(|| {
            let new = LocalTopic { name: topic.clone(), subscribers: Vec::new(), position: None };
            TopicSlot(self.topics.insert(new) as u32)
        });
        let subscribers = &mut self.topics[slot.0 as usize].subscribers;
        subscribers.push(subscriber);
        self.subscriptions += 1;
        (slot, subscribers.len() as u32 - 1)
    }

    /// Returns the kinds of subscribers that the shard has met.
    pub fn kinds(&self) -> &[SubscriberKind] {
        &self.kinds
    }

    fn place_of(&mut self, kind: SubscriberKind) -> u8 {
        let place = self.kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            self.kinds.push(kind);
            self.kinds.len() - 1
        });
        place as u8
    }

    /// Takes the subscriber at `place` out, and the topic with its last one.
    pub fn remove(&mut self, slot: TopicSlot, place: u32) -> Option<Moved> {
        let topic = &mut self.topics[slot.0 as usize];
        topic.subscribers.swap_remove(place as usize);
        self.subscriptions -= 1;
        if topic.subscribers.is_empty() {
            let topic = self.topics.remove(slot.0 as usize);
            self.slots.remove(&topic.name);
            self.slots.give_back();
            self.topics.give_back();
            return None;
        }
        topic.subscribers.give_back();
        let moved = topic.subscribers.get(place as usize)?;
        Some(Moved { connection: moved.connection, topic: slot, place })
    }

    /// Topics that have a subscriber here.
    pub fn topics(&self) -> impl Iterator<Item = &LocalTopic> {
        self.topics.iter().map(|(_, topic)| topic)
    }

    pub fn subscriptions_count(&self) -> usize {
        self.subscriptions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TOPICS: [&str; 3] = ["a", "b", "c"];

    fn named(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    const KIND: SubscriberKind =
        SubscriberKind { wire: Wire::CentrifugeJson, joins: false, slow: SlowPolicy::Close };

    /// Fan-out walks through these: eight bytes each.
    const _: () = assert!(size_of::<Subscriber>() == 8);

    proptest! {
        /// Against a plain map of who is where. Every place has to point at its own subscriber at any time.
        #[test]
        fn places_stay_true(steps in prop::collection::vec((0..12_u32, 0..TOPICS.len()), 0..400)) {
            let mut registry = Registry::default();
            let mut places: BTreeMap<(usize, u32), (TopicSlot, u32)> = BTreeMap::new();
            for (connection, topic) in steps {
                match places.remove(&(topic, connection)) {
                    None => {
                        let name = named(TOPICS[topic]);
                        places.insert((topic, connection), registry.add(&name, connection, KIND, false));
                    }
                    Some((slot, place)) => {
                        if let Some(moved) = registry.remove(slot, place) {
                            prop_assert_eq!(moved.topic, slot);
                            *places.get_mut(&(topic, moved.connection)).unwrap() = (slot, moved.place);
                        }
                    }
                }
                prop_assert_eq!(registry.subscriptions_count(), places.len());
                for (&(topic, connection), &(slot, place)) in &places {
                    prop_assert_eq!(registry.find(&named(TOPICS[topic])), Some(slot));
                    prop_assert_eq!(registry.topic(slot).name.as_str(), TOPICS[topic]);
                    prop_assert_eq!(registry.topic(slot).subscribers[place as usize].connection, connection);
                }
                let there = TOPICS.iter().enumerate().filter(|(topic, _)| places.keys().any(|(of, _)| of == topic));
                let there: Vec<&str> = there.map(|(_, name)| *name).collect();
                prop_assert_eq!(registry.topics().count(), there.len());
                for name in TOPICS {
                    prop_assert_eq!(registry.find(&named(name)).is_some(), there.contains(&name));
                }
                let mut listed: Vec<&str> = registry.topics().map(|topic| topic.name.as_str()).collect();
                listed.sort_unstable();
                prop_assert_eq!(listed, there);
            }
        }
    }

    #[test]
    fn a_topic_that_was_large_gives_its_memory_back() {
        let mut registry = Registry::default();
        let name = named("a");
        let slot =
            (0..10_000).map(|connection| registry.add(&name, connection, KIND, false).0).last().unwrap();
        for place in (10..10_000).rev() {
            assert_eq!(registry.remove(slot, place), None, "the last place leaves nothing to move");
        }
        assert!(registry.topic(slot).subscribers.capacity() <= 64);
    }

    #[test]
    fn subscribers_of_one_kind_share_its_place() {
        let mut registry = Registry::default();
        let name = named("a");
        let joins = SubscriberKind { joins: true, ..KIND };
        let mut slot = None;
        for (connection, kind) in (0..).zip([KIND, joins, KIND, joins]) {
            slot = Some(registry.add(&name, connection, kind, false).0);
        }
        let subscribers = &registry.topic(slot.unwrap()).subscribers;
        assert_eq!(subscribers.iter().map(|s| s.kind).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(registry.kinds(), [KIND, joins]);
    }
}
