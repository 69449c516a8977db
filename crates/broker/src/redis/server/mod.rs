//! One Redis server: its connections, their use, and their state.

pub(super) mod connection;
pub(super) mod health;
mod interests;
pub(super) mod link;
pub(super) mod probe;
pub(super) mod subscriptions;
