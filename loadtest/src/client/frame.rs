//! WebSocket frames as a client sees them: headers of what a server sends, masked frames of its own.
//!
//! Only headers are looked at. A frame a correct server never sends to this client is an error, not something to work around.

/// The kinds of frame this tool meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// Where a frame's payload begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) opcode: Opcode,
    /// The payload is a message that permessage-deflate (RFC 7692) made.
    pub(crate) is_compressed: bool,
    pub(crate) header_bytes: usize,
    pub(crate) payload_bytes: usize,
}

/// RFC 6455 lets a server send none of these to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the server masked a frame")]
    Masked,
    #[error("a frame starts with the unexpected byte {0:#04x}")]
    FirstByte(u8),
    #[error("a frame announces {0} bytes")]
    TooLong(u64),
}

/// The largest frame a test message or a reply can need.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const LENGTH_16_BIT: u8 = 126;
const LENGTH_64_BIT: u8 = 127;

/// A fixed key: masking protects proxies from scripts, and there are neither here. It is not zero, so that the server
/// has the work of unmasking.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Reads the header at the start of `bytes`; `None` if more bytes are needed.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Option<FrameHeader>, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (opcode, is_compressed) = match *first {
        0x81 => (Opcode::Text, false),
        0x82 => (Opcode::Binary, false),
        0xc1 => (Opcode::Text, true),
        0xc2 => (Opcode::Binary, true),
        0x88 => (Opcode::Close, false),
        0x89 => (Opcode::Ping, false),
        0x8a => (Opcode::Pong, false),
        other => return Err(FrameError::FirstByte(other)),
    };
    if second & MASKED != 0 {
        return Err(FrameError::Masked);
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
        Ok(payload_bytes) if payload_bytes <= FRAME_BYTES_MAX => {
            Ok(Some(FrameHeader { opcode, is_compressed, header_bytes, payload_bytes }))
        }
        _ => Err(FrameError::TooLong(payload_bytes)),
    }
}

/// Appends one masked frame, as a client must send it.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_header(out, opcode, payload.len(), MASKED);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Appends one bare text frame, as a server sends it.
pub(crate) fn write_text(out: &mut Vec<u8>, payload: &[u8]) {
    write_header(out, Opcode::Text, payload.len(), 0);
    out.extend_from_slice(payload);
}

fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize, masked: u8) {
    let code = match opcode {
        Opcode::Text => 0x1,
        Opcode::Binary => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    };
    out.push(FINAL | code);
    if payload_bytes < usize::from(LENGTH_16_BIT) {
        out.push(masked | payload_bytes as u8);
    } else if let Ok(length) = u16::try_from(payload_bytes) {
        out.push(masked | LENGTH_16_BIT);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(masked | LENGTH_64_BIT);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_form_is_written_and_read() {
        for payload_bytes in [0, 125, 126, 65_535, 65_536, FRAME_BYTES_MAX] {
            let mut out = Vec::new();
            write_text(&mut out, &vec![b'a'; payload_bytes]);
            let header = read_header(&out).unwrap().unwrap();
            assert_eq!((header.opcode, header.payload_bytes), (Opcode::Text, payload_bytes));
            assert_eq!(out.len(), header.header_bytes + payload_bytes);
            for cut in 0..header.header_bytes {
                assert_eq!(read_header(&out[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn a_compressed_frame_is_told_apart() {
        let header = read_header(&[0xc1, 1, b'a']).unwrap().unwrap();
        assert!(header.is_compressed && header.opcode == Opcode::Text);
        assert!(!read_header(&[0x82, 1, b'a']).unwrap().unwrap().is_compressed);
    }

    #[test]
    fn a_client_frame_is_masked() {
        let mut out = Vec::new();
        write_masked(&mut out, Opcode::Text, b"{}{}x");
        assert_eq!(out[..2], [0x81, 0x85]);
        let unmasked: Vec<u8> = out[6..].iter().zip(out[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(unmasked, b"{}{}x");
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        assert_eq!(read_header(&[0x81, 0x80]), Err(FrameError::Masked));
        for first in [0x01, 0x80, 0xa1, 0xc9, 0x8b] {
            assert_eq!(read_header(&[first, 0]), Err(FrameError::FirstByte(first)));
        }
        let mut huge = vec![0x81, 127];
        huge.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(read_header(&huge), Err(FrameError::TooLong(u64::MAX)));
    }
}
