//! The engine: every call that a topic's owner makes, sent on to the engine that was chosen at start.
//!
//! Calls are async because an engine may have to ask another process. A call that was dropped half-way may or
//! may not have taken effect.

use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::{ClientId, ClientInfo, TopicName};

#[cfg(doc)]
use crate::contract::UNPUBLISHED_META_TTL_MAX;
use crate::contract::{
    EngineError, Event, History, HistoryQuery, Limit, Member, PresenceStats, Publish, Published, Recovery,
    Since, Usage,
};
use crate::memory::{Memory, MemorySettings};
use crate::redis::Redis;

/// Where topics are kept. Each shard owns one, for the topics that it owns.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are no more engines than shards")]
pub enum Engine {
    /// In this process: the default, and the reference for the others.
    Memory(Memory),
    /// In Redis, shared with other nodes. All shards of a node hold the same one.
    Redis(Redis),
}

impl Engine {
    /// An engine in memory. `deliver` gets each event of a subscribed topic before the call that caused it
    /// returns.
    pub fn memory(settings: MemorySettings, deliver: Box<dyn Fn(Event)>) -> Self {
        Self::Memory(Memory::new(settings, deliver))
    }

    /// From now on the topic's events are delivered. Subscribing twice is the same as once. A subscription lasts
    /// until it is ended, through losses of the engine too, which deliver [`Event::Interrupted`].
    pub async fn subscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.subscribe(topic);
                Ok(())
            }
            Self::Redis(redis) => redis.subscribe(topic).await,
        }
    }

    /// From now on the topic's events are no longer delivered.
    ///
    /// An engine in another process may have events on their way. Those that it had before this call may be
    /// dropped, and those of a time without subscription may arrive if it ends at once.
    pub async fn unsubscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => memory.unsubscribe(topic),
            Self::Redis(redis) => redis.unsubscribe(topic),
        }
        Ok(())
    }

    /// Keeps a publication, if it asks for it, and delivers it to whoever is subscribed, as one step.
    pub async fn publish(&self, topic: &TopicName, publish: Publish) -> Result<Published, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.publish(topic, publish)),
            Self::Redis(redis) => redis.publish(topic, publish).await,
        }
    }

    /// Publishes several, in their order, in fewer steps than one call for each would take. Each has its own
    /// result, and one that fails keeps no other from being published.
    pub async fn publish_group(
        &self,
        topic: &TopicName,
        group: Vec<Publish>,
    ) -> Vec<Result<Published, EngineError>> {
        match self {
            Self::Memory(memory) => {
                group.into_iter().map(|publish| Ok(memory.publish(topic, publish))).collect()
            }
            Self::Redis(redis) => redis.publish_group(topic, group).await,
        }
    }

    /// Tells subscribers that a client joined.
    pub async fn publish_join(&self, topic: &TopicName, info: Arc<ClientInfo>) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.publish_join(topic, info);
                Ok(())
            }
            Self::Redis(redis) => redis.publish_join(topic, info).await,
        }
    }

    /// Tells subscribers that a client left which was not present; see [`Engine::remove_presence`].
    pub async fn publish_leave(&self, topic: &TopicName, info: Arc<ClientInfo>) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.publish_leave(topic, info);
                Ok(())
            }
            Self::Redis(redis) => redis.publish_leave(topic, info).await,
        }
    }

    /// What was published after `since`, if all of it is still there and is within `limit`.
    ///
    /// Without `since` only the top is returned, always complete. Asking starts the topic's epoch if it has
    /// none, and keeps it for another `meta_ttl`. As long as nothing was ever published in the topic that is at most
    /// [`UNPUBLISHED_META_TTL_MAX`], so whoever has to rely on the epoch for longer asks again meanwhile.
    pub async fn recover(
        &self,
        topic: &TopicName,
        since: Option<Since<'_>>,
        limit: impl Into<Limit>,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        let limit = limit.into();
        match self {
            Self::Memory(memory) => Ok(memory.recover(topic, since, limit, meta_ttl)),
            Self::Redis(redis) => redis.recover(topic, since, limit, meta_ttl).await,
        }
    }

    /// Like [`Engine::recover`], for a reader that takes what it missed part by part: if not all of it is within `limit`,
    /// the answer is not complete but too long, and has as many of the first publications as are. A limit of one
    /// publication, however long, is one that the first of them always fits.
    pub async fn recover_part(
        &self,
        topic: &TopicName,
        since: Since<'_>,
        limit: impl Into<Limit>,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        let limit = limit.into();
        match self {
            Self::Memory(memory) => Ok(memory.recover_part(topic, since, limit, meta_ttl)),
            Self::Redis(redis) => redis.recover_part(topic, since, limit, meta_ttl).await,
        }
    }

    /// A page of what is kept; what has gone is simply not in it. Like [`Engine::recover`], asking keeps the
    /// epoch alive.
    pub async fn history(
        &self,
        topic: &TopicName,
        query: HistoryQuery<'_>,
        meta_ttl: Duration,
    ) -> Result<History, EngineError> {
        match self {
            Self::Memory(memory) => memory.history(topic, query, meta_ttl),
            Self::Redis(redis) => redis.history(topic, query, meta_ttl).await,
        }
    }

    /// Drops what is kept. Epoch and top stay, so positions remain comparable.
    pub async fn remove_history(&self, topic: &TopicName) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.remove_history(topic);
                Ok(())
            }
            Self::Redis(redis) => redis.remove_history(topic).await,
        }
    }

    /// Makes clients present in the topic, or replaces what is known of them. If it fails, some may be.
    pub async fn add_presence(&self, topic: &TopicName, members: Vec<Member>) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.add_presence(topic, members);
                Ok(())
            }
            Self::Redis(redis) => redis.add_presence(topic, &members).await,
        }
    }

    /// Makes a client present unless `clients_max` others are; says whether it is. While the engine is unavailable
    /// only those of this process are counted.
    pub async fn admit(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.admit(topic, info, clients_max)),
            Self::Redis(redis) => redis.admit(topic, info, clients_max).await,
        }
    }

    /// Makes a client absent, and tells subscribers if that was to be announced. It need not have been present.
    pub async fn remove_presence(&self, topic: &TopicName, client: ClientId) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.remove_presence(topic, client);
                Ok(())
            }
            Self::Redis(redis) => redis.remove_presence(topic, client).await,
        }
    }

    /// The clients that are present, in no particular order; [`EngineError::TooLong`] if they take more than
    /// `bytes_max`, as [`ClientInfo::answer_bytes`] counts them.
    pub async fn presence(
        &self,
        topic: &TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        match self {
            Self::Memory(memory) => memory.presence(topic, bytes_max),
            Self::Redis(redis) => redis.presence(topic, bytes_max).await,
        }
    }

    /// How many clients and users are present.
    pub async fn presence_stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.presence_stats(topic)),
            Self::Redis(redis) => redis.presence_stats(topic).await,
        }
    }

    /// Releases what has expired, a bounded amount per call; meant to be called about once a second. What has
    /// expired is never seen, swept or not.
    pub fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep(),
            // Redis expires by itself.
            Self::Redis(_) => {}
        }
    }

    /// What the engine holds in this process.
    pub fn usage(&self) -> Usage {
        match self {
            Self::Memory(memory) => memory.usage(),
            Self::Redis(redis) => redis.usage(),
        }
    }
}
