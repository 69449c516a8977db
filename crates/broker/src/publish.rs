//! What goes into a publish call and what comes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::{ClientInfo, Position, Tags};

/// A publication on its way into a topic.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// The payload.
    pub data: Bytes,
    /// The publishing client; `None` when a backend publishes.
    pub info: Option<Arc<ClientInfo>>,
    /// `None` without tags.
    pub tags: Option<Arc<Tags>>,
    /// How to keep it. `None`: it is delivered and not kept, with offset 0 and without a position.
    pub history: Option<HistoryOptions>,
    /// A repeat of the key in the same topic publishes nothing and returns the first result.
    pub idempotency_key: Option<Box<str>>,
    /// If above 0, and not above the last version that the topic's stream has seen under the same
    /// `version_epoch`, nothing is published. Means nothing without `history`.
    pub version: u64,
    /// Versions are compared only under equal version epochs.
    pub version_epoch: Box<str>,
}

/// How a topic keeps its publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// How many are kept; the oldest go first. A topic that keeps none has no history options at all.
    pub size: usize,
    /// How long they are kept after the last of them, all together. An engine in another process may keep them for up
    /// to an eighth longer.
    pub ttl: Duration,
    /// How long epoch and top outlive the last publication, or question once there was one; not less than `ttl`.
    pub meta_ttl: Duration,
}

/// What became of a publish call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where the publication stands in the topic's stream; `None` if it was not kept. If suppressed: the first
    /// result for a repeated key, the stream's top for an old version.
    pub position: Option<Position>,
    /// A repeated idempotency key or an old version: nothing was delivered.
    pub suppressed: bool,
}
