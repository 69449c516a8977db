//! The rates of users and addresses, as far as nodes count together: what the busy took is charged to buckets in Redis, and
//! the debts of these come back. No request waits for that, and without Redis each node counts alone.

use std::sync::Arc;

use fanwire_hub::session::RateLimit;

use crate::counters::Counters;
use crate::message::{Debts, Holder, ShardMessage};
use crate::node::Node;
use crate::peers::holder_topic;

/// The time between two charges of a shard.
pub(crate) const INTERVAL_MILLIS: u64 = 250;

/// Names of which one charge speaks. Others wait for the next.
pub(crate) const NAMES_MAX: usize = 1000;

/// Tokens by the names of those who took them.
pub(crate) type Taken = Vec<(Box<str>, u32)>;

/// What a shard is to tell other nodes.
pub(crate) struct Charges {
    pub node: Node,
    pub shard: u16,
    pub counters: Arc<Counters>,
    pub users: Taken,
    pub addresses: Taken,
}

impl Charges {
    /// Charges all that was taken, and has the debts adopted.
    pub(crate) async fn make(self) {
        let Self { node, shard, counters, users, addresses } = self;
        let settings = &node.settings.client;
        let of_users = charge(&node, &counters, users, Holder::User, RateLimit::of_user(settings));
        if let Some(debts) = of_users.await {
            node.inboxes.all[usize::from(shard)].send(ShardMessage::Debts(debts));
        }
        let limit = RateLimit::of_address(settings);
        if let Some(debts) = charge(&node, &counters, addresses, Holder::Network, limit).await {
            let mut rates = node.permits.address_rates();
            for (address, debt) in debts {
                rates.adopt(&address, debt, limit, node.now());
            }
        }
    }
}

/// Charges what these names took, and returns their debts. `None`: there are none, or Redis did not answer.
async fn charge(
    node: &Node,
    counters: &Counters,
    taken: Taken,
    holder: fn(Box<str>) -> Holder,
    limit: RateLimit,
) -> Option<Debts> {
    // A node that is alone has nobody to tell.
    let redis = node.peers.as_ref().filter(|_| !taken.is_empty())?.redis();
    let tokens: Vec<_> =
        taken.iter().map(|(name, taken)| (holder_topic(&holder(name.clone())), *taken)).collect();
    match redis.charge(&tokens, limit.token(), limit.debt_max()).await {
        Ok(debts) => Some(taken.into_iter().map(|(name, _)| name).zip(debts).collect()),
        Err(error) => {
            tracing::debug!(%error, "rates could not be counted on all nodes");
            counters.rates_uncounted.add(taken.len() as u64);
            None
        }
    }
}
