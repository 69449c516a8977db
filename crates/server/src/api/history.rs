//! `history` and `history_remove`: the publications that a topic keeps.

use fanwire_broker::{HistoryPage, ReadLimit};
use fanwire_protocol::centrifuge::{Empty, HistoryResult, PublicationMessage};
use fanwire_protocol::json::fields::nested;
use fanwire_protocol::json::null_is_default;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::request::StreamPosition;
use serde::Deserialize;

use super::answer_budget::AnswerBudget;
use super::error::ApiError;
use super::reply::{ApiReply, result};
use crate::message::HistoryCall;
use crate::node::Node;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiHistory {
    #[serde(alias = "topic", deserialize_with = "null_is_default")]
    channel: String,
    /// 0: the position only; negative: everything that is kept.
    #[serde(deserialize_with = "null_is_default")]
    limit: i64,
    #[serde(deserialize_with = "nested")]
    since: Option<ApiPosition>,
    #[serde(deserialize_with = "null_is_default")]
    reverse: bool,
}

/// A place in a stream as a backend knows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiPosition {
    #[serde(deserialize_with = "null_is_default")]
    offset: u64,
    #[serde(deserialize_with = "null_is_default")]
    epoch: String,
}

impl From<ApiPosition> for StreamPosition {
    fn from(ApiPosition { offset, epoch }: ApiPosition) -> Self {
        Self { offset, epoch }
    }
}

/// The advice for a caller whose page is too long.
pub(super) const INSTEAD: &str =
    "ask for a page at a time, with limit, and since with the last page's last offset";

pub(super) async fn history(node: &Node, budget: &AnswerBudget, request: ApiHistory) -> ApiReply {
    let (topic, namespace) = node.topic(&request.channel)?;
    if namespace.history.is_none() {
        return Err(RequestError::NotAvailable.into());
    }
    let HistoryPage { top, publications, is_cut } = node.history(topic, request.call(budget.left())?).await?;
    if is_cut {
        return Err(budget.too_long(INSTEAD));
    }
    result(&HistoryResult {
        publications: publications
            .iter()
            .map(|publication| PublicationMessage::new(publication, namespace.show_time))
            .collect(),
        epoch: top.epoch.to_string(),
        offset: top.offset,
    })
}

pub(super) async fn remove(node: &Node, channel: &str) -> Result<Empty, ApiError> {
    let (topic, namespace) = node.topic(channel)?;
    if namespace.history.is_none() {
        return Err(RequestError::NotAvailable.into());
    }
    node.remove_history(topic).await?;
    Ok(Empty {})
}

impl ApiHistory {
    fn call(self, bytes: usize) -> Result<HistoryCall, ApiError> {
        let since = self.since.map(StreamPosition::from);
        if self.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ApiError::bad_request(
                "since.offset is 0, and nothing comes before it; leave out reverse",
            ));
        }
        let publications = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let limit = ReadLimit { publications, bytes };
        Ok(HistoryCall { limit, since, reverse: self.reverse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(request: &str) -> Result<HistoryCall, ApiError> {
        serde_json::from_str::<ApiHistory>(request).unwrap().call(1000)
    }

    #[test]
    fn pages_are_asked_for() {
        let limit = |request| call(request).unwrap().limit.publications;
        assert_eq!(limit("{}"), 0);
        assert_eq!(limit(r#"{"limit":7}"#), 7);
        assert_eq!(limit(r#"{"limit":-1}"#), usize::MAX);
        let since = call(r#"{"since":{"offset":3,"epoch":"e"},"reverse":true}"#).unwrap().since.unwrap();
        assert_eq!(since, StreamPosition { offset: 3, epoch: "e".into() });
        assert_eq!(call(r#"{"since":{}}"#).unwrap().since, Some(StreamPosition::default()));
    }

    #[test]
    fn nothing_is_before_the_first() {
        assert_eq!(call(r#"{"since":{"epoch":"e"},"reverse":true}"#).unwrap_err().code(), 107);
    }
}
