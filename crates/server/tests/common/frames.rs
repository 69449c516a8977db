//! WebSocket frames from the client's side, written and read without the code under test.

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

const MASK: [u8; 4] = [0x5A, 0x01, 0xFF, 0x33];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// Code and reason of a close frame.
    pub(crate) fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        match self.payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()),
            // What RFC 6455 section 7.1.5 calls a close without a code.
            None => (1005, String::new()),
        }
    }
}

/// A whole message, masked as a client must.
pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    fragment(true, opcode, payload)
}

pub(crate) fn fragment(is_final: bool, opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = vec![u8::from(is_final) << 7 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The first frame in `bytes` and its length; `None` when it is not all there. Panics at anything that a server
/// must not send: a mask, a reserved bit, a fragment, a length that is not in its shortest form.
pub(crate) fn take_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    assert_eq!(first & 0xF0, 0x80, "not a final frame without reserved bits: {first:#x}");
    assert_eq!(second & 0x80, 0, "a server's frame is masked");
    let opcode = first & 0x0F;
    assert!([TEXT, BINARY, CLOSE, PING, PONG].contains(&opcode), "opcode {opcode}");
    let (length, header) = match second & 0x7F {
        126 => {
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            assert!(length > 125);
            (length, 4)
        }
        127 => {
            let length = u64::from_be_bytes(*rest.first_chunk()?) as usize;
            assert!(length > 0xFFFF);
            (length, 10)
        }
        length => (usize::from(length), 2),
    };
    let payload = bytes.get(header..header + length)?.to_vec();
    Some((Frame { opcode, payload }, header + length))
}
