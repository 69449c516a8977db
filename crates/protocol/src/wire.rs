//! Wires: the ways in which clients are spoken to. Everything in which they differ is here.
//!
//! A wire is a body, which is what is encoded, and an envelope around it. Wires that have the body in common share its
//! encoding.

mod body;
mod cursor;
mod encoded;
mod envelope;

use bytes::Bytes;

use crate::TopicName;
use crate::centrifuge::{self, Commands, Encoding, codes};
use crate::plain::bare::{self, HeartbeatWord};
use crate::plain::event;
use crate::reason::{Close, CloseReason, Mistake, RequestError};
use crate::reply::{Outcome, Push, Reply};
use crate::request::{Ask, Malformed, Publish, Request};
use crate::websocket::{self, Opcode};
use body::{Body, REPLY_BYTES_EXPECTED};
use envelope::Envelope;

pub use encoded::Encoded;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// Centrifuge JSON in WebSocket text frames.
    CentrifugeJson,
    /// Centrifuge Protobuf in WebSocket binary frames.
    CentrifugeProtobuf,
    /// Centrifuge JSON in lines; requests come by other HTTP requests.
    CentrifugeLines,
    /// Centrifuge Protobuf messages one after the other; requests come by other HTTP requests.
    CentrifugeStream,
    /// Centrifuge JSON in Server-Sent Events; requests come by other HTTP requests.
    CentrifugeEvents,
    /// Centrifuge pushes in WebSocket text frames, for clients that only listen.
    UniWebSocket,
    /// The same in lines.
    UniLines,
    /// The same in Server-Sent Events.
    UniEvents,
    /// Publications in Server-Sent Events.
    Events,
    /// The same in lines of JSON (NDJSON).
    Lines,
    /// The same as items of a list in JSON, which answers to polls hold.
    Poll,
    /// The data of publications in WebSocket frames.
    Bare,
    /// Publications as lines of JSON have them, in WebSocket text frames. The client sends what it sends on a bare one.
    BareJson,
    /// WebSocket messages that come back as they were sent, for protocol test suites.
    Echo,
}

/// The way in which the bytes of a client are cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// WebSocket frames, whose control frames are answered below the wire.
    WebSocket,
    /// None: nothing that the client sends counts.
    Ignored,
}

/// A message of a client. Text and binary are kept apart, since some wires tell by it what a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> ClientMessage<'a> {
    /// Returns the bytes of either kind.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// The way in which a client is pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pings {
    /// By the wire's own messages, which the client answers.
    Messages,
    /// By the same messages, which the client does not answer, as it has no way to.
    Unanswered,
    /// By WebSocket ping frames, which every WebSocket client answers by itself.
    Frames,
    /// The client cannot answer: something is sent, so that a dead connection shows.
    Keepalive,
}

/// The way in which a connection is spoken to, as agreed when it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportMode {
    pub wire: Wire,
    pub pings: Pings,
}

/// The form that something has on a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Bytes(Bytes),
    /// Clients of the wire are not told.
    Nothing,
    /// Clients of the wire can be told only by the end of the connection.
    Close(CloseReason),
}

/// Pings: an empty JSON object, an empty Protobuf message after its length, each in its envelope, and a ping frame.
const PING_JSON: Bytes = Bytes::from_static(b"\x81\x02{}");
const PING_PROTOBUF: Bytes = Bytes::from_static(b"\x82\x01\x00");
const PING_LINE: Bytes = Bytes::from_static(b"{}\n");
const PING_EVENT: Bytes = Bytes::from_static(b"data: {}\n\n");
const PING_BYTES: Bytes = Bytes::from_static(b"\x00");
/// An empty line, which readers of lines of JSON pass over.
const KEEPALIVE_LINE: Bytes = Bytes::from_static(b"\n");
const PING_FRAME: Bytes = Bytes::from_static(b"\x89\x00");

/// The number of an end that needs no telling.
const NORMAL: u16 = 3000;

impl Wire {
    pub const ALL: [Self; 14] = [
        Self::CentrifugeJson,
        Self::CentrifugeProtobuf,
        Self::CentrifugeLines,
        Self::CentrifugeStream,
        Self::CentrifugeEvents,
        Self::UniWebSocket,
        Self::UniLines,
        Self::UniEvents,
        Self::Events,
        Self::Lines,
        Self::Poll,
        Self::Bare,
        Self::BareJson,
        Self::Echo,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// Returns the names of the transport and of the encoding, for metrics.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::CentrifugeJson => ("websocket", "json"),
            Self::CentrifugeProtobuf => ("websocket", "protobuf"),
            Self::CentrifugeLines => ("http_stream", "json"),
            Self::CentrifugeStream => ("http_stream", "protobuf"),
            Self::CentrifugeEvents => ("sse", "json"),
            Self::UniWebSocket => ("uni_websocket", "json"),
            Self::UniLines => ("uni_http_stream", "json"),
            Self::UniEvents => ("uni_sse", "json"),
            Self::Events => ("subscribe", "sse"),
            Self::Lines => ("subscribe", "ndjson"),
            Self::Poll => ("subscribe", "poll"),
            Self::Bare => ("subscribe", "websocket"),
            Self::BareJson => ("subscribe", "websocket_json"),
            Self::Echo => ("websocket", "echo"),
        }
    }

    const fn parts(self) -> (Body, Envelope) {
        match self {
            Self::CentrifugeJson => (Body::Json, Envelope::Frame),
            Self::CentrifugeProtobuf => (Body::Protobuf, Envelope::Frame),
            Self::CentrifugeLines => (Body::Json, Envelope::Line),
            Self::CentrifugeStream => (Body::Protobuf, Envelope::Bytes),
            Self::CentrifugeEvents => (Body::Json, Envelope::Event),
            Self::UniWebSocket => (Body::Push, Envelope::Frame),
            Self::UniLines => (Body::Push, Envelope::Line),
            Self::UniEvents => (Body::Push, Envelope::Event),
            Self::Events => (Body::Event, Envelope::Event),
            Self::Lines => (Body::Event, Envelope::Line),
            Self::Poll => (Body::Event, Envelope::Item),
            Self::Bare => (Body::Data, Envelope::Frame),
            Self::BareJson => (Body::Event, Envelope::Frame),
            Self::Echo => (Body::Nothing, Envelope::Frame),
        }
    }

    /// Returns true if requests come by other HTTP requests, while the connection itself is not read.
    pub fn is_emulated(self) -> bool {
        matches!(self, Self::CentrifugeLines | Self::CentrifugeStream | Self::CentrifugeEvents)
    }

    /// Returns true if the client connects, and from then on only listens.
    pub fn is_one_way(self) -> bool {
        matches!(self, Self::UniWebSocket | Self::UniLines | Self::UniEvents)
    }

    /// Returns true if each message of the client is data to be published.
    fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::BareJson)
    }

    /// Returns the framing of what the client sends once the connection is open.
    pub fn framing(self) -> Framing {
        match self.parts().1 {
            Envelope::Frame => Framing::WebSocket,
            Envelope::Line | Envelope::Item | Envelope::Event | Envelope::Bytes => Framing::Ignored,
        }
    }

    /// Returns true if anything is expected from the client once the connection is open.
    pub fn reads(self) -> bool {
        self.framing() != Framing::Ignored
    }

    /// Returns true if the client has to connect, and is then told of topics.
    pub fn connects(self) -> bool {
        self != Self::Echo
    }

    /// Returns true if its messages may be compressed as WebSocket messages are.
    pub fn is_compressible(self) -> bool {
        self.framing() == Framing::WebSocket
    }

    /// Returns the answer to a message that is not for a session.
    pub fn answer(self, message: ClientMessage<'_>, heartbeats: &[HeartbeatWord]) -> Option<Bytes> {
        let opcode = match (self, message) {
            (Self::Bare | Self::BareJson, ClientMessage::Text(text)) => {
                return bare::answer(text, heartbeats);
            }
            (Self::Echo, ClientMessage::Text(_)) => Opcode::Text,
            (Self::Echo, ClientMessage::Binary(_)) => Opcode::Binary,
            _ => return None,
        };
        Some(websocket::framed(opcode, |to| to.extend_from_slice(message.bytes())))
    }

    /// Returns the requests in a message, from the place in it up to which it was `taken`; see [`Requests::taken`].
    /// What was found good of the message as a whole is not looked at again, so it costs nothing to stop after each
    /// request.
    pub fn requests(self, message: ClientMessage<'_>, taken: usize) -> Requests<'_> {
        let commands = |encoding| centrifuge::commands_from(encoding, message.bytes(), taken);
        match self.parts().0 {
            Body::Json => Requests::Centrifuge(commands(Encoding::Json)),
            Body::Protobuf => Requests::Centrifuge(commands(Encoding::Protobuf)),
            Body::Push => Requests::Connect { message: message.bytes(), is_taken: taken > 0 },
            _ if self.is_bare() => Requests::Publish { message, topic: None, is_taken: taken > 0 },
            Body::Event | Body::Data | Body::Nothing => Requests::Nothing,
        }
    }

    pub fn reply(self, reply: &Reply) -> Form {
        let (body, envelope) = self.parts();
        let write = |fill: &dyn Fn(&mut Vec<u8>)| {
            Form::Bytes(envelope.write(body.opcode(), REPLY_BYTES_EXPECTED, fill).bytes)
        };
        match (body, &reply.result) {
            (Body::Json | Body::Protobuf, _) => write(&|to| body.reply(reply, to)),
            (Body::Push, Ok(Outcome::Connected(connected))) => {
                write(&|to| Body::connected((&**connected).into(), to))
            }
            (Body::Push, Err(refused)) => Form::Close(match refused.error {
                RequestError::TokenExpired | RequestError::Expired => CloseReason::Expired,
                RequestError::TooManyRequests => CloseReason::TooManyRequests,
                RequestError::PermissionDenied => CloseReason::PermissionDenied,
                _ => CloseReason::ServerError,
            }),
            (_, Err(refused)) if self.is_bare() => Form::Bytes(bare::refusal(refused)),
            // The replies to its first requests decide on the response instead, and then it sends none.
            (Body::Event | Body::Data | Body::Nothing, _) | (Body::Push, Ok(_)) => Form::Nothing,
        }
    }

    pub fn push(self, push: &Push) -> Form {
        match (self.parts().0, push) {
            // Such a client cannot subscribe by itself: it comes back as a whole, or is told to stay away.
            (Body::Event | Body::Data, Push::Unsubscribed { reason, .. }) => {
                Form::Close(match reason.resubscribes() {
                    true => CloseReason::ForceReconnect,
                    false => CloseReason::ForceDisconnect,
                })
            }
            (body, push) if body.has(push) => Form::Bytes(self.encode(push, None).bytes),
            _ => Form::Nothing,
        }
    }

    /// Returns true if a push needs no encoding for this wire where it has been encoded for the other.
    pub fn is_kin(self, other: Self) -> bool {
        self.parts().0.is_kin(other.parts().0)
    }

    /// Returns a push that goes to many. `kin` is what it is on a kindred wire: its body is used then.
    pub fn encode(self, push: &Push, kin: Option<(Self, &Encoded)>) -> Encoded {
        let (body, envelope) = self.parts();
        if !body.has(push) {
            return Encoded::default();
        }
        if let (Body::Data, Push::Publication { publication, .. }) = (body, push) {
            let (opcode, payload) = bare::message(publication);
            return envelope.write(opcode, payload.len(), |to| to.extend_from_slice(&payload));
        }
        if body == Body::Event {
            let kin = kin.filter(|(kin, _)| self.is_kin(*kin)).map(|(_, encoded)| encoded);
            return self.encode_with_cursor(push, kin);
        }
        match kin {
            Some((kin, encoded)) if self.is_kin(kin) => {
                envelope.wrap(body.opcode(), body.of_kin(kin.parts().0, encoded.body()))
            }
            _ => envelope.write(body.opcode(), Body::bytes_expected(push), |to| body.push(push, to)),
        }
    }

    pub fn ping(self, pings: Pings) -> Bytes {
        match (pings, self.parts()) {
            (Pings::Frames, _) | (_, (Body::Nothing, _)) => PING_FRAME,
            (_, (Body::Event, Envelope::Line)) => KEEPALIVE_LINE,
            // The answers themselves are a sign of life.
            (_, (Body::Event, Envelope::Item)) => Bytes::new(),
            (Pings::Keepalive, _) | (_, (Body::Event, _)) => Bytes::from_static(event::KEEPALIVE),
            (Pings::Messages | Pings::Unanswered, (Body::Protobuf, Envelope::Frame)) => PING_PROTOBUF,
            (Pings::Messages | Pings::Unanswered, (_, envelope)) => match envelope {
                Envelope::Frame => PING_JSON,
                Envelope::Line => PING_LINE,
                Envelope::Item => Bytes::new(),
                Envelope::Event => PING_EVENT,
                Envelope::Bytes => PING_BYTES,
            },
        }
    }

    /// Returns the last bytes of a connection that the server ends.
    pub fn goodbye(self, close: &Close) -> Bytes {
        let (number, text) = codes::close(close);
        let (body, envelope) = self.parts();
        let disconnect = || {
            let fill = |to: &mut Vec<u8>| body.disconnect(number, &text, to);
            envelope.write(body.opcode(), REPLY_BYTES_EXPECTED, fill).bytes
        };
        match (body, envelope) {
            (Body::Push, Envelope::Frame) => {
                [disconnect(), websocket::close_frame(number, &text)].concat().into()
            }
            (_, Envelope::Frame) => websocket::close_frame(number, &text),
            (Body::Event, _) => {
                let mut last = Vec::new();
                match envelope {
                    Envelope::Line => event::disconnect_line(close, &mut last),
                    Envelope::Item => event::disconnect_answer(close, &mut last),
                    _ => event::disconnect(close, &mut last),
                }
                last.into()
            }
            (Body::Json | Body::Protobuf, _) if number == NORMAL => Bytes::new(),
            _ => disconnect(),
        }
    }
}

/// Iterates over the requests of a message; see [`Wire::requests`].
#[derive(Debug)]
pub enum Requests<'a> {
    Centrifuge(Commands<'a>),
    /// The whole message is a connect request.
    Connect {
        message: &'a [u8],
        is_taken: bool,
    },
    /// The whole message is to be published into the topic.
    Publish {
        message: ClientMessage<'a>,
        topic: Option<TopicName>,
        is_taken: bool,
    },
    /// The wire has no requests.
    Nothing,
}

impl Requests<'_> {
    /// Has messages that are to be published go to this topic.
    pub fn publishing_to(self, topic: Option<TopicName>) -> Self {
        match self {
            Self::Publish { message, is_taken, .. } => Self::Publish { message, topic, is_taken },
            other => other,
        }
    }

    /// Returns how many bytes of the message the requests so far took, with what separates them from the next: none
    /// before the first, all when no other follows.
    pub fn taken(&self) -> usize {
        match self {
            Self::Centrifuge(commands) => commands.taken(),
            Self::Connect { message, is_taken: true } => message.len(),
            Self::Publish { message, is_taken: true, .. } => message.bytes().len(),
            Self::Connect { .. } | Self::Publish { .. } | Self::Nothing => 0,
        }
    }
}

impl Iterator for Requests<'_> {
    type Item = Result<Request, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Centrifuge(commands) => Some(commands.next()?.map(Request::from)),
            Self::Connect { message, is_taken } => {
                if std::mem::replace(is_taken, true) {
                    return None;
                }
                let connect = centrifuge::connect_request(message);
                Some(connect.map(|connect| Request { id: 1, ask: Ask::Connect(connect.into()) }))
            }
            Self::Publish { message, topic, is_taken } => {
                let is_next = !std::mem::replace(is_taken, true);
                is_next.then(|| Ok(Request { id: 1, ask: publish(*message, topic.as_ref()) }))
            }
            Self::Nothing => None,
        }
    }
}

/// Has a message published as it is. Without a topic it is refused.
fn publish(message: ClientMessage<'_>, topic: Option<&TopicName>) -> Ask {
    let Some(topic) = topic else { return Ask::Refused(Mistake::NoPublishTopic) };
    let (data, tags) = match message {
        ClientMessage::Text(text) => bare::data(text),
        ClientMessage::Binary(bytes) => (Bytes::copy_from_slice(bytes), None),
    };
    Ask::Publish(Publish { topic: topic.as_str().to_owned(), data, tags, is_unserved: false })
}
