//! The two ways of writing a message.

use crate::websocket::Opcode;

/// The encoding of a connection's messages, chosen when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Objects, one a line, in text frames.
    Json,
    /// Messages, each after its length, in binary frames.
    Protobuf,
}

impl Encoding {
    /// The kind of WebSocket frame that carries it.
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::Protobuf => Opcode::Binary,
        }
    }
}
