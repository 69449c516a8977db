//! Clients that do not get a publication which the other subscribers of its topic get.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_hub::delivery::Delivery;
use fanwire_hub::fanout::{Destination, Fanout, Group};
use fanwire_hub::outbox::{Outbox, Segment};
use fanwire_hub::registry::{Registry, Subscriber};
use fanwire_protocol::ClientId;
use fanwire_protocol::wire::Wire;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::connection::{Connection, Feed};

/// The subscribers that do not get all of a group. Fan-out passes them over, and they are linked to the rest of it,
/// one delivery at a time: its bytes are shared by those that get them so.
#[derive(Debug)]
pub(super) struct ExcludedClients<'g> {
    group: Group<'g>,
    clients: Vec<ExcludedClient>,
}

#[derive(Debug)]
struct ExcludedClient {
    slot: u32,
    id: ClientId,
    subscriber: Subscriber,
    /// Its feed, but for the group.
    feed: Feed,
}

/// One delivery of a group, as several clients get it.
#[derive(Debug)]
pub(super) struct Single<'g> {
    pub(super) deliveries: &'g [Arc<Delivery>],
    pub(super) segment: Segment,
}

impl<'g> ExcludedClients<'g> {
    /// Takes those among the shard's clients out of the feed of the others.
    pub(super) fn set_aside(
        group: Group<'g>,
        registry: &Registry,
        slots: &FxHashMap<ClientId, u32>,
        connections: &mut Slab<Connection>,
    ) -> Self {
        let mut clients = Vec::new();
        for id in group.deliveries.iter().filter_map(|delivery| delivery.push.exclude()) {
            let Some(&slot) = slots.get(&id) else { continue };
            let connection = &mut connections[slot as usize];
            let place = connection.session().and_then(|session| session.place_in(group.topic));
            let Some(place) = place.filter(|_| connection.feed != Feed::Excluded) else { continue };
            let subscriber = registry.topic(group.topic).subscribers[place as usize];
            let feed = std::mem::replace(&mut connection.feed, Feed::Excluded);
            clients.push(ExcludedClient { slot, id, subscriber, feed });
        }
        Self { group, clients }
    }

    /// Gives each its feed back and what is left of the group. Returns the messages that they get.
    pub(super) fn link_rest(
        self,
        fanout: &mut Fanout,
        registry: &Registry,
        connections: &mut Slab<Connection>,
        outbox: &mut Outbox,
        mut compress: impl FnMut(&Bytes) -> Option<Bytes>,
        mut give: impl FnMut(u32, &mut Connection, &mut Outbox, Single<'_>),
    ) -> Vec<(Wire, u64)> {
        let Self { group, clients } = self;
        let mut singles = HashMap::new();
        let mut given = Vec::with_capacity(clients.len());
        for ExcludedClient { slot, id, subscriber, feed } in clients {
            let connection = &mut connections[slot as usize];
            connection.feed = feed;
            let Subscriber { kind, filter, .. } = subscriber;
            let wire = registry.kinds()[usize::from(kind)].wire;
            let is_compressed = connection.takes_compressed(|| group.longest(wire));
            let mut messages = 0;
            for (place, delivery) in group.deliveries.iter().enumerate() {
                if delivery.push.exclude() == Some(id) {
                    continue;
                }
                let deliveries = slice::from_ref(delivery);
                let segment = *singles.entry((place, kind, filter, is_compressed)).or_insert_with(|| {
                    Group { deliveries, ..group }.segment(
                        registry,
                        &subscriber,
                        is_compressed,
                        outbox,
                        &mut compress,
                    )
                });
                if let Some(segment) = segment {
                    messages += 1;
                    give(slot, connection, outbox, Single { deliveries, segment });
                }
            }
            fanout.leave_out(&subscriber);
            given.push((wire, messages));
        }
        given
    }
}
