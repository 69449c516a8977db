//! `channels` and `info`: active topics, and the nodes.

use std::collections::BTreeMap;

use fanwire_protocol::json::null_is_default;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::error::ApiError;
use crate::counters::{Counter, Counters};
use crate::node::{Node, VERSION};

/// Longest pattern that topics are matched against, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiChannels {
    /// With `*` for any characters and `?` for any one; empty for all topics.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) pattern: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ChannelsResult {
    channels: BTreeMap<String, ChannelResult>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct ChannelResult {
    num_clients: usize,
}

impl ChannelsResult {
    /// Merges the results of several nodes.
    pub(super) fn merged(results: Vec<Self>, topics_max: usize) -> Result<Self, ApiError> {
        let mut channels = BTreeMap::<String, ChannelResult>::new();
        for (name, ChannelResult { num_clients }) in results.into_iter().flat_map(|result| result.channels) {
            channels.entry(name).or_insert(ChannelResult { num_clients: 0 }).num_clients += num_clients;
        }
        if channels.len() > topics_max { Err(too_many(topics_max)) } else { Ok(Self { channels }) }
    }
}

/// Topics that have subscribers.
pub(super) async fn channels(node: &Node, pattern: &str) -> Result<ChannelsResult, ApiError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(ApiError::bad_request(format!("a pattern longer than {PATTERN_BYTES_MAX} bytes")));
    }
    let topics_max = node.settings.api.topics_max;
    let topics = node.topics().await;
    let topics = topics.iter().map(|(topic, subscribers)| (topic.as_str(), *subscribers));
    select(topics, pattern, topics_max)
}

fn select<'a>(
    topics: impl Iterator<Item = (&'a str, usize)>,
    pattern: &str,
    topics_max: usize,
) -> Result<ChannelsResult, ApiError> {
    let pattern = WildMatch::new(if pattern.is_empty() { "*" } else { pattern });
    let mut channels = BTreeMap::new();
    for (topic, num_clients) in topics.filter(|(topic, _)| pattern.matches(topic)) {
        if channels.len() == topics_max {
            return Err(too_many(topics_max));
        }
        channels.insert(topic.to_owned(), ChannelResult { num_clients });
    }
    Ok(ChannelsResult { channels })
}

fn too_many(topics_max: usize) -> ApiError {
    ApiError::bad_request(format!(
        "more than {topics_max} channels, the limit that api.topics_max sets; ask with a narrower pattern"
    ))
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct InfoResult {
    nodes: Vec<NodeResult>,
}

impl InfoResult {
    /// All nodes by name, so that every node gives the same answer.
    pub(super) fn merged(results: Vec<Self>) -> Self {
        let mut nodes: Vec<_> = results.into_iter().flat_map(|result| result.nodes).collect();
        nodes.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
        Self { nodes }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct NodeResult {
    uid: String,
    name: String,
    version: String,
    num_clients: u64,
    num_users: u64,
    num_subs: u64,
    num_channels: u64,
    /// In seconds.
    uptime: u64,
}

pub(super) fn info(node: &Node) -> InfoResult {
    let sum = |counter: fn(&Counters) -> &Counter| {
        node.counters.iter().map(|counters| counter(counters).value()).sum()
    };
    InfoResult {
        nodes: vec![NodeResult {
            uid: node.id.to_string(),
            name: node.settings.name.clone(),
            version: VERSION.to_owned(),
            num_clients: sum(|counters| &counters.clients),
            num_users: sum(|counters| &counters.users),
            num_subs: sum(|counters| &counters.subscriptions),
            num_channels: sum(|counters| &counters.topics),
            uptime: node.uptime().as_secs(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_nodes_have_is_added_up() {
        let all = |topics: &[(&str, usize)]| select(topics.iter().copied(), "", 10).unwrap();
        let results = || vec![all(&[("a", 1), ("b", 2)]), all(&[]), all(&[("b", 3), ("c", 4)])];
        assert_eq!(ChannelsResult::merged(results(), 3), Ok(all(&[("a", 1), ("b", 5), ("c", 4)])));
        assert_eq!(ChannelsResult::merged(results(), 2).unwrap_err().code(), 107);
    }

    const TOPICS: [(&str, usize); 4] = [("chat:b", 2), ("chat:a", 1), ("news", 7), ("chat", 3)];

    #[test]
    fn patterns_select_topics() {
        let names = |pattern| {
            let ChannelsResult { channels } = select(TOPICS.into_iter(), pattern, 10).unwrap();
            channels.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["chat", "chat:a", "chat:b", "news"]);
        assert_eq!(names("*"), names(""));
        assert_eq!(names("chat:*"), ["chat:a", "chat:b"]);
        assert_eq!(names("chat:?"), ["chat:a", "chat:b"]);
        assert_eq!(names("*:a"), ["chat:a"]);
        assert_eq!(names("chat"), ["chat"]);
        assert!(names("CHAT").is_empty());
        let text = serde_json::to_string(&select(TOPICS.into_iter(), "news", 1).unwrap()).unwrap();
        assert_eq!(text, r#"{"channels":{"news":{"num_clients":7}}}"#);
    }

    #[test]
    fn more_than_fit_are_refused() {
        assert!(select(TOPICS.into_iter(), "chat:*", 2).is_ok());
        let error = select(TOPICS.into_iter(), "", 3).unwrap_err();
        assert_eq!(error.code(), 107);
        assert!(serde_json::to_string(&error).unwrap().contains("api.topics_max"));
    }
}
