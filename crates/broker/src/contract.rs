//! The contract of engines: requests, answers, errors, and the events that engines deliver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::{ClientId, ClientInfo, Epoch, EventMask, Position, Publication, Tags, TopicName};

/// An error of an engine's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine is unreachable. The call may have taken effect.
    #[error("the engine is unavailable")]
    Unavailable,
    /// The given position belongs to another epoch of the topic.
    #[error("the position belongs to another epoch of the topic")]
    UnrecoverablePosition,
    /// A value of another program occupies one of the engine's keys.
    #[error("another program's value occupies one of the engine's keys")]
    Foreign,
    /// The answer exceeds the given limit.
    #[error("the answer is too long")]
    TooLong,
    /// The engine has no memory left to store the data.
    #[error("the engine has no memory left")]
    Full,
    /// The engine refused the call, or its answer was invalid.
    #[error("the engine refused the call")]
    Refused,
}

/// Current contents of an engine, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Topics with any state in this process: a subscription, or in the memory engine a stream or presence.
    pub topics: usize,
    /// Topics that have a position in this process.
    pub streams: usize,
    /// Publications kept in history.
    pub publications: usize,
    /// Bytes of names, positions and publications.
    pub bytes: usize,
    /// Publications removed before they expired because the memory bound was reached, since the start.
    pub evicted: u64,
    /// Positions removed for the same reason.
    pub forgotten: u64,
}

/// An event in a subscribed topic. Events of a topic are delivered in one order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A publication.
    Publication {
        topic: TopicName,
        /// Shared by all receivers.
        publication: Arc<Publication>,
        /// The epoch of its offset; `None` exactly when the offset is 0.
        epoch: Option<Epoch>,
    },
    /// A client subscribed.
    Join { topic: TopicName, info: Arc<ClientInfo> },
    /// A client unsubscribed or disconnected.
    Leave { topic: TopicName, info: Arc<ClientInfo> },
    /// Events may have been missed: the connection to the engine was lost for a while, or the stream changed in a
    /// way that no single event describes. The receiver compares its position by [`crate::Engine::recover`]. The
    /// memory engine never delivers a gap.
    Gap { topic: TopicName },
}

impl Event {
    /// The topic of the event.
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Publication { topic, .. }
            | Self::Join { topic, .. }
            | Self::Leave { topic, .. }
            | Self::Gap { topic } => topic,
        }
    }
}

/// A request to publish.
#[derive(Clone, Debug, Default)]
pub struct NewPublication {
    /// The payload.
    pub data: Bytes,
    /// The publishing client; `None` when a backend publishes.
    pub info: Option<Arc<ClientInfo>>,
    /// `None` if there are no tags.
    pub tags: Option<Arc<Tags>>,
    /// The one client that does not get it.
    pub exclude: Option<ClientId>,
    /// History options. `None` delivers the publication without storing it, with offset 0 and no position.
    pub history: Option<HistoryOptions>,
    /// A repeated key in the same topic publishes nothing and returns the first result.
    pub idempotency_key: Option<Box<str>>,
    /// A version above 0 is published only if it is above the stream's last version of the same `version_epoch`.
    /// Ignored without `history`.
    pub version: u64,
    /// Only versions of equal version epochs are compared.
    pub version_epoch: Box<str>,
}

/// Options of a topic's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// The largest number of publications; the oldest are removed first. A topic without history has no options.
    pub size: usize,
    /// Time after the last publication until all of them expire. An engine in another process may keep them up to an
    /// eighth longer.
    pub ttl: Duration,
    /// Time that epoch and top outlive the last publication or read; not less than `ttl`.
    pub meta_ttl: Duration,
}

/// The result of a publish call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The publication's position in the topic's stream; `None` if it was not stored. If suppressed, the first result
    /// of a repeated key, or the stream's top for an old version.
    pub position: Option<Position>,
    /// Nothing was delivered because of a repeated idempotency key or an old version.
    pub suppressed: bool,
}

/// The longest time that epoch and top of a topic without any publication outlive the last read. Clients may ask about
/// any number of names that nobody else uses.
pub const UNPUBLISHED_META_TTL_MAX: Duration = Duration::from_secs(10 * 60);

/// The position that a reader gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The last offset it has seen.
    pub offset: u64,
    /// The epoch of the offset, as the reader sent it. Empty matches any.
    pub epoch: &'a str,
}

/// The limit of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    pub publications: usize,
    /// As counted by [`Publication::answer_bytes`]. An engine may count the overhead slightly differently.
    pub bytes: usize,
}

impl From<usize> for ReadLimit {
    /// A number of publications of any length.
    fn from(publications: usize) -> Self {
        Self { publications, bytes: usize::MAX }
    }
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self::from(0)
    }
}

/// The publications that a reader has missed.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// The stream's top.
    pub top: Position,
    /// With `publications` the reader has everything up to `top`.
    pub complete: bool,
    /// The missed publications, in order. Empty unless complete or a part.
    pub publications: Vec<Arc<Publication>>,
    /// All of it is available but exceeds the limit, so `complete` is false. Only
    /// [`Engine::recover_part`](crate::Engine::recover_part) reports a limit of publications this way.
    pub is_too_long: bool,
}

impl Recovery {
    /// Returns true if it is an empty part because the first publication alone exceeds the limit.
    pub fn begins_too_long(&self) -> bool {
        self.is_too_long && self.publications.is_empty()
    }
}

/// A request for a page of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery<'a> {
    /// The limit of the page. A limit of 0 publications asks for the position alone. Otherwise a page holds at least
    /// one publication of any length, if there is one.
    pub limit: ReadLimit,
    /// Only offsets above it, or below it in reverse order.
    pub since: Option<Since<'a>>,
    /// Newest first.
    pub reverse: bool,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// The stream's top, independent of the page.
    pub top: Position,
    pub publications: Vec<Arc<Publication>>,
    /// The page ended at the limit's bytes.
    pub is_cut: bool,
}

/// A present client.
#[derive(Clone, Debug)]
pub struct Member {
    pub info: Arc<ClientInfo>,
    /// Subscribers receive one leave when the client becomes absent, by
    /// [`Engine::remove_presence`](crate::Engine::remove_presence) or because its node died.
    pub announce_leave: bool,
    /// The events that its coming and going writes to the outbox. Equal for all members of a topic on one node.
    pub events: EventMask,
}

impl Member {
    pub fn new(info: Arc<ClientInfo>, announce_leave: bool) -> Self {
        Self { info, announce_leave, events: EventMask::NONE }
    }

    pub fn with_events(self, events: EventMask) -> Self {
        Self { events, ..self }
    }
}

impl From<Arc<ClientInfo>> for Member {
    /// A member whose leave is not announced.
    fn from(info: Arc<ClientInfo>) -> Self {
        Self::new(info, false)
    }
}

/// The number of clients and users present in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Clients, which are connections.
    pub clients: usize,
    /// Distinct users; all anonymous clients count as one.
    pub users: usize,
}
