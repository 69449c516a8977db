//! Publish and subscribe, history and presence of topics, in engines behind one enum.
//!
//! The caller owns topics: it calls an engine for one topic from one place, in order, and receives that topic's
//! events in order. Nothing here knows sessions, sockets or HTTP. What every engine must do is written down in
//! `tests/conformance`.

mod engine;
mod event;
mod history;
mod presence;
mod publish;

mod capacity;
mod members;
mod memory;
mod redis;

pub mod planted;

pub use engine::{Engine, EngineError, Usage};
pub use event::Event;
pub use history::{History, HistoryQuery, Limit, Recovery, Since, UNPUBLISHED_META_TTL_MAX};
pub use members::Member;
pub use memory::{Memory, MemorySettings};
pub use presence::PresenceStats;
pub use publish::{HistoryOptions, Publish, Published};
pub use redis::{
    CallKind, CallStats, Deliver, Incompatible, LATENCY_BOUNDS, LinkError, LinkRole, LinkState, LinkStats,
    Peer, Redis, RedisSettings, RedisStats,
};
