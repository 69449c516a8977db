//! The Centrifuge client protocol, version 2, in JSON and Protobuf.
//!
//! A client sends commands, the server sends replies; several of either may share one frame.
//! Its "channel" is our topic, and lives only in this folder.

pub mod decode;
pub mod encode;
pub mod message;
pub mod replies;

pub use decode::{Commands, Malformed, Request, commands, commands_from};
pub use encode::{encode, frame_of};
pub use message::*;

use crate::websocket::Opcode;

/// How a connection's messages are written, chosen when it opens.
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
