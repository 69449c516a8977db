//! The engine enum: forwards each call of a topic's owner to the engine chosen at start.
//!
//! Calls are async because an engine may ask another process. A dropped call may or may not have taken effect.

use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};

#[cfg(doc)]
use crate::contract::UNPUBLISHED_META_TTL_MAX;
use crate::contract::{
    EngineError, Event, HistoryPage, HistoryQuery, Member, NewPublication, PresenceStats, Published,
    ReadLimit, Recovery, Since, Usage,
};
use crate::memory::{Memory, MemorySettings};
use crate::outboxes::Outboxes;
use crate::redis::Redis;

/// The store of topics. Each shard owns one, for its own topics.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are no more engines than shards")]
pub enum Engine {
    /// In this process. The default, and the reference for others.
    Memory(Memory),
    /// In Redis, shared with other nodes. All shards of a node share it.
    Redis(Redis),
}

impl Engine {
    /// Creates an engine in memory. `deliver` receives each event of a subscribed topic before the call that caused
    /// it returns.
    pub fn memory(settings: MemorySettings, deliver: Box<dyn Fn(Event)>) -> Self {
        Self::Memory(Memory::new(settings, deliver))
    }

    /// Starts delivery of the topic's events. Subscribing twice has no further effect. A subscription outlives losses
    /// of the engine, which deliver [`Event::Gap`].
    pub async fn subscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.subscribe(topic);
                Ok(())
            }
            Self::Redis(redis) => redis.subscribe(topic).await,
        }
    }

    /// Ends delivery of the topic's events.
    ///
    /// Events of another process may be in flight. Events from before this call may be dropped, and events of a short
    /// time without subscription may be delivered after the next subscribe.
    pub async fn unsubscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => memory.unsubscribe(topic),
            Self::Redis(redis) => redis.unsubscribe(topic),
        }
        Ok(())
    }

    /// Stores a publication if it has history options and delivers it to subscribers, in one step.
    pub async fn publish(
        &self,
        topic: &TopicName,
        publish: NewPublication,
    ) -> Result<Published, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.publish(topic, publish)),
            Self::Redis(redis) => redis.publish(topic, publish).await,
        }
    }

    /// Publishes several publications in order, in fewer steps than one call for each. Each has its own result, and a
    /// failed one does not prevent others.
    pub async fn publish_group(
        &self,
        topic: &TopicName,
        group: Vec<NewPublication>,
    ) -> Vec<Result<Published, EngineError>> {
        match self {
            Self::Memory(memory) => {
                group.into_iter().map(|publish| Ok(memory.publish(topic, publish))).collect()
            }
            Self::Redis(redis) => redis.publish_group(topic, group).await,
        }
    }

    /// Delivers a join to subscribers.
    pub async fn publish_join(&self, topic: &TopicName, info: Arc<ClientInfo>) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.publish_join(topic, info);
                Ok(())
            }
            Self::Redis(redis) => redis.publish_join(topic, info).await,
        }
    }

    /// Delivers the leave of a client that is not in presence; see [`Engine::remove_presence`].
    pub async fn publish_leave(&self, topic: &TopicName, info: Arc<ClientInfo>) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.publish_leave(topic, info);
                Ok(())
            }
            Self::Redis(redis) => redis.publish_leave(topic, info).await,
        }
    }

    /// Returns the publications after `since`, if all of them are available and within `limit`.
    ///
    /// Without `since` it returns the top alone, which is always complete. A read starts the topic's epoch if there is
    /// none, and keeps it for another `meta_ttl`: at most [`UNPUBLISHED_META_TTL_MAX`] while the topic has never had a
    /// publication. A caller that relies on the epoch for longer reads again in time.
    pub async fn recover(
        &self,
        topic: &TopicName,
        since: Option<Since<'_>>,
        limit: impl Into<ReadLimit>,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        let limit = limit.into();
        match self {
            Self::Memory(memory) => Ok(memory.recover(topic, since, limit, meta_ttl)),
            Self::Redis(redis) => redis.recover(topic, since, limit, meta_ttl).await,
        }
    }

    /// Like [`Engine::recover`], for a reader that reads in parts: an answer that exceeds `limit` is not complete but
    /// too long, and holds as many of the first publications as fit. A limit of one publication of any length always
    /// fits the first.
    pub async fn recover_part(
        &self,
        topic: &TopicName,
        since: Since<'_>,
        limit: impl Into<ReadLimit>,
        meta_ttl: Duration,
    ) -> Result<Recovery, EngineError> {
        let limit = limit.into();
        match self {
            Self::Memory(memory) => Ok(memory.recover_part(topic, since, limit, meta_ttl)),
            Self::Redis(redis) => redis.recover_part(topic, since, limit, meta_ttl).await,
        }
    }

    /// Returns a page of history. Expired publications are left out. Like [`Engine::recover`], a read keeps the epoch
    /// alive.
    pub async fn history(
        &self,
        topic: &TopicName,
        query: HistoryQuery<'_>,
        meta_ttl: Duration,
    ) -> Result<HistoryPage, EngineError> {
        match self {
            Self::Memory(memory) => memory.history(topic, query, meta_ttl),
            Self::Redis(redis) => redis.history(topic, query, meta_ttl).await,
        }
    }

    /// Removes the topic's history. Epoch and top stay, so positions remain comparable.
    pub async fn remove_history(&self, topic: &TopicName) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.remove_history(topic);
                Ok(())
            }
            Self::Redis(redis) => redis.remove_history(topic).await,
        }
    }

    /// Adds clients to the topic's presence, or replaces their info. After an error some may be present.
    pub async fn add_presence(&self, topic: &TopicName, members: Vec<Member>) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.add_presence(topic, members);
                Ok(())
            }
            Self::Redis(redis) => redis.add_presence(topic, &members).await,
        }
    }

    /// Replaces the info of a client that was added to the topic's presence. A client that has not been added since other
    /// nodes fenced this one is not added.
    pub async fn replace_presence(&self, topic: &TopicName, member: Member) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.add_presence(topic, vec![member]);
                Ok(())
            }
            Self::Redis(redis) => redis.replace_presence(topic, member).await,
        }
    }

    /// Adds a client unless `clients_max` others are present; returns whether it was added. While the engine is
    /// unavailable only clients of this process are counted.
    pub async fn admit(
        &self,
        topic: &TopicName,
        member: impl Into<Member>,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        let member = member.into();
        match self {
            Self::Memory(memory) => Ok(memory.admit(topic, member, clients_max)),
            Self::Redis(redis) => redis.admit(topic, member, clients_max).await,
        }
    }

    /// Removes a client, and delivers its leave if that was requested. The client may be absent already.
    pub async fn remove_presence(
        &self,
        topic: &TopicName,
        client: ClientId,
        left: &Left,
    ) -> Result<(), EngineError> {
        match self {
            Self::Memory(memory) => {
                memory.remove_presence(topic, client, left);
                Ok(())
            }
            Self::Redis(redis) => redis.remove_presence(topic, client, left).await,
        }
    }

    /// Returns the present clients in no particular order, or [`EngineError::TooLong`] if they exceed `bytes_max`, as
    /// counted by [`ClientInfo::answer_bytes`].
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

    /// Returns the number of present clients and users.
    pub async fn presence_stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        match self {
            Self::Memory(memory) => Ok(memory.presence_stats(topic)),
            Self::Redis(redis) => redis.presence_stats(topic).await,
        }
    }

    /// Returns the outboxes of members' events; `None` if the settings ask for none.
    pub fn outbox(&self) -> Option<Outboxes> {
        match self {
            Self::Memory(memory) => memory.outbox().cloned().map(Outboxes::Memory),
            Self::Redis(redis) => redis.outbox().cloned().map(Outboxes::Redis),
        }
    }

    /// Releases a bounded amount of expired data; meant to be called about once a second. Expired data is never
    /// returned, swept or not.
    pub fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep(),
            // Redis expires its data itself.
            Self::Redis(_) => {}
        }
    }

    /// Returns the engine's contents in this process.
    pub fn usage(&self) -> Usage {
        match self {
            Self::Memory(memory) => memory.usage(),
            Self::Redis(redis) => redis.usage(),
        }
    }
}
