//! Fan-out: what waited together for one topic becomes one segment, linked to each of its subscribers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::SlowPolicy;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::outbox::{Messages, Outbox, Parcel, Segment};
use fanwire_hub::registry::{Registry, SubscriberKind, TopicSlot};
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::CloseReason;
use fanwire_protocol::websocket::Deflater;
use fanwire_protocol::wire::Wire;

use super::Shard;
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

/// The part of a group that one kind of subscriber gets.
#[derive(Clone, Copy, Debug)]
enum Share {
    /// Only joins and leaves, which it is not told of.
    Nothing,
    Messages {
        segment: Segment,
        count: u64,
    },
}

/// The bytes of a group for one kind of subscriber, made when the first of them needs them.
#[derive(Clone, Copy, Default)]
pub(super) struct KindShare {
    /// The longest message, before it is compressed.
    longest: Option<usize>,
    /// For those whose messages are compressed in the second place.
    shares: [Option<Share>; 2],
    delivered: u64,
}

/// A place for every kind; those of kinds that the shard has met are used.
pub(super) type KindShares = Box<[KindShare; Registry::KINDS_MAX]>;

impl Shard {
    /// Links every group to its topic's subscribers. This is the per-delivery path: a link in the arena, no
    /// copy, no allocation, no encoding.
    pub(super) fn link_groups(&mut self) {
        let mut closed = Vec::new();
        for deliveries in self.groups.take() {
            let Some(topic) = deliveries.first().and_then(|first| first.push.topic()) else { continue };
            // Nothing is kept for a topic whose last subscriber here has left.
            if let Some(topic) = self.registry.find(topic) {
                self.link_group(topic, &deliveries, &mut closed);
            }
        }
        for slot in closed {
            self.close(slot, CloseReason::Slow);
        }
    }

    fn link_group(&mut self, topic: TopicSlot, deliveries: &[Arc<Delivery>], closed: &mut Vec<u32>) {
        let Self { registry, connections, outbox, counters, node, deflater, kind_shares, .. } = self;
        kind_shares[..registry.kinds().len()].fill(KindShare::default());
        for subscriber in &registry.topic(topic).subscribers {
            let KindShare { longest, shares, delivered } = &mut kind_shares[usize::from(subscriber.kind)];
            let connection = &mut connections[subscriber.connection as usize];
            let kind = || registry.kinds()[usize::from(subscriber.kind)];
            let deflates = connection.deflate.is_some_and(|deflate| {
                deflate.takes(*longest.get_or_insert_with(|| self::longest(deliveries, kind().wire)))
            });
            let share = shares[usize::from(deflates)].get_or_insert_with(|| {
                let deflater = deflater.as_mut().filter(|_| deflates);
                self::share(outbox, topic, deliveries, kind(), deflater)
            });
            let (segment, count) = match *share {
                Share::Messages { segment, count } => (segment, count),
                Share::Nothing => continue,
            };
            *delivered += count;
            if connection.is_live {
                outbox.link(subscriber.connection, &mut connection.chain, segment);
            } else {
                // A server-side subscription brings something before the connect reply could be sent.
                let queue_bytes_max = node.settings.client.queue_bytes_max;
                if connection.hold(outbox.bytes(segment).clone(), queue_bytes_max).is_err() {
                    closed.push(subscriber.connection);
                }
            }
        }
        for (kind, share) in registry.kinds().iter().zip(&kind_shares[..]) {
            counters.deliveries[kind.wire as usize].add(share.delivered);
        }
    }
}

/// The longest message of a group, before it is compressed.
fn longest(deliveries: &[Arc<Delivery>], wire: Wire) -> usize {
    deliveries.iter().map(|delivery| delivery.bytes(wire).len()).max().unwrap_or(0)
}

/// The messages of a group for one kind of subscriber, concatenated: all of them share the bytes. With a deflater,
/// those that get shorter by it are compressed.
fn share(
    outbox: &mut Outbox,
    topic: TopicSlot,
    deliveries: &[Arc<Delivery>],
    kind: SubscriberKind,
    mut deflater: Option<&mut Deflater>,
) -> Share {
    let wanted = deliveries.iter().filter(|delivery| kind.joins || !delivery.push.is_join_or_leave());
    let mut all = Vec::with_capacity(deliveries.len());
    for delivery in wanted {
        let encoded = match &mut deflater {
            Some(deflater) => delivery.compressed(kind.wire, |plain| deflater.frame(plain)),
            None => delivery.bytes(kind.wire),
        };
        if !encoded.is_empty() {
            all.push((encoded, !delivery.push.is_join_or_leave()));
        }
    }
    let bytes = match all[..] {
        [] => return Share::Nothing,
        [(one, _)] => one.clone(),
        _ => {
            let mut joined = Vec::with_capacity(all.iter().map(|(bytes, _)| bytes.len()).sum());
            all.iter().for_each(|(bytes, _)| joined.extend_from_slice(bytes));
            Bytes::from(joined)
        }
    };
    let count = all.len() as u64;
    let parcel = match kind.slow {
        SlowPolicy::Close => Parcel::from(bytes),
        policy => {
            let all =
                all.into_iter().map(|(bytes, is_publication)| (bytes.clone(), is_publication)).collect();
            Parcel::new(bytes, Messages { topic, policy, all })
        }
    };
    Share::Messages { segment: outbox.segment(parcel), count }
}
