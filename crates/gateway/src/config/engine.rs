//! `[engine]` and `[shutdown]`: the store of publications, and the times of a shutdown.

use fanwire_server::settings::{EngineSettings, MemoryEngineSettings, ShutdownSettings};

use super::checks::Checks;
use super::defaults;
use super::redis::RedisEngine;
use super::section::{choice, section};
use super::values::{Period, Size};

section! {
    /// The engine carries publications, and keeps history and presence.
    Engine {
        /// "memory" is embedded and serves one node; its data is lost when the node stops. "redis" makes one cluster of
        /// all nodes that use the same Redis.
        r#type: EngineType = EngineType::Memory,
        sections {
            /// The embedded engine.
            memory: MemoryEngine,
            /// Redis 6.2 or later, on one server.
            redis: RedisEngine,
        }
    }
}

choice! {
    /// The available engines.
    EngineType {
        Memory = "memory",
        Redis = "redis",
    }
}

section! {
    /// The embedded engine.
    MemoryEngine {
        /// Maximum bytes of names, positions and publications of all topics; beyond them new topics without subscribers
        /// are dropped first.
        history_bytes_max: Size = defaults::HISTORY_BYTES_MAX,
        /// Time for which a publication's idempotency key is remembered.
        idempotency_ttl: Period = defaults::IDEMPOTENCY_TTL,
    }
}

section! {
    /// The times of a shutdown.
    Shutdown {
        /// Time for which the node still accepts clients while load balancers learn of the shutdown: as long as yours
        /// take to notice that /readyz fails.
        propagation: Period = defaults::SHUTDOWN_PROPAGATION,
        /// Time over which clients are disconnected, evenly, so that they reconnect to other nodes; at least 100 are
        /// each second, so a few take less. The others are served as before until their turn comes.
        window: Period = defaults::SHUTDOWN_WINDOW,
        /// Time allowed for the last of them to disconnect. A second signal stops the node immediately.
        timeout: Period = defaults::SHUTDOWN_TIMEOUT,
    }
}

impl Engine {
    /// Both sections are checked, whichever is used.
    pub(super) fn settings(&self, checks: &mut Checks) -> EngineSettings {
        let memory = self.memory.settings(checks);
        let redis = self.redis.settings(checks);
        match self.r#type {
            EngineType::Memory => EngineSettings::Memory(memory),
            EngineType::Redis => EngineSettings::Redis(redis),
        }
    }

    /// Returns the section of the engine that is not used, and the name of the one that is.
    pub(super) fn unused_section(&self) -> (&'static str, &'static str) {
        match self.r#type {
            EngineType::Memory => ("engine.redis", "memory"),
            EngineType::Redis => ("engine.memory", "redis"),
        }
    }
}

impl MemoryEngine {
    pub(super) fn settings(&self, checks: &mut Checks) -> MemoryEngineSettings {
        MemoryEngineSettings {
            history_bytes_max: checks
                .at_least_one("engine.memory.history_bytes_max", self.history_bytes_max.0),
            idempotency_ttl: checks.longer_than_zero("engine.memory.idempotency_ttl", self.idempotency_ttl),
            outbox: None,
        }
    }
}

/// No service manager waits longer for a process to end.
const SHUTDOWN_MAX: Period = Period::from_secs(24 * 3600);

impl Shutdown {
    pub(super) fn settings(&self, checks: &mut Checks) -> ShutdownSettings {
        for (key, period) in
            [("propagation", self.propagation), ("window", self.window), ("timeout", self.timeout)]
        {
            checks.within(&format!("shutdown.{key}"), period, Period::OFF, SHUTDOWN_MAX);
        }
        ShutdownSettings { propagation: self.propagation.0, window: self.window.0, timeout: self.timeout.0 }
    }
}
