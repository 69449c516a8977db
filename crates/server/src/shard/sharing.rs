//! Rates that nodes count together: the shard's part in it.

use std::rc::Rc;

use super::Shard;
use crate::shared_rates::{self, Charges};

impl Shard {
    /// Has nodes count together what this shard's users, and by one shard for all what addresses, took of late.
    pub(super) fn share_rates(&mut self) {
        // What is taken while Redis does not answer is charged together.
        if Rc::strong_count(&self.charging) > 1 {
            return;
        }
        self.next_charge_millis = self.now.millis + shared_rates::INTERVAL_MILLIS;
        let users = self.user_rates.take_busy(shared_rates::NAMES_MAX);
        let addresses = match self.index {
            0 => self.node.permits.address_rates().take_busy(shared_rates::NAMES_MAX),
            _ => Vec::new(),
        };
        if users.is_empty() && addresses.is_empty() {
            return;
        }
        let (node, shard, counters) = (self.node.clone(), self.index, self.counters.clone());
        let charges = Charges { node, shard, counters, users, addresses };
        let charging = self.charging.clone();
        tokio::task::spawn_local(async move {
            charges.make().await;
            drop(charging);
        });
    }
}
