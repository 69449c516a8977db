//! The question for the subscribers of topics on another node.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The method of the question, see [`SubscribersQuestion`].
pub(crate) const SUBSCRIBERS: &str = "!subscribers";

/// Asks a node for its number of subscribers of each topic.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SubscribersQuestion {
    pub topics: Vec<String>,
    /// A client that is not counted.
    pub exclude: Option<Uuid>,
}

/// The answer to a [`SubscribersQuestion`]: a number for each topic, in their order.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SubscribersAnswer {
    pub counts: Vec<usize>,
}
