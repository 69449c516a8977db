//! Presence of several nodes that share a Redis: nodes that die, are paused, leave or must not join, and the leaves
//! that subscribers receive.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod node;
#[allow(dead_code, reason = "other tests need the rest")]
#[path = "../redis_outage/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "other tests need the rest")]
#[path = "../redis_server/mod.rs"]
mod redis_server;

mod copy;
mod death;
mod events;
mod joining;
mod status;
