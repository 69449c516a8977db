//! Polls that wait: sockets whose requests get their answers from a session, on this shard, another or another node.

use std::rc::Rc;

use bytes::Bytes;
use fanwire_hub::effect::ConnectionKey;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::wire::Framing;
use hyper::StatusCode;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::connection::{AnsweredPoll, Connection, Role};
use super::kept_answers::SHORT_BYTES_MAX;
use super::socket::Socket;
use super::{CLOSE_PATIENCE, Shard};
use crate::accept::admission::ClientNetwork;
use crate::message::{ParkedAt, SessionAnswer, SessionAsk, Via};
use crate::transport::no_answer::NoAnswer;
use crate::transport::poll::{Parked, Poll, PollOf};

/// The time after which a poll is answered though its session has not said anything, beyond the time that it waits: a session
/// that there is answers then, unless its node has too much to do. A new one may have to be subscribed first.
const LATE_MILLIS: u64 = 3_000;
const OPENING_LATE_MILLIS: u64 = 10_000;

/// The time that a client may take for an answer while it takes some of it every few seconds: the first may bring all that
/// was missed.
const ANSWER_MILLIS_MAX: u64 = 60_000;

const BUSY: NoAnswer = NoAnswer::too_many("The session's node has too much before it. Poll again.");
const NO_ROOM: NoAnswer = NoAnswer::too_many(
    "Clients have not taken other long answers, and there is no room for this one. Poll again.",
);
const UNREACHABLE: NoAnswer =
    NoAnswer::unavailable("The session's node, or Redis, does not answer. Poll again.");
const HAS_ENDED: NoAnswer = NoAnswer::unavailable("The session has just ended. Poll again.");
const SHUTS_DOWN: NoAnswer = NoAnswer::unavailable("The node shuts down. Poll again.");
const LATE: NoAnswer = NoAnswer {
    status: StatusCode::GATEWAY_TIMEOUT,
    ..NoAnswer::unavailable("The session's node does not answer. Poll again.")
};
const OVERTAKEN: NoAnswer = NoAnswer {
    status: StatusCode::CONFLICT,
    error: RequestError::BadRequest,
    sentence: "Another poll of this session has come, or its client has ended it. Leave the session out to open another.",
};

/// The other nodes for whose sessions polls of a shard wait. Each of the polls holds a copy.
#[derive(Debug, Default)]
pub(super) struct PolledNodes(FxHashMap<Uuid, Rc<()>>);

impl PolledNodes {
    fn enter(&mut self, node: Uuid) -> Rc<()> {
        self.0.entry(node).or_default().clone()
    }

    /// Returns the number of those polls.
    pub(super) fn polls(&self) -> usize {
        self.0.values().map(|polls| Rc::strong_count(polls) - 1).sum()
    }

    /// Returns the nodes for which a poll waits.
    fn list(&mut self) -> Vec<Uuid> {
        self.0.retain(|_, polls| Rc::strong_count(polls) > 1);
        self.0.keys().copied().collect()
    }
}

impl Shard {
    /// Lets a poll wait for its session.
    pub(super) fn park(&mut self, socket: Socket, poll: Poll) {
        let Poll { of, wait, form, network } = poll;
        let answer_by = self.now.millis + wait.as_millis() as u64;
        let (late_millis, of_node) = match &of {
            PollOf::Session(session, _) => {
                let is_elsewhere = session.node != self.node.id;
                (LATE_MILLIS, is_elsewhere.then(|| self.polled_nodes.enter(session.node)))
            }
            PollOf::Opening(_) => (OPENING_LATE_MILLIS, None),
        };
        let counted = self.parked.clone();
        let parked = Box::new(Parked {
            until_millis: answer_by + late_millis,
            session: None,
            asking: None,
            network,
            form,
            counted,
            of_node,
        });
        let Some(key) = self.insert(socket, Role::Parked(parked)) else { return };
        let slot = key.slot;
        self.read_silent_input(slot);
        self.schedule(slot);
        let at = self.parked_at(key, network);
        let (session, asking) = match of {
            PollOf::Session(session, ask) => {
                (Some(session), self.node.poll_session(session, SessionAsk::Poll(ask), at, None))
            }
            PollOf::Opening(opening) => {
                let entered = self.enter(Socket::absent(), *opening);
                (entered.and_then(|slot| self.begin_polls(slot, at, answer_by)), None)
            }
        };
        if let Some(Connection { role: Role::Parked(parked), .. }) = self.connections.get_mut(slot as usize) {
            (parked.session, parked.asking) = (session, asking);
        }
    }

    fn parked_at(&self, key: ConnectionKey, network: ClientNetwork) -> ParkedAt {
        ParkedAt { via: Via { node: self.node.id, network: Some(network) }, address: self.address(key) }
    }

    /// Takes the answer of the session. The poll may have gone meanwhile.
    pub(super) fn take_poll_answer(&mut self, key: ConnectionKey, answer: SessionAnswer) {
        let Some(connection) = self.connections.get(key.slot as usize).filter(|c| c.is(key)) else { return };
        let Role::Parked(parked) = &connection.role else { return };
        if let Some(peers) = &self.node.peers
            && parked.session.is_some_and(|session| session.node != self.node.id)
        {
            peers.count_answer(parked.network, &answer);
        }
        let bytes = match &answer {
            SessionAnswer::Poll(answer) => answer.body.len(),
            _ => 0,
        };
        let response = match answer {
            SessionAnswer::Poll(answer) if self.has_room(parked, bytes) => {
                parked.form.last_response(parked.session, answer)
            }
            // The session has it for the next poll.
            SessionAnswer::Poll(_) => {
                self.counters.session_calls.busy.add(1);
                self.answer_room.refuse(self.now.millis);
                parked.form.last_refusal(&NO_ROOM)
            }
            SessionAnswer::Busy => {
                self.answer_room.refuse(self.now.millis);
                parked.form.last_refusal(&BUSY)
            }
            SessionAnswer::Unreachable => parked.form.last_refusal(&UNREACHABLE),
            SessionAnswer::TooOften => parked.form.last_refusal(&NoAnswer::TOO_OFTEN),
            SessionAnswer::Gone => parked.form.last_refusal(&HAS_ENDED),
            SessionAnswer::Overtaken => parked.form.last_refusal(&OVERTAKEN),
            // No answers to a poll that waits.
            SessionAnswer::Taken
            | SessionAnswer::Nothing
            | SessionAnswer::Full
            | SessionAnswer::OtherTopics => return,
        };
        self.finish_poll(key.slot, response);
        if bytes > SHORT_BYTES_MAX {
            // Only what the socket does not take uses room.
            self.reply_bytes += bytes;
            self.write(key.slot);
        }
    }

    /// Returns true if the shard on which a poll waits has room to send it an answer of so many bytes. That of another node says
    /// so by itself.
    pub(super) fn has_room_at(&self, at: &ParkedAt, bytes: usize) -> bool {
        if at.via.node != self.node.id || bytes <= SHORT_BYTES_MAX {
            return true;
        }
        if at.address.shard != self.index {
            let used = self.node.counters[usize::from(at.address.shard)].answer_bytes.value();
            return self.answer_room.has_room_for_poll(used as usize, 0, bytes);
        }
        match self.connections.get(at.address.connection.slot as usize).map(|connection| &connection.role) {
            Some(Role::Parked(parked)) => self.has_room(parked, bytes),
            _ => true,
        }
    }

    fn has_room(&self, poll: &Parked, bytes: usize) -> bool {
        let (used, own) = (self.answer_room.used(), self.answer_room.polled.of(&poll.network));
        bytes <= SHORT_BYTES_MAX || self.answer_room.has_room_for_poll(used, own, bytes)
    }

    /// Has it looked whether the nodes are alive for whose sessions polls wait.
    pub(super) fn look_for_polled_nodes(&mut self) {
        if let Some(peers) = &self.node.peers {
            let nodes = self.polled_nodes.list();
            if !nodes.is_empty() {
                peers.look_for(nodes, self.index);
            }
        }
    }

    /// Answers the polls that wait for sessions of a node that has died.
    pub(super) fn node_has_gone(&mut self, node: Uuid) {
        let is_of_node = |connection: &Connection| match &connection.role {
            Role::Parked(parked) => parked.session.is_some_and(|session| session.node == node),
            Role::Client(_) | Role::Closing { .. } => false,
        };
        let polls = self.connections.iter().filter(|(_, connection)| is_of_node(connection));
        let polls: Vec<_> = polls.map(|(slot, connection)| connection.key(slot as u32)).collect();
        for key in polls {
            self.take_poll_answer(key, SessionAnswer::Gone);
        }
    }

    /// The session's node has too much to do, or is not there for a moment.
    pub(super) fn poll_is_late(&mut self, slot: u32) {
        self.give_up_poll(slot, &LATE);
    }

    /// The node shuts down. The session may be elsewhere, and lasts.
    pub(super) fn send_poll_away(&mut self, slot: u32) {
        self.give_up_poll(slot, &SHUTS_DOWN);
    }

    fn give_up_poll(&mut self, slot: u32, why: &NoAnswer) {
        self.leave_poll(slot);
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let Role::Parked(parked) = &connection.role else { return };
        let response = parked.form.last_refusal(why);
        self.finish_poll(slot, response);
    }

    /// Tells the session that the client which waited has gone.
    pub(super) fn leave_poll(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let key = connection.key(slot);
        let Role::Parked(parked) = &mut connection.role else { return };
        let Some(session) = parked.session else { return };
        let (network, asking) = (parked.network, parked.asking.take());
        self.node.poll_session(session, SessionAsk::Left, self.parked_at(key, network), asking);
    }

    /// Sends the response, and closes behind it.
    pub(super) fn finish_poll(&mut self, slot: u32, response: Bytes) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let Role::Parked(parked) = &connection.role else { return };
        let bytes = response.len();
        let answered = Some(AnsweredPoll { network: parked.network, bytes, counted: parked.counted.clone() });
        self.answer_room.polled.add(parked.network, bytes);
        let peer = connection.response_progress();
        let until_millis = self.now.millis + CLOSE_PATIENCE.as_millis() as u64;
        let last_millis = self.now.millis + ANSWER_MILLIS_MAX;
        let framing = Framing::Ignored;
        connection.role = Role::Closing { until_millis, last_millis, framing, peer, answered };
        self.send(slot, response);
        self.schedule(slot);
    }
}
