//! Messages for sessions that arrive while a batch is being written. They are handled after it, in the order in which they
//! were sent.
//!
//! The list is bounded. Further messages wait in the inbox, whose own bound makes publishers wait.

use std::collections::VecDeque;

use fanwire_protocol::capacity::shrunk;

use crate::message::ShardMessage;

#[derive(Debug, Default)]
pub(super) struct Gathered {
    messages: VecDeque<ShardMessage>,
    bytes: usize,
}

impl Gathered {
    pub(super) const MESSAGES_MAX: usize = 4096;
    pub(super) const BYTES_MAX: usize = 4 << 20;
    const MESSAGES_USUAL: usize = 256;

    pub(super) fn push(&mut self, message: ShardMessage) {
        self.bytes += message.bytes().unwrap_or(0);
        self.messages.push_back(message);
    }

    pub(super) fn pop(&mut self) -> Option<ShardMessage> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes().unwrap_or(0);
        if self.messages.is_empty()
            && let Some(capacity) = shrunk(Self::MESSAGES_USUAL, self.messages.capacity())
        {
            self.messages.shrink_to(capacity);
        }
        Some(message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= Self::MESSAGES_MAX || self.bytes >= Self::BYTES_MAX
    }
}
