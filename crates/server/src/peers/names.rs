//! The topics of the cluster's own, and the limits on what nodes say to each other.

use std::time::Duration;

use fanwire_broker::HistoryOptions;
use fanwire_protocol::TopicName;
use uuid::Uuid;

/// The topic of orders and questions.
pub(super) const CONTROL: &str = "!control";
/// What names of topics with answers begin with.
pub(super) const ANSWERS: &str = "!node:";
/// What names of topics begin with whose members are a user's connections.
const USER: &str = "!user:";

/// The topic whose members are a user's connections on all nodes.
pub(crate) fn user_topic(user: &str) -> TopicName {
    TopicName::new(&format!("{USER}{user}")).expect("the name is not empty")
}

/// The topic of answers to a node.
pub(super) fn answers_topic(node: Uuid) -> TopicName {
    TopicName::new(&format!("{ANSWERS}{}", node.simple())).expect("the name is not empty")
}

/// How long other nodes may take to answer. An order that takes longer is done all the same.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// An order's parameters; longer ones are answered error 107.
pub(crate) const ORDER_BYTES_MAX: usize = 64 * 1024;

/// How orders are kept for nodes that are cut off for a while.
pub(crate) const ORDERS_KEPT: HistoryOptions = HistoryOptions {
    size: 10_000,
    ttl: Duration::from_secs(5 * 60),
    // Long beyond any quiet time, after which a new epoch would look like a loss.
    meta_ttl: Duration::from_secs(30 * 24 * 60 * 60),
};
