//! Who is in a topic.

use fanwire_hub::Namespace;
use fanwire_protocol::centrifuge::{PresenceResult, PresenceStatsResult};
use fanwire_protocol::{ErrorCode, TopicName};

use super::error::ApiError;
use crate::handle::Node;

pub(super) async fn presence(node: &Node, channel: &str) -> Result<PresenceResult, ApiError> {
    let clients = node.presence(with_presence(node.topic(channel)?)?).await?;
    let presence = clients.iter().map(|info| (info.client.to_string(), (&**info).into())).collect();
    Ok(PresenceResult { presence })
}

pub(super) async fn stats(node: &Node, channel: &str) -> Result<PresenceStatsResult, ApiError> {
    let stats = node.presence_stats(with_presence(node.topic(channel)?)?).await?;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(PresenceStatsResult { num_clients: number(stats.clients), num_users: number(stats.users) })
}

fn with_presence((topic, namespace): (TopicName, &Namespace)) -> Result<TopicName, ErrorCode> {
    if namespace.presence { Ok(topic) } else { Err(ErrorCode::NOT_AVAILABLE) }
}
