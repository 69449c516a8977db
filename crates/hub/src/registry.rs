//! The subscribers of each topic among a shard's connections.
//!
//! A topic is here exactly as long as it has a subscriber on the shard. A subscription and its place in the
//! topic's list point at each other, so joining and leaving cost the same in a topic of two and of a million.

use std::collections::HashMap;
use std::sync::Arc;

use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::filter::Filter;
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
    /// It has a filter, so what it gets depends on that too.
    pub is_filtered: bool,
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
    /// The place of its filter among those of the topic, from 1 on; 0: it has none.
    pub filter: u16,
}

const _: () = assert!(Wire::COUNT * 2 * SlowPolicy::COUNT * 2 <= Registry::KINDS_MAX);

/// A topic with its subscribers on this shard.
#[derive(Debug)]
pub struct LocalTopic {
    pub name: TopicName,
    pub subscribers: Vec<Subscriber>,
    /// The place in the topic's stream up to which its subscribers were sent everything. All stand there alike, so none has
    /// to keep its own. `None` until one of them has a position, or something comes that is kept.
    pub position: Option<Position>,
    filters: Option<Box<Filters>>,
}

/// The filters of a topic's subscribers.
#[derive(Debug, Default)]
struct Filters {
    uses: Slab<FilterUse>,
    places: HashMap<(Arc<Filter>, u8), u16>,
    /// Of all of them together.
    steps: usize,
}

/// A filter of subscribers of one kind. Equal ones are the same.
#[derive(Debug)]
struct FilterUse {
    filter: Arc<Filter>,
    kind: u8,
    subscribers: u32,
}

impl LocalTopic {
    pub fn has_filters(&self) -> bool {
        self.filters.is_some()
    }

    /// Returns the filter of a subscriber.
    pub fn filter(&self, subscriber: &Subscriber) -> Option<&Filter> {
        let place = usize::from(subscriber.filter.checked_sub(1)?);
        Some(&self.filters.as_ref()?.uses.get(place)?.filter)
    }

    /// Enters a subscriber's filter, and returns its place from 1 on.
    fn add_filter(&mut self, filter: Arc<Filter>, kind: u8) -> u16 {
        let filters = self.filters.get_or_insert_default();
        let place = *filters.places.entry((filter.clone(), kind)).or_insert_with(|| {
            filters.steps += filter.steps();
            filters.uses.insert(FilterUse { filter, kind, subscribers: 0 }) as u16
        });
        filters.uses[usize::from(place)].subscribers += 1;
        place + 1
    }

    #[cold]
    fn remove_filter(&mut self, place: u16) {
        let Some((filters, place)) = self.filters.as_mut().zip(place.checked_sub(1)) else { return };
        let used = &mut filters.uses[usize::from(place)];
        used.subscribers -= 1;
        if used.subscribers == 0 {
            let FilterUse { filter, kind, .. } = filters.uses.remove(usize::from(place));
            filters.steps -= filter.steps();
            filters.places.remove(&(filter, kind));
            if filters.uses.is_empty() {
                self.filters = None;
            }
        }
    }
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

    /// The steps of the different filters of a topic: each takes some nanoseconds for each publication.
    pub const FILTER_STEPS_MAX: usize = 16_384;

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
        self.add_filtered(topic, connection, kind, positioned, None)
    }

    /// The same, with a filter.
    pub fn add_filtered(
        &mut self,
        topic: &TopicName,
        connection: u32,
        kind: SubscriberKind,
        positioned: bool,
        filter: Option<Arc<Filter>>,
    ) -> (TopicSlot, u32) {
        let kind = self.place_of(SubscriberKind { is_filtered: filter.is_some(), ..kind });
        let slot = *self.slots.entry(topic.clone()).or_insert_with(|| {
            let new =
                LocalTopic { name: topic.clone(), subscribers: Vec::new(), position: None, filters: None };
            TopicSlot(self.topics.insert(new) as u32)
        });
        let topic = &mut self.topics[slot.0 as usize];
        let filter = filter.map_or(0, |filter| topic.add_filter(filter, kind));
        topic.subscribers.push(Subscriber { connection, kind, positioned, filter });
        self.subscriptions += 1;
        (slot, topic.subscribers.len() as u32 - 1)
    }

    /// Returns true if a topic takes this filter beside those of its subscribers.
    pub fn has_room_for(&self, topic: &TopicName, filter: &Filter) -> bool {
        let filters = self.find(topic).and_then(|slot| self.topic(slot).filters.as_ref());
        filters.is_none_or(|filters| {
            let is_known = || filters.uses.iter().any(|(_, used)| *used.filter == *filter);
            filters.steps + filter.steps() <= Self::FILTER_STEPS_MAX || is_known()
        })
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
        let left = topic.subscribers.swap_remove(place as usize);
        if left.filter != 0 {
            topic.remove_filter(left.filter);
        }
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

    use fanwire_protocol::centrifuge::FilterNode;
    use proptest::prelude::*;

    use super::*;

    const TOPICS: [&str; 3] = ["a", "b", "c"];

    fn named(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    const KIND: SubscriberKind = SubscriberKind {
        wire: Wire::CentrifugeJson,
        joins: false,
        slow: SlowPolicy::Close,
        is_filtered: false,
    };

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

    fn filter(value: &str) -> Arc<Filter> {
        let node =
            FilterNode { key: "k".into(), cmp: "eq".into(), val: value.into(), ..FilterNode::default() };
        Arc::new(Filter::try_from(&node).unwrap())
    }

    #[test]
    fn equal_filters_are_one_and_leave_with_their_last_subscriber() {
        let mut registry = Registry::default();
        let name = named("a");
        let add = |registry: &mut Registry, connection, value: Option<&str>| {
            registry.add_filtered(&name, connection, KIND, false, value.map(filter)).0
        };
        let slot = add(&mut registry, 0, None);
        for (connection, value) in [(1, "x"), (2, "y"), (3, "x")] {
            add(&mut registry, connection, Some(value));
        }
        let filter_of = |registry: &Registry, place: usize| {
            let topic = registry.topic(slot);
            topic.filter(&topic.subscribers[place]).cloned()
        };
        assert_eq!(filter_of(&registry, 0), None);
        assert_eq!(filter_of(&registry, 1), Some(Filter::clone(&filter("x"))));
        assert_eq!(filter_of(&registry, 1), filter_of(&registry, 3));
        assert_eq!(registry.topic(slot).filters.as_ref().unwrap().uses.len(), 2);
        registry.remove(slot, 1);
        assert_eq!(filter_of(&registry, 1), Some(Filter::clone(&filter("x"))), "the last one took the place");
        registry.remove(slot, 1);
        assert_eq!(registry.topic(slot).filters.as_ref().unwrap().uses.len(), 1);
        registry.remove(slot, 1);
        assert!(registry.topic(slot).filters.is_none());
    }

    #[test]
    fn filters_of_a_topic_are_bounded_by_their_steps() {
        let mut registry = Registry::default();
        let name = named("a");
        for number in 0..Registry::FILTER_STEPS_MAX {
            let filter = filter(&number.to_string());
            assert!(registry.has_room_for(&name, &filter));
            registry.add_filtered(&name, number as u32, KIND, false, Some(filter));
        }
        assert!(!registry.has_room_for(&name, &filter("another")));
        assert!(registry.has_room_for(&name, &filter("7")), "it is there");
        assert!(registry.has_room_for(&named("b"), &filter("another")));
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
