//! The Redis engine's own behaviour: losing Redis and finding it again, other programs' values in its keys, and several
//! nodes that share it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod node;
#[path = "../redis_server/mod.rs"]
mod redis_server;

mod loss;
mod sharing;
mod values;
