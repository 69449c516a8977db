//! Protocols of clients: one implementation for each protocol, one value for all clients of a run.
//!
//! A dialect handles rare messages only: answers, pings, refusals. Measured messages are recognised by their marker before.

use std::rc::Rc;

use base64::Engine as _;
use fanwire_protocol::websocket::Opcode;
use fanwire_protocol::websocket::client::write_masked;

use crate::client::Lost;

mod centrifuge;
mod commands;
pub(crate) mod nats;
mod nchan;
mod plain;
mod poll;
mod raw;
mod socketio;
mod stream;
mod uni;
mod ws;

pub(crate) use centrifuge::{Centrifuge, Tokens, USER_COOKIE};
pub(crate) use nats::Nats;
pub(crate) use nchan::Nchan;
pub(crate) use plain::Plain;
pub(crate) use poll::Polling;
pub(crate) use raw::Raw;
pub(crate) use socketio::SocketIo;
pub(crate) use stream::Stream;
pub(crate) use uni::Uni;
pub(crate) use ws::Ws;

/// The protocol of a client.
pub(crate) trait Dialect {
    /// The division of bytes into messages.
    fn framing(&self) -> Framing;

    /// Writes the first bytes of a connected client: usually a request, after which it is `Waiting` for the response's head.
    /// Returns `Live` if it sends nothing and waits for nothing. A client that polls also begins so after each answer.
    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost>;

    /// Handles the response's head, with status 101 or 200. Most servers speak first.
    fn opened(&self, _client: usize, _head: &[u8], _say: &mut Say<'_>) -> Result<Progress, Lost> {
        Ok(Progress::Waiting)
    }

    /// Handles a message that is not measured: an answer, a ping, anything else. `step` belongs to the client and is zero at
    /// first; the dialect counts its answers in it.
    fn message(
        &self,
        _client: usize,
        _step: &mut u8,
        _message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        Ok(Progress::Other)
    }
}

/// The state of a client after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Set-up continues.
    Waiting,
    /// Subscribed to all topics; returned once.
    Live,
    /// The message was a ping; the answer, if there is one, is queued.
    Ping,
    /// A message to be counted and ignored.
    Other,
}

/// The division of bytes into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// WebSocket frames, compressed or not.
    WebSocket(Units),
    /// The body of a response, as long as the connection lasts.
    Body(BodyUnits),
    /// Responses, each the answer to a poll, whose body is one message with any number of measured ones in it.
    Answers,
}

/// The division of a body into messages, which its parts cut anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyUnits {
    /// Server-Sent Events, each of which ends with an empty line.
    Events,
    /// Messages that end with their line.
    Lines,
    /// Messages, each after its length as a varint.
    LengthPrefixed,
}

/// The format in which messages come to clients that only listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushFormat {
    /// Server-Sent Events.
    Events,
    /// Lines of JSON.
    Lines,
    WebSocket,
}

impl PushFormat {
    /// Returns the division into messages; of frames, if it has any, into these units.
    fn framing(self, units: Units) -> Framing {
        match self {
            Self::Events => Framing::Body(BodyUnits::Events),
            Self::Lines => Framing::Body(BodyUnits::Lines),
            Self::WebSocket => Framing::WebSocket(units),
        }
    }
}

/// The division of a frame into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Units {
    /// One message, the whole frame.
    Whole,
    /// One message a line.
    Lines,
    /// Messages, each after its length as a varint.
    LengthPrefixed,
    /// NATS commands, which end with CR LF; `MSG` is followed by the bytes that it announces and CR LF again. Frames may cut
    /// them.
    NatsCommands,
}

/// The answers of a client.
#[derive(Debug)]
pub(crate) struct Say<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Say<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(crate) fn text(&mut self, payload: &[u8]) {
        write_frame(Opcode::Text, payload, self.out);
    }

    pub(crate) fn binary(&mut self, payload: &[u8]) {
        write_frame(Opcode::Binary, payload, self.out);
    }
}

/// A fixed key: masking protects proxies from scripts, and there are neither here. It is not zero, so that the server
/// has the work of unmasking.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Appends one masked frame.
pub(crate) fn write_frame(opcode: Opcode, payload: &[u8], to: &mut Vec<u8>) {
    write_masked(opcode, payload, MASK, to);
}

/// The subscriptions of clients. A topic is a number, from which its name is made.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    /// The prefix of every name: usually a namespace.
    pub(crate) prefix: String,
    pub(crate) seats: Seats,
}

/// The assignment of clients to topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seats {
    /// All clients in this many topics.
    All { topics: usize },
    /// Each client in `per_client` rooms, so that all rooms are equally full.
    Rooms { rooms: usize, per_client: usize },
    /// One topic of its own for each client.
    Own,
    /// One topic for each client, in turn.
    Rotating { topics: usize },
}

impl Audience {
    /// Makes an audience with these seats.
    pub(crate) fn new(prefix: &str, seats: Seats) -> Rc<Self> {
        Rc::new(Self { prefix: prefix.to_owned(), seats })
    }

    pub(crate) fn topic_name(&self, topic: usize) -> String {
        format!("{}topic-{topic}", self.prefix)
    }

    /// Returns the topics of one client.
    pub(crate) fn topics_of(&self, client: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, count, modulus) = match self.seats {
            Seats::All { topics } => (0, topics, topics),
            Seats::Rooms { rooms, per_client } => (client * per_client, per_client, rooms),
            Seats::Own => (client, 1, usize::MAX),
            Seats::Rotating { topics } => (client, 1, topics),
        };
        (first..first + count).map(move |topic| topic % modulus)
    }

    /// Returns how many of the first `clients` clients are in a topic.
    pub(crate) fn members(&self, topic: usize, clients: usize) -> usize {
        let (topics, seats) = match self.seats {
            Seats::All { topics } => (topics, clients * topics),
            Seats::Rooms { rooms, per_client } => (rooms, clients * per_client),
            Seats::Own => (clients, clients),
            Seats::Rotating { topics } => (topics, clients),
        };
        // Topics get seats in turn.
        if topic < topics { seats / topics + usize::from(topic < seats % topics) } else { 0 }
    }

    /// Returns the names of one client's topics.
    pub(crate) fn topic_names_of(&self, client: usize) -> impl Iterator<Item = String> {
        self.topics_of(client).map(|topic| self.topic_name(topic))
    }
}

/// Appends a WebSocket handshake; `headers` are whole lines with their ends.
pub(crate) fn websocket_request(out: &mut Vec<u8>, host: &str, path: &str, client: usize, headers: &str) {
    let key = base64::engine::general_purpose::STANDARD.encode((client as u128).to_be_bytes());
    out.extend_from_slice(
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        .as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_equally_full() {
        let audience = Audience::new("load:", Seats::Rooms { rooms: 10, per_client: 3 });
        let mut members = [0; 10];
        for client in 0..20 {
            let topics: Vec<usize> = audience.topics_of(client).collect();
            assert_eq!(topics.len(), 3);
            for topic in topics {
                members[topic] += 1;
            }
        }
        assert_eq!(members, [6; 10]);
    }

    #[test]
    fn members_are_as_many_as_are_seated() {
        for seats in [
            Seats::All { topics: 3 },
            Seats::Own,
            Seats::Rooms { rooms: 7, per_client: 2 },
            Seats::Rotating { topics: 4 },
        ] {
            let audience = Audience::new("", seats);
            for topic in 0..9 {
                let seated = |client: &usize| audience.topics_of(*client).any(|known| known == topic);
                assert_eq!(audience.members(topic, 9), (0..9).filter(seated).count(), "{seats:?} {topic}");
            }
        }
    }

    #[test]
    fn each_seating_has_its_topics() {
        let topics = |seats, client| Audience::new("", seats).topics_of(client).collect::<Vec<_>>();
        assert_eq!(topics(Seats::All { topics: 2 }, 7), [0, 1]);
        assert!(topics(Seats::All { topics: 0 }, 7).is_empty());
        assert_eq!(topics(Seats::Own, 7), [7]);
        assert_eq!(topics(Seats::Rotating { topics: 5 }, 7), [2]);
        assert_eq!(Audience::new("load:", Seats::Own).topic_name(3), "load:topic-3");
    }
}
