//! Cursors of listeners to several topics. Each is its listener's own, so it is made for one connection at a time, as its turn
//! to be written comes: what waits for a turn takes no memory, and what the socket does not take is bounded by the queue.

use std::io;

use fanwire_hub::outbox::{Deliveries, Outbox};
use fanwire_hub::queue::Queue;
use fanwire_hub::registry::Registry;
use fanwire_protocol::Cursor;
use fanwire_protocol::reply::Push;
use fanwire_protocol::wire::{Form, Wire};

use super::Shard;
use super::connection::{Connection, Feed, Role, WriteError, Written};

/// Bytes that are made before the socket is given them.
const STAGED_BYTES_MAX: usize = 64 << 10;

impl Shard {
    /// Writes what the topics of a listener brought, before its session changes: its cursors hold the topics it had then.
    pub(super) fn write_own_cursors(&mut self, slot: u32) {
        let waits = |connection: &Connection| connection.feed == Feed::Own && !connection.chain.is_empty();
        if self.connections.get(slot as usize).is_some_and(waits) {
            self.write(slot);
        }
    }
}

impl Connection {
    /// Changes the feed, and counts the connections that have cursors of their own. Returns the feed before.
    pub(super) fn set_feed(&mut self, feed: Feed, own_feeds: &mut usize) -> Feed {
        let before = std::mem::replace(&mut self.feed, feed);
        *own_feeds = *own_feeds + usize::from(feed == Feed::Own) - usize::from(before == Feed::Own);
        before
    }

    /// Returns a publication with the cursor that it leaves the session at; `None` where it needs none of its own.
    pub(super) fn with_cursor(&self, push: &Push, registry: &Registry) -> Option<Form> {
        let (Feed::Own, Role::Client(session)) = (self.feed, &self.role) else { return None };
        let (at, topic) = (push.position()?, registry.find(push.topic()?)?);
        let wire = session.wire();
        let cursor = session.cursor_at(registry, topic, at);
        Some(Form::Bytes(wire.with_cursor(&wire.encode(push, None), &cursor).concat().into()))
    }

    /// The same as [`Connection::write`], for a connection whose messages bring its own cursors.
    pub(super) fn write_with_cursors(
        &mut self,
        outbox: &Outbox,
        registry: &Registry,
        queue_bytes_max: usize,
    ) -> Result<Written, WriteError> {
        let Role::Client(session) = &self.role else { return self.write(outbox, queue_bytes_max) };
        if self.chain.is_empty() {
            return self.write(outbox, queue_bytes_max);
        }
        let (wire, mut cursor) = (session.wire(), session.cursor(registry));
        let mut written = Written::default();
        let parcels = outbox.take(&mut self.chain);
        // The registry is where all of this has been written. It begins where nothing of it has: a topic may have brought
        // something twice, and the first counts.
        let all: Vec<_> = parcels.clone().filter_map(|parcel| parcel.deliveries()).collect();
        for deliveries in all.into_iter().rev() {
            if let Some(topic) = deliveries.all.first().and_then(|first| first.push.topic()) {
                cursor.advance(topic.as_str(), deliveries.before);
            }
        }
        for parcel in parcels {
            if let Some(deliveries) = parcel.deliveries() {
                self.queue_with_cursors(deliveries, wire, &mut cursor, queue_bytes_max, &mut written)?;
            } else {
                let queue = self.queue_for(parcel.bytes().len(), queue_bytes_max, &mut written)?;
                written.dropped += parcel.queue(0, queue, queue_bytes_max)?;
            }
        }
        self.write_queue(&mut written)?;
        if self.replied_bytes > 0 {
            written.settled = self.settle(written.bytes);
        }
        Ok(written)
    }

    /// Queues deliveries, each with the cursor that it moves on. The bytes that others get are queued but for their cursor,
    /// not copied.
    fn queue_with_cursors(
        &mut self,
        deliveries: &Deliveries,
        wire: Wire,
        cursor: &mut Cursor,
        queue_bytes_max: usize,
        written: &mut Written,
    ) -> Result<(), WriteError> {
        let Some(topic) = deliveries.all.first().and_then(|first| first.push.topic()) else { return Ok(()) };
        let place = cursor.place(topic.as_str());
        for delivery in &deliveries.all {
            let encoded = delivery.encoded(wire);
            if encoded.bytes.is_empty() {
                continue;
            }
            let at = delivery.push.position();
            if let (Some(place), Some(at)) = (place, at) {
                cursor.advance_at(place, at);
            }
            // The cursor that all share is that of the topic alone.
            if at.is_none() || (place.is_some() && cursor.is_of_one()) {
                let queue = self.queue_for(encoded.bytes.len(), queue_bytes_max, written)?;
                written.dropped += queue.push(encoded.bytes.clone(), queue_bytes_max)?;
                continue;
            }
            let [first, rest] = wire.with_cursor(encoded, cursor);
            written.made += first.len();
            let queue = self.queue_for(first.len() + rest.len(), queue_bytes_max, written)?;
            written.dropped += queue.push_beginning(first, rest.len(), queue_bytes_max)?;
            queue.push_continuation(rest);
        }
        Ok(())
    }

    /// Returns the queue, with room for so many bytes if the socket makes it.
    fn queue_for(&mut self, added: usize, bytes_max: usize, written: &mut Written) -> io::Result<&mut Queue> {
        // What waits counts for more than its bytes.
        if self.queued_bytes() + added > STAGED_BYTES_MAX.min(bytes_max / 4) {
            self.write_queue(written)?;
        }
        Ok(self.queue.get_or_insert_default())
    }
}
