//! Frames as a client sees them, for tools that load a server: headers of frames that a server sends, and masked frames.
//!
//! Only headers are read, so a payload costs nothing. A frame that a server may not send, or that needs what was not
//! agreed, is an error.

use super::write::frame_header;
use super::{Opcode, mask};

const MASKED: u8 = 0x80;
const LENGTH_16_BIT: u8 = 126;
const LENGTH_64_BIT: u8 = 127;

/// The header of a whole message or control frame from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// Any but [`Opcode::Continuation`].
    pub opcode: Opcode,
    /// The payload is compressed by permessage-deflate (RFC 7692).
    pub is_deflated: bool,
    pub header_bytes: usize,
    pub payload_bytes: usize,
}

/// A frame that the client does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerFrameError {
    #[error("the server masked a frame")]
    Masked,
    #[error("a frame starts with the unexpected byte {0:#04x}")]
    FirstByte(u8),
    #[error("a frame announces {0} bytes")]
    TooLong(u64),
}

impl ServerFrame {
    /// Reads the header at the start of `bytes`, or returns `None` if more bytes are needed. Fragments are errors.
    #[inline]
    pub fn read(bytes: &[u8], payload_bytes_max: usize) -> Result<Option<Self>, ServerFrameError> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (opcode, is_deflated) = match *first {
            0x81 => (Opcode::Text, false),
            0x82 => (Opcode::Binary, false),
            0xc1 => (Opcode::Text, true),
            0xc2 => (Opcode::Binary, true),
            0x88 => (Opcode::Close, false),
            0x89 => (Opcode::Ping, false),
            0x8a => (Opcode::Pong, false),
            other => return Err(ServerFrameError::FirstByte(other)),
        };
        if second & MASKED != 0 {
            return Err(ServerFrameError::Masked);
        }
        let (header_bytes, payload_bytes) = match *second {
            LENGTH_16_BIT => {
                let Some(length) = rest.first_chunk() else { return Ok(None) };
                (4, u64::from(u16::from_be_bytes(*length)))
            }
            LENGTH_64_BIT => {
                let Some(length) = rest.first_chunk() else { return Ok(None) };
                (10, u64::from_be_bytes(*length))
            }
            length => (2, u64::from(length)),
        };
        match usize::try_from(payload_bytes) {
            Ok(payload_bytes) if payload_bytes <= payload_bytes_max => {
                Ok(Some(Self { opcode, is_deflated, header_bytes, payload_bytes }))
            }
            _ => Err(ServerFrameError::TooLong(payload_bytes)),
        }
    }
}

/// Appends one masked frame, as clients must send it (RFC 6455 section 5.3).
pub fn write_masked(opcode: Opcode, payload: &[u8], key: [u8; 4], to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(frame_header(opcode, payload.len()).as_bytes());
    to[start + 1] |= MASKED;
    to.extend_from_slice(&key);
    let start = to.len();
    to.extend_from_slice(payload);
    mask(&mut to[start..], key);
}

#[cfg(test)]
mod tests {
    use super::super::write::DEFLATED;
    use super::super::write_frame;
    use super::*;

    const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

    fn read(bytes: &[u8]) -> Result<Option<ServerFrame>, ServerFrameError> {
        ServerFrame::read(bytes, PAYLOAD_BYTES_MAX)
    }

    #[test]
    fn each_length_form_is_written_and_read() {
        for payload_bytes in [0, 125, 126, 65_535, 65_536, PAYLOAD_BYTES_MAX] {
            let mut out = Vec::new();
            write_frame(Opcode::Text, &vec![b'a'; payload_bytes], &mut out);
            let header = read(&out).unwrap().unwrap();
            assert_eq!((header.opcode, header.payload_bytes), (Opcode::Text, payload_bytes));
            assert_eq!(out.len(), header.header_bytes + payload_bytes);
            for cut in 0..header.header_bytes {
                assert_eq!(read(&out[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn a_compressed_frame_is_told_apart() {
        assert_eq!(DEFLATED | 0x81, 0xc1);
        let header = read(&[0xc1, 1, b'a']).unwrap().unwrap();
        assert!(header.is_deflated && header.opcode == Opcode::Text);
        assert!(!read(&[0x82, 1, b'a']).unwrap().unwrap().is_deflated);
    }

    #[test]
    fn a_client_frame_is_masked() {
        for payload in [&b"{}{}x"[..], &[7; 200], &[8; 70_000]] {
            let mut out = b"before".to_vec();
            write_masked(Opcode::Text, payload, [1, 2, 3, 4], &mut out);
            let mut plain = Vec::new();
            write_frame(Opcode::Text, payload, &mut plain);
            let header_bytes = plain.len() - payload.len();
            plain[1] |= MASKED;
            assert_eq!(out[6..6 + header_bytes], plain[..header_bytes]);
            let (key, masked) = out[6 + header_bytes..].split_first_chunk::<4>().unwrap();
            assert_eq!(key, &[1, 2, 3, 4]);
            let unmasked: Vec<u8> = masked.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(unmasked, payload);
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        assert_eq!(read(&[0x81, 0x80]), Err(ServerFrameError::Masked));
        for first in [0x01, 0x80, 0xa1, 0xc9, 0x8b] {
            assert_eq!(read(&[first, 0]), Err(ServerFrameError::FirstByte(first)));
        }
        let mut huge = vec![0x81, 127];
        huge.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(read(&huge), Err(ServerFrameError::TooLong(u64::MAX)));
    }
}
