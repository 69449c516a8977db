//! The input of clients: from readiness to bytes, from bytes to messages, from messages to requests.

use std::ops::ControlFlow;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use fanwire_hub::effect::ConnectionKey;
use fanwire_protocol::reason::{Close, CloseReason, Mistake};
use fanwire_protocol::request::{Malformed, Request};
use fanwire_protocol::websocket::{CONTROL_BYTES_MAX, Limits, Message, Opcode, Stop, close_frame, framed};
use fanwire_protocol::wire::{ClientMessage, Framing};

use super::connection::{Bounds, CloseProgress, Connection, Role};
use super::io_result::Input;
use super::{
    READ_BYTES, READ_BYTES_PER_TURN, READ_TIME_PER_CONNECTION, READ_TIME_PER_TURN, READS_PER_TURN, Shard,
};

/// Requests of all clients of a shard that wait for an earlier one of theirs, in bytes, before nothing more is read from
/// a client that would let one wait.
pub(super) const WAITING_BYTES_MAX: usize = 8 << 20;

/// The bytes that a client may have before it while the shard's room for answers is scarce.
const SCARCE_REPLIED_BYTES_MAX: usize = 16 << 10;

impl Shard {
    /// Takes what sockets tell, then reads from as many as a turn allows.
    pub(super) fn take_input(&mut self) {
        let mut ready = Vec::new();
        self.readiness.take(&mut ready);
        for ready in ready {
            // A socket may have gone since the kernel told of it.
            let Some(connection) = self.connections.get_mut(ready.slot as usize) else { continue };
            connection.read_closed |= ready.read_closed;
            if ready.readable {
                connection.read_later(ready.slot, &mut self.to_read);
            }
            connection.is_blocked &= !ready.writable;
            if ready.writable && (connection.queue.is_some() || !connection.socket.is_flushed()) {
                self.write(ready.slot);
            }
        }
        let mut bytes = 0;
        let mut turn = self.to_read.begin_turn();
        let began = Instant::now();
        for count in 0..READS_PER_TURN {
            // Clients that ask faster than the node answers are left to wait in their own sockets.
            if bytes > READ_BYTES_PER_TURN || self.node.inboxes.are_requests_full() {
                return;
            }
            // The first is one of those that go on, the second one that has just become readable.
            if count >= 2 && began.elapsed() >= READ_TIME_PER_TURN {
                return;
            }
            let Some(key) = self.to_read.pop(&mut turn) else { return };
            bytes += self.read(key);
        }
    }

    /// Reads once from a socket, or takes up again what was read before, and says how much it was.
    pub(super) fn read(&mut self, key: ConnectionKey) -> usize {
        let (has_enough, now) = (self.has_enough(key.slot), self.now.millis);
        let Some(connection) = self.connections.get_mut(key.slot as usize).filter(|c| c.is(key)) else {
            return 0;
        };
        connection.to_read = false;
        if has_enough {
            connection.is_paused = true;
            return 0;
        }
        self.read_until = Instant::now() + READ_TIME_PER_CONNECTION;
        if connection.has_deferred_requests() {
            self.take_deferred_requests(key);
            return 0;
        }
        if connection.reorder().is_some_and(|reorder| reorder.is_ready(now)) {
            connection.read_on(key.slot, &mut self.to_read);
            self.take_in_order(key);
            return 0;
        }
        if let Some(unread) = connection.take_unread() {
            // Behind it, the socket may have more.
            connection.read_on(key.slot, &mut self.to_read);
            return self.take_unread(key, unread);
        }
        let mut read = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        match connection.socket.read(&mut buffer) {
            Ok(Input::All(0)) if !connection.read_closed => {}
            // A client that has ended its side still reads the response to its request.
            Ok(Input::All(0) | Input::End) if connection.is_undecided() => connection.read_closed = true,
            Ok(Input::All(0) | Input::End) | Err(_) => self.leave(key.slot),
            Ok(input @ (Input::Some(count) | Input::All(count))) => {
                // After the peer's last byte no further event would come.
                if matches!(input, Input::Some(_)) || connection.read_closed {
                    connection.read_on(key.slot, &mut self.to_read);
                }
                read = self.take_bytes(key.slot, &mut buffer[..count]);
            }
        }
        self.buffer = buffer;
        read
    }

    /// A client has as much before it as may be: what else it asks has to wait.
    fn has_enough(&self, slot: u32) -> bool {
        let Some(connection) = self.connections.get(slot as usize) else { return false };
        let queue_bytes_max = self.node.settings.client.queue_bytes_max;
        let bounds = Bounds {
            replied_bytes_max: match self.answer_room.is_scarce() {
                true => SCARCE_REPLIED_BYTES_MAX.min(queue_bytes_max / 2),
                false => queue_bytes_max / 2,
            },
            waiting_is_full: self.waiting_bytes > WAITING_BYTES_MAX,
        };
        connection.has_enough(bounds) || self.answer_room.holds_up(connection.key(slot))
    }

    /// The connection that is being read has had its time.
    pub(super) fn is_time_up(&self) -> bool {
        Instant::now() >= self.read_until
    }

    /// Goes on with a message that was kept, until the client has enough to be answered or has had its time.
    fn take_deferred_requests(&mut self, key: ConnectionKey) {
        loop {
            let has_enough = self.has_enough(key.slot);
            let Some(connection) = self.connections.get_mut(key.slot as usize).filter(|c| c.is(key)) else {
                return;
            };
            if has_enough {
                connection.is_paused = true;
                return;
            }
            match connection.next_deferred_request() {
                Some(Ok(request)) if connection.is_undecided() => self.prepare(key.slot, request),
                Some(request) => self.take_request(key.slot, request),
                None => {
                    connection.forget_requests();
                    break;
                }
            }
            if self.is_time_up() {
                break;
            }
        }
        self.take_in_order(key);
        // Behind it, the socket may have more.
        if let Some(connection) = self.connections.get_mut(key.slot as usize).filter(|c| c.is(key)) {
            connection.read_on(key.slot, &mut self.to_read);
        }
    }

    /// Has a client read again that was left unread until it was sent enough of its answers.
    pub(super) fn resume(&mut self, slot: u32) {
        let has_enough = self.has_enough(slot);
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && connection.is_held_back()
            && !has_enough
        {
            connection.is_paused = false;
            connection.read_on(slot, &mut self.to_read);
            // Its wire has a deadline again.
            self.schedule(slot);
        }
    }

    /// Has clients read again that were left unread because too much of others waited on the shard. Called about once a
    /// second.
    pub(super) fn resume_where_requests_may_wait(&mut self) {
        if !self.waiting_was_full || self.waiting_bytes > WAITING_BYTES_MAX {
            return;
        }
        self.waiting_was_full = false;
        for slot in self.connections.iter().map(|(slot, _)| slot as u32).collect::<Vec<_>>() {
            self.resume(slot);
        }
    }

    /// Takes what was read from a socket, and says how much it became.
    pub(super) fn take_bytes(&mut self, slot: u32, bytes: &mut [u8]) -> usize {
        self.counters.bytes_received.add(bytes.len() as u64);
        let Some(connection) = self.connections.get(slot as usize) else { return 0 };
        let key = connection.key(slot);
        let Taken { payload_bytes, unread } = self.take_messages_of(key, bytes);
        if unread > 0 {
            self.keep_unread(key, BytesMut::from(&bytes[bytes.len() - unread..]));
        }
        payload_bytes.max(bytes.len())
    }

    /// The same with what was read before, and not looked at.
    fn take_unread(&mut self, key: ConnectionKey, mut bytes: BytesMut) -> usize {
        let Taken { payload_bytes, unread } = self.take_messages_of(key, &mut bytes);
        if unread > 0 {
            bytes.advance(bytes.len() - unread);
            self.keep_unread(key, bytes);
        }
        payload_bytes
    }

    fn keep_unread(&mut self, key: ConnectionKey, unread: BytesMut) {
        let Some(connection) = self.connections.get_mut(key.slot as usize).filter(|c| c.is(key)) else {
            return;
        };
        connection.defer_unread(unread);
        connection.read_on(key.slot, &mut self.to_read);
    }

    fn take_messages_of(&mut self, key: ConnectionKey, bytes: &mut [u8]) -> Taken {
        let Some(connection) = self.connections.get(key.slot as usize) else { return Taken::default() };
        match connection.framing() {
            // They are for a session whose opening is decided.
            Framing::WebSocket if connection.is_undecided() => {
                Taken { unread: bytes.len(), ..Taken::default() }
            }
            Framing::WebSocket => self.take_frames(key, bytes),
            Framing::Ignored => Taken::default(),
        }
    }

    /// Takes WebSocket frames.
    fn take_frames(&mut self, key: ConnectionKey, bytes: &mut [u8]) -> Taken {
        let ConnectionKey { slot, .. } = key;
        let mut taken = Taken::default();
        let Some(connection) = self.connections.get_mut(slot as usize) else { return taken };
        let mut reader = std::mem::take(&mut connection.reader);
        let limits = Limits { message_bytes_max: self.node.settings.websocket.message_bytes_max };
        let mut inflater = connection.deflate.and_then(|_| self.inflater.take());
        let outcome = reader.read(bytes, limits, inflater.as_mut(), &mut |message| {
            taken.payload_bytes += message.payload_bytes();
            match self.take_websocket_message(slot, message) {
                // More than one read brings came of it, or it took its time: others get their turn.
                ControlFlow::Continue(()) if taken.payload_bytes > READ_BYTES || self.is_time_up() => {
                    ControlFlow::Break(Stop::Pause)
                }
                flow => flow,
            }
        });
        self.inflater = inflater.or(self.inflater.take());
        let Some(connection) = self.connections.get_mut(slot as usize).filter(|c| c.is(key)) else {
            return taken;
        };
        connection.reader = reader;
        match outcome {
            Ok(unread) => taken.unread = unread,
            Err(_) if matches!(connection.role, Role::Closing { .. }) => {}
            Err(violation) => {
                self.close(slot, CloseReason::Framing(violation));
                if let Some(Connection { role: Role::Closing { framing, .. }, .. }) =
                    self.connections.get_mut(slot as usize)
                {
                    *framing = Framing::Ignored;
                }
            }
        }
        taken
    }

    /// Answers a control message, and gives any other to the wire.
    fn take_websocket_message(&mut self, slot: u32, message: Message<'_>) -> ControlFlow<Stop> {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return ControlFlow::Break(Stop::End);
        };
        match (&mut connection.role, message) {
            (Role::Closing { peer, .. }, Message::Close(_)) => {
                *peer = CloseProgress::IsDone;
                self.remove_if_done(slot);
                return ControlFlow::Break(Stop::End);
            }
            (Role::Parked(_) | Role::Closing { .. }, _) => {}
            (Role::Client(_), Message::Close(reason)) => {
                // With the same code (RFC 6455 section 5.5.1).
                let answer = match reason {
                    Some((code, _)) => close_frame(code, ""),
                    None => Bytes::from_static(&[0x88, 0]),
                };
                self.follow_close(slot, answer);
                return ControlFlow::Break(Stop::End);
            }
            (Role::Client(_), Message::Ping(data)) => {
                debug_assert!(data.len() <= CONTROL_BYTES_MAX);
                self.send(slot, framed(Opcode::Pong, |to| to.extend_from_slice(data)));
            }
            (Role::Client(session), Message::Pong(_)) => session.transport_pong(),
            (Role::Client(_), Message::Text(text)) => self.take_message(slot, ClientMessage::Text(text)),
            (Role::Client(_), Message::Binary(data)) => self.take_message(slot, ClientMessage::Binary(data)),
        }
        match self.connections.get(slot as usize) {
            // One message is enough to keep; what else the bytes at hand may become is not made yet.
            Some(connection) if connection.has_deferred_requests() => ControlFlow::Break(Stop::Pause),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Takes the requests in a message, until the client has enough to be answered or has had its time.
    pub(super) fn take_message(&mut self, slot: u32, message: ClientMessage<'_>) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let publish = connection.publish_topic();
        let Role::Client(session) = &mut connection.role else { return };
        let wire = session.wire();
        if let Some(answer) = wire.answer(message, &self.node.settings.subscribe.heartbeats) {
            session.transport_pong();
            let answer = self.deflated(slot, answer);
            return self.send(slot, answer);
        }
        let bytes = message.bytes().len();
        let mut requests = wire.requests(message, 0).publishing_to(publish);
        loop {
            let taken = requests.taken();
            let has_enough = self.has_enough(slot);
            let Some(connection) = self.connections.get_mut(slot as usize) else { return };
            // What stands in one message behind a refused connect, or a mistake, is not looked at.
            let is_over = || connection.session().is_none_or(|session| session.is_over());
            if taken > 0 && (taken == bytes || is_over()) {
                return;
            }
            let is_first = taken == 0;
            if has_enough || !is_first && Instant::now() >= self.read_until {
                connection.defer_message(message, taken);
                return connection.read_on(slot, &mut self.to_read);
            }
            let Some(request) = requests.next() else { return };
            self.take_request(slot, request);
        }
    }

    /// Has the session check a request that the connection is opened with, and begin after the last. So a response that
    /// refuses the connection has nothing to undo.
    fn prepare(&mut self, slot: u32, request: Request) {
        self.counters.requests_received.add(1);
        let is_last = self.connections.get(slot as usize).is_none_or(Connection::is_prepared);
        self.with_session(slot, |session, context| {
            session.prepare(context, request);
            if is_last {
                session.begin(context);
            }
        });
    }

    fn take_request(&mut self, slot: u32, request: Result<Request, Malformed>) {
        self.counters.requests_received.add(1);
        match request {
            Ok(request) => {
                let connection = self.connections.get_mut(slot as usize);
                if let Some(reorder) = connection.and_then(|connection| connection.reorder()) {
                    reorder.pass(request.id);
                }
                self.with_session(slot, |session, context| session.request(context, request));
            }
            Err(malformed) => {
                let close = Close::mistake(Mistake::from(malformed));
                self.with_session(slot, |session, context| session.close(context, close));
            }
        }
    }
}

/// The outcome of handling bytes of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Of all messages, inflated.
    payload_bytes: usize,
    /// Bytes at the end that were not looked at.
    unread: usize,
}
