//! A push as one wire has it, with the place of the part that other wires can use.

use std::ops::Range;

use bytes::Bytes;

/// The unused room that may stay behind a message.
const ROOM_BYTES_MAX: usize = 64;

/// A push on one wire. Empty where the wire has no form for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Bytes,
    /// The place of the body in the bytes. A push is far shorter than `u32::MAX`.
    body: Range<u32>,
}

impl Encoded {
    pub(super) fn new(bytes: Bytes, body: Range<usize>) -> Self {
        Self { bytes, body: body.start as u32..body.end as u32 }
    }

    /// Ends bytes whose body lies between `begin` and their end.
    pub(super) fn end(mut bytes: Vec<u8>, begin: usize, after: &[u8]) -> Self {
        let body = begin..bytes.len();
        bytes.extend_from_slice(after);
        // Queues count the bytes they hold, so there must be little unused room behind them.
        if bytes.capacity() - bytes.len() > ROOM_BYTES_MAX {
            bytes.shrink_to_fit();
        }
        Self::new(bytes.into(), body)
    }

    /// Returns the body and all that follows.
    pub(super) fn body_and_after(&self) -> Bytes {
        self.bytes.slice(self.body.start as usize..)
    }

    pub(super) fn body(&self) -> Bytes {
        self.bytes.slice(self.body.start as usize..self.body.end as usize)
    }
}
