//! WebSocket frames (RFC 6455) as a server sees them: masked bytes in, messages out, and the other way round.
//!
//! No socket and no buffer lives here: a connection between messages keeps one pointer, and what a peer declares
//! but does not send costs nothing.

pub mod client;
mod deflate;
mod extension;
mod mask;
mod read;
mod utf8;
mod write;

pub use deflate::{Deflater, InflateError, Inflater};
pub use extension::{Agreement, Deflate};
pub use mask::mask;
pub use read::{Limits, Message, Reader, Stop, Violation};
pub use write::{FrameHeader, close_frame, frame_header, framed, framed_before, write_frame};

/// The kinds of frames (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further piece of the message that a text or binary frame began.
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    /// Control frames are short, never fragmented, and may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// `None` for the numbers that the RFC keeps for later.
    fn from_bits(bits: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| *opcode as u8 == bits)
    }
}

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest reason in a close frame, beside the code (RFC 6455 section 5.5).
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - size_of::<u16>();

/// Returns the beginning of a text, in whole characters of so many bytes.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
