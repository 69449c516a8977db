//! What waits for one slow connection, bounded in bytes.
//!
//! It exists only while something waits. Its bytes are shared with other connections where fan-out made them,
//! but each connection's bound counts them in full, and with each message what it takes to keep it: or a client
//! that sends pings and reads nothing would cost many times its bound in four-byte answers.

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
    /// Part of the first chunk was written: the rest has to follow, or the peer could not read what comes next.
    begun: bool,
}

impl Queue {
    /// Buffers handed to one vectored write.
    pub const SLICES_MAX: usize = 64;

    /// What a waiting message counts for beside its bytes.
    pub const MESSAGE_BYTES: usize = 64;

    /// Adds to the end. One message always fits an empty queue, however long it is.
    pub fn push(&mut self, bytes: Bytes, bytes_max: usize) -> Result<(), Full> {
        let messages = self.chunks.len() + 1;
        if self.bytes > 0 && self.bytes + bytes.len() + messages * Self::MESSAGE_BYTES > bytes_max {
            return Err(Full);
        }
        self.bytes += bytes.len();
        self.chunks.push_back(bytes);
        Ok(())
    }

    /// Adds the rest of something whose beginning was written, to an empty queue.
    pub fn push_rest(&mut self, rest: Bytes) {
        debug_assert!(self.is_empty());
        self.bytes = rest.len();
        self.chunks.push_back(rest);
        self.begun = true;
    }

    /// Forgets all that waits but the rest of what was begun.
    pub fn keep_begun(&mut self) {
        self.chunks.truncate(usize::from(self.begun));
        self.bytes = self.chunks.iter().map(Bytes::len).sum();
    }

    /// Takes all that waits, in order.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> {
        self.chunks.into_iter()
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
                self.begun |= written > 0;
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
            self.begun = false;
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
    use proptest::prelude::*;

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
            queue.push(Bytes::from_static(word.as_bytes()), 1000).unwrap();
        }
        queue.advance(4);
        let mut slices = [IoSlice::new(&[]); 4];
        let used = queue.fill(&mut slices);
        assert_eq!(slices[..used].iter().map(|s| s.to_vec()).collect::<Vec<_>>(), [b"efg".to_vec()]);
        assert_eq!(queue.bytes(), 3);
        queue.push(Bytes::from_static(b"later"), 1000).unwrap();
        queue.keep_begun();
        assert_eq!(queue.bytes(), 3);
        queue.advance(3);
        queue.keep_begun();
        assert!(queue.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        /// The rest of something that was written in part, where nothing waits.
        Rest(Vec<u8>),
        /// This many of the bytes that one write would be given, in percent.
        Written(usize),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let message = || prop::collection::vec(any::<u8>(), 1..20);
        prop_oneof![
            6 => message().prop_map(Step::Push),
            1 => message().prop_map(Step::Rest),
            3 => (0..=100_usize).prop_map(Step::Written),
            1 => Just(Step::Keep),
        ]
    }

    proptest! {
        /// Against a list of messages, of which the first may have been written in part.
        #[test]
        fn bytes_come_out_as_they_went_in(steps in prop::collection::vec(step(), 0..300)) {
            const BYTES_MAX: usize = 2000;
            let mut queue = Queue::default();
            let mut messages: VecDeque<Vec<u8>> = VecDeque::new();
            let mut begun = false;
            for step in steps {
                let waiting: usize = messages.iter().map(Vec::len).sum();
                match step {
                    Step::Push(message) => {
                        let kept = (messages.len() + 1) * Queue::MESSAGE_BYTES;
                        let fits = waiting == 0 || waiting + message.len() + kept <= BYTES_MAX;
                        let pushed = queue.push(message.clone().into(), BYTES_MAX);
                        prop_assert_eq!(pushed, if fits { Ok(()) } else { Err(Full) });
                        if fits {
                            messages.push_back(message);
                        }
                    }
                    Step::Rest(message) => {
                        if waiting == 0 {
                            queue.push_rest(message.clone().into());
                            messages.push_back(message);
                            begun = true;
                        }
                    }
                    Step::Written(percent) => {
                        let given: usize = messages.iter().take(Queue::SLICES_MAX).map(Vec::len).sum();
                        let mut written = given * percent / 100;
                        queue.advance(written);
                        while written > 0 {
                            let first = &mut messages[0];
                            let taken = written.min(first.len());
                            first.drain(..taken);
                            written -= taken;
                            begun = !first.is_empty();
                            if first.is_empty() {
                                messages.pop_front();
                            }
                        }
                    }
                    Step::Keep => {
                        queue.keep_begun();
                        messages.truncate(usize::from(begun));
                    }
                }
                let mut slices = [IoSlice::new(&[]); Queue::SLICES_MAX];
                let used = queue.fill(&mut slices);
                let given: Vec<Vec<u8>> = slices[..used].iter().map(|slice| slice.to_vec()).collect();
                let expected: Vec<Vec<u8>> = messages.iter().take(Queue::SLICES_MAX).cloned().collect();
                prop_assert_eq!(given, expected);
                prop_assert_eq!(queue.bytes(), messages.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(queue.is_empty(), messages.is_empty());
            }
            prop_assert_eq!(messages, queue.into_chunks().collect::<Vec<_>>());
        }
    }
}
