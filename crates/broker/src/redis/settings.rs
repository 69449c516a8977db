//! Settings of the Redis engine, and the errors of nodes whose settings do not fit together.

use std::time::Duration;

use secrecy::SecretString;

use crate::outbox::OutboxOptions;
use crate::user_status::StatusOptions;

/// Settings of one Redis engine. A node has one engine for all of its shards.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Host name or address. Default: `127.0.0.1`.
    pub host: Box<str>,
    /// Default: 6379.
    pub port: u16,
    /// The user to authenticate as; `None` is Redis' default user. Default: none.
    pub username: Option<Box<str>>,
    /// Default: none.
    pub password: Option<SecretString>,
    /// The number of the database for keys. Names of channels contain it unless it is 0. Default: 0.
    pub database: i64,
    /// The prefix of every key and channel, which separates clusters that share a Redis. Default: `fanwire`.
    pub prefix: Box<str>,
    /// The application of the topics; part of every key and channel. Default: `default`.
    pub application: Box<str>,
    /// The number of connections for commands about topics, at least one; a topic always uses the same one. One more
    /// carries the node's heartbeats. Default: 2.
    pub command_links: usize,
    /// The timeout of one attempt to connect. Default: 2 s.
    pub connect_timeout: Duration,
    /// The timeout of a command. A probe that times out ends its connection, and so does the kernel if sent data is not
    /// acknowledged. Default: 3 s.
    pub answer_timeout: Duration,
    /// The interval of probes on each connection. Default: 1 s.
    pub probe_interval: Duration,
    /// The first pause between attempts to connect; doubles up to `retry_max`, with jitter. Default: 50 ms.
    pub retry_min: Duration,
    /// The longest pause between attempts to connect. Default: 1 s.
    pub retry_max: Duration,
    /// The lifetime of an idempotency key. Default: 5 minutes.
    pub idempotency_ttl: Duration,
    /// The time that a topic's channel stays joined after its last subscriber left. Default: 5 s.
    pub leave_delay: Duration,
    /// Allows another cluster in the same Redis under another prefix. Otherwise the node does not join, since usually
    /// one node of a single cluster has a wrong prefix. Default: false.
    pub allow_other_prefixes: bool,
    /// The time that members of this node stay present after its last heartbeat. It sends three heartbeats in this
    /// time. Must be equal on all nodes. Default: 15 s.
    pub lease: Duration,
    /// The outboxes of members' events; without, members have no events. Default: none.
    pub outbox: Option<OutboxOptions>,
    /// User status, which needs outboxes; without, nothing is kept of users. Default: none.
    pub status: Option<StatusOptions>,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 6379,
            username: None,
            password: None,
            database: 0,
            prefix: "fanwire".into(),
            application: "default".into(),
            command_links: 2,
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(1),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(1),
            idempotency_ttl: Duration::from_secs(5 * 60),
            leave_delay: Duration::from_secs(5),
            allow_other_prefixes: false,
            lease: Duration::from_secs(15),
            outbox: None,
            status: None,
        }
    }
}

/// A reason that a node must not join the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// The lease differs from that of live nodes.
    #[error(
        "engine.redis.lease is {ours:?} here and {theirs:?} on the nodes of this cluster; give all nodes the same"
    )]
    Lease { ours: Duration, theirs: Duration },
    /// Live nodes store their data in another layout.
    #[error(
        "this version uses data layout {ours} in Redis, the nodes of this cluster use layout {theirs}; stop them \
         before this one starts, or give this one another engine.redis.prefix"
    )]
    Layout { ours: u32, theirs: u32 },
    /// This Redis serves a cluster, but none with this node's prefix.
    #[error(
        "this Redis already serves a cluster with prefix \"{theirs}\"; this node has \"{ours}\". Set \
         engine.redis.prefix to the same on all nodes, or engine.redis.allow_other_prefixes if two clusters share \
         this Redis"
    )]
    Prefix { ours: Box<str>, theirs: Box<str> },
}
