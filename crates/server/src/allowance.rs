//! How long an answer that is read from a topic may become, counted for the client's shard while it is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Goes along with the question and comes back with the answer. Wherever it is dropped, its bytes are free again.
#[derive(Debug)]
pub(crate) struct ReadAllowance {
    bytes: usize,
    may_grow: bool,
    on_their_way: Arc<AtomicUsize>,
}

impl ReadAllowance {
    /// With `may_grow`, an answer that is longer is not cut or refused: it is asked for again, with more.
    pub(crate) fn new(bytes: usize, may_grow: bool, on_their_way: &Arc<AtomicUsize>) -> Self {
        on_their_way.fetch_add(bytes, Relaxed);
        Self { bytes, may_grow, on_their_way: on_their_way.clone() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn may_grow(&self) -> bool {
        self.may_grow
    }
}

impl Drop for ReadAllowance {
    fn drop(&mut self) {
        self.on_their_way.fetch_sub(self.bytes, Relaxed);
    }
}
