//! The work of a session: what waits for an answer, and the requests behind it.

use std::collections::VecDeque;

use fanwire_protocol::request::Request;

use super::connect::Connecting;
use super::prepare::Prepared;
use super::rate::Bucket;
use super::subscribe::Subscribing;

/// The state that only a busy session has; an idle one keeps nothing of it.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The beginning of the connection, while it is being checked.
    pub(super) prepared: Option<Box<Prepared>>,
    pub(super) connecting: Option<Connecting>,
    /// Requests that came before the connect reply.
    pub(super) queued: VecDeque<Request>,
    pub(super) subscribing: Vec<Subscribing>,
    /// Bytes of the requests that wait here.
    pub(super) waiting_bytes: usize,
    /// Set while the client has made many requests lately.
    pub(super) bucket: Option<Bucket>,
}

impl Work {
    /// Takes requests out of those that wait.
    pub(super) fn release(&mut self, waiting: &VecDeque<Request>) {
        let bytes: usize = waiting.iter().map(Request::bytes).sum();
        self.waiting_bytes -= bytes;
    }

    pub(super) fn waiting(&self) -> usize {
        self.queued.len() + self.subscribing.iter().map(|s| s.waiting.len()).sum::<usize>()
    }

    pub(super) fn is_done(&self) -> bool {
        self.prepared.is_none()
            && self.connecting.is_none()
            && self.queued.is_empty()
            && self.subscribing.is_empty()
            && self.bucket.is_none()
    }
}
