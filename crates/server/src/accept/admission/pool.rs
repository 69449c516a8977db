//! The connections of one group: the limit, the number of them, and those that may give way.

use std::time::Duration;

use super::eviction::EvictionOrder;
use super::{ClientNetwork, Counts};

#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupLimit {
    /// Connections at most.
    pub max: usize,
    /// The time that a connection has before it gives way to one of its own network. In a storm of honest clients the
    /// node waits for many of them, and none would be served if each pushed out another.
    pub patience: Duration,
}

/// A network gives way to another at once if it has more waiting connections by this part of the group.
const FAIR_PART: usize = 4;

#[derive(Debug)]
pub(super) struct Pool {
    pub limit: GroupLimit,
    /// Connections in it, without those that were told to end.
    count: usize,
    /// The same of each network.
    networks: Counts,
    /// Those of them that the node waits for, by their places among all entries.
    pub evictable: EvictionOrder<usize>,
}

impl Pool {
    pub(super) fn new(limit: GroupLimit) -> Self {
        Self { limit, count: 0, networks: Counts::default(), evictable: EvictionOrder::default() }
    }

    pub(super) fn enter(&mut self, network: ClientNetwork) {
        self.count += 1;
        self.networks.add(network, 1);
    }

    pub(super) fn leave(&mut self, network: ClientNetwork) {
        self.count -= 1;
        self.networks.remove(&network, 1);
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limit.max
    }

    pub(super) fn is_over(&self) -> bool {
        self.count > self.limit.max
    }

    pub(super) fn is_half_full(&self) -> bool {
        2 * self.count > self.limit.max
    }

    /// Returns true if a network has as many as it may: no more than are left for others, which are those that are free
    /// and those of others that may give way. Alone it may have half of the group.
    pub(super) fn has_share(&self, network: ClientNetwork) -> bool {
        let own = self.networks.of(&network);
        let others_evictable = self.evictable.len() - self.evictable.of(network);
        own > (self.limit.max + others_evictable).saturating_sub(self.count)
    }

    /// Returns true if the network that has the most to give way has so many more than this one that it has to at once.
    pub(super) fn is_unfair_to(&self, newcomer: ClientNetwork) -> bool {
        self.evictable
            .first()
            .is_some_and(|(_, count)| count > self.evictable.of(newcomer) + self.limit.max / FAIR_PART)
    }
}
