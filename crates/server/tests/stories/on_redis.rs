//! The stories that topics have a part in, told by nodes that keep them in Redis, and those of several nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
#[path = "../common/mod.rs"]
mod common;

const ON_REDIS: bool = true;

mod order;
mod bursts;
mod recovery;
mod times;
mod echo;
mod presence;
mod strange;
mod server_side;
mod storm;

mod sse;
mod resume;
mod emulation;
mod poll;
mod polls_left;
mod users;
mod status;

mod slow;
mod answers;
mod flood;
mod closing;

mod cluster;
mod events;
mod status_outage;
mod repair;
mod opening;
mod waiting_posts;
mod elsewhere;
mod polls_elsewhere;
