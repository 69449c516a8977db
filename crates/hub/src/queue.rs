//! What waits for one slow connection, bounded in bytes.
//!
//! It exists only while something waits. Its bytes are shared with other connections where fan-out made them,
//! but each connection's bound counts them in full.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// The bound was reached: the connection has to be closed as slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Default)]
pub struct Queue {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Buffers handed to one vectored write.
    pub const SLICES_MAX: usize = 64;

    /// Adds to the end. One message always fits an empty queue, however long it is.
    pub fn push(&mut self, bytes: Bytes, bytes_max: usize) -> Result<(), Full> {
        if self.bytes > 0 && self.bytes + bytes.len() > bytes_max {
            return Err(Full);
        }
        self.bytes += bytes.len();
        self.chunks.push_back(bytes);
        Ok(())
    }

    /// Puts something in front of all that waits.
    pub fn push_front(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.chunks.push_front(bytes);
    }

    /// Fills `slices` from the front and says how many it used.
    pub fn fill<'q>(&'q self, slices: &mut [IoSlice<'q>]) -> usize {
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        used
    }

    /// Forgets bytes that were written.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_always_fits_and_more_are_bounded() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(Bytes::from(vec![0; 100]), 10), Ok(()));
        assert_eq!(queue.push(Bytes::from_static(b"x"), 10), Err(Full));
        queue.advance(100);
        assert!(queue.is_empty());
        assert_eq!(queue.push(Bytes::from_static(b"x"), 10), Ok(()));
    }

    #[test]
    fn a_partial_write_leaves_the_rest() {
        let mut queue = Queue::default();
        for word in ["abc", "defg"] {
            queue.push(Bytes::from_static(word.as_bytes()), 100).unwrap();
        }
        queue.advance(4);
        let mut slices = [IoSlice::new(&[]); 4];
        let used = queue.fill(&mut slices);
        assert_eq!(slices[..used].iter().map(|s| s.to_vec()).collect::<Vec<_>>(), [b"efg".to_vec()]);
        assert_eq!(queue.bytes(), 3);
    }
}
