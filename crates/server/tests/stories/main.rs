//! Stories of a node's clients, over real sockets. Most are told with one shard and with three.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
#[path = "../common/mod.rs"]
mod common;

const ON_REDIS: bool = false;

mod order;
mod bursts;
mod recovery;
mod times;
mod echo;
mod presence;
mod strange;
mod server_side;
mod storm;

mod frames;
mod compression;
mod cors;
mod http;
mod validity;
mod sse;
mod resume;
mod bare;
mod envelope;
mod publish;
mod uni;
mod emulation;
mod stream_kinds;
mod poll;
mod polls_left;
mod streams;
mod users;
mod status;
mod hooked;
mod bad_backends;

mod crowd;
mod slow;
mod every_transport;
mod answers;
mod flood;
mod silent;
mod files;
mod proxies;
mod kept;
mod liveness;
mod closing;
mod timers;
mod shutdown;

mod encrypted;
mod tls_handshakes;
mod certificate;
