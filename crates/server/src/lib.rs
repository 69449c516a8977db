//! A node: listeners, shards, transports, the HTTP API, authentication, metrics and health.
//!
//! It reads no configuration file, handles no signal and sets up no log; it starts in-process on port 0,
//! so tests run the real thing.

pub mod settings;
mod run;
mod tasks;
mod drain;

mod bind;
mod listener;
mod admission;
pub mod tls;
mod unreadable;
mod framing;
mod validity;
mod http;
mod handshake;
mod origin;
mod foreign;
mod listen;
mod dev;
mod chat;

mod turns;
mod shard;
mod inbox;
mod allowance;
mod node;
mod users;
mod cluster;
mod handle;
pub mod auth;
mod overrides;

mod api;
mod internal;
mod metrics;
mod counters;

pub use cluster::JoinError;
pub use metrics::count_dropped_log_line;
pub use run::{Failed, Running, StartError, start};
pub use settings::Settings;
