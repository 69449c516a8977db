//! The things of a connection that wait: few connections have any, and none for long.

use std::collections::VecDeque;

use bytes::BytesMut;
use fanwire_hub::queue::Queue;
use fanwire_protocol::TopicName;
use fanwire_protocol::request::{Malformed, Request};
use fanwire_protocol::wire::{ClientMessage, Wire};

use super::opening::Undecided;
use crate::hooks::HookTicket;

/// Input of a client that was not handled yet, and output that may not be sent yet. What was read is kept as bytes: as
/// requests it would take many times the memory.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// A message with requests that wait for their time, or until the client has read, and been sent, more of its
    /// answers.
    pub(super) message: Option<DeferredMessage>,
    /// Bytes of it whose requests were done.
    pub(super) taken: usize,
    /// The bytes that came behind it and were not looked at.
    pub(super) unread: BytesMut,
    /// The requests that the connection was opened with, before anything is read.
    pub(super) first: VecDeque<Request>,
    /// The response to the request that opened the connection, while it depends on the answers to those requests.
    pub(super) opening: Option<Undecided>,
    /// Pushes that came before the reply to connect, or before that response.
    pub(super) held_pushes: Option<Box<Queue>>,
    /// The questions to hooks that are not answered, by the session's numbers for them.
    pub(super) tickets: Vec<(u32, HookTicket)>,
}

impl Pending {
    pub(super) fn has_requests(&self) -> bool {
        self.message.is_some() || !self.first.is_empty()
    }

    pub(super) fn has_input(&self) -> bool {
        self.has_requests() || !self.unread.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_input() && self.opening.is_none() && self.held_pushes.is_none() && self.tickets.is_empty()
    }

    /// Takes the first request that waits. What stands behind a refused connect, or a mistake, is not for a session that
    /// is over.
    pub(super) fn next_request(
        &mut self,
        wire: Wire,
        publish: Option<TopicName>,
        is_over: bool,
    ) -> Option<Result<Request, Malformed>> {
        if !self.first.is_empty() {
            let request = if is_over { None } else { self.first.pop_front() };
            if let (Some(opening), Some(request)) = (&mut self.opening, &request) {
                opening.asks(request.id);
            }
            return request.map(Ok);
        }
        let message = self.message.as_ref()?.message();
        if self.taken > 0 && is_over {
            return None;
        }
        let mut requests = wire.requests(message, self.taken).publishing_to(publish);
        let request = requests.next();
        self.taken = requests.taken();
        if self.taken == message.bytes().len() {
            self.message = None;
        }
        request
    }

    /// Drops the requests that wait, but not the bytes that were not looked at.
    pub(super) fn forget_requests(&mut self) {
        (self.message, self.first) = (None, VecDeque::new());
    }
}

/// A message, kept.
#[derive(Debug)]
pub(super) enum DeferredMessage {
    Text(Box<str>),
    Binary(Box<[u8]>),
}

impl DeferredMessage {
    fn message(&self) -> ClientMessage<'_> {
        match self {
            Self::Text(text) => ClientMessage::Text(text),
            Self::Binary(bytes) => ClientMessage::Binary(bytes),
        }
    }
}

impl From<ClientMessage<'_>> for DeferredMessage {
    fn from(message: ClientMessage<'_>) -> Self {
        match message {
            ClientMessage::Text(text) => Self::Text(text.into()),
            ClientMessage::Binary(bytes) => Self::Binary(bytes.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_deferred_as_what_it_is() {
        for message in [ClientMessage::Text("1"), ClientMessage::Binary(b"1")] {
            assert_eq!(DeferredMessage::from(message).message(), message);
        }
    }
}
