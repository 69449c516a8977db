//! Fan-out: what waited together for one topic becomes one segment for each kind of subscriber, linked to all of them.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::filter::Filter;
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::Wire;
use slab::Slab;

use crate::delivery::Delivery;
use crate::namespace::SlowPolicy;
use crate::outbox::{Chain, Messages, Outbox, Parcel, Segment};
use crate::registry::{Registry, Subscriber, SubscriberKind, TopicSlot};

/// A connection, as fan-out sees it.
pub trait Destination {
    /// Returns true if it gets the compressed form of messages of which the longest has so many bytes uncompressed.
    fn takes_compressed(&self, longest: impl FnOnce() -> usize) -> bool;

    /// Returns its chain, or `None` if it does not get the bytes that others get: before its connect was answered, or
    /// where they bring its own cursor.
    fn chain(&mut self) -> Option<&mut Chain>;
}

/// Messages of one topic.
#[derive(Clone, Copy, Debug)]
pub struct Group<'g> {
    pub topic: TopicSlot,
    pub deliveries: &'g [Arc<Delivery>],
}

/// Links groups, one after the other.
#[derive(Debug)]
pub struct Fanout {
    /// A place for every kind of subscriber; those of kinds that the shard has met are used.
    kinds: Box<[Forms; Registry::KINDS_MAX]>,
    /// The forms of the last group for each filter of its topic, by its place.
    filtered: Vec<FilteredForms>,
}

/// The forms of a group for subscribers of one kind with one filter.
#[derive(Clone, Copy, Debug)]
struct FilteredForms {
    wire: Wire,
    forms: Forms,
}

/// The forms of a group for one kind of subscriber.
#[derive(Clone, Copy, Debug, Default)]
struct Forms {
    /// Plain and compressed, each made when the first subscriber needs it.
    shares: [Share; 2],
    /// The longest message, uncompressed.
    longest: Option<usize>,
}

impl Forms {
    /// Forgets the group before. Stores what changes; a fill would copy a value from the stack.
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The bytes of a group for subscribers that get the same.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// The bytes, if there are any.
    segment: Segment,
    /// The messages that the bytes are. None before they are made, and for subscribers that are not told of joins and leaves
    /// if the group holds nothing else.
    messages: u32,
    /// Those that got them.
    subscribers: u32,
    is_made: bool,
}

impl Share {
    fn delivered(&self) -> u64 {
        u64::from(self.messages) * u64::from(self.subscribers)
    }
}

impl Default for Fanout {
    fn default() -> Self {
        Self { kinds: Box::new([Forms::default(); Registry::KINDS_MAX]), filtered: Vec::new() }
    }
}

impl Fanout {
    /// Links a group to its topic's subscribers. This is the per-delivery path: a link in the arena, no copy, no
    /// allocation, no encoding. `compress` returns nothing for bytes that would not get shorter. `alone` gets
    /// what reaches a connection that has no chain for the bytes of others.
    ///
    /// Not inlined, nor is what it does once a group, so that the loop has the registers for itself.
    #[inline(never)]
    pub fn link<D: Destination>(
        &mut self,
        group: Group<'_>,
        registry: &Registry,
        destinations: &mut Slab<D>,
        outbox: &mut Outbox,
        mut compress: impl FnMut(&Bytes) -> Option<Bytes>,
        mut alone: impl FnMut(u32, &mut D, &mut Outbox, Segment),
    ) {
        self.kinds[..registry.kinds().len()].iter_mut().for_each(Forms::reset);
        let topic = registry.topic(group.topic);
        if topic.has_filters() {
            self.link_filtered(group, registry, destinations, outbox, &mut compress, &mut alone);
        }
        for subscriber in &topic.subscribers {
            let place = usize::from(subscriber.kind);
            let destination = &mut destinations[subscriber.connection as usize];
            let Forms { shares: [plain, compressed], longest } = &mut self.kinds[place];
            let is_compressed = destination.takes_compressed(|| {
                *longest.get_or_insert_with(|| group.longest(registry.kinds()[place].wire))
            });
            let share = if is_compressed { compressed } else { plain };
            if share.messages == 0 {
                if !share.is_made {
                    *share = group.share(registry.kinds()[place], is_compressed, outbox, &mut compress);
                }
                if share.messages == 0 {
                    continue;
                }
            }
            share.subscribers += 1;
            match destination.chain() {
                Some(chain) => outbox.link(subscriber.connection, chain, share.segment),
                None => alone(subscriber.connection, destination, outbox, share.segment),
            }
        }
    }

    /// Links what filters take to the subscribers that have one. All with the same filter share the bytes.
    #[cold]
    #[inline(never)]
    fn link_filtered<D: Destination>(
        &mut self,
        group: Group<'_>,
        registry: &Registry,
        destinations: &mut Slab<D>,
        outbox: &mut Outbox,
        mut compress: impl FnMut(&Bytes) -> Option<Bytes>,
        mut alone: impl FnMut(u32, &mut D, &mut Outbox, Segment),
    ) {
        let topic = registry.topic(group.topic);
        for subscriber in &topic.subscribers {
            let Some(filter) = topic.filter(subscriber) else { continue };
            let kind = registry.kinds()[usize::from(subscriber.kind)];
            let place = usize::from(subscriber.filter);
            if self.filtered.len() <= place {
                let fresh = FilteredForms { wire: kind.wire, forms: Forms::default() };
                self.filtered.resize(place + 1, fresh);
            }
            let FilteredForms { wire, forms: Forms { shares, longest } } = &mut self.filtered[place];
            *wire = kind.wire;
            let destination = &mut destinations[subscriber.connection as usize];
            let is_compressed =
                destination.takes_compressed(|| *longest.get_or_insert_with(|| group.longest(kind.wire)));
            let share = &mut shares[usize::from(is_compressed)];
            if !share.is_made {
                *share = group.filtered_share(kind, filter, is_compressed, outbox, &mut compress);
            }
            if share.messages == 0 {
                continue;
            }
            share.subscribers += 1;
            match destination.chain() {
                Some(chain) => outbox.link(subscriber.connection, chain, share.segment),
                None => alone(subscriber.connection, destination, outbox, share.segment),
            }
        }
    }

    /// Takes a subscriber that was excluded from the last group out of the count.
    pub fn leave_out(&mut self, subscriber: &Subscriber) {
        let shares = match subscriber.filter {
            0 => Some(&mut self.kinds[usize::from(subscriber.kind)].shares),
            filter => self.filtered.get_mut(usize::from(filter)).map(|of| &mut of.forms.shares),
        };
        if let Some([plain, _]) = shares {
            plain.subscribers = plain.subscribers.saturating_sub(1);
        }
    }

    /// Returns the messages that the last group brought to subscribers without a filter, for each kind.
    pub fn delivered(&self, registry: &Registry) -> impl Iterator<Item = (Wire, u64)> {
        registry
            .kinds()
            .iter()
            .zip(&*self.kinds)
            .map(|(kind, forms)| (kind.wire, forms.shares.iter().map(Share::delivered).sum()))
    }

    /// Returns those that it brought to subscribers with a filter, for each kind and filter, and forgets them. To be called
    /// after each group.
    pub fn take_delivered_by_filters(&mut self) -> impl Iterator<Item = (Wire, u64)> {
        let messages = |forms: &Forms| forms.shares.iter().map(Share::delivered).sum();
        self.filtered.drain(..).map(move |of| (of.wire, messages(&of.forms)))
    }
}

impl Group<'_> {
    /// Makes a segment of the messages, in the form that one destination takes; `None` if there are none for the subscriber.
    pub fn segment(
        &self,
        registry: &Registry,
        subscriber: &Subscriber,
        is_compressed: bool,
        outbox: &mut Outbox,
        compress: impl FnMut(&Bytes) -> Option<Bytes>,
    ) -> Option<Segment> {
        let kind = registry.kinds()[usize::from(subscriber.kind)];
        let filter = registry.topic(self.topic).filter(subscriber);
        let share = match filter {
            Some(filter) => self.filtered_share(kind, filter, is_compressed, outbox, compress),
            None => self.share(kind, is_compressed, outbox, compress),
        };
        (share.messages > 0).then_some(share.segment)
    }

    /// Returns the bytes of the longest message, uncompressed.
    #[inline(never)]
    pub fn longest(&self, wire: Wire) -> usize {
        self.deliveries.iter().map(|delivery| delivery.bytes(wire).len()).max().unwrap_or(0)
    }

    /// Makes a segment of the messages that a filter takes, for subscribers of the kind that have it.
    fn filtered_share(
        &self,
        kind: SubscriberKind,
        filter: &Filter,
        is_compressed: bool,
        outbox: &mut Outbox,
        compress: impl FnMut(&Bytes) -> Option<Bytes>,
    ) -> Share {
        let takes = |delivery: &&Arc<Delivery>| match &delivery.push {
            Push::Publication { publication, .. } => filter.takes(publication.tags.as_deref()),
            _ => true,
        };
        let deliveries: Vec<_> = self.deliveries.iter().filter(takes).cloned().collect();
        let taken = Group { deliveries: &deliveries, ..*self };
        taken.share(SubscriberKind { is_filtered: false, ..kind }, is_compressed, outbox, compress)
    }

    /// Makes a segment of the messages, concatenated: all subscribers of the kind share the bytes. A kind with filters has
    /// none.
    #[inline(never)]
    fn share(
        &self,
        kind: SubscriberKind,
        is_compressed: bool,
        outbox: &mut Outbox,
        mut compress: impl FnMut(&Bytes) -> Option<Bytes>,
    ) -> Share {
        if kind.is_filtered {
            return Share { is_made: true, ..Share::default() };
        }
        let mut wanted = self.deliveries.iter().filter_map(|delivery| {
            let is_publication = !delivery.push.is_join_or_leave();
            if !is_publication && !kind.joins {
                return None;
            }
            let bytes = if is_compressed {
                delivery.compressed(kind.wire, &mut compress)
            } else {
                delivery.bytes(kind.wire)
            };
            (!bytes.is_empty()).then_some((bytes, is_publication))
        });
        let Some(first) = wanted.next() else {
            return Share { is_made: true, ..Share::default() };
        };
        let (parcel, messages) = match (wanted.next(), kind.slow) {
            // The usual case, which needs no list.
            (None, SlowPolicy::Close) => (Parcel::from(first.0.clone()), 1),
            (second, policy) => {
                let all: Vec<_> = [first].into_iter().chain(second).chain(wanted).collect();
                (parcel(self.topic, policy, &all), all.len() as u32)
            }
        };
        Share { segment: outbox.segment(parcel), is_made: true, messages, subscribers: 0 }
    }
}

/// Concatenates messages, each with whether it is a publication.
fn parcel(topic: TopicSlot, policy: SlowPolicy, all: &[(&Bytes, bool)]) -> Parcel {
    let bytes = match all {
        [(one, _)] => (*one).clone(),
        all => {
            let mut joined = Vec::with_capacity(all.iter().map(|(bytes, _)| bytes.len()).sum());
            all.iter().for_each(|(bytes, _)| joined.extend_from_slice(bytes));
            Bytes::from(joined)
        }
    };
    match policy {
        SlowPolicy::Close => Parcel::from(bytes),
        policy => {
            let all = all.iter().map(|(bytes, is_publication)| ((*bytes).clone(), *is_publication)).collect();
            Parcel::new(bytes, Messages { topic, policy, all })
        }
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::centrifuge::FilterNode;
    use fanwire_protocol::{ClientId, ClientInfo, Publication, TopicName};

    use super::*;

    #[derive(Default)]
    struct Connection {
        /// Its connect was not answered.
        is_early: bool,
        /// The longest message that it takes compressed.
        compressed_max: Option<usize>,
        chain: Chain,
    }

    impl Destination for Connection {
        fn takes_compressed(&self, longest: impl FnOnce() -> usize) -> bool {
            self.compressed_max.is_some_and(|max| longest() <= max)
        }

        fn chain(&mut self) -> Option<&mut Chain> {
            (!self.is_early).then_some(&mut self.chain)
        }
    }

    const KIND: SubscriberKind = SubscriberKind {
        wire: Wire::CentrifugeJson,
        joins: false,
        slow: SlowPolicy::Close,
        is_filtered: false,
    };
    const COMPRESSED: &[u8] = b"compressed";

    fn topic() -> TopicName {
        TopicName::new("news").unwrap()
    }

    fn publication() -> Arc<Delivery> {
        let publication = Publication { data: Bytes::from_static(b"1"), offset: 2, ..Publication::default() };
        Arc::new(Delivery::new(Push::Publication {
            topic: topic(),
            publication: Arc::new(publication),
            epoch: None,
            shows_time: false,
        }))
    }

    fn join() -> Arc<Delivery> {
        let client = ClientId::parse("00000000-0000-4000-8000-000000000001").unwrap();
        let (connection, subscription) = (Bytes::new(), Bytes::new());
        let info = Arc::new(ClientInfo { user: "42".into(), client, connection, subscription });
        Arc::new(Delivery::new(Push::Join { topic: topic(), info }))
    }

    /// The messages delivered to each kind, then each connection's bytes; those held back come with `true`.
    type Linked = (Vec<u64>, Vec<(bool, Vec<u8>)>);

    fn link<const N: usize>(
        fanout: &mut Fanout,
        deliveries: &[Arc<Delivery>],
        subscribers: [(SubscriberKind, Connection); N],
    ) -> Linked {
        let mut registry = Registry::default();
        let mut connections = Slab::new();
        for (kind, connection) in subscribers {
            registry.add(&topic(), connections.insert(connection) as u32, kind, false);
        }
        let topic = registry.find(&topic()).unwrap();
        let mut outbox = Outbox::default();
        let mut received = vec![(false, Vec::new()); N];
        let hold = |slot, _: &mut Connection, outbox: &mut Outbox, segment| {
            received[slot as usize] = (true, outbox.bytes(segment).to_vec());
        };
        let compress = |_: &Bytes| Some(Bytes::from_static(COMPRESSED));
        let group = Group { topic, deliveries };
        fanout.link(group, &registry, &mut connections, &mut outbox, compress, hold);
        while let Some(slot) = outbox.next_connection() {
            let parcels = outbox.take(&mut connections[slot as usize].chain);
            received[slot as usize].1.extend(parcels.flat_map(|parcel| parcel.bytes().to_vec()));
        }
        (fanout.delivered(&registry).map(|(_, messages)| messages).collect(), received)
    }

    #[test]
    fn each_kind_gets_its_own_form_and_only_those_who_asked_are_told_of_joins() {
        let deliveries = [join(), publication()];
        let joins = SubscriberKind { joins: true, ..KIND };
        let event = SubscriberKind { wire: Wire::Events, ..KIND };
        let subscribers = [KIND, joins, event, KIND].map(|kind| (kind, Connection::default()));
        let (delivered, received) = link(&mut Fanout::default(), &deliveries, subscribers);
        let [join, publication] =
            deliveries.map(|delivery| Wire::ALL.map(|wire| delivery.bytes(wire).clone()));
        let json = Wire::CentrifugeJson as usize;
        assert_eq!(delivered, [2, 2, 1]);
        let publication_alone = (false, publication[json].to_vec());
        assert_eq!(received[0], publication_alone);
        assert_eq!(received[1], (false, [&join[json][..], &publication[json]].concat()));
        assert_eq!(received[2], (false, publication[Wire::Events as usize].to_vec()));
        assert_eq!(received[3], publication_alone);
    }

    #[test]
    fn nobody_gets_what_another_group_brought() {
        let mut fanout = Fanout::default();
        let subscribers = || [(KIND, Connection::default())];
        assert_eq!(link(&mut fanout, &[publication()], subscribers()).0, [1]);
        assert_eq!(link(&mut fanout, &[join()], subscribers()), (vec![0], vec![(false, Vec::new())]));
    }

    #[test]
    fn only_a_window_that_reaches_back_far_enough_gets_the_compressed_form() {
        let delivery = publication();
        let plain = delivery.bytes(KIND.wire).to_vec();
        let takes = |compressed_max| (KIND, Connection { compressed_max, ..Connection::default() });
        let subscribers = [takes(None), takes(Some(plain.len())), takes(Some(plain.len() - 1))];
        let (delivered, received) = link(&mut Fanout::default(), &[delivery], subscribers);
        assert_eq!(delivered, [3]);
        assert_eq!(received, [(false, plain.clone()), (false, COMPRESSED.to_vec()), (false, plain)]);
    }

    fn tagged(value: &str) -> Arc<Delivery> {
        let tags = Arc::new([("k".to_owned(), value.to_owned())].into());
        let publication =
            Publication { data: Bytes::from_static(b"1"), tags: Some(tags), ..Publication::default() };
        Arc::new(Delivery::new(Push::Publication {
            topic: topic(),
            publication: Arc::new(publication),
            epoch: None,
            shows_time: false,
        }))
    }

    fn filter(value: &str) -> Arc<Filter> {
        let node =
            FilterNode { key: "k".into(), cmp: "eq".into(), val: value.into(), ..FilterNode::default() };
        Arc::new(Filter::try_from(&node).unwrap())
    }

    #[test]
    fn each_filter_brings_what_it_takes_and_equal_ones_share_it() {
        let joins = SubscriberKind { joins: true, ..KIND };
        let protobuf = SubscriberKind { wire: Wire::CentrifugeProtobuf, ..KIND };
        let subscribers = [
            (KIND, None),
            (KIND, Some(filter("a"))),
            (joins, Some(filter("a"))),
            (KIND, Some(filter("b"))),
            (protobuf, Some(filter("a"))),
            (KIND, Some(filter("none"))),
            (KIND, Some(filter("a"))),
        ];
        let mut registry = Registry::default();
        let mut connections = Slab::new();
        for (kind, filter) in &subscribers {
            let slot = connections.insert(Connection::default()) as u32;
            registry.add_filtered(&topic(), slot, *kind, false, filter.clone());
        }
        let deliveries = [tagged("a"), join(), tagged("b"), tagged("a")];
        let slot = registry.find(&topic()).unwrap();
        let (mut fanout, mut outbox) = (Fanout::default(), Outbox::default());
        let group = Group { topic: slot, deliveries: &deliveries };
        fanout.link(group, &registry, &mut connections, &mut outbox, |_| None, |_, _, _, _| unreachable!());
        let mut received = vec![Vec::new(); subscribers.len()];
        while let Some(slot) = outbox.next_connection() {
            let parcels = outbox.take(&mut connections[slot as usize].chain);
            received[slot as usize].extend(parcels.flat_map(|parcel| parcel.bytes().to_vec()));
        }
        let expected = |wire, places: &[usize]| {
            places.iter().flat_map(|place| deliveries[*place].bytes(wire).to_vec()).collect::<Vec<u8>>()
        };
        let json = |places| expected(Wire::CentrifugeJson, places);
        assert_eq!(received[0], json(&[0, 2, 3]));
        assert_eq!(received[1], json(&[0, 3]));
        assert_eq!(received[2], json(&[0, 1, 3]));
        assert_eq!(received[3], json(&[2]));
        assert_eq!(received[4], expected(Wire::CentrifugeProtobuf, &[0, 3]));
        assert_eq!(received[5], json(&[]));
        assert_eq!(received[6], received[1]);
        let mut all: Vec<_> = fanout.delivered(&registry).collect();
        all.extend(fanout.take_delivered_by_filters());
        let total = |wire| all.iter().filter(|(of, _)| *of == wire).map(|(_, count)| count).sum();
        let counted: [u64; 2] = [total(Wire::CentrifugeJson), total(Wire::CentrifugeProtobuf)];
        assert_eq!(counted, [3 + 2 + 3 + 1 + 2, 2]);
    }

    #[test]
    fn one_that_is_left_out_is_not_counted() {
        let mut fanout = Fanout::default();
        let aside = Connection { is_early: true, ..Connection::default() };
        let subscribers = [(KIND, aside), (KIND, Connection::default())];
        link(&mut fanout, &[publication(), publication()], subscribers);
        let mut registry = Registry::default();
        registry.add(&topic(), 0, KIND, false);
        let delivered =
            |fanout: &Fanout| fanout.delivered(&registry).map(|(_, messages)| messages).sum::<u64>();
        assert_eq!(delivered(&fanout), 4);
        fanout.leave_out(&registry.topic(registry.find(&topic()).unwrap()).subscribers[0]);
        assert_eq!(delivered(&fanout), 2);
    }

    #[test]
    fn it_is_held_back_before_connect_is_answered() {
        let delivery = publication();
        let bytes = delivery.bytes(KIND.wire).to_vec();
        let early = Connection { is_early: true, ..Connection::default() };
        let subscribers = [(KIND, early), (KIND, Connection::default())];
        let (delivered, received) = link(&mut Fanout::default(), &[delivery], subscribers);
        assert_eq!(delivered, [2]);
        assert_eq!(received, [(true, bytes.clone()), (false, bytes)]);
    }
}
