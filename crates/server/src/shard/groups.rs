//! Groups: what waits together for one topic is linked to its subscribers at once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::fanout::{Destination, Group};
use fanwire_hub::outbox::{Chain, Outbox, Parcel};
use fanwire_hub::registry::Registry;
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::CloseReason;
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::Form;

use super::Shard;
use super::connection::{Connection, Feed, Role};
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

    /// Returns true if further deliveries belong to the next batch.
    pub(super) fn is_full(&self) -> bool {
        self.deliveries >= self.deliveries_max || self.bytes >= self.bytes_max
    }

    fn take(&mut self) -> Vec<Vec<Arc<Delivery>>> {
        self.places.clear();
        (self.deliveries, self.bytes) = (0, 0);
        std::mem::take(&mut self.groups)
    }
}

impl Shard {
    /// Links every group to its topic's subscribers.
    pub(super) fn link_groups(&mut self) {
        let Self { registry, connections, outbox, fanout, deflater, counters, node, .. } = self;
        let queue_bytes_max = node.settings.client.queue_bytes_max;
        let mut closed = Vec::new();
        for deliveries in self.groups.take() {
            let Some(topic) = deliveries.first().and_then(|first| first.push.topic()) else { continue };
            // Nothing is kept for a topic whose last subscriber here has left.
            let Some(topic) = registry.find(topic) else { continue };
            let group = Group { topic, deliveries: &deliveries };
            let position = deliveries.iter().rev().find_map(|delivery| delivery.push.position());
            let compress = |plain: &Bytes| deflater.as_mut()?.frame(plain);
            let alone = |slot, connection: &mut Connection, outbox: &mut Outbox, segment| {
                let kept = match connection.feed {
                    Feed::Own if position.is_some() => {
                        connection.link_with_cursor(slot, group, registry, outbox);
                        Ok(())
                    }
                    Feed::Own | Feed::Shared => {
                        outbox.link(slot, &mut connection.chain, segment);
                        Ok(())
                    }
                    // A server-side subscription brings something before the connect reply could be sent.
                    Feed::Held => match connection.opening() {
                        Some(opening) => opening.keep(&deliveries, queue_bytes_max),
                        None => connection.hold(outbox.bytes(segment).clone(), queue_bytes_max),
                    },
                };
                if kept.is_err() {
                    closed.push(slot);
                }
            };
            fanout.link(group, registry, connections, outbox, compress, alone);
            for (wire, messages) in fanout.delivered(registry) {
                counters.deliveries[wire as usize].add(messages);
            }
            if let Some(position) = position {
                registry.set_position(topic, position);
            }
        }
        for slot in closed {
            self.close(slot, CloseReason::Slow);
        }
    }
}

impl Connection {
    /// Links messages of a topic, each with the cursor that it leaves the session at. The bytes that others get are
    /// linked but for their cursor, not copied.
    fn link_with_cursor(&mut self, slot: u32, group: Group<'_>, registry: &Registry, outbox: &mut Outbox) {
        let Role::Client(session) = &self.role else { return };
        let wire = session.wire();
        for delivery in group.deliveries {
            let encoded = delivery.encoded(wire);
            match delivery.push.position() {
                _ if encoded.bytes.is_empty() => {}
                Some(at) => {
                    let cursor = session.cursor_at(registry, group.topic, at);
                    for piece in Parcel::pieces(wire.with_cursor(encoded, &cursor)) {
                        let segment = outbox.segment(piece);
                        outbox.link(slot, &mut self.chain, segment);
                    }
                }
                None => {
                    let segment = outbox.segment(encoded.bytes.clone());
                    outbox.link(slot, &mut self.chain, segment);
                }
            }
        }
    }

    /// Returns a publication with the cursor that it leaves the session at; `None` where it needs none of its own.
    pub(super) fn with_cursor(&self, push: &Push, registry: &Registry) -> Option<Form> {
        let (Feed::Own, Role::Client(session)) = (self.feed, &self.role) else { return None };
        let (at, topic) = (push.position()?, registry.find(push.topic()?)?);
        let wire = session.wire();
        let cursor = session.cursor_at(registry, topic, at);
        Some(Form::Bytes(wire.with_cursor(&wire.encode(push, None), &cursor).concat().into()))
    }
}

impl Destination for Connection {
    fn takes_compressed(&self, longest: impl FnOnce() -> usize) -> bool {
        self.deflate.is_some_and(|deflate| deflate.takes(longest()))
    }

    fn chain(&mut self) -> Option<&mut Chain> {
        (self.feed == Feed::Shared).then_some(&mut self.chain)
    }
}
