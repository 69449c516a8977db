//! Where Redis is, and every time and bound of the engine that uses it.

use std::time::Duration;

use secrecy::SecretString;

/// Settings of one Redis engine. A node has one engine, however many shards it has.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Host name or address. Default: `127.0.0.1`.
    pub host: Box<str>,
    /// Default: 6379.
    pub port: u16,
    /// The user to authenticate as; without it, Redis' default user. Default: none.
    pub username: Option<Box<str>>,
    /// Default: none.
    pub password: Option<SecretString>,
    /// The number of the database for keys. Unless it is 0 the names of channels carry it. Default: 0.
    pub database: i64,
    /// Begins every key and channel, and keeps clusters apart that share a Redis. Default: `fanwire`.
    pub prefix: Box<str>,
    /// The application whose topics these are; part of every key and channel. Default: `default`.
    pub application: Box<str>,
    /// Connections for commands about topics, not less than one; a topic always uses the same. One more is for the
    /// node's heartbeats. Default: 2.
    pub command_links: usize,
    /// How long one attempt to connect may take. Default: 2 s.
    pub connect_timeout: Duration,
    /// How long a command may wait for its answer. A probe that waits as long ends its connection, and so does
    /// the kernel if what was sent is not acknowledged. Default: 3 s.
    pub answer_timeout: Duration,
    /// How often each connection is probed. Default: 1 s.
    pub probe_interval: Duration,
    /// The first pause between attempts to connect; doubles up to `retry_max`, with jitter. Default: 50 ms.
    pub retry_min: Duration,
    /// The longest pause between attempts to connect. Default: 1 s.
    pub retry_max: Duration,
    /// How long an idempotency key is remembered. Default: 5 minutes.
    pub idempotency_ttl: Duration,
    /// How long a topic's channel is kept after it was left; who comes back meanwhile costs nothing. Default: 5 s.
    pub leave_delay: Duration,
    /// Takes a Redis in which another cluster lives, under another prefix. Without it that is refused, since it is
    /// mostly one cluster of which a node has a wrong setting. Default: no.
    pub allow_other_prefixes: bool,
    /// How long the members of this node are present after its last heartbeat, which it gives three times as
    /// often. Must be equal on all nodes. Default: 15 s.
    pub lease: Duration,
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
        }
    }
}

/// Why a node must not join the cluster that it found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// The lease differs from that of the nodes that live.
    #[error(
        "engine.redis.lease is {ours:?} here and {theirs:?} on the nodes of this cluster; give all nodes the same"
    )]
    Lease { ours: Duration, theirs: Duration },
    /// Another version of this program keeps its data in another way.
    #[error(
        "this version keeps its data in Redis in layout {ours}, the nodes of this cluster in layout {theirs}; \
         stop them before this one is started, or give this one another engine.redis.prefix"
    )]
    Layout { ours: u32, theirs: u32 },
    /// A cluster lives in this Redis, and none under this node's prefix.
    #[error(
        "this Redis already serves a cluster with prefix \"{theirs}\"; this node has \"{ours}\". Set \
         engine.redis.prefix to the same on all nodes, or engine.redis.allow_other_prefixes if two clusters share \
         this Redis"
    )]
    Prefix { ours: Box<str>, theirs: Box<str> },
}
