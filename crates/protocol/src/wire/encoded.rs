//! A push as one wire has it, with the place of the part that other wires can use.

use std::ops::Range;

use bytes::Bytes;

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

    pub(super) fn body(&self) -> Bytes {
        self.bytes.slice(self.body.start as usize..self.body.end as usize)
    }
}
