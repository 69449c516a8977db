//! A node: listeners, shards, transports, the HTTP API, authentication, metrics and health.
//!
//! It reads no configuration file, handles no signal and sets up no log; it starts in-process on port 0,
//! so tests run the real thing.

pub mod settings;
mod run;
mod tasks;
mod drain;
mod events;

mod accept;
mod route;
mod endpoints;
mod cors;
mod response;
mod body;
mod stream_pipe;
mod transport;
mod dev;

mod request_budget;
mod shard;
mod condition;
mod session_key;
mod shared_rates;
mod message;
mod inbox;
mod allowance;
mod fair_queue;
mod backend;
mod hooks;
mod topics;
mod users;
mod peers;
mod permit;
mod node;
pub mod auth;
mod overrides;

mod api;
mod cluster;
mod internal;
mod metrics;
mod counters;

pub use accept::tls;
pub use backend::{BackendTls, BackendTlsError, ClientError as BackendError, reach as reach_backend};
pub use endpoints::{Endpoint, ServedEndpoint};
pub use events::WebhookError;
pub use metrics::count_dropped_log_line;
pub use peers::JoinError;
pub use run::{Failed, Running, StartError, start};
pub use settings::Settings;
