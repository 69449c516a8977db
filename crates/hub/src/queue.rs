//! The queue of one slow connection, bounded in bytes.
//!
//! It exists only while something waits. Its bytes are shared with other connections where fan-out made them,
//! but each connection's bound counts them in full, and with each message what it takes to keep it: or a client
//! that sends pings and reads nothing would cost many times its bound in four-byte answers. Publications of topics
//! that allow it give way to newer ones; everything else is kept, or the connection is closed.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use rustc_hash::FxHashMap;

use crate::namespace::SlowPolicy;
use crate::registry::TopicSlot;

/// The bound was reached: the connection has to be closed as slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A message that waits.
#[derive(Debug)]
struct Chunk {
    /// Empty once it was dropped.
    bytes: Bytes,
    kind: ChunkKind,
}

#[derive(Clone, Copy, Debug)]
enum ChunkKind {
    Kept,
    /// Kept, and counted in `reply_bytes`.
    Reply,
    /// In `droppable`.
    Droppable,
    /// In `latest`.
    Latest(TopicSlot),
    /// Kept: the rest of the message that begins in the chunk before.
    Continuation,
}

impl ChunkKind {
    fn is_continuation(self) -> bool {
        matches!(self, Self::Continuation)
    }
}

#[derive(Debug, Default)]
pub struct Queue {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk: each has one for life.
    first: u64,
    /// Chunks that were not dropped.
    messages: usize,
    bytes: usize,
    /// Bytes of replies among them.
    reply_bytes: usize,
    /// Bytes that were written since the queue exists.
    written: u64,
    /// Part of the first chunk was written: the rest has to follow, or the peer could not read what comes next.
    begun: bool,
    /// Chunks that may be dropped, the oldest first.
    droppable: VecDeque<u64>,
    /// The chunk of each topic of which only the newest publication waits.
    latest: FxHashMap<TopicSlot, u64>,
}

impl Queue {
    /// Buffers handed to one vectored write.
    pub const SLICES_MAX: usize = 64;

    /// The bytes that a waiting message counts for beside its own.
    pub const MESSAGE_BYTES: usize = 64;

    /// Dropped chunks that stay in place before the queue is tidied up.
    const DROPPED_CHUNKS_MAX: usize = 64;

    /// Adds to the end, and says how many publications gave way. One message always fits an empty queue, however
    /// long it is.
    pub fn push(&mut self, bytes: Bytes, bytes_max: usize) -> Result<usize, Full> {
        self.push_as(ChunkKind::Kept, bytes, 0, bytes_max)
    }

    /// Adds the beginning of a message. So many bytes of it follow, by [`Queue::push_continuation`].
    pub fn push_beginning(
        &mut self,
        bytes: Bytes,
        following: usize,
        bytes_max: usize,
    ) -> Result<usize, Full> {
        self.push_as(ChunkKind::Kept, bytes, following, bytes_max)
    }

    /// Adds the rest of a message whose beginning was added just before, or written. It fits, as the beginning did.
    pub fn push_continuation(&mut self, bytes: Bytes) {
        self.append(ChunkKind::Continuation, bytes);
    }

    /// Adds a reply to the client itself.
    pub fn push_reply(&mut self, bytes: Bytes, bytes_max: usize) -> Result<usize, Full> {
        self.push_as(ChunkKind::Reply, bytes, 0, bytes_max)
    }

    /// Adds a publication of a topic with a policy, and says how many gave way.
    pub fn push_publication(
        &mut self,
        topic: TopicSlot,
        policy: SlowPolicy,
        bytes: Bytes,
        bytes_max: usize,
    ) -> Result<usize, Full> {
        let kind = match policy {
            SlowPolicy::Close => ChunkKind::Kept,
            SlowPolicy::DropOldest => ChunkKind::Droppable,
            SlowPolicy::KeepLatest => ChunkKind::Latest(topic),
        };
        let replaced = match policy {
            SlowPolicy::KeepLatest => self.latest.remove(&topic),
            SlowPolicy::Close | SlowPolicy::DropOldest => None,
        };
        if let Some(replaced) = replaced {
            self.drop_chunk(replaced);
        }
        let dropped = self.push_as(kind, bytes, 0, bytes_max)?;
        Ok(dropped + usize::from(replaced.is_some()))
    }

    /// Adds the rest of something whose beginning was written, to an empty queue.
    pub fn push_rest(&mut self, rest: Bytes, is_reply: bool) {
        debug_assert!(self.is_empty());
        self.append(if is_reply { ChunkKind::Reply } else { ChunkKind::Kept }, rest);
        self.begun = true;
    }

    /// Forgets all that waits but the rest of what was begun.
    pub fn keep_begun(&mut self) {
        let continuations =
            |from| self.chunks.iter().skip(from).take_while(|chunk| chunk.kind.is_continuation()).count();
        // A continuation in front is the rest of what was begun, too.
        let kept = if self.begun { 1 + continuations(1) } else { continuations(0) };
        self.chunks.truncate(kept);
        self.bytes = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        self.messages = self.chunks.len();
        let is_reply = self.chunks.front().is_some_and(|first| matches!(first.kind, ChunkKind::Reply));
        self.reply_bytes = if is_reply { self.bytes } else { 0 };
        self.droppable.clear();
        self.latest.clear();
    }

    /// Takes all that waits, in order.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> {
        self.chunks.into_iter().map(|chunk| chunk.bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Fills `slices` from the front and says how many it used.
    pub fn fill<'q>(&'q self, slices: &mut [IoSlice<'q>]) -> usize {
        let mut used = 0;
        let waiting = self.chunks.iter().filter(|chunk| !chunk.bytes.is_empty());
        for (slice, chunk) in slices.iter_mut().zip(waiting) {
            *slice = IoSlice::new(&chunk.bytes);
            used += 1;
        }
        used
    }

    /// Forgets bytes that were written.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        self.written += written as u64;
        while let Some(chunk) = self.chunks.front_mut() {
            if matches!(chunk.kind, ChunkKind::Reply) {
                self.reply_bytes -= written.min(chunk.bytes.len());
            }
            if written < chunk.bytes.len() {
                if written > 0 {
                    chunk.bytes.advance(written);
                    self.begun = true;
                    self.settle_first();
                }
                return;
            }
            written -= chunk.bytes.len();
            self.messages -= usize::from(!chunk.bytes.is_empty());
            self.settle_first();
            self.chunks.pop_front();
            self.first += 1;
            self.begun = false;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of replies that wait.
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Bytes that were written since something began to wait.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Adds to the end if there is room for it, and for the bytes that follow it.
    fn push_as(
        &mut self,
        kind: ChunkKind,
        bytes: Bytes,
        following: usize,
        bytes_max: usize,
    ) -> Result<usize, Full> {
        let added = bytes.len() + following;
        let mut dropped = 0;
        while self.bytes > 0 && self.bytes + added + (self.messages + 1) * Self::MESSAGE_BYTES > bytes_max {
            let oldest = self.droppable.pop_front().ok_or(Full)?;
            self.drop_chunk(oldest);
            dropped += 1;
        }
        self.append(kind, bytes);
        Ok(dropped)
    }

    fn append(&mut self, kind: ChunkKind, bytes: Bytes) {
        let number = self.first + self.chunks.len() as u64;
        match kind {
            ChunkKind::Kept | ChunkKind::Continuation => {}
            ChunkKind::Reply => self.reply_bytes += bytes.len(),
            ChunkKind::Droppable => self.droppable.push_back(number),
            ChunkKind::Latest(topic) => drop(self.latest.insert(topic, number)),
        }
        self.bytes += bytes.len();
        self.messages += 1;
        self.chunks.push_back(Chunk { bytes, kind });
    }

    /// Leaves the place of a chunk empty, whose number was taken from where it stood.
    fn drop_chunk(&mut self, number: u64) {
        let chunk = &mut self.chunks[(number - self.first) as usize];
        chunk.kind = ChunkKind::Kept;
        self.bytes -= std::mem::take(&mut chunk.bytes).len();
        self.messages -= 1;
        if self.chunks.len() > 2 * self.messages + Self::DROPPED_CHUNKS_MAX {
            self.tidy_up();
        }
    }

    /// Closes the gaps that dropped chunks left, which gives every chunk another number.
    fn tidy_up(&mut self) {
        self.chunks.retain(|chunk| !chunk.bytes.is_empty());
        self.first = 0;
        self.droppable.clear();
        self.latest.clear();
        for (number, chunk) in self.chunks.iter().enumerate() {
            match chunk.kind {
                ChunkKind::Kept | ChunkKind::Reply | ChunkKind::Continuation => {}
                ChunkKind::Droppable => self.droppable.push_back(number as u64),
                ChunkKind::Latest(topic) => drop(self.latest.insert(topic, number as u64)),
            }
        }
    }

    /// The first chunk gives way no more: it is being written, or was.
    fn settle_first(&mut self) {
        let Some(chunk) = self.chunks.front_mut() else { return };
        match chunk.kind {
            ChunkKind::Kept | ChunkKind::Reply | ChunkKind::Continuation => return,
            ChunkKind::Droppable => drop(self.droppable.pop_front()),
            ChunkKind::Latest(topic) => drop(self.latest.remove(&topic)),
        }
        chunk.kind = ChunkKind::Kept;
    }
}

#[cfg(test)]
mod tests;
