//! Writing: bytes for one connection go to the outbox, and from there to sockets.

use std::hint::black_box;

use bytes::Bytes;
use fanwire_hub::outbox::Parcel;
use fanwire_protocol::reason::CloseReason;

use super::connection::{Feed, Role, WriteError};
use super::{CLOSE_PATIENCE, CURSOR_BYTES_PER_TURN, Shard, WRITES_PER_TURN};

/// The longest frame that is compressed for one connection alone: about 60 us at level 1, half a millisecond at level 6.
/// A client may ask for many long replies, and all others of the shard wait meanwhile.
const DEFLATED_REPLY_BYTES_MAX: usize = 64 << 10;

/// Connections that are brought into the cache at once. The kernel takes some tens of kilobytes of it for a write.
const FETCHED_AT_ONCE: usize = 8;

impl Shard {
    /// A frame for one connection: compressed, if that was agreed on, makes it shorter, and is done soon.
    pub(super) fn deflated(&mut self, slot: u32, frame: Bytes) -> Bytes {
        if frame.len() > DEFLATED_REPLY_BYTES_MAX {
            return frame;
        }
        let deflate = self.connections.get(slot as usize).and_then(|connection| connection.deflate);
        match (&mut self.deflater, deflate) {
            (Some(deflater), Some(deflate)) if deflate.takes(frame.len()) => {
                deflater.frame(&frame).unwrap_or(frame)
            }
            _ => frame,
        }
    }

    /// Puts bytes at the end of what goes to a connection.
    pub(super) fn send(&mut self, slot: u32, bytes: Bytes) {
        self.count_replied(slot, bytes.len());
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && !bytes.is_empty()
        {
            let segment = self.outbox.segment(Parcel::reply(bytes));
            self.outbox.link(slot, &mut connection.chain, segment);
        }
    }

    /// Writes to as many connections as a turn allows.
    pub(super) fn write_some(&mut self) {
        for count in 0..WRITES_PER_TURN {
            if self.cursor_bytes >= CURSOR_BYTES_PER_TURN {
                break;
            }
            if count % FETCHED_AT_ONCE == 0 {
                self.fetch_upcoming();
            }
            match self.outbox.next_connection() {
                Some(slot) => self.write(slot),
                None => break,
            }
        }
        if self.outbox.is_empty() {
            self.outbox.reset();
        }
    }

    /// Brings the next connections into the cache, together: between two writes the kernel displaces them, and each would
    /// be waited for alone.
    fn fetch_upcoming(&self) {
        for slot in self.outbox.upcoming().iter().take(FETCHED_AT_ONCE) {
            if let Some(connection) = self.connections.get(*slot as usize) {
                black_box((connection.generation, connection.queue.is_some()));
            }
        }
    }

    /// Writes what waits for one connection, and ends it if it takes too little or has gone.
    pub(super) fn write(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let queue_bytes_max = match connection.role {
            Role::Client(_) => self.node.settings.client.queue_bytes_max,
            // The goodbye always fits, and nothing comes after it.
            Role::Parked(_) | Role::Closing { .. } => usize::MAX,
        };
        let is_absent = connection.socket.is_absent();
        let progress_before = connection.progress();
        let (key, before) = (connection.key(slot), connection.queued_bytes());
        let outcome = match connection.feed {
            Feed::Held | Feed::Shared | Feed::Excluded => connection.write(&self.outbox, queue_bytes_max),
            Feed::Own => connection.write_with_cursors(&self.outbox, &self.registry, queue_bytes_max),
        };
        self.queued_bytes = self.queued_bytes + connection.queued_bytes() - before;
        match outcome {
            Ok(written) => {
                self.counters.writes.add(written.calls);
                self.counters.bytes_sent.add(written.bytes);
                self.counters.dropped.add(written.dropped as u64);
                self.cursor_bytes += written.made;
                if written.settled > 0 {
                    self.answer_room.replied -= written.settled;
                    if connection.replied_bytes == 0 {
                        self.watched.remove(&key);
                    }
                    self.answer_room.queue(key, self.now.millis);
                }
                if matches!(connection.role, Role::Closing { .. })
                    && (written.bytes > 0 || connection.progress() != progress_before)
                {
                    connection.prolong_closing(self.now.millis + CLOSE_PATIENCE.as_millis() as u64);
                }
                if connection.is_held_back() && written.bytes > 0 {
                    self.with_session(slot, |session, context| session.extend_pong(context));
                }
                self.remove_if_done(slot);
                self.resume(slot);
                if is_absent {
                    self.answer_poll(slot);
                }
            }
            Err(WriteError::Slow) => self.close(slot, CloseReason::Slow),
            Err(WriteError::Gone) => {
                self.end(slot);
                self.remove(slot);
            }
        }
    }
}
