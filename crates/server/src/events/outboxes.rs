//! The outboxes of the node's engine, for the work on them and for the API.

use std::time::Duration;

use fanwire_broker::{
    Backlog, DeadLetter, EngineError, EventId, LetterId, Letters, RedisOutbox, Refusal, StoredEvent,
};
use uuid::Uuid;

use crate::node::Node;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Outboxes {
    /// Those of the whole cluster.
    Redis(RedisOutbox),
}

impl Outboxes {
    /// Returns those of the node; `None` if the settings ask for no events.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        Some(Self::Redis(node.peers.as_ref()?.redis().outbox()?.clone()))
    }

    /// Asks for the work, for this time. Returns false if another node does it.
    pub(super) async fn claim(&self, worker: Uuid, length: Duration) -> Result<bool, EngineError> {
        match self {
            Self::Redis(redis) => redis.claim(worker, length).await,
        }
    }

    /// Returns the outboxes that may have events.
    pub(super) async fn slots(&self) -> Result<Vec<u16>, EngineError> {
        match self {
            Self::Redis(redis) => redis.slots().await,
        }
    }

    /// Returns the oldest events of each outbox, in order, at most `events_max` of each.
    pub(super) async fn read(
        &self,
        slots: &[u16],
        events_max: usize,
    ) -> Result<Vec<StoredEvent>, EngineError> {
        match self {
            Self::Redis(redis) => redis.read(slots, events_max).await,
        }
    }

    /// Removes, of the outbox of each of these events, the event and all before it.
    pub(super) async fn remove(&self, last: &[EventId]) -> Result<(), EngineError> {
        match self {
            Self::Redis(redis) => redis.remove(last).await,
        }
    }

    /// Says which topics are vacant and which users offline, where that is due.
    pub(super) async fn say_due(&self) -> Result<(), EngineError> {
        match self {
            Self::Redis(redis) => redis.say_due().await,
        }
    }

    /// Drops what is too old, and returns what is left.
    pub(super) async fn tidy(&self) -> Result<Backlog, EngineError> {
        match self {
            Self::Redis(redis) => redis.tidy().await,
        }
    }

    /// Adds a dead letter.
    pub(super) async fn bury(&self, event: &StoredEvent, refusal: Refusal) -> Result<(), EngineError> {
        match self {
            Self::Redis(redis) => redis.bury(event, refusal).await,
        }
    }

    /// Returns the oldest letters that are to be posted again.
    pub(super) async fn retried(&self, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        match self {
            Self::Redis(redis) => redis.retried(limit).await,
        }
    }

    /// Ends the retry of a letter. One that was refused again is a dead letter again.
    pub(super) async fn settle(
        &self,
        letter: LetterId,
        refused: Option<(&StoredEvent, Refusal)>,
    ) -> Result<(), EngineError> {
        match self {
            Self::Redis(redis) => redis.settle(letter, refused).await,
        }
    }

    /// Returns the oldest dead letters.
    pub(crate) async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        match self {
            Self::Redis(redis) => redis.dead_letters(limit).await,
        }
    }

    /// Marks dead letters to be posted again, and returns their number.
    pub(crate) async fn retry(&self, which: &Letters) -> Result<u64, EngineError> {
        match self {
            Self::Redis(redis) => redis.retry(which).await,
        }
    }

    /// Removes dead letters, and returns their number.
    pub(crate) async fn remove_dead_letters(&self, which: &Letters) -> Result<u64, EngineError> {
        match self {
            Self::Redis(redis) => redis.remove_dead_letters(which).await,
        }
    }
}
