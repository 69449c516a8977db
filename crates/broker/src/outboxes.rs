//! The outboxes of a node or of its cluster: forwards each call of the deliverer to those of the engine.

use std::time::Duration;

use uuid::Uuid;

use crate::contract::EngineError;
use crate::memory::MemoryOutbox;
use crate::outbox::{Backlog, DeadLetter, EventId, LetterId, Letters, Refusal, StoredEvent};
use crate::redis::RedisOutbox;

/// Outboxes, to read, and the work on them. Cloning shares them.
#[derive(Clone, Debug)]
pub enum Outboxes {
    /// Those of this node.
    Memory(MemoryOutbox),
    /// Those of the whole cluster.
    Redis(RedisOutbox),
}

impl Outboxes {
    /// Asks for the work on outboxes, for this time. Returns false if another node does it.
    pub async fn claim(&self, worker: Uuid, length: Duration) -> Result<bool, EngineError> {
        match self {
            Self::Memory(_) => Ok(true),
            Self::Redis(redis) => redis.claim(worker, length).await,
        }
    }

    /// Returns the outboxes that may have events.
    pub async fn slots(&self) -> Result<Vec<u16>, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.slots()),
            Self::Redis(redis) => redis.slots().await,
        }
    }

    /// Returns the oldest events of each outbox, in order, at most `events_max` of each.
    pub async fn read(&self, slots: &[u16], events_max: usize) -> Result<Vec<StoredEvent>, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.read(slots, events_max)),
            Self::Redis(redis) => redis.read(slots, events_max).await,
        }
    }

    /// Removes, of the outbox of each of these events, the event and all before it.
    pub async fn remove(&self, last: &[EventId]) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.remove(last);
                Ok(())
            }
            Self::Redis(redis) => redis.remove(last).await,
        }
    }

    /// Says which topics are vacant and which users offline, where that is due.
    pub async fn say_due(&self) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.say_due();
                Ok(())
            }
            Self::Redis(redis) => redis.say_due().await,
        }
    }

    /// Drops what is too old, and returns what is left.
    pub async fn tidy(&self) -> Result<Backlog, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.tidy()),
            Self::Redis(redis) => redis.tidy().await,
        }
    }

    /// Adds a dead letter.
    pub async fn bury(&self, event: &StoredEvent, refusal: Refusal) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.bury(event, refusal);
                Ok(())
            }
            Self::Redis(redis) => redis.bury(event, refusal).await,
        }
    }

    /// Returns the oldest dead letters but for those that are to be posted again.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.dead_letters(limit)),
            Self::Redis(redis) => redis.dead_letters(limit).await,
        }
    }

    /// Marks dead letters to be posted again, and returns their number.
    pub async fn retry(&self, which: &Letters) -> Result<u64, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.retry(which)),
            Self::Redis(redis) => redis.retry(which).await,
        }
    }

    /// Removes dead letters, and returns their number.
    pub async fn remove_dead_letters(&self, which: &Letters) -> Result<u64, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.remove_dead_letters(which)),
            Self::Redis(redis) => redis.remove_dead_letters(which).await,
        }
    }

    /// Returns the oldest letters that are to be posted again.
    pub async fn retried(&self, limit: usize) -> Result<Vec<DeadLetter>, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.retried(limit)),
            Self::Redis(redis) => redis.retried(limit).await,
        }
    }

    /// Ends the retry of a letter. One that was refused again is a dead letter again.
    pub async fn settle(
        &self,
        letter: LetterId,
        refused: Option<(&StoredEvent, Refusal)>,
    ) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.settle(letter, refused);
                Ok(())
            }
            Self::Redis(redis) => redis.settle(letter, refused).await,
        }
    }
}
