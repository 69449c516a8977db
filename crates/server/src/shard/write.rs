//! What goes to clients: effects of sessions, closes, and the writing itself.

use std::hint::black_box;

use bytes::Bytes;
use fanwire_hub::effect::{Answer, ConnectionKey, Effect, TopicRequest};
use fanwire_hub::outbox::Parcel;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::Close;
use fanwire_protocol::reason::{CloseReason, RequestError};
use fanwire_protocol::reply::{Push, Reply};
use fanwire_protocol::websocket;
use fanwire_protocol::wire::{Form, Wire};

use super::connection::{Connection, Peer, Role, WriteError};
use super::{CLOSE_PATIENCE, Shard, WRITES_PER_TURN};
use crate::message::{ShardMessage, UserMessage};

/// The longest frame that is compressed for one connection alone: about 60 us at level 1, half a millisecond at level 6.
/// A client may ask for many long replies, and all others of the shard wait meanwhile.
const DEFLATED_REPLY_BYTES_MAX: usize = 64 << 10;

/// Connections that are brought into the cache at once. The kernel takes some tens of kilobytes of it for a write.
const FETCHED_AT_ONCE: usize = 8;

impl Shard {
    /// Does what a session wants done.
    pub(super) fn apply(&mut self, slot: u32, effects: &mut Vec<Effect>) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let key = ConnectionKey { slot, generation: connection.generation };
        let Some(session) = connection.session() else { return };
        let (wire, pings) = (session.wire(), session.pings());
        for effect in effects.drain(..) {
            let is_closing = self.connections.get(slot as usize).is_none_or(|c| c.session().is_none());
            match effect {
                // An earlier effect closed the connection, after which nothing is said.
                Effect::Reply(_) | Effect::Push(_) | Effect::Open(_) | Effect::Ping | Effect::Close(_)
                    if is_closing => {}
                Effect::Moved(moved) => {
                    if let Some(Connection { role: Role::Client(session), .. }) =
                        self.connections.get_mut(moved.connection as usize)
                    {
                        session.moved(moved);
                    }
                }
                Effect::Reply(reply) => self.reply(slot, wire, &reply),
                Effect::Push(push) => self.push(slot, wire, &push),
                Effect::Open(reply) => self.open(slot, wire, &reply),
                Effect::Ping => self.send(slot, wire.ping(pings)),
                Effect::Close(close) => self.close(slot, close),
                Effect::Register { user, single } => {
                    let message =
                        UserMessage::Register { user: user.clone(), from: self.address(key), single };
                    self.node.owner_of(&user).send(ShardMessage::User(message));
                }
                Effect::Unregister { user } => {
                    let message = UserMessage::Unregister { user: user.clone(), from: self.address(key) };
                    self.node.owner_of(&user).send(ShardMessage::User(message));
                }
                Effect::Topic(_, TopicRequest::Publish { command, .. })
                    if self.node.inboxes.is_fanout_full() =>
                {
                    let answer = Answer::Published { command, result: Err(RequestError::TooManyRequests) };
                    self.with_session(slot, |session, context| session.answer(context, answer));
                }
                effect @ Effect::Topic(..) => self.request(key, effect),
            }
        }
    }

    fn reply(&mut self, slot: u32, wire: Wire, reply: &Reply) {
        self.counters.replies.add(1);
        if let Err(refused) = &reply.result {
            self.counters.errors.count(codes::error(refused.error).number);
        }
        self.tell(slot, wire.reply(reply));
    }

    fn push(&mut self, slot: u32, wire: Wire, push: &Push) {
        self.counters.replies.add(1);
        if let Push::Unsubscribed { reason, .. } = push {
            self.counters.unsubscribes.count(codes::unsubscribed(*reason).0);
        }
        self.tell(slot, wire.push(push));
    }

    fn tell(&mut self, slot: u32, form: Form) {
        match form {
            Form::Bytes(frame) => {
                let frame = self.deflated(slot, frame);
                self.turn_bytes += frame.len();
                self.send(slot, frame);
            }
            Form::Nothing => {}
            Form::Close(reason) => self.close(slot, reason),
        }
    }

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

    /// The reply to connect goes before what the connection's subscriptions have brought already.
    fn open(&mut self, slot: u32, wire: Wire, reply: &Reply) {
        self.reply(slot, wire, reply);
        // A reply that has no form on the wire closes the connection.
        let connection = self.connections.get_mut(slot as usize).filter(|c| c.session().is_some());
        let Some(connection) = connection else { return };
        connection.is_client = true;
        self.counters.clients.add(1);
        let held = connection.held.take();
        for bytes in held.into_iter().flat_map(|held| held.into_chunks()) {
            self.send(slot, bytes);
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
            Role::Client(_) | Role::Echo => self.node.settings.client.queue_bytes_max,
            // The goodbye always fits, and nothing comes after it.
            Role::Closing { .. } => usize::MAX,
        };
        let (key, before) = (connection.key(slot), connection.queued_bytes());
        let outcome = connection.write(&self.outbox, queue_bytes_max);
        self.queued_bytes = self.queued_bytes + connection.queued_bytes() - before;
        match outcome {
            Ok(written) => {
                self.counters.writes.add(written.calls);
                self.counters.bytes_sent.add(written.bytes);
                self.counters.dropped.add(written.dropped as u64);
                if written.settled > 0 {
                    self.reads.replied -= written.settled;
                    if connection.replied_bytes == 0 {
                        self.holders.remove(&key);
                    }
                    self.reads.queue(key, self.now.millis);
                }
                if connection.is_held_back() && written.bytes > 0 {
                    self.with_session(slot, |session, context| session.extend_pong(context));
                }
                self.remove_if_done(slot);
                self.resume(slot);
            }
            Err(WriteError::Slow) => self.close(slot, CloseReason::Slow),
            Err(WriteError::Gone) => {
                self.end(slot);
                self.remove(slot);
            }
        }
    }

    /// Gives back what a connection's session holds, without a word to the client.
    pub(super) fn end(&mut self, slot: u32) {
        self.with_session(slot, |session, context| session.end(context));
    }

    /// Ends the session, says why, and starts to close.
    pub(super) fn close(&mut self, slot: u32, close: impl Into<Close>) {
        let close = close.into();
        self.end(slot);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if matches!(connection.role, Role::Closing { .. }) {
            return;
        }
        if let Some(session) = connection.session() {
            let (code, reason) = codes::close(&close);
            tracing::debug!(client = %session.client(), user = session.user(), code, %reason, "closing");
        }
        // Nothing that waited is worth sending to a client that was closed for being slow.
        if close.reason.discards_queue() {
            connection.chain = Default::default();
            self.queued_bytes -= connection.queued_bytes();
            if let Some(queue) = &mut connection.queue {
                queue.keep_begun();
            }
            self.queued_bytes += connection.queued_bytes();
        }
        let goodbye = match connection.session() {
            Some(session) => session.wire().goodbye(&close),
            None => {
                let (code, reason) = codes::close(&close);
                websocket::close_frame(code, &reason)
            }
        };
        self.send(slot, goodbye);
        self.start_closing(slot, Peer::MayFollow, Some(close.reason));
    }

    /// Takes nothing more from the connection. `reason` is the server's, if it was the server who closed.
    pub(super) fn start_closing(&mut self, slot: u32, peer: Peer, reason: Option<CloseReason>) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let code = reason.map_or(u32::MAX, |reason| codes::close_number(reason).into());
        self.counters.connections_closed.count(code);
        if let Role::Client(session) = &connection.role {
            self.clients.remove(&session.client());
            let connections = &self.counters.connections[session.wire() as usize];
            connections.set(connections.value() - 1);
            let compressed = &self.counters.connections_compressed;
            compressed.set(compressed.value() - u64::from(connection.deflate.is_some()));
        }
        if std::mem::take(&mut connection.is_client) {
            self.counters.clients.set(self.counters.clients.value() - 1);
        }
        connection.held = None;
        connection.forget_commands();
        let key = connection.key(slot);
        let until_millis = self.now.millis + CLOSE_PATIENCE.as_millis() as u64;
        connection.role = Role::Closing { until_millis, peer };
        self.forget_reads(key);
        self.schedule(slot);
        self.resume(slot);
    }

    /// Finishes a closing connection once everything is written: at once if the peer has closed, else after it
    /// follows or its time is up.
    pub(super) fn remove_if_done(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if let Role::Closing { peer, .. } = connection.role
            && connection.is_flushed()
        {
            if peer == Peer::IsDone {
                self.remove(slot);
            } else {
                connection.socket.finish();
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.connections.get(slot as usize).is_some_and(|c| !matches!(c.role, Role::Closing { .. })) {
            self.start_closing(slot, Peer::IsDone, None);
        }
        let Some(mut connection) = self.connections.try_remove(slot as usize) else { return };
        self.queued_bytes -= connection.queued_bytes();
        self.reads.replied -= connection.replied_bytes as usize;
        connection.socket.part();
        self.readiness.remove(connection.socket.source());
        self.shrink_if_sparse();
    }

    /// Gives memory back after many connections left together.
    fn shrink_if_sparse(&mut self) {
        if self.connections.is_empty() {
            self.connections.shrink_to_fit();
            self.clients.shrink_to_fit();
        }
    }
}
