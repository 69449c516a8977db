//! Wires: the ways in which clients are spoken to. Everything in which they differ is here.

use bytes::Bytes;

use crate::centrifuge::{self, Commands, Encoding, ReplyMessage, codes};
use crate::plain::sse;
use crate::reason::{Close, CloseReason};
use crate::reply::{Push, Reply};
use crate::request::{Malformed, Request};
use crate::websocket::{self, Opcode};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// Centrifuge JSON in WebSocket text frames.
    CentrifugeJson,
    /// Centrifuge Protobuf in WebSocket binary frames.
    CentrifugeProtobuf,
    /// Server-Sent Events.
    Sse,
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

/// Pings: an empty JSON object, an empty Protobuf message after its length, each framed, and a ping frame.
const PING_JSON: Bytes = Bytes::from_static(b"\x81\x02{}");
const PING_PROTOBUF: Bytes = Bytes::from_static(b"\x82\x01\x00");
const PING_FRAME: Bytes = Bytes::from_static(b"\x89\x00");

impl Wire {
    pub const ALL: [Self; 4] = [Self::CentrifugeJson, Self::CentrifugeProtobuf, Self::Sse, Self::Echo];
    pub const COUNT: usize = Self::ALL.len();

    /// Returns the names of the transport and of the encoding, for metrics.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::CentrifugeJson => ("websocket", "json"),
            Self::CentrifugeProtobuf => ("websocket", "protobuf"),
            Self::Sse => ("sse", "json"),
            Self::Echo => ("websocket", "echo"),
        }
    }

    /// Returns the framing of what the client sends once the connection is open.
    pub fn framing(self) -> Framing {
        match self {
            Self::CentrifugeJson | Self::CentrifugeProtobuf | Self::Echo => Framing::WebSocket,
            Self::Sse => Framing::Ignored,
        }
    }

    /// Returns true if anything is expected from the client once the connection is open.
    pub fn reads(self) -> bool {
        self.framing() != Framing::Ignored
    }

    /// Returns true if the client has to connect, and is then told of topics.
    pub fn connects(self) -> bool {
        match self {
            Self::CentrifugeJson | Self::CentrifugeProtobuf | Self::Sse => true,
            Self::Echo => false,
        }
    }

    /// Returns true if its messages may be compressed as WebSocket messages are.
    pub fn is_compressible(self) -> bool {
        self.framing() == Framing::WebSocket
    }

    /// Returns the answer to a message that is not for a session.
    pub fn answer(self, message: ClientMessage<'_>) -> Option<Bytes> {
        let opcode = match (self, message) {
            (Self::CentrifugeJson | Self::CentrifugeProtobuf | Self::Sse, _) => return None,
            (Self::Echo, ClientMessage::Text(_)) => Opcode::Text,
            (Self::Echo, ClientMessage::Binary(_)) => Opcode::Binary,
        };
        Some(websocket::framed(opcode, |to| to.extend_from_slice(message.bytes())))
    }

    /// Returns the requests in a message, from the place in it up to which it was `taken`; see [`Requests::taken`].
    /// What was found good of the message as a whole is not looked at again, so it costs nothing to stop after each
    /// request.
    pub fn requests(self, message: ClientMessage<'_>, taken: usize) -> Requests<'_> {
        let commands = |encoding| centrifuge::commands_from(encoding, message.bytes(), taken);
        match self {
            Self::CentrifugeJson => Requests::Centrifuge(commands(Encoding::Json)),
            Self::CentrifugeProtobuf => Requests::Centrifuge(commands(Encoding::Protobuf)),
            Self::Sse | Self::Echo => Requests::Nothing,
        }
    }

    pub fn reply(self, reply: &Reply) -> Form {
        match self {
            Self::CentrifugeJson => Form::Bytes(framed(Encoding::Json, &reply.into())),
            Self::CentrifugeProtobuf => Form::Bytes(framed(Encoding::Protobuf, &reply.into())),
            Self::Sse if reply.result.is_err() => Form::Close(CloseReason::ServerError),
            Self::Sse | Self::Echo => Form::Nothing,
        }
    }

    pub fn push(self, push: &Push) -> Form {
        match self {
            Self::CentrifugeJson => Form::Bytes(framed(Encoding::Json, &push.into())),
            Self::CentrifugeProtobuf => Form::Bytes(framed(Encoding::Protobuf, &push.into())),
            Self::Sse => match push {
                Push::Publication { topic, publication, .. } => {
                    let mut event = Vec::with_capacity(publication.data.len() + 64);
                    sse::publication(topic, publication, &mut event);
                    Form::Bytes(event.into())
                }
                // Such a client cannot subscribe by itself: it comes back as a whole, or is told to stay away.
                Push::Unsubscribed { reason, .. } => Form::Close(match reason.resubscribes() {
                    true => CloseReason::ForceReconnect,
                    false => CloseReason::ForceDisconnect,
                }),
                Push::Join { .. } | Push::Leave { .. } | Push::Subscribed { .. } | Push::Refreshed { .. } => {
                    Form::Nothing
                }
            },
            Self::Echo => Form::Nothing,
        }
    }

    pub fn ping(self, pings: Pings) -> Bytes {
        match (pings, self) {
            (Pings::Messages, Self::CentrifugeJson) => PING_JSON,
            (Pings::Messages, Self::CentrifugeProtobuf) => PING_PROTOBUF,
            (Pings::Frames, _) | (Pings::Messages, Self::Echo) => PING_FRAME,
            (Pings::Keepalive, _) | (_, Self::Sse) => Bytes::from_static(sse::KEEPALIVE),
        }
    }

    /// Returns the last bytes of a connection that the server ends.
    pub fn goodbye(self, close: &Close) -> Bytes {
        match self {
            Self::CentrifugeJson | Self::CentrifugeProtobuf | Self::Echo => {
                let (number, text) = codes::close(close);
                websocket::close_frame(number, &text)
            }
            Self::Sse => {
                let mut event = Vec::new();
                sse::disconnect(close, &mut event);
                event.into()
            }
        }
    }
}

/// Iterates over the requests of a message; see [`Wire::requests`].
#[derive(Debug)]
pub enum Requests<'a> {
    Centrifuge(Commands<'a>),
    /// The wire has no requests.
    Nothing,
}

impl Requests<'_> {
    /// Returns how many bytes of the message the requests so far took, with what separates them from the next: none
    /// before the first, all when no other follows.
    pub fn taken(&self) -> usize {
        match self {
            Self::Centrifuge(commands) => commands.taken(),
            Self::Nothing => 0,
        }
    }
}

impl Iterator for Requests<'_> {
    type Item = Result<Request, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Centrifuge(commands) => Some(commands.next()?.map(Request::from)),
            Self::Nothing => None,
        }
    }
}

fn framed(encoding: Encoding, message: &ReplyMessage) -> Bytes {
    websocket::framed(encoding.opcode(), |to| centrifuge::encode(encoding, message, to))
}
