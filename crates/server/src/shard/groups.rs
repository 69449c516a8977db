//! Groups: what waits together for one topic is linked to its subscribers at once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::fanout::{Destination, Group};
use fanwire_hub::outbox::{Chain, Deliveries, Outbox, Segment};
use fanwire_hub::queue::Full;
use fanwire_protocol::reason::CloseReason;
use fanwire_protocol::{Position, TopicName};

use super::Shard;
use super::connection::{Connection, Feed};
use super::excluded::{ExcludedClients, Single};
use super::gathered::Gathered;

/// Deliveries that were taken from the inbox and not linked yet, by topic.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Vec<Vec<Arc<Delivery>>>,
    /// Clients choose these names, so the hash is keyed.
    places: HashMap<TopicName, usize>,
    deliveries: usize,
    bytes: usize,
    deliveries_max: usize,
    bytes_max: usize,
}

/// Compressing is what takes time before a batch can be written: a few microseconds for each small publication, ten
/// milliseconds for each MiB.
const DEFLATED_DELIVERIES_MAX: usize = 256;
const DEFLATED_BYTES_MAX: usize = 256 << 10;

/// Every listener to several topics gets a cursor with each: some hundred bytes, which have to fit its queue beside the
/// messages themselves.
const OWN_CURSORS_DELIVERIES_MAX: usize = 256;

impl Groups {
    pub(super) fn new(may_deflate: bool) -> Self {
        let (deliveries_max, bytes_max) = if may_deflate {
            (DEFLATED_DELIVERIES_MAX, DEFLATED_BYTES_MAX)
        } else {
            (Gathered::MESSAGES_MAX, Gathered::BYTES_MAX)
        };
        let places = HashMap::default();
        Self { groups: Vec::new(), places, deliveries: 0, bytes: 0, deliveries_max, bytes_max }
    }

    pub(super) fn add(&mut self, delivery: Arc<Delivery>) {
        let Some(topic) = delivery.push.topic() else { return };
        self.deliveries += 1;
        self.bytes += delivery.data_bytes();
        match self.places.get(topic) {
            Some(place) => self.groups[*place].push(delivery),
            None => {
                self.places.insert(topic.clone(), self.groups.len());
                self.groups.push(vec![delivery]);
            }
        }
    }

    fn is_full(&self, has_own_cursors: bool) -> bool {
        self.deliveries >= self.deliveries_max
            || self.bytes >= self.bytes_max
            || has_own_cursors && self.deliveries >= OWN_CURSORS_DELIVERIES_MAX
    }

    fn take(&mut self) -> Vec<Vec<Arc<Delivery>>> {
        self.places.clear();
        (self.deliveries, self.bytes) = (0, 0);
        std::mem::take(&mut self.groups)
    }
}

impl Shard {
    /// Returns true if further deliveries belong to the next batch.
    pub(super) fn groups_are_full(&self) -> bool {
        self.groups.is_full(self.own_feeds > 0)
    }

    /// Links every group to its topic's subscribers.
    pub(super) fn link_groups(&mut self) {
        let Self { registry, connections, clients, outbox, fanout, deflater, counters, node, .. } = self;
        let queue_bytes_max = node.settings.client.queue_bytes_max;
        let mut closed = Vec::new();
        for deliveries in self.groups.take() {
            let Some(topic) = deliveries.first().and_then(|first| first.push.topic()) else { continue };
            // Nothing is kept for a topic whose last subscriber here has left.
            let Some(topic) = registry.find(topic) else { continue };
            let group = Group { topic, deliveries: &deliveries };
            let position = deliveries.iter().rev().find_map(|delivery| delivery.push.position());
            let before = deliveries.iter().find_map(|delivery| delivery.push.position()).map(|first| {
                let before_first = Position { offset: first.offset.saturating_sub(1), ..first };
                registry.topic(topic).position.unwrap_or(before_first)
            });
            let mut compress = |plain: &Bytes| deflater.as_mut()?.frame(plain);
            let mut give = |slot, connection: &mut Connection, outbox: &mut Outbox, alone: Alone<'_>| {
                let kept = alone.link(slot, connection, outbox, queue_bytes_max);
                match kept {
                    Ok(dropped) => counters.dropped.add(dropped as u64),
                    Err(Full) => closed.push(slot),
                }
            };
            let mut with_cursors = None;
            let all = |slot, connection: &mut Connection, outbox: &mut Outbox, segment| {
                let with_cursors = &mut with_cursors;
                let alone = Alone { deliveries: &deliveries, segment, before, with_cursors };
                give(slot, connection, outbox, alone);
            };
            let excluded = ExcludedClients::set_aside(group, registry, clients, connections);
            fanout.link(group, registry, connections, outbox, &mut compress, all);
            let one = |slot, connection: &mut Connection, outbox: &mut Outbox, single: Single<'_>| {
                let Single { deliveries, segment } = single;
                let alone = Alone { deliveries, segment, before, with_cursors: &mut None };
                give(slot, connection, outbox, alone);
            };
            let rest = excluded.link_rest(fanout, registry, connections, outbox, &mut compress, one);
            let mut count = |(wire, messages)| counters.deliveries[wire as usize].add(messages);
            fanout.delivered(registry).chain(rest).for_each(&mut count);
            fanout.take_delivered_by_filters().for_each(&mut count);
            if let Some(position) = position {
                registry.set_position(topic, position);
            }
        }
        for slot in closed {
            self.close(slot, CloseReason::Slow);
        }
    }
}

/// What one connection gets of a group by itself.
struct Alone<'g> {
    deliveries: &'g [Arc<Delivery>],
    /// The deliveries, as others get them.
    segment: Segment,
    /// The place in the topic's stream before the group.
    before: Option<Position>,
    /// The deliveries for those that get cursors of their own, made when the first needs them.
    with_cursors: &'g mut Option<Segment>,
}

impl Alone<'_> {
    /// Links it or keeps it. Says how many publications gave way.
    fn link(
        self,
        slot: u32,
        connection: &mut Connection,
        outbox: &mut Outbox,
        queue_bytes_max: usize,
    ) -> Result<usize, Full> {
        let Self { deliveries, segment, before, with_cursors } = self;
        let segment = match (connection.feed, before) {
            // It gets what is left later.
            (Feed::Excluded, _) => return Ok(0),
            // A server-side subscription brings something before the connect reply could be sent.
            (Feed::Held, _) => return connection.keep(deliveries, outbox.parcel(segment), queue_bytes_max),
            (Feed::Own, Some(before)) => *with_cursors
                .get_or_insert_with(|| outbox.segment(Deliveries { before, all: deliveries.into() })),
            (Feed::Own | Feed::Shared, _) => segment,
        };
        outbox.link(slot, &mut connection.chain, segment);
        Ok(0)
    }
}

impl Destination for Connection {
    fn takes_compressed(&self, longest: impl FnOnce() -> usize) -> bool {
        // Messages with cursors of its own are made as they are written.
        let is_alike = matches!(self.feed, Feed::Held | Feed::Shared);
        self.deflate.is_some_and(|deflate| is_alike && deflate.takes(longest()))
    }

    fn chain(&mut self) -> Option<&mut Chain> {
        (self.feed == Feed::Shared).then_some(&mut self.chain)
    }
}
