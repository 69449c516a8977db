//! The topics of the cluster's own, and the limits on what nodes say to each other.

use std::time::Duration;

use fanwire_broker::{HistoryOptions, user_topic};
use fanwire_protocol::TopicName;
use uuid::Uuid;

use crate::message::Holder;

/// The topic of orders and questions.
pub(super) const CONTROL: &str = "!control";
/// The prefix of topics with answers to one node.
pub(super) const ANSWERS: &str = "!node:";
/// The prefix of topics whose members are anonymous connections.
const ANONYMOUS: &str = "!anonymous:";
/// The prefix of topics whose members are the connections of an address.
const ADDRESS: &str = "!address:";

/// The topic whose members are the holder's connections on all nodes.
pub(crate) fn holder_topic(holder: &Holder) -> TopicName {
    match holder {
        Holder::User(user) => user_topic(user),
        Holder::Network(network) => {
            TopicName::new(&format!("{ADDRESS}{network}")).expect("the name is not empty")
        }
    }
}

/// The topic whose members are the anonymous connections of a shard.
pub(crate) fn anonymous_topic(node: Uuid, shard: u16) -> TopicName {
    TopicName::new(&format!("{ANONYMOUS}{}:{shard}", node.simple())).expect("the name is not empty")
}

/// The topic of answers to a node.
pub(super) fn answers_topic(node: Uuid) -> TopicName {
    TopicName::new(&format!("{ANSWERS}{}", node.simple())).expect("the name is not empty")
}

/// The time that other nodes have for an answer. An order that takes longer is still carried out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// An order's parameters; longer ones are answered error 107.
pub(crate) const ORDER_BYTES_MAX: usize = 64 * 1024;

/// The history of orders, for nodes that are cut off for a while.
pub(crate) const ORDERS_KEPT: HistoryOptions = HistoryOptions {
    size: 10_000,
    ttl: Duration::from_secs(5 * 60),
    // Long beyond any quiet time, after which a new epoch would look like a loss.
    meta_ttl: Duration::from_secs(30 * 24 * 60 * 60),
};
