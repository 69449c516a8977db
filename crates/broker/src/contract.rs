//! The contract of engines: what they are asked, what they answer, and the events that they deliver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::{ClientInfo, Epoch, Position, Publication, Tags, TopicName};

/// Why an engine did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot be reached now. Whether the call took effect is not known.
    #[error("the engine is unavailable")]
    Unavailable,
    /// The position that was given belongs to another epoch of the topic.
    #[error("the position belongs to another epoch of the topic")]
    UnrecoverablePosition,
    /// Something that is not the engine's stands where its own should be.
    #[error("something that is not the engine's stands where its own should be")]
    Foreign,
    /// The answer would be longer than was asked for.
    #[error("the answer is too long")]
    TooLong,
    /// The engine has no memory left for what was to be kept.
    #[error("the engine has no memory left")]
    Full,
    /// The engine did not do it, or gave an answer that makes no sense.
    #[error("the engine refused the call")]
    Refused,
}

/// What an engine holds at this moment, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Topics with anything at all in this process: a subscription, and in memory a stream or presence.
    pub topics: usize,
    /// Topics that have a position in this process.
    pub streams: usize,
    /// Publications kept in history.
    pub publications: usize,
    /// What names, positions and publications take.
    pub bytes: usize,
    /// Publications that left history before their time since the start, because the bound of memory was reached.
    pub evicted: u64,
    /// Positions that were forgotten for the same reason.
    pub forgotten: u64,
}

/// Something that happened in a subscribed topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody published.
    Publication {
        /// Where.
        topic: TopicName,
        /// What, as everybody who receives it shares it.
        publication: Arc<Publication>,
        /// The stream that its offset belongs to; `None` exactly when the offset is 0.
        epoch: Option<Epoch>,
    },
    /// A client subscribed.
    Join {
        /// Where.
        topic: TopicName,
        /// Who.
        info: Arc<ClientInfo>,
    },
    /// A client unsubscribed or went away.
    Leave {
        /// Where.
        topic: TopicName,
        /// Who.
        info: Arc<ClientInfo>,
    },
    /// Events may have been missed: the connection to the engine was lost for a while, or the stream changed in a
    /// way that no single event can tell. Compare the topic's position with [`crate::Engine::recover`]. An engine
    /// that cannot miss anything never says so.
    Interrupted {
        /// Where.
        topic: TopicName,
    },
}

impl Event {
    /// Where it happened.
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Publication { topic, .. }
            | Self::Join { topic, .. }
            | Self::Leave { topic, .. }
            | Self::Interrupted { topic } => topic,
        }
    }
}

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

/// How long epoch and top of a topic in which nothing was ever published outlive the last question at most: clients
/// may ask about names that nobody else knows, as many as they like.
pub const UNPUBLISHED_META_TTL_MAX: Duration = Duration::from_secs(10 * 60);

/// The position that a reader says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The last offset it has seen.
    pub offset: u64,
    /// The epoch that the offset belongs to, as the reader sent it. Empty matches any.
    pub epoch: &'a str,
}

/// How much one answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub publications: usize,
    /// As [`Publication::answer_bytes`] counts them. An engine may count some more or less for what is not data.
    pub bytes: usize,
}

impl From<usize> for Limit {
    /// So many publications, however long they are.
    fn from(publications: usize) -> Self {
        Self { publications, bytes: usize::MAX }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::from(0)
    }
}

/// What a reader has missed.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// Where the stream stands.
    pub top: Position,
    /// With `publications` the reader has everything up to `top`.
    pub complete: bool,
    /// All that was missed, in order. Empty unless complete, or a part.
    pub publications: Vec<Arc<Publication>>,
    /// All of it can be had, but it does not fit the limit. Then it is not complete. For more publications than the
    /// limit, only [`Engine::recover_part`](crate::Engine::recover_part) says so.
    pub is_too_long: bool,
}

impl Recovery {
    /// Returns true if it is a part that is empty because the first publication alone does not fit the limit.
    pub fn begins_too_long(&self) -> bool {
        self.is_too_long && self.publications.is_empty()
    }
}

/// Asks for a page of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery<'a> {
    /// At most so much, 0 publications ask for the position alone. If there is anything to read, a page holds at
    /// least one publication, however long it is.
    pub limit: Limit,
    /// Only offsets above it, or below it in reverse.
    pub since: Option<Since<'a>>,
    /// Newest first.
    pub reverse: bool,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Where the stream stands, whatever the page.
    pub top: Position,
    /// The page.
    pub publications: Vec<Arc<Publication>>,
    /// It ended at the limit's bytes.
    pub is_cut: bool,
}

/// A client that is present.
#[derive(Clone, Debug)]
pub struct Member {
    pub info: Arc<ClientInfo>,
    /// Subscribers are told when it becomes absent, exactly once, by whatever makes it so:
    /// [`Engine::remove_presence`](crate::Engine::remove_presence), or the death of its node.
    pub announce_leave: bool,
}

impl Member {
    pub fn new(info: Arc<ClientInfo>, announce_leave: bool) -> Self {
        Self { info, announce_leave }
    }
}

/// How many are present in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Clients, that is connections.
    pub clients: usize,
    /// Distinct users; all anonymous clients together count as one.
    pub users: usize,
}
