//! `[engine]` and `[shutdown]`: where publications are kept, and how a node goes.

use fanwire_server::settings::{MemoryEngineSettings, ShutdownSettings};

use super::checks::Checks;
use super::defaults;
use super::section::{choice, section};
use super::values::{Period, Size};

section! {
    /// What carries publications and keeps history and presence.
    Engine {
        /// "memory" is embedded and serves one node; what it keeps is gone when the node stops.
        r#type: EngineType = EngineType::Memory,
        sections {
            /// The embedded engine.
            memory: MemoryEngine,
        }
    }
}

choice! {
    /// The engines there are.
    EngineType {
        Memory = "memory",
    }
}

section! {
    /// The embedded engine.
    MemoryEngine {
        /// Publications kept in history, all topics together; beyond it the oldest go first.
        history_bytes_max: Size = defaults::HISTORY_BYTES_MAX,
        /// How long a publication's idempotency key is remembered.
        idempotency_ttl: Period = defaults::IDEMPOTENCY_TTL,
    }
}

section! {
    /// What happens on SIGTERM and SIGINT.
    Shutdown {
        /// How long the node goes on taking clients while balancers learn that it goes: as long as yours take to
        /// notice that /readyz fails. A node without clients does not wait.
        propagation: Period = defaults::SHUTDOWN_PROPAGATION,
        /// The time over which clients are told, evenly, to come back; at least 100 are in each second. The others
        /// go on as before.
        window: Period = defaults::SHUTDOWN_WINDOW,
        /// How long the last of them may take to go. A second signal ends all of it at once.
        timeout: Period = defaults::SHUTDOWN_TIMEOUT,
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

impl Shutdown {
    pub(super) fn settings(&self) -> ShutdownSettings {
        ShutdownSettings { propagation: self.propagation.0, window: self.window.0, timeout: self.timeout.0 }
    }
}
