//! Bodies: the encodings of replies and pushes, without what a wire puts around them.

use bytes::Bytes;
use serde::Serialize;

use crate::centrifuge::{self, ConnectResult, Disconnect, Encoding, PushMessage, ReplyMessage};
use crate::json;
use crate::reply::{Push, Reply};
use crate::websocket::Opcode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// A reply of the Centrifuge protocol in JSON.
    Json,
    /// The push of such a reply alone, for clients that only listen.
    Push,
    /// A reply of the Centrifuge protocol in Protobuf, after its length.
    Protobuf,
    /// A publication without a protocol around it, in JSON, after its cursor.
    Event,
    /// The data of a publication.
    Data,
    /// There are none.
    Nothing,
}

/// The bytes of a reply in JSON before its push; one byte follows the push.
const BEFORE_PUSH: &[u8] = br#"{"push":"#;

/// About the bytes of a reply.
pub(super) const REPLY_BYTES_EXPECTED: usize = 500;

impl Body {
    /// Returns the kind of WebSocket frame that carries it.
    pub(super) fn opcode(self) -> Opcode {
        match self {
            Self::Protobuf => Encoding::Protobuf.opcode(),
            Self::Json | Self::Push | Self::Event | Self::Data | Self::Nothing => Encoding::Json.opcode(),
        }
    }

    /// Returns true if a push has a form.
    pub(super) fn has(self, push: &Push) -> bool {
        match self {
            Self::Json | Self::Push | Self::Protobuf => true,
            Self::Event | Self::Data => matches!(push, Push::Publication { .. }),
            Self::Nothing => false,
        }
    }

    /// Returns about the bytes that a push takes.
    pub(super) fn bytes_expected(push: &Push) -> usize {
        match push {
            Push::Publication { publication, .. } => publication.data.len() + 64,
            _ => REPLY_BYTES_EXPECTED,
        }
    }

    /// Appends a push, if it has a form.
    pub(super) fn push(self, push: &Push, to: &mut Vec<u8>) {
        match self {
            Self::Json | Self::Push | Self::Protobuf => self.message(push.into(), to),
            // A publication that has a form there has a cursor before it, or is a message of its own kind.
            Self::Event | Self::Data | Self::Nothing => {}
        }
    }

    /// Appends a reply that has a form.
    pub(super) fn reply(self, reply: &Reply, to: &mut Vec<u8>) {
        match self {
            Self::Json => centrifuge::encode(Encoding::Json, &reply.into(), to),
            Self::Protobuf => centrifuge::encode(Encoding::Protobuf, &reply.into(), to),
            Self::Push | Self::Event | Self::Data | Self::Nothing => {}
        }
    }

    /// Appends the first message to a client that only listens.
    pub(super) fn connected(result: ConnectResult, to: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Connected {
            connect: ConnectResult,
        }

        json::write(&Connected { connect: result }, to);
    }

    /// Appends the last message of a connection that the server ends.
    pub(super) fn disconnect(self, number: u16, text: &str, to: &mut Vec<u8>) {
        let disconnect = Disconnect { code: number.into(), reason: text.to_owned() };
        self.message(PushMessage { disconnect: Some(disconnect), ..PushMessage::default() }, to);
    }

    fn message(self, push: PushMessage, to: &mut Vec<u8>) {
        match self {
            Self::Json => {
                let begin = to.len();
                json::write(&ReplyMessage::from(push), to);
                debug_assert!(to[begin..].starts_with(BEFORE_PUSH), "a push is alone in its reply");
            }
            Self::Push => json::write(&push, to),
            Self::Protobuf => centrifuge::encode(Encoding::Protobuf, &push.into(), to),
            Self::Event | Self::Data | Self::Nothing => {}
        }
    }

    /// Returns true if it can be made of another body of the same push.
    pub(super) fn is_kin(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Json, Self::Push) | (Self::Push, Self::Json))
    }

    /// Makes it of a kindred body of the same push.
    pub(super) fn of_kin(self, other: Self, body: Bytes) -> Bytes {
        match (self, other) {
            (Self::Push, Self::Json) => body.slice(BEFORE_PUSH.len()..body.len() - 1),
            (Self::Json, Self::Push) => [BEFORE_PUSH, &*body, b"}"].concat().into(),
            _ => body,
        }
    }
}
