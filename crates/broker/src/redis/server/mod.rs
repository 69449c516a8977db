//! One Redis server: its connections, what they are used for, and whether they can be used.

pub(super) mod connection;
pub(super) mod health;
mod interests;
pub(super) mod link;
pub(super) mod probe;
pub(super) mod subscriptions;
