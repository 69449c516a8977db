//! Frames a server sends: unmasked, never fragmented, header and payload in one piece of memory.

use bytes::{Buf, Bytes};

use super::{CONTROL_BYTES_MAX, Opcode, REASON_BYTES_MAX, beginning};

/// The longest header without a mask: two bytes and a 64-bit length.
const HEADER_BYTES_MAX: usize = 10;

/// Room for a first payload of everyday size, so that encoding it allocates once.
const PAYLOAD_BYTES_EXPECTED: usize = 500;

const FINAL: u8 = 0x80;

/// The first reserved bit, which says that the message is compressed (RFC 7692 section 6).
pub(super) const DEFLATED: u8 = 0x40;

/// The bytes that stand before a payload.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    /// Right-aligned, so that it can be laid directly before a payload that begins at `HEADER_BYTES_MAX`.
    bytes: [u8; HEADER_BYTES_MAX],
    start: usize,
}

impl FrameHeader {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The header of a frame whose payload is compressed.
    pub(super) fn deflated(mut self) -> Self {
        self.bytes[self.start] |= DEFLATED;
        self
    }
}

/// The header of a final frame with `payload_length` bytes, in the shortest form (RFC 6455 section 5.2).
pub fn frame_header(opcode: Opcode, payload_length: usize) -> FrameHeader {
    let mut bytes = [0; HEADER_BYTES_MAX];
    // The last eight bytes hold the length; its short forms overwrite the zeros to its left.
    bytes[2..].copy_from_slice(&(payload_length as u64).to_be_bytes());
    let start = match payload_length {
        // The length's own last byte is already the second byte of the header.
        0..=125 => HEADER_BYTES_MAX - 2,
        126..=0xFFFF => {
            bytes[HEADER_BYTES_MAX - 3] = 126;
            HEADER_BYTES_MAX - 4
        }
        _ => {
            bytes[1] = 127;
            0
        }
    };
    bytes[start] = FINAL | opcode as u8;
    FrameHeader { bytes, start }
}

/// Appends a whole frame.
pub fn write_frame(opcode: Opcode, payload: &[u8], to: &mut Vec<u8>) {
    let header = frame_header(opcode, payload.len());
    to.reserve(header.as_bytes().len() + payload.len());
    to.extend_from_slice(header.as_bytes());
    to.extend_from_slice(payload);
}

/// A frame whose payload `fill` appends to the vector it is given; the header is put before it without moving it.
pub fn framed(opcode: Opcode, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    framed_before(opcode, 0, fill)
}

/// The beginning of a frame: its payload is what `fill` appends, and so many bytes that follow.
pub fn framed_before(opcode: Opcode, following: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + PAYLOAD_BYTES_EXPECTED);
    frame.resize(HEADER_BYTES_MAX, 0);
    fill(&mut frame);
    let header = frame_header(opcode, frame.len() - HEADER_BYTES_MAX + following);
    frame[..HEADER_BYTES_MAX].copy_from_slice(&header.bytes);
    // Queues count the bytes they hold, so there must not be unused room behind them.
    frame.shrink_to_fit();
    let mut frame = Bytes::from(frame);
    frame.advance(header.start);
    frame
}

/// A close frame. A reason that is too long for it is cut between two characters.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut payload = Vec::with_capacity(CONTROL_BYTES_MAX);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(beginning(reason, REASON_BYTES_MAX).as_bytes());
    let mut frame = Vec::with_capacity(2 + payload.len());
    write_frame(Opcode::Close, &payload, &mut frame);
    Bytes::from(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_the_shortest_form() {
        for (payload_length, expected) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xFFFF, &[0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (0x0102_0304_0506, &[0x81, 127, 0, 0, 1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!(frame_header(Opcode::Text, payload_length).as_bytes(), expected, "{payload_length}");
        }
        assert_eq!(frame_header(Opcode::Binary, 1).as_bytes(), [0x82, 1]);
        assert_eq!(frame_header(Opcode::Ping, 1).as_bytes(), [0x89, 1]);
        assert_eq!(frame_header(Opcode::Pong, 1).as_bytes(), [0x8A, 1]);
    }

    #[test]
    fn filling_and_copying_give_the_same_frame() {
        for payload_length in [0, 1, 125, 126, 500, 501, 0xFFFF, 0x1_0000] {
            let payload = vec![7; payload_length];
            let mut written = Vec::new();
            write_frame(Opcode::Binary, &payload, &mut written);
            assert_eq!(framed(Opcode::Binary, |to| to.extend_from_slice(&payload)), written);
        }
    }

    #[test]
    fn close_reasons_are_cut_between_characters() {
        assert_eq!(&close_frame(1000, "")[..], [0x88, 2, 0x03, 0xE8]);
        assert_eq!(&close_frame(3501, "bad")[..], [0x88, 5, 0x0D, 0xAD, b'b', b'a', b'd']);
        assert_eq!(close_frame(1000, &"x".repeat(200)).len(), 2 + 125);
        // 61 two-byte characters are 122 bytes; half of the next would be the 123rd.
        let cut = close_frame(1000, &"ß".repeat(100));
        assert_eq!(&cut[4..], "ß".repeat(61).as_bytes());
    }
}
