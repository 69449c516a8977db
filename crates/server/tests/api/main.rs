//! The HTTP API and the internal port over real sockets: every method, every refusal, every limit.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
#[path = "../common/mod.rs"]
mod common;

const ON_REDIS: bool = false;

mod calls;

mod answers;
mod batches;
mod internal;
mod methods;
mod requests;
