//! What clients send: from readiness to bytes, from bytes to messages, from messages to commands.

use std::io;
use std::ops::ControlFlow;

use fanwire_hub::delivery::Wire;
use fanwire_hub::effect::ConnectionKey;
use fanwire_protocol::Disconnect;
use fanwire_protocol::centrifuge::{Command, Encoding, Malformed, commands};
use fanwire_protocol::websocket::{CONTROL_BYTES_MAX, Limits, Message, Opcode, close_frame, framed};

use super::connection::{Connection, Peer, Role};
use super::{READ_BYTES_PER_TURN, READS_PER_TURN, Shard};

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
            if ready.writable && connection.queue.is_some() {
                self.write(ready.slot);
            }
        }
        let mut bytes = 0;
        for _ in 0..self.to_read.len().min(READS_PER_TURN) {
            // Clients that ask faster than the node answers are left to wait in their own sockets.
            if bytes > READ_BYTES_PER_TURN || self.node.is_crowded() {
                return;
            }
            let Some(key) = self.to_read.pop_front() else { return };
            bytes += self.read(key);
        }
    }

    /// Reads once from a socket and says how much it was.
    fn read(&mut self, key: ConnectionKey) -> usize {
        let queue_bytes_max = self.node.settings.client.queue_bytes_max;
        let Some(connection) = self.connections.get_mut(key.slot as usize).filter(|c| c.is(key)) else {
            return 0;
        };
        connection.to_read = false;
        if connection.deferred.is_some() || connection.has_enough(queue_bytes_max) {
            connection.is_paused = true;
            return 0;
        }
        let mut read = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        match connection.socket.read(&mut buffer) {
            Ok(0) => self.leave(key.slot),
            Ok(count) => {
                read = count;
                // A full buffer may not be all; after the peer's last byte no further event would come.
                if count == buffer.len() || connection.read_closed {
                    connection.read_later(key.slot, &mut self.to_read);
                }
                self.take_bytes(key.slot, &mut buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !connection.read_closed => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                connection.read_later(key.slot, &mut self.to_read);
            }
            Err(_) => self.leave(key.slot),
        }
        self.buffer = buffer;
        read
    }

    /// Goes on with what a client asked, once it has been sent enough of its answers.
    pub(super) fn resume(&mut self, slot: u32) {
        let queue_bytes_max = self.node.settings.client.queue_bytes_max;
        loop {
            let Some(connection) = self.connections.get_mut(slot as usize) else { return };
            if connection.has_enough(queue_bytes_max) {
                return;
            }
            match connection.deferred.as_mut().map(|deferred| deferred.pop_front()) {
                Some(Some(command)) => self.take_command(slot, command),
                Some(None) => connection.deferred = None,
                None => {
                    if std::mem::take(&mut connection.is_paused) {
                        connection.read_later(slot, &mut self.to_read);
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn take_bytes(&mut self, slot: u32, bytes: &mut [u8]) {
        self.counters.bytes_received.add(bytes.len() as u64);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if let Role::Client(session) = &connection.role
            && session.wire() == Wire::Events
        {
            // Nothing is expected from a client that only listens.
            return;
        }
        if let Role::Closing { peer: Peer::IsUnreadable, .. } = connection.role {
            return;
        }
        let generation = connection.generation;
        let mut reader = std::mem::take(&mut connection.reader);
        let limits = Limits { message_bytes_max: self.node.settings.websocket.message_bytes_max };
        let outcome = reader.read(bytes, limits, &mut |message| self.take_message(slot, message));
        let key = ConnectionKey { slot, generation };
        if let Some(connection) = self.connections.get_mut(slot as usize).filter(|c| c.is(key)) {
            connection.reader = reader;
            if let Err(violation) = outcome
                && !matches!(connection.role, Role::Closing { .. })
            {
                let why = Disconnect { code: violation.close_code(), reason: violation.to_string().into() };
                self.close(slot, &why);
                if let Some(Connection { role: Role::Closing { peer, .. }, .. }) =
                    self.connections.get_mut(slot as usize)
                {
                    *peer = Peer::IsUnreadable;
                }
            }
        }
    }

    fn take_message(&mut self, slot: u32, message: Message<'_>) -> ControlFlow<()> {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return ControlFlow::Break(()) };
        match (&mut connection.role, message) {
            (Role::Closing { peer, .. }, Message::Close(_)) => {
                *peer = Peer::IsDone;
                self.remove_if_done(slot);
                return ControlFlow::Break(());
            }
            (Role::Closing { .. }, _) => {}
            (_, Message::Close(reason)) => {
                self.follow_close(slot, reason.map(|(code, _)| code));
                return ControlFlow::Break(());
            }
            (_, Message::Ping(data)) => {
                debug_assert!(data.len() <= CONTROL_BYTES_MAX);
                self.send_frame(slot, Opcode::Pong, data);
            }
            (Role::Client(session), Message::Pong(_)) => session.transport_pong(),
            (Role::Echo, Message::Pong(_)) => {}
            (Role::Echo, Message::Text(text)) => self.send_frame(slot, Opcode::Text, text.as_bytes()),
            (Role::Echo, Message::Binary(data)) => self.send_frame(slot, Opcode::Binary, data),
            (Role::Client(_), Message::Text(text)) => self.take_commands(slot, text.as_bytes()),
            (Role::Client(_), Message::Binary(data)) => self.take_commands(slot, data),
        }
        ControlFlow::Continue(())
    }

    fn take_commands(&mut self, slot: u32, frame: &[u8]) {
        let Some(session) = self.connections.get(slot as usize).and_then(|c| c.session()) else { return };
        let encoding = match session.wire() {
            Wire::ProtobufFrames => Encoding::Protobuf,
            Wire::JsonFrames | Wire::Events => Encoding::Json,
        };
        for (place, command) in commands(encoding, frame).enumerate() {
            self.counters.commands_received.add(1);
            let queue_bytes_max = self.node.settings.client.queue_bytes_max;
            let Some(connection) = self.connections.get_mut(slot as usize) else { return };
            // What stands in one frame behind a refused connect, or a mistake, is not looked at.
            if place > 0 && connection.session().is_none_or(|session| session.is_over()) {
                return;
            }
            if connection.deferred.is_some() || connection.has_enough(queue_bytes_max) {
                // Bounded by what was read at once, since nothing more is read while something is deferred.
                connection.deferred.get_or_insert_default().push_back(command);
            } else {
                self.take_command(slot, command);
            }
        }
    }

    fn take_command(&mut self, slot: u32, command: Result<Command, Malformed>) {
        match command {
            Ok(command) => self.with_session(slot, |session, context| session.command(context, command)),
            Err(malformed) => {
                let reason = format!("bad request: {}", malformed.reason());
                let why = Disconnect { reason: reason.into(), ..Disconnect::BAD_REQUEST };
                self.with_session(slot, |session, context| session.close(context, why));
            }
        }
    }

    fn send_frame(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let frame = framed(opcode, |to| {
            to.extend_from_slice(payload);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(frame) = frame;
        self.send(slot, frame);
    }

    /// The peer closed: answer with the same code (RFC 6455 section 5.5.1) and go.
    fn follow_close(&mut self, slot: u32, code: Option<u16>) {
        let frame = code.map_or_else(|| bytes::Bytes::from_static(&[0x88, 0]), |code| close_frame(code, ""));
        self.end(slot);
        self.send(slot, frame);
        self.start_closing(slot, Peer::IsDone, None);
    }

    /// The peer has gone without a word, or has said all it had to say: it may still read what it asked for.
    fn leave(&mut self, slot: u32) {
        self.end(slot);
        self.write(slot);
        self.remove(slot);
    }
}
