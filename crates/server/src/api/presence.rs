//! `presence` and `presence_stats`: the clients in a topic.

use fanwire_hub::Namespace;
use fanwire_protocol::TopicName;
use fanwire_protocol::centrifuge::{PresenceResult, PresenceStatsResult};
use fanwire_protocol::reason::RequestError;

use super::answer_budget::AnswerBudget;
use super::error::ApiError;
use super::reply::{ApiReply, result};
use crate::node::Node;

/// The advice for a caller whose list is too long.
pub(super) const INSTEAD: &str = "ask for presence_stats, or for fewer topics in one request";

pub(super) async fn presence(node: &Node, budget: &AnswerBudget, channel: &str) -> ApiReply {
    let topic = with_presence(node.topic(channel)?)?;
    let clients = node.presence(topic, budget.left()).await.map_err(|error| match error {
        RequestError::LimitExceeded => budget.too_long(INSTEAD),
        error => error.into(),
    })?;
    let presence = clients.iter().map(|info| (info.client.to_string(), (&**info).into())).collect();
    result(&PresenceResult { presence })
}

pub(super) async fn stats(node: &Node, channel: &str) -> Result<PresenceStatsResult, ApiError> {
    let stats = node.presence_stats(with_presence(node.topic(channel)?)?).await?;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(PresenceStatsResult { num_clients: number(stats.clients), num_users: number(stats.users) })
}

fn with_presence((topic, namespace): (TopicName, &Namespace)) -> Result<TopicName, RequestError> {
    if namespace.presence { Ok(topic) } else { Err(RequestError::NotAvailable) }
}
