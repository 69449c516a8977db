//! Connections that are to be their user's only one on all nodes. All nodes hear of them in one order, and of those
//! that come at once the last in this order stays.

use fanwire_protocol::ClientId;
use rustc_hash::FxHashSet;

use super::client_of;
use crate::message::Address;

/// This node's connections whose turn in the order is yet to come. They stay when others are heard before them.
#[derive(Debug, Default)]
pub(super) struct Singles {
    unheard: FxHashSet<ClientId>,
}

impl Singles {
    pub(super) fn add(&mut self, connection: ClientId) {
        self.unheard.insert(connection);
    }

    /// The connection has gone.
    pub(super) fn remove(&mut self, connection: ClientId) {
        self.unheard.remove(&connection);
    }

    /// A connection has its turn; it is named if it is of this node. Returns those of its user here that are to close.
    pub(super) fn heard<'a>(
        &mut self,
        here: Option<ClientId>,
        all: impl Iterator<Item = &'a Address>,
    ) -> Vec<Address> {
        if let Some(here) = here {
            self.unheard.remove(&here);
        }
        let is_over = |connection| here != Some(connection) && !self.unheard.contains(&connection);
        all.copied().filter(|address| is_over(client_of(*address))).collect()
    }

    /// The other nodes could not be told of a connection of this one. It counts as heard, since one that waited for
    /// its turn for ever would outlive every newer one. Returns those here that are to close: none if it was heard
    /// after all or has gone, since those that are left may be newer.
    pub(super) fn unsent<'a>(
        &mut self,
        here: ClientId,
        all: impl Iterator<Item = &'a Address>,
    ) -> Vec<Address> {
        if self.unheard.contains(&here) { self.heard(Some(here), all) } else { Vec::new() }
    }

    /// Turns may have been missed.
    pub(super) fn all_heard(&mut self) {
        self.unheard = FxHashSet::default();
    }
}

#[cfg(test)]
mod tests {
    use fanwire_hub::effect::ConnectionKey;

    use super::*;

    const OLD: Address = Address { shard: 0, connection: ConnectionKey { slot: 1, generation: 1 } };
    const NEW: Address = Address { shard: 1, connection: ConnectionKey { slot: 1, generation: 1 } };

    fn waiting(all: &[Address]) -> Singles {
        let mut singles = Singles::default();
        all.iter().for_each(|address| singles.add(client_of(*address)));
        singles
    }

    #[test]
    fn the_last_that_is_heard_stays() {
        let mut singles = waiting(&[NEW]);
        // One of another node, which is heard before.
        assert_eq!(singles.heard(None, [OLD, NEW].iter()), [OLD]);
        assert_eq!(singles.heard(Some(client_of(NEW)), [OLD, NEW].iter()), [OLD]);
        assert_eq!(singles.heard(None, [NEW].iter()), [NEW]);
    }

    #[test]
    fn one_that_no_other_node_hears_of_is_closed_by_a_newer_one() {
        let mut singles = waiting(&[NEW]);
        assert_eq!(singles.unsent(client_of(NEW), [OLD, NEW].iter()), [OLD]);
        assert_eq!(singles.heard(None, [NEW].iter()), [NEW]);
    }

    #[test]
    fn news_of_one_that_has_gone_or_was_heard_closes_nothing() {
        let mut singles = waiting(&[OLD]);
        singles.remove(client_of(OLD));
        assert_eq!(singles.unsent(client_of(OLD), [NEW].iter()), []);

        let mut singles = waiting(&[OLD, NEW]);
        singles.heard(Some(client_of(OLD)), [OLD, NEW].iter());
        singles.heard(Some(client_of(NEW)), [OLD, NEW].iter());
        assert_eq!(singles.unsent(client_of(OLD), [NEW].iter()), []);
    }
}
