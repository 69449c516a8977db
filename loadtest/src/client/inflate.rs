//! Compressed messages: inflated once for all clients.
//!
//! A server that compresses without context sends every subscriber the same bytes, so comparing them with the last few is
//! enough, and costs a client next to nothing.

use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress, Status};

use crate::client::frame::FRAME_BYTES_MAX;

/// Different messages that are on their way to clients at one time; beyond it one is inflated again.
const REMEMBERED: usize = 64;
/// Ends every message that permessage-deflate makes, and is left out on the wire (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The bytes are no message of permessage-deflate, or make one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a compressed message cannot be inflated")]
pub(crate) struct NotInflated;

/// Remembers what the last messages were.
#[derive(Debug)]
pub(crate) struct Inflater {
    inflate: Decompress,
    /// The newest first.
    remembered: VecDeque<Message>,
    pub(crate) inflated: u64,
}

#[derive(Debug, Default)]
struct Message {
    compressed: Vec<u8>,
    plain: Vec<u8>,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), remembered: VecDeque::new(), inflated: 0 }
    }

    /// What was compressed.
    pub(crate) fn inflate(&mut self, compressed: &[u8]) -> Result<&[u8], NotInflated> {
        let known = self.remembered.iter().position(|message| message.compressed == compressed);
        let place = match known {
            Some(place) => place,
            None => {
                self.remember(compressed)?;
                0
            }
        };
        Ok(&self.remembered[place].plain)
    }

    fn remember(&mut self, compressed: &[u8]) -> Result<(), NotInflated> {
        let mut message = if self.remembered.len() < REMEMBERED { None } else { self.remembered.pop_back() }
            .unwrap_or_default();
        message.compressed.clear();
        message.compressed.extend_from_slice(compressed);
        message.plain.clear();
        self.inflate.reset(false);
        let whole = [compressed, &TAIL].concat();
        let mut taken = 0;
        while taken < whole.len() {
            if message.plain.len() == message.plain.capacity() {
                if message.plain.len() >= FRAME_BYTES_MAX {
                    return Err(NotInflated);
                }
                message.plain.reserve(message.plain.len().max(4096));
            }
            let before = self.inflate.total_in();
            let status = self
                .inflate
                .decompress_vec(&whole[taken..], &mut message.plain, FlushDecompress::Sync)
                .map_err(|_| NotInflated)?;
            let step = (self.inflate.total_in() - before) as usize;
            taken += step;
            let is_stuck = step == 0 && message.plain.len() < message.plain.capacity();
            if status == Status::StreamEnd || is_stuck {
                break;
            }
        }
        self.inflated += 1;
        self.remembered.push_front(message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn compressed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.flush().unwrap();
        let mut bytes = encoder.get_ref().clone();
        assert_eq!(bytes.split_off(bytes.len() - 4), TAIL);
        bytes
    }

    #[test]
    fn the_same_bytes_are_inflated_once() {
        let mut inflater = Inflater::new();
        for round in 0..3 {
            for (number, length) in [10, 5000, 60_000].into_iter().enumerate() {
                let plain: Vec<u8> = (0..length).map(|byte| (byte % 97) as u8).collect();
                assert_eq!(inflater.inflate(&compressed(&plain)), Ok(&*plain), "{round} {number}");
            }
        }
        assert_eq!(inflater.inflated, 3);
    }

    #[test]
    fn old_messages_make_room() {
        let mut inflater = Inflater::new();
        for number in 0..REMEMBERED + 10 {
            let plain = format!("message {number}");
            assert_eq!(inflater.inflate(&compressed(plain.as_bytes())), Ok(plain.as_bytes()));
        }
        assert_eq!(inflater.remembered.len(), REMEMBERED);
    }

    #[test]
    fn what_is_wrong_or_too_long_is_refused() {
        let mut inflater = Inflater::new();
        assert_eq!(inflater.inflate(&[0xff; 20]), Err(NotInflated));
        let bomb = compressed(&vec![0; 4 * FRAME_BYTES_MAX]);
        assert_eq!(inflater.inflate(&bomb), Err(NotInflated));
        assert_eq!(inflater.inflate(&compressed(b"fine")), Ok(&b"fine"[..]));
    }
}
