//! A file for each transport: it checks the request that opens a connection and says how the shard is to speak on it.

pub(crate) mod websocket;
pub(crate) mod sse;
