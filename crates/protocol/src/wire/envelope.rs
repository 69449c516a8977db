//! Envelopes: the bytes around a body.

use bytes::Bytes;

use super::Encoded;
use crate::websocket::{self, Opcode};

/// The unused room that may stay behind a message.
const ROOM_BYTES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// A WebSocket frame.
    Frame,
    /// A line of text.
    Line,
    /// An event without a name (WHATWG HTML, section 9.2).
    Event,
    /// Nothing: the body says where it ends.
    Bytes,
}

impl Envelope {
    /// Puts the body that `fill` appends into an envelope. `expected` is about the length of the body.
    pub(super) fn write(self, opcode: Opcode, expected: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Encoded {
        let (before, after): (&[u8], &[u8]) = match self {
            Self::Frame => return framed(opcode, fill),
            Self::Line => (b"", b"\n"),
            Self::Event => (b"data: ", b"\n\n"),
            Self::Bytes => (b"", b""),
        };
        let mut bytes = Vec::with_capacity(before.len() + expected + after.len());
        bytes.extend_from_slice(before);
        fill(&mut bytes);
        let body = before.len()..bytes.len();
        bytes.extend_from_slice(after);
        // Queues count the bytes they hold, so there must be little unused room behind them.
        if bytes.capacity() - bytes.len() > ROOM_BYTES_MAX {
            bytes.shrink_to_fit();
        }
        Encoded::new(bytes.into(), body)
    }

    /// Puts a body that is at hand into an envelope.
    pub(super) fn wrap(self, opcode: Opcode, body: Bytes) -> Encoded {
        match self {
            Self::Bytes => {
                let whole = 0..body.len();
                Encoded::new(body, whole)
            }
            Self::Frame | Self::Line | Self::Event => {
                self.write(opcode, body.len(), |to| to.extend_from_slice(&body))
            }
        }
    }
}

fn framed(opcode: Opcode, fill: impl FnOnce(&mut Vec<u8>)) -> Encoded {
    let mut body_bytes = 0;
    let bytes = websocket::framed(opcode, |to| {
        let begin = to.len();
        fill(to);
        body_bytes = to.len() - begin;
    });
    let body = bytes.len() - body_bytes..bytes.len();
    Encoded::new(bytes, body)
}
