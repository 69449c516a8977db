//! The ends of connections: closed by the server, by their peers, or gone.

use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::{Close, CloseReason, Left};
use hyper::StatusCode;

use super::connection::{AnsweredPoll, CloseProgress, Connection, Feed, Role};
use super::{CLOSE_PATIENCE, Shard};
use crate::counters::ByCode;
use crate::transport::RefusalResponse;

/// The time that a peer may take to go after a response that refuses it. It is short: such a peer has shown no token, and
/// counts against the limit of connections.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// The last words to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum LastWords {
    /// It left by itself.
    Nothing,
    Close(CloseReason),
    /// A response with this status.
    Refusal(StatusCode),
}

impl LastWords {
    /// Returns the code under which the end of the connection is counted.
    fn code(self) -> u32 {
        match self {
            Self::Nothing => ByCode::OTHER,
            Self::Close(reason) => codes::close_number(reason).into(),
            Self::Refusal(status) => status.as_u16().into(),
        }
    }

    fn patience(self) -> Duration {
        match self {
            Self::Nothing | Self::Close(_) => CLOSE_PATIENCE,
            Self::Refusal(_) => REFUSAL_PATIENCE,
        }
    }
}

impl Shard {
    /// Gives back what the session of a client that has gone holds.
    pub(super) fn end(&mut self, slot: u32) {
        self.end_because(slot, Left::Gone);
    }

    /// Gives back what a connection's session holds, without a word to the client.
    pub(super) fn end_because(&mut self, slot: u32, left: Left) {
        self.with_session(slot, |session, context| session.end(context, left));
    }

    /// Ends the session, says why, and starts to close.
    pub(super) fn close(&mut self, slot: u32, close: impl Into<Close>) {
        let close = close.into();
        match self.connections.get(slot as usize) {
            Some(connection) if connection.socket.is_absent() => return self.close_polled(slot, &close),
            Some(Connection { role: Role::Parked(_), .. }) => return self.send_poll_away(slot),
            _ => {}
        }
        self.end_because(slot, Left::Closed(close.clone()));
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let opening = connection.take_opening();
        let Some(session) = connection.session() else { return };
        let wire = session.wire();
        let last = match opening.map(|opening| opening.closed(wire, &close)) {
            Some(Err(refusal)) => return self.refuse(slot, refusal),
            Some(Ok(last)) => Some(last),
            None => None,
        };
        let (code, reason) = codes::close(&close);
        tracing::debug!(client = %session.client(), user = session.user(), code, %reason, "closing");
        // Nothing that waited is worth sending to a client that was closed for being slow.
        if close.reason.discards_queue() {
            connection.chain = Default::default();
            self.queued_bytes -= connection.queued_bytes();
            if let Some(queue) = &mut connection.queue {
                queue.keep_begun();
            }
            self.queued_bytes += connection.queued_bytes();
        }
        let (last, progress) = match last {
            Some(last) => (last, connection.response_progress()),
            None => (wire.goodbye(&close), CloseProgress::MayFollow),
        };
        self.send(slot, last);
        self.start_closing(slot, progress, LastWords::Close(close.reason));
    }

    /// Ends the session, and the connection with the response that refuses it.
    pub(super) fn refuse(&mut self, slot: u32, refusal: RefusalResponse) {
        if self.connections.get(slot as usize).is_some_and(|connection| connection.socket.is_absent()) {
            return self.refuse_poll(slot, refusal);
        }
        self.end_because(slot, Left::Refused);
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let Some(session) = connection.session() else { return };
        let RefusalResponse { bytes, status, code, reason } = refusal;
        let (client, user) = (session.client(), session.user());
        tracing::debug!(%client, user, status = status.as_u16(), code, reason, "refusing");
        let progress = connection.response_progress();
        self.send(slot, bytes);
        self.start_closing(slot, progress, LastWords::Refusal(status));
    }

    /// Takes nothing more from the connection.
    pub(super) fn start_closing(&mut self, slot: u32, peer: CloseProgress, last: LastWords) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        self.counters.connections_closed.count(last.code());
        let client = connection.session().map(|session| session.client());
        if let Role::Client(session) = &connection.role {
            self.clients.remove(&session.client());
            let connections = &self.counters.connections[session.wire() as usize];
            connections.set(connections.value() - 1);
            let compressed = &self.counters.connections_compressed;
            compressed.set(compressed.value() - u64::from(connection.deflate.is_some()));
        }
        if connection.set_feed(Feed::Held, &mut self.own_feeds) != Feed::Held {
            self.counters.clients.set(self.counters.clients.value() - 1);
        }
        connection.take_held();
        connection.take_opening();
        connection.forget_requests();
        connection.forget_questions();
        self.waiting_bytes -= connection.reorder().map_or(0, |reorder| reorder.bytes());
        if let Some(polled) = connection.polled() {
            self.kept.remove(polled);
        }
        connection.wire_state = None;
        let key = connection.key(slot);
        let until_millis = self.now.millis + last.patience().as_millis() as u64;
        let framing = connection.framing();
        connection.role =
            Role::Closing { until_millis, last_millis: until_millis, framing, peer, answered: None };
        self.tokens.remove(&slot);
        if let Some(client) = client {
            self.leave_network(key, client);
        }
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
            if peer == CloseProgress::IsDone {
                self.remove(slot);
            } else {
                connection.socket.finish();
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        match self.connections.get(slot as usize).map(|connection| &connection.role) {
            Some(Role::Client(_)) => {
                self.start_closing(slot, CloseProgress::IsDone, LastWords::Nothing);
            }
            Some(Role::Parked(_)) => self.leave_poll(slot),
            Some(Role::Closing { .. }) | None => {}
        }
        let Some(mut connection) = self.connections.try_remove(slot as usize) else { return };
        self.queued_bytes -= connection.queued_bytes();
        if let Some(polled) = connection.polled() {
            self.kept.remove(polled);
        }
        self.answer_room.replied -= connection.replied_bytes as usize;
        if let Role::Closing { answered: Some(AnsweredPoll { network, bytes, .. }), .. } = &connection.role {
            self.answer_room.polled.remove(network, *bytes);
        }
        connection.socket.part();
        self.readiness.remove(&mut connection.socket);
        self.connections.give_back();
        self.clients.give_back();
        self.tokens.give_back();
    }

    /// Ends a connection that takes too little, and frees what waits for it at once: it would not read a goodbye.
    pub(super) fn cut_off(&mut self, slot: u32) {
        self.end_because(slot, Left::Closed(CloseReason::Slow.into()));
        let is_open =
            self.connections.get(slot as usize).is_some_and(|c| !matches!(c.role, Role::Closing { .. }));
        if is_open {
            self.start_closing(slot, CloseProgress::IsDone, LastWords::Close(CloseReason::Slow));
        }
        self.remove(slot);
    }

    /// The peer closed: answer as its framing asks, and go.
    pub(super) fn follow_close(&mut self, slot: u32, answer: Bytes) {
        self.end(slot);
        self.send(slot, answer);
        self.start_closing(slot, CloseProgress::IsDone, LastWords::Nothing);
    }

    /// The peer has gone without a word, or has said all it had to say: it may still read what it asked for.
    pub(super) fn leave(&mut self, slot: u32) {
        self.end(slot);
        self.write(slot);
        self.remove(slot);
    }
}
