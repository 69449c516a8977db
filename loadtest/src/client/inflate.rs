//! Compressed messages: inflated once for all clients.
//!
//! A server that compresses without context sends every subscriber the same bytes, so comparing them with the last few is
//! enough, and costs a client next to nothing.

use std::collections::VecDeque;

use fanwire_protocol::websocket::{InflateError, Inflater};

use crate::client::FRAME_BYTES_MAX;

/// Maximum number of different messages that are on their way to clients at one time; older ones are inflated again.
const REMEMBERED: usize = 64;

/// Inflates messages, and remembers the last ones.
#[derive(Debug, Default)]
pub(crate) struct InflatedMessages {
    inflater: Inflater,
    /// The newest first.
    remembered: VecDeque<InflatedMessage>,
    /// The number of messages inflated so far.
    inflated: u64,
}

#[derive(Debug, Default)]
struct InflatedMessage {
    compressed: Vec<u8>,
    plain: Vec<u8>,
}

impl InflatedMessages {
    /// Returns the message of a compressed payload.
    pub(crate) fn inflate(&mut self, compressed: &[u8]) -> Result<&[u8], InflateError> {
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

    fn remember(&mut self, compressed: &[u8]) -> Result<(), InflateError> {
        let plain = self.inflater.inflate(compressed, FRAME_BYTES_MAX)?;
        let mut message = if self.remembered.len() < REMEMBERED { None } else { self.remembered.pop_back() }
            .unwrap_or_default();
        message.compressed.clear();
        message.compressed.extend_from_slice(compressed);
        message.plain.clear();
        message.plain.extend_from_slice(plain);
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
        encoder.get_ref().strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().to_vec()
    }

    #[test]
    fn the_same_bytes_are_inflated_once() {
        let mut inflater = InflatedMessages::default();
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
        let mut inflater = InflatedMessages::default();
        for number in 0..REMEMBERED + 10 {
            let plain = format!("message {number}");
            assert_eq!(inflater.inflate(&compressed(plain.as_bytes())), Ok(plain.as_bytes()));
        }
        assert_eq!(inflater.remembered.len(), REMEMBERED);
    }

    #[test]
    fn what_is_wrong_or_too_long_is_refused() {
        let mut inflater = InflatedMessages::default();
        assert_eq!(inflater.inflate(&[0xff; 20]), Err(InflateError::NotDeflate));
        let bomb = compressed(&vec![0; 4 * FRAME_BYTES_MAX]);
        assert_eq!(inflater.inflate(&bomb), Err(InflateError::TooBig));
        assert_eq!(inflater.inflate(&compressed(b"fine")), Ok(&b"fine"[..]));
    }
}
