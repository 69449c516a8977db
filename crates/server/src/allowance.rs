//! The bytes that an answer read from a topic may have, counted for the client's shard while it is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Travels with the request and comes back with the answer. Dropping it anywhere frees its bytes.
#[derive(Debug)]
pub(crate) struct ReadAllowance {
    /// No answer is longer than `u32::MAX`.
    bytes: u32,
    may_grow: bool,
    on_their_way: Arc<AtomicUsize>,
}

impl ReadAllowance {
    /// With `may_grow`, a longer answer is not cut or refused: it is asked for again, with a larger allowance.
    pub(crate) fn new(bytes: usize, may_grow: bool, on_their_way: &Arc<AtomicUsize>) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        on_their_way.fetch_add(bytes as usize, Relaxed);
        Self { bytes, may_grow, on_their_way: on_their_way.clone() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub(crate) fn may_grow(&self) -> bool {
        self.may_grow
    }
}

impl Drop for ReadAllowance {
    fn drop(&mut self) {
        self.on_their_way.fetch_sub(self.bytes as usize, Relaxed);
    }
}
