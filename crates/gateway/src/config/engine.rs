//! `[engine]` and `[shutdown]`: where publications are kept, and how a node goes.

use fanwire_server::settings::{EngineSettings, MemoryEngineSettings, ShutdownSettings};

use super::checks::Checks;
use super::defaults;
use super::redis::RedisEngine;
use super::section::{choice, section};
use super::values::{Period, Size};

section! {
    /// What carries publications and keeps history and presence.
    Engine {
        /// "memory" is embedded and serves one node; what it keeps is gone when the node stops. "redis" makes one
        /// cluster of any number of nodes that use the same Redis.
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
    /// The engines there are.
    EngineType {
        Memory = "memory",
        Redis = "redis",
    }
}

section! {
    /// The embedded engine.
    MemoryEngine {
        /// Names, positions and publications of all topics; beyond it new topics that nobody subscribes to go first.
        history_bytes_max: Size = defaults::HISTORY_BYTES_MAX,
        /// How long a publication's idempotency key is remembered.
        idempotency_ttl: Period = defaults::IDEMPOTENCY_TTL,
    }
}

section! {
    /// How a node goes.
    Shutdown {
        /// How long the node goes on taking clients while balancers learn that it goes: as long as yours take to
        /// notice that /readyz fails.
        propagation: Period = defaults::SHUTDOWN_PROPAGATION,
        /// Over how long clients are sent away, evenly, to come back elsewhere; at least 100 go each second, so few
        /// take less. Those whose turn has not come are served as before.
        window: Period = defaults::SHUTDOWN_WINDOW,
        /// How long the last of them may take to go. A second signal ends all of it at once.
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

    /// The section of the engine that is not used, and the word for the one that is.
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
