//! Publishing into one topic, or the same into several.

use std::pin::Pin;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_broker::{NewPublication, Published};
use fanwire_protocol::json::{self, is_default, null_is_default};
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{ClientId, Tags, TopicName};
use serde::{Deserialize, Serialize};

use super::decode::payload;
use super::error::ApiError;
use super::parallel::side_by_side;
use super::reach::{Reach, reach};
use super::reply::{ApiEnvelope, ApiReply, result};
use crate::node::Node;

/// Topics of one broadcast that are published into at the same time.
const BROADCAST_WIDTH: usize = 64;

/// `publish` names one topic, `broadcast` several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiPublish {
    #[serde(alias = "topic", deserialize_with = "null_is_default")]
    channel: String,
    #[serde(alias = "topics", deserialize_with = "null_is_default")]
    channels: Vec<String>,
    /// `null` is a value as any other.
    #[serde(deserialize_with = "json::payload::deserialize")]
    data: Bytes,
    #[serde(deserialize_with = "null_is_default")]
    b64data: String,
    #[serde(deserialize_with = "null_is_default")]
    skip_history: bool,
    #[serde(deserialize_with = "null_is_default")]
    tags: Tags,
    #[serde(deserialize_with = "null_is_default")]
    idempotency_key: Box<str>,
    #[serde(deserialize_with = "null_is_default")]
    version: u64,
    #[serde(deserialize_with = "null_is_default")]
    version_epoch: Box<str>,
    /// The one client that does not get it.
    #[serde(deserialize_with = "null_is_default")]
    exclude: String,
    /// The result tells how many subscribers it reaches.
    #[serde(deserialize_with = "null_is_default")]
    subscribers: bool,
}

/// The position of the publication in its topic's stream; empty if it was not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct PublishResult {
    #[serde(skip_serializing_if = "is_default")]
    offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    epoch: String,
    #[serde(flatten)]
    reach: Reach,
    #[serde(skip)]
    is_suppressed: bool,
}

/// A publication on its way.
pub(super) type PendingPublish = Pin<Box<dyn Future<Output = Result<PublishResult, ApiError>> + Send>>;

/// Begins to publish. What is begun for one topic is published in that order.
pub(super) async fn publish(node: &Node, request: ApiPublish) -> Result<PendingPublish, ApiError> {
    let (publish, keep) = request.content()?;
    let exclude = publish.exclude;
    let publishing = publish_into(node, &request.channel, request.data_field(), publish, keep).await?;
    if !request.subscribers {
        return Ok(publishing);
    }
    let node = node.clone();
    Ok(Box::pin(async move {
        let mut result = publishing.await;
        add_reach(&node, slice::from_ref(&request.channel), exclude, slice::from_mut(&mut result)).await;
        result
    }))
}

pub(super) async fn broadcast(node: &Node, request: ApiPublish) -> ApiReply {
    #[derive(Serialize)]
    struct BroadcastResult<'a> {
        responses: Vec<ApiEnvelope<'a, PublishResult>>,
    }

    let topics_max = node.settings.api.commands_max;
    if request.channels.is_empty() {
        return Err(ApiError::bad_request("channels is empty; name at least one"));
    }
    if request.channels.len() > topics_max {
        let message = format!("more than {topics_max} channels, the limit that api.commands_max sets");
        return Err(ApiError::bad_request(message));
    }
    let (publish, keep) = request.content()?;
    let (exclude, field) = (publish.exclude, request.data_field());
    let publications = request.channels.iter().cloned().map(|topic| {
        let (node, publish) = (node.clone(), publish.clone());
        async move { publish_into(&node, &topic, field, publish, keep).await?.await }
    });
    let mut replies = side_by_side(BROADCAST_WIDTH, publications).await;
    if request.subscribers {
        add_reach(node, &request.channels, exclude, &mut replies).await;
    }
    result(&BroadcastResult { responses: replies.iter().map(ApiEnvelope::from).collect() })
}

/// Longest `idempotency_key` and `version_epoch`: the engine keeps them for minutes and for a topic's life.
use fanwire_hub::hook::KEY_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    AsTheNamespaceSays,
    No,
}

impl ApiPublish {
    fn data_field(&self) -> &'static str {
        if self.b64data.is_empty() { "data" } else { "b64data" }
    }

    /// The publication, but for the topic's part in it.
    fn content(&self) -> Result<(NewPublication, Keep), ApiError> {
        for (name, key) in
            [("idempotency_key", &self.idempotency_key), ("version_epoch", &self.version_epoch)]
        {
            if key.len() > KEY_BYTES_MAX {
                return Err(ApiError::bad_request(format!("{name} is longer than {KEY_BYTES_MAX} bytes")));
            }
        }
        let publish = NewPublication {
            data: payload(self.data.clone(), &self.b64data, "b64data")?,
            tags: (!self.tags.is_empty()).then(|| Arc::new(self.tags.clone())),
            idempotency_key: (!self.idempotency_key.is_empty()).then(|| self.idempotency_key.clone()),
            version: self.version,
            version_epoch: self.version_epoch.clone(),
            exclude: self.excluded()?,
            ..NewPublication::default()
        };
        Ok((publish, if self.skip_history { Keep::No } else { Keep::AsTheNamespaceSays }))
    }

    fn excluded(&self) -> Result<Option<ClientId>, ApiError> {
        if self.exclude.is_empty() {
            return Ok(None);
        }
        let why = "exclude is no client's id; it is the `client` of the answer to connect";
        ClientId::parse(&self.exclude).map(Some).ok_or_else(|| ApiError::bad_request(why))
    }
}

/// `field` is where the data came from.
async fn publish_into(
    node: &Node,
    topic: &str,
    field: &'static str,
    publish: NewPublication,
    keep: Keep,
) -> Result<PendingPublish, ApiError> {
    let (topic, namespace) = node.topic(topic)?;
    if namespace.status {
        let why = "its topics tell the status of users, and nobody publishes there";
        return Err(ApiError::because(RequestError::NotAvailable, why));
    }
    let checked = namespace.publication_format.check(&publish.data);
    checked.map_err(|unfit| unfit.of(field))?;
    let history = match keep {
        Keep::AsTheNamespaceSays => Node::history_options(namespace),
        Keep::No => None,
    };
    let published = node.publish(topic, NewPublication { history, ..publish }).await?;
    Ok(Box::pin(async move { Ok(published.await?.into()) }))
}

/// Adds to each result how many subscribers the publication reaches.
async fn add_reach(
    node: &Node,
    channels: &[String],
    exclude: Option<ClientId>,
    results: &mut [Result<PublishResult, ApiError>],
) {
    let (mut topics, mut reaching) = (Vec::new(), Vec::new());
    for (channel, result) in channels.iter().zip(results) {
        let (Some(topic), Ok(result)) = (TopicName::new(channel), result) else { continue };
        if result.is_suppressed {
            result.reach.subscribers = Some(0);
        } else {
            topics.push(topic);
            reaching.push(result);
        }
    }
    for (result, reach) in reaching.into_iter().zip(reach(node, topics, exclude).await) {
        result.reach = reach;
    }
}

impl From<Published> for PublishResult {
    fn from(Published { position, suppressed }: Published) -> Self {
        let position = position.map_or_else(Self::default, |position| Self {
            offset: position.offset,
            epoch: position.epoch.to_string(),
            ..Self::default()
        });
        Self { is_suppressed: suppressed, ..position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanwire_protocol::{Epoch, Position};

    fn content(request: &str) -> Result<(NewPublication, Keep), ApiError> {
        serde_json::from_str::<ApiPublish>(request).unwrap().content()
    }

    #[test]
    fn requests_become_publications() {
        let (plain, keep) = content(r#"{"channel":"a","data":{"b": 1}}"#).unwrap();
        assert_eq!((&*plain.data, keep), (&b"{\"b\": 1}"[..], Keep::AsTheNamespaceSays));
        assert!(plain.tags.is_none() && plain.idempotency_key.is_none() && plain.info.is_none());
        assert_eq!((plain.version, &*plain.version_epoch), (0, ""));

        let (full, keep) = content(
            r#"{"data":1,"b64data":"/wA=","skip_history":true,"tags":{"k":"v"},"idempotency_key":"i",
                "delta":true,"version":7,"version_epoch":"e",
                "exclude":"00000000-0000-4000-8000-000000000001"}"#,
        )
        .unwrap();
        assert_eq!((&*full.data, keep), (&[255, 0][..], Keep::No));
        assert_eq!(full.tags.unwrap()["k"], "v");
        assert_eq!(full.idempotency_key.as_deref(), Some("i"));
        assert_eq!((full.version, &*full.version_epoch), (7, "e"));
        assert_eq!(full.exclude, ClientId::parse("00000000-0000-4000-8000-000000000001"));
        assert_eq!(content(r#"{"exclude":""}"#).unwrap().0.exclude, None);
        assert_eq!(content(r#"{"exclude":"somebody"}"#).unwrap_err().code(), 107);

        assert_eq!(content(r#"{"data":null}"#).unwrap().0.data, "null");
        assert_eq!(content("{}").unwrap().0.data, "");
        assert_eq!(content(r#"{"b64data":"*"}"#).unwrap_err().code(), 107);
        for name in ["idempotency_key", "version_epoch"] {
            let of_length =
                |length| content(&serde_json::json!({"data": 1, name: "k".repeat(length)}).to_string());
            assert!(of_length(KEY_BYTES_MAX).is_ok());
            assert!(of_length(KEY_BYTES_MAX + 1).is_err());
        }
    }

    #[test]
    fn results_without_a_position_are_empty() {
        let text = |position| {
            let published = Published { position, suppressed: false };
            serde_json::to_string(&PublishResult::from(published)).unwrap()
        };
        assert_eq!(text(None), "{}");
        let epoch = Epoch::parse(b"abcdefgh").unwrap();
        assert_eq!(text(Some(Position { epoch, offset: 3 })), r#"{"offset":3,"epoch":"abcdefgh"}"#);

        let text =
            |reach| serde_json::to_string(&PublishResult { reach, ..PublishResult::default() }).unwrap();
        assert_eq!(text(Reach { subscribers: Some(0), missing: vec![] }), r#"{"subscribers":0}"#);
        let missing = vec!["b".into(), "c".into()];
        assert_eq!(text(Reach { subscribers: Some(7), missing }), r#"{"subscribers":7,"missing":["b","c"]}"#);
    }
}
