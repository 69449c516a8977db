//! Publish and subscribe, history and presence of topics, in engines behind one enum.
//!
//! The caller owns topics: it calls an engine for one topic from one place, in order, and receives that topic's
//! events in order. The crate knows no sessions, sockets or HTTP. `tests/conformance` specifies every engine.

mod contract;
mod engine;
mod outbox;
mod outboxes;
mod user_status;
mod user_statuses;

mod members;
mod memory;
mod redis;
mod wall_clock;

pub mod planted;

pub use contract::{
    EngineError, Event, HistoryOptions, HistoryPage, HistoryQuery, Member, NewPublication, PresenceStats,
    Published, ReadLimit, Recovery, Since, UNPUBLISHED_META_TTL_MAX, Usage,
};
pub use engine::Engine;
pub use memory::{Memory, MemoryOutbox, MemorySettings, MemoryStatus, MemoryStatusBounds, TellStatus};
pub use outbox::{
    Backlog, DeadLetter, EventId, EventKind, LetterId, Letters, OutboxOptions, Refusal, StoredEvent,
};
pub use outboxes::Outboxes;
pub use redis::{
    CallKind, CallStats, Deliver, Incompatible, LATENCY_BOUNDS, LinkError, LinkRole, LinkState, LinkStats,
    LogRateLimit, Peer, Redis, RedisOutbox, RedisSettings, RedisStats,
};
pub use user_status::{StatusOptions, UserStatus, user_topic};
pub use user_statuses::UserStatuses;
