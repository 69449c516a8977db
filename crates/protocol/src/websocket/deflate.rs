//! Compressed messages (RFC 7692 section 7.2): frames to compressed frames, compressed payloads to bytes.
//!
//! Each message stands for itself, so one deflater and one inflater serve all connections of a thread. What a peer's
//! message may become is bounded before it is made.

use std::fmt;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Opcode;
use super::write::frame_header;

/// The end of every message, which is not sent (section 7.2.1): the lengths of an empty stored block.
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// That tail, and an empty last block, at which a decompressor tells its end: a message that was cut does not reach it.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x03, 0x00];

/// Memory that is kept from one message to the next.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Room for an inflated message to begin with; it doubles as needed.
const INFLATED_BYTES_EXPECTED: usize = 4 * 1024;

/// Room for what a compressor adds to a message that does not compress.
const DEFLATED_BYTES_EXPECTED: usize = 64;

/// Last blocks in one message. Each starts the decompressor anew, which costs more than the byte or two it came in.
const STREAMS_MAX: usize = 16;

/// Compresses messages to clients.
pub struct Deflater {
    stream: Compress,
    payload_bytes_min: usize,
    scratch: Vec<u8>,
    bytes_before: u64,
    bytes_after: u64,
}

impl Deflater {
    /// A payload shorter than `payload_bytes_min` is not worth it.
    pub fn new(level: u32, payload_bytes_min: usize) -> Self {
        Self {
            stream: Compress::new(Compression::new(level), false),
            payload_bytes_min,
            scratch: Vec::new(),
            bytes_before: 0,
            bytes_after: 0,
        }
    }

    /// The same message in a compressed frame. `frame` is a text or binary frame as [`super::framed`] makes it. `None`
    /// when it is to be sent as it is: it is short, or compressing does not make it shorter.
    pub fn frame(&mut self, frame: &[u8]) -> Option<Bytes> {
        let (opcode, payload) = payload_of(frame)?;
        if payload.len() < self.payload_bytes_min.max(1) {
            return None;
        }
        let is_shorter = self.deflate(payload);
        let header = frame_header(opcode, self.scratch.len()).deflated();
        let deflated = is_shorter.map(|()| [header.as_bytes(), &self.scratch].concat());
        self.scratch.clear();
        self.scratch.shrink_to(KEPT_BYTES_MAX);
        let deflated = deflated?;
        self.bytes_before += frame.len() as u64;
        self.bytes_after += deflated.len() as u64;
        Some(deflated.into())
    }

    /// Bytes of all frames that were compressed, before and after.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_before, self.bytes_after)
    }

    /// Leaves the compressed payload in `scratch`; `None` unless it is shorter.
    fn deflate(&mut self, payload: &[u8]) -> Option<()> {
        self.stream.reset();
        self.scratch.clear();
        // Noise gets longer by an eighth. Every stream is brought to its end, since the compressor does not lose what
        // it has left to say when it is reset.
        self.scratch.reserve(payload.len() + payload.len() / 8 + DEFLATED_BYTES_EXPECTED);
        let mut taken = 0;
        loop {
            self.stream.compress_vec(&payload[taken..], &mut self.scratch, FlushCompress::Sync).ok()?;
            taken = self.stream.total_in() as usize;
            if self.scratch.len() < self.scratch.capacity() {
                break;
            }
            self.scratch.reserve(DEFLATED_BYTES_EXPECTED);
        }
        let length = self.scratch.strip_suffix(&TAIL)?.len();
        self.scratch.truncate(length);
        (taken == payload.len() && length < payload.len()).then_some(())
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("payload_bytes_min", &self.payload_bytes_min).finish_non_exhaustive()
    }
}

/// The reasons for which a compressed message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    #[error("message is not deflate data")]
    NotDeflate,
    #[error("message too big")]
    TooBig,
}

/// Decompresses messages from clients.
pub struct Inflater {
    stream: Decompress,
    output: Vec<u8>,
}

impl Inflater {
    /// The message of a compressed payload, which has at most `bytes_max` bytes.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], InflateError> {
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES_MAX);
        let mut rest = payload;
        for _ in 0..STREAMS_MAX {
            self.stream.reset(false);
            let Some(length) = self.feed(rest, bytes_max)? else {
                return match self.feed(&TAIL_AND_END, bytes_max)? {
                    Some(length) if length == TAIL_AND_END.len() => Ok(&self.output),
                    _ => Err(InflateError::NotDeflate),
                };
            };
            // A last block need not be the message's last (section 7.2.3.4).
            rest = &rest[length..];
            if rest.is_empty() {
                return Ok(&self.output);
            }
        }
        Err(InflateError::NotDeflate)
    }

    /// Inflates all of `input`, or up to the end of a last block, and then tells where that was.
    fn feed(&mut self, input: &[u8], bytes_max: usize) -> Result<Option<usize>, InflateError> {
        let begin = self.stream.total_in();
        loop {
            if self.output.len() == self.output.capacity() {
                // One byte beyond the limit, to tell a message that reaches it from one that is longer.
                let room = bytes_max.saturating_add(1).saturating_sub(self.output.len());
                self.output.reserve_exact(room.min(self.output.len().max(INFLATED_BYTES_EXPECTED)));
            }
            let taken = (self.stream.total_in() - begin) as usize;
            let status = self
                .stream
                .decompress_vec(&input[taken..], &mut self.output, FlushDecompress::None)
                .map_err(|_| InflateError::NotDeflate)?;
            if self.output.len() > bytes_max {
                return Err(InflateError::TooBig);
            }
            let taken = (self.stream.total_in() - begin) as usize;
            if status == Status::StreamEnd {
                return Ok(Some(taken));
            }
            // As long as there is room left, all that there is to be had was had.
            if self.output.len() < self.output.capacity() {
                return if taken == input.len() { Ok(None) } else { Err(InflateError::NotDeflate) };
            }
        }
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self { stream: Decompress::new(false), output: Vec::new() }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

/// Kind and payload of an unmasked frame, unless it is a control frame, which is never compressed.
fn payload_of(frame: &[u8]) -> Option<(Opcode, &[u8])> {
    let &[first, second, ..] = frame else { return None };
    let opcode = Opcode::from_bits(first & 0b1111)?;
    if opcode.is_control() {
        return None;
    }
    let header = match second {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    Some((opcode, frame.get(header..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::write_frame;

    const BYTES_MAX: usize = 1000;

    fn inflate(payload: &[u8]) -> Result<Vec<u8>, InflateError> {
        Inflater::default().inflate(payload, BYTES_MAX).map(<[u8]>::to_vec)
    }

    /// Compressed by the level that zlib uses by default, without our own rules of what is worth it.
    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut stream = Compress::new(Compression::new(6), false);
        let mut payload = Vec::with_capacity(message.len() + 100);
        stream.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
        assert!(payload.ends_with(&TAIL));
        payload.truncate(payload.len() - TAIL.len());
        payload
    }

    fn text_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write_frame(Opcode::Text, payload, &mut frame);
        frame
    }

    #[test]
    fn the_rfc_s_examples() {
        // Section 7.2.3.1: one block; 7.2.3.3: not compressed; 7.2.3.4: a last block; 7.2.3.5: two blocks.
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            // Without the empty block that is to follow the last one.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(payload), Ok(b"Hello".to_vec()), "{payload:x?}");
        }
        // Section 7.2.3.6: the empty message; and some compressors' form of it.
        assert_eq!(inflate(&[0x00]), Ok(vec![]));
        assert_eq!(inflate(&[0x02, 0x00]), Ok(vec![]));
    }

    #[test]
    fn wrong_data_is_refused() {
        let whole = deflated(b"Hello, hello, hello, hello.");
        for payload in [
            &whole[..whole.len() - 4],
            &whole[..1],
            &[][..],
            &[0xff; 8],
            // A stored block whose length contradicts itself.
            &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48],
            // A stored block that promises more than comes.
            &[0x00, 0xff, 0x00, 0x00, 0xff, 0x48],
        ] {
            assert_eq!(inflate(payload), Err(InflateError::NotDeflate), "{payload:x?}");
        }
    }

    #[test]
    fn a_message_cannot_refer_to_the_one_before_it() {
        let mut stream = Compress::new(Compression::new(6), false);
        let mut compress = |message: &[u8]| {
            let mut payload = Vec::with_capacity(1000);
            stream.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
            payload.truncate(payload.len() - TAIL.len());
            payload
        };
        let secret = b"a secret that only the first client knows";
        let (first, second) = (compress(secret), compress(secret));
        assert!(second.len() < first.len() / 2);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&first, BYTES_MAX), Ok(&secret[..]));
        assert_eq!(inflater.inflate(&second, BYTES_MAX), Err(InflateError::NotDeflate));
    }

    #[test]
    fn a_bomb_costs_what_may_come_of_it() {
        let bomb = deflated(&vec![b'x'; 100 << 20]);
        let mut inflater = Inflater::default();
        for bytes_max in [0, 1, BYTES_MAX, 300_000] {
            assert_eq!(inflater.inflate(&bomb, bytes_max), Err(InflateError::TooBig));
            let most = bytes_max.max(KEPT_BYTES_MAX) + 1;
            assert!(inflater.output.capacity() <= most, "{} for {bytes_max}", inflater.output.capacity());
        }
        // What a large message took is given back with the next.
        assert_eq!(inflater.inflate(&[0], BYTES_MAX), Ok(&[][..]));
        assert!(inflater.output.capacity() <= KEPT_BYTES_MAX);
    }

    #[test]
    fn the_limit_is_exact() {
        for length in [BYTES_MAX - 1, BYTES_MAX, BYTES_MAX + 1] {
            let inflated = inflate(&deflated(&vec![b'x'; length]));
            if length <= BYTES_MAX {
                assert_eq!(inflated.unwrap().len(), length);
            } else {
                assert_eq!(inflated, Err(InflateError::TooBig));
            }
        }
    }

    #[test]
    fn last_blocks_are_not_without_end() {
        let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&hello.repeat(STREAMS_MAX)), Ok(b"Hello".repeat(STREAMS_MAX)));
        assert_eq!(inflate(&hello.repeat(STREAMS_MAX + 1)), Err(InflateError::NotDeflate));
        assert_eq!(inflate(&[0x03, 0x00].repeat(10_000)), Err(InflateError::NotDeflate));
    }

    #[test]
    fn what_is_short_or_gets_no_shorter_is_left_alone() {
        let mut deflater = Deflater::new(1, 100);
        assert_eq!(deflater.frame(&text_frame(&[b'x'; 99])), None);
        assert!(deflater.frame(&text_frame(&[b'x'; 100])).is_some());
        let mut noise = 1u32;
        let noise: Vec<u8> = (0..70_000)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        for length in [100, 5000, 70_000].repeat(10) {
            assert_eq!(deflater.frame(&text_frame(&noise[..length])), None);
        }
        assert_eq!(deflater.frame(&[]), None);
        assert_eq!(Deflater::new(1, 0).frame(&text_frame(b"")), None);
        let mut ping = Vec::new();
        write_frame(Opcode::Ping, &[b'x'; 125], &mut ping);
        assert_eq!(deflater.frame(&ping), None);
        assert!(deflater.frame(&text_frame(&noise[..1000].repeat(5))).is_some());
    }

    #[test]
    fn a_compressed_frame_says_so_and_is_counted() {
        let mut deflater = Deflater::new(1, 1);
        let frame = text_frame(&[b'x'; 70_000]);
        let deflated = deflater.frame(&frame).unwrap();
        assert_eq!(deflated[0], 0x80 | 0x40 | 0x1);
        assert_eq!(deflater.bytes(), (frame.len() as u64, deflated.len() as u64));
        assert!(deflater.scratch.capacity() <= KEPT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn messages_come_back(
            messages in prop::collection::vec("([a-c]{0,40}|[ -~ß€😀]{0,300})", 1..6),
            level in 1..=9_u32,
        ) {
            let mut deflater = Deflater::new(level, 1);
            let mut inflater = Inflater::default();
            for message in messages {
                if let Some(frame) = deflater.frame(&text_frame(message.as_bytes())) {
                    let (opcode, payload) = payload_of(&frame).unwrap();
                    prop_assert_eq!(opcode, Opcode::Text);
                    prop_assert!(payload.len() < message.len());
                    prop_assert_eq!(inflater.inflate(payload, 2000), Ok(message.as_bytes()));
                }
                let payload = self::deflated(message.as_bytes());
                prop_assert_eq!(inflater.inflate(&payload, 2000), Ok(message.as_bytes()));
            }
        }

        /// Noise is refused or is something short, whatever came before it.
        #[test]
        fn noise_does_no_harm(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)) {
            let mut inflater = Inflater::default();
            for payload in payloads {
                let again = inflate(&payload);
                let inflated = inflater.inflate(&payload, BYTES_MAX).map(<[u8]>::to_vec);
                prop_assert_eq!(&inflated, &again);
                prop_assert!(inflated.map_or(0, |bytes| bytes.len()) <= BYTES_MAX);
            }
        }
    }
}
