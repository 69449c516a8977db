//! The calls of clients whose requests come over other connections than the one that their replies go by.

use std::time::Instant;

use bytes::Bytes;
use fanwire_hub::effect::ConnectionKey;
use fanwire_hub::reorder::Turn;
use fanwire_hub::session::Session;
use fanwire_protocol::ClientId;
use fanwire_protocol::reason::CloseReason;
use fanwire_protocol::reply::SessionNames;
use fanwire_protocol::wire::ClientMessage;

use super::read::WAITING_BYTES_MAX;
use super::{READ_TIME_PER_CONNECTION, READ_TIME_PER_TURN, Shard};
use crate::message::{AnswerTo, SessionAnswer, SessionAsk, SessionCall};
use crate::peers::{Caller, ReplyTo};
use crate::session_key::SessionKey;

/// Bytes of messages of one client that may wait whatever those of others take: what one client has wait closes no other.
const OWN_WAITING_BYTES_MAX: usize = 4 << 10;

impl Shard {
    /// Returns the names that lead to the connection's session from elsewhere, if its client needs them: to send commands,
    /// or to tell its backend whom it means.
    pub(super) fn session_names(&self, slot: u32, client: ClientId) -> Option<Box<SessionNames>> {
        let connection = self.connections.get(slot as usize)?;
        let wire = connection.session()?.wire();
        if !wire.is_emulated() && !wire.is_one_way() {
            return None;
        }
        let (node, key) = (self.node.id, connection.key(slot));
        let session = self.node.sessions.sign(node, self.index, key, client).to_string();
        Some(Box::new(SessionNames { session, node: wire.is_emulated().then(|| node.to_string()) }))
    }

    /// Returns the session of a key, if the key is good.
    pub(super) fn session_of(&self, key: &SessionKey) -> Option<&Session> {
        let connection = self.connections.get(key.connection.slot as usize)?;
        let session = connection.session().filter(|_| connection.is(key.connection))?;
        self.node.sessions.verifies(key, session.client()).then_some(session)
    }

    pub(super) fn take_session_call(&mut self, call: SessionCall) {
        let SessionCall { key, ask, answer: to } = call;
        let answer = match ask {
            SessionAsk::Commands { first, data } => Some(self.take_commands(&key, first, &data)),
            SessionAsk::Poll(ask) => self.take_poll(&key, ask, &to),
            SessionAsk::End => Some(self.end_polled(&key)),
            SessionAsk::Left => {
                self.take_left(&key, &to);
                None
            }
        };
        // A poll may wait for its answer.
        let Some(answer) = answer else { return };
        let is_of_node = match &to {
            AnswerTo::Task(_) => true,
            AnswerTo::Node(..) => false,
            AnswerTo::Parked(at) => at.via.node == self.node.id,
        };
        self.counters.session_calls.count(is_of_node, &answer);
        match to {
            // The caller may have given up.
            AnswerTo::Task(caller) => drop(caller.send(answer)),
            AnswerTo::Node(via, number) => {
                if let Some(peers) = &self.node.peers {
                    peers.answer_call(Caller { via, reply_to: ReplyTo::Number(number) }, answer);
                }
            }
            AnswerTo::Parked(at) => self.send_poll_answer(at, answer),
        }
    }

    /// Takes a message of commands, now or when it is its turn.
    fn take_commands(&mut self, key: &SessionKey, first: Option<u32>, data: &Bytes) -> SessionAnswer {
        if self.session_of(key).is_none() {
            return SessionAnswer::Gone;
        }
        let key = key.connection;
        let slot = key.slot;
        let (is_time_up, now) = (self.is_call_time_up(), self.now.millis);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return SessionAnswer::Gone };
        let is_held_up = is_time_up || connection.has_deferred_requests();
        let Some(reorder) = connection.reorder() else { return SessionAnswer::Gone };
        self.counters.bytes_received.add(data.len() as u64);
        let mut has_room = true;
        match reorder.take(first, data, is_held_up, now) {
            Turn::Now => {
                self.read_until = Instant::now() + READ_TIME_PER_CONNECTION;
                self.take_message(slot, ClientMessage::Binary(data));
                self.take_in_order(key);
            }
            Turn::Later => {
                let (is_ready, own_bytes) = (reorder.is_ready(now), reorder.bytes());
                if is_ready {
                    connection.read_later(slot, &mut self.to_read);
                }
                self.waiting_bytes += data.len();
                let is_full = self.waiting_bytes > WAITING_BYTES_MAX;
                self.waiting_was_full |= is_full;
                has_room = own_bytes <= OWN_WAITING_BYTES_MAX || !is_full;
                self.schedule(slot);
            }
            Turn::Repeated => {
                if !self.may_repeat(slot) {
                    return SessionAnswer::TooOften;
                }
            }
            Turn::Full => has_room = false,
        }
        if has_room {
            return SessionAnswer::Taken;
        }
        // To the client, a command that is lost looks like a slow node.
        self.close(slot, CloseReason::TooManyRequests);
        SessionAnswer::Full
    }

    /// Counts what comes again among the requests of its client. Returns false if it is one too many.
    pub(super) fn may_repeat(&mut self, slot: u32) -> bool {
        let mut may = true;
        self.with_session(slot, |session, context| may = session.may_request(context));
        may
    }

    /// Calls have had their time in this turn: what else they bring is read in turn with sockets.
    pub(super) fn is_call_time_up(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.calls_until.get_or_insert(now + READ_TIME_PER_TURN)
    }

    /// Takes the messages whose turn it is, until the client has enough to be answered or has had its time.
    pub(super) fn take_in_order(&mut self, key: ConnectionKey) {
        let now = self.now.millis;
        loop {
            let is_time_up = self.is_time_up();
            let Some(connection) = self.connections.get_mut(key.slot as usize).filter(|c| c.is(key)) else {
                return;
            };
            if connection.has_deferred_requests() {
                return;
            }
            if is_time_up && connection.reorder().is_some_and(|reorder| reorder.is_ready(now)) {
                return connection.read_on(key.slot, &mut self.to_read);
            }
            let Some(data) = connection.reorder().and_then(|reorder| reorder.ready(now)) else { return };
            self.waiting_bytes -= data.len();
            self.take_message(key.slot, ClientMessage::Binary(&data));
        }
    }
}
