//! The shares of a node's open files: its own, the internal port's, and those of clients.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The shares of a limit on open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// WebSockets and streams.
    pub clients: usize,
    /// HTTP connections to the port for clients. They may have what is left of the clients' share too.
    pub http: usize,
    /// Connections to the internal port, so that health answers while clients have used up theirs.
    pub internal: usize,
}

impl Shares {
    /// Splits `limit` for a node with this many shards and connections to Redis.
    pub(crate) fn new(limit: u64, shards: usize, links: usize) -> Self {
        /// Standard streams, listeners, the runtimes of the node, signals, files that are read for a moment.
        const OWN: usize = 16;
        /// A listener, its runtime, its readiness set.
        const EACH_SHARD: usize = 8;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let free = limit.saturating_sub(OWN + EACH_SHARD * shards + links);
        let (internal, http) = ((free / 4).min(1024), (free / 8).min(1024));
        Self { clients: free - internal - http, http, internal }
    }
}

/// The open HTTP connections of one port, and how many files it may have.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    max: usize,
    open: AtomicUsize,
}

impl OpenFiles {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, open: AtomicUsize::new(0) }
    }

    pub(super) fn open(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn close(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Returns true if the port has more than its share. `others` are its sockets that are no HTTP connections.
    pub(super) fn are_out(&self, others: usize) -> bool {
        self.open.load(Relaxed).saturating_add(others) > self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_most_of_the_files_and_health_has_some() {
        let shares = |limit| Shares::new(limit, 2, 0);
        assert_eq!(shares(20_000), Shares { clients: 17_920, http: 1024, internal: 1024 });
        assert_eq!(shares(1024), Shares { clients: 620, http: 124, internal: 248 });
        assert_eq!(shares(100), Shares { clients: 43, http: 8, internal: 17 });
        assert_eq!(shares(20), Shares { clients: 0, http: 0, internal: 0 });
        assert_eq!(Shares::new(1024, 2, 8).clients, 615);
    }
}
