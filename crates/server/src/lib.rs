//! A node: listeners, shards, transports, the HTTP API, authentication, metrics and health.
//!
//! It reads no configuration file, handles no signal and sets up no log; it starts in-process on port 0,
//! so tests run the real thing.

pub mod settings;
pub mod auth;

pub use settings::Settings;
