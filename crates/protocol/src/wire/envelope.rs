//! Envelopes: the bytes around a body.

use bytes::Bytes;

use super::Encoded;
use crate::websocket::{self, Opcode};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// A WebSocket frame.
    Frame,
    /// A line of text.
    Line,
    /// An item of a list in JSON, with the comma behind it.
    Item,
    /// An event without a name (WHATWG HTML, section 9.2).
    Event,
    /// Nothing: the body says where it ends.
    Bytes,
}

impl Envelope {
    /// Puts the body that `fill` appends into an envelope. `expected` is about the length of the body.
    pub(super) fn write(self, opcode: Opcode, expected: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Encoded {
        if self == Self::Frame {
            return framed(opcode, |to| {
                fill(to);
                0
            });
        }
        let (before, after) = (self.before(), self.after());
        let mut bytes = Vec::with_capacity(before.len() + expected + after.len());
        bytes.extend_from_slice(before);
        fill(&mut bytes);
        Encoded::end(bytes, before.len(), after)
    }

    /// Returns what stands before a body. A frame's depends on its length.
    pub(super) fn before(self) -> &'static [u8] {
        match self {
            Self::Event => b"data: ",
            Self::Frame | Self::Line | Self::Item | Self::Bytes => b"",
        }
    }

    /// Returns what stands behind a body.
    pub(super) fn after(self) -> &'static [u8] {
        match self {
            Self::Event => b"\n\n",
            Self::Line => b"\n",
            Self::Item => b",",
            Self::Frame | Self::Bytes => b"",
        }
    }

    /// Puts a body that is at hand into an envelope.
    pub(super) fn wrap(self, opcode: Opcode, body: Bytes) -> Encoded {
        match self {
            Self::Bytes => {
                let whole = 0..body.len();
                Encoded::new(body, whole)
            }
            Self::Frame | Self::Line | Self::Item | Self::Event => {
                self.write(opcode, body.len(), |to| to.extend_from_slice(&body))
            }
        }
    }
}

/// Makes a frame of what `fill` appends. It returns how many bytes stand before the body.
pub(super) fn framed(opcode: Opcode, fill: impl FnOnce(&mut Vec<u8>) -> usize) -> Encoded {
    let mut body_bytes = 0;
    let bytes = websocket::framed(opcode, |to| {
        let begin = to.len();
        let before = fill(to);
        body_bytes = to.len() - begin - before;
    });
    let body = bytes.len() - body_bytes..bytes.len();
    Encoded::new(bytes, body)
}
