//! The same stories, told by nodes that keep their topics in Redis, and those of several nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "../common/mod.rs"]
mod common;

const ON_REDIS: bool = true;

mod order;
mod bursts;
mod recovery;
mod presence;
mod server_side;
mod storm;

mod frames;
mod http;
mod sse;
mod users;

mod slow;
mod flood;
mod liveness;
mod closing;
mod timers;
mod shutdown;

mod cluster;
