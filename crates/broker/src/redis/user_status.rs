//! The status of users in Redis: their connections on all nodes, heartbeats, and when they were last seen.

use std::collections::HashMap;
use std::sync::Arc;

use fanwire_protocol::{EventMask, TopicName};
use redis::Value;

use super::arguments::milliseconds;
use super::events::EventWriter;
use super::keys::Keys;
use super::scripts::Scripts;
use super::server::link::Links;
use crate::contract::EngineError;
use crate::user_status::{StatusOptions, UserStatus, user_topic};

pub(super) struct UserStatusTable {
    keys: Arc<Keys>,
    links: Links,
    scripts: Arc<Scripts>,
    events: Arc<EventWriter>,
}

impl UserStatusTable {
    /// The most users that are looked up in one round trip.
    const ROUND_MAX: usize = 256;

    pub(super) fn new(
        keys: Arc<Keys>,
        links: Links,
        scripts: Arc<Scripts>,
        events: Arc<EventWriter>,
    ) -> Self {
        Self { keys, links, scripts, events }
    }

    /// Returns the status of each user.
    pub(super) async fn of(&self, users: &[Box<str>]) -> Result<Vec<UserStatus>, EngineError> {
        let topics: Vec<_> = users.iter().map(|user| user_topic(user)).collect();
        let mut found = HashMap::with_capacity(topics.len());
        for (link, topics) in self.links.by_link(topics.clone()) {
            for some in topics.chunks(Self::ROUND_MAX) {
                let mut link = self.links.link(link)?;
                let mut commands = redis::pipe();
                for topic in some {
                    let keys = &self.keys;
                    let keys =
                        [keys.member_counts(topic), keys.pending_vacancy(topic), keys.last_seen(topic)];
                    commands.add_command(self.scripts.status.call(&keys, &[]));
                }
                for (topic, answer) in some.iter().zip(link.pipeline(&commands).await?) {
                    let status = read_status(&answer).ok_or_else(|| link.nonsense())?;
                    found.insert(topic.clone(), status);
                }
            }
        }
        let status = |topic: &TopicName| found.get(topic).copied().unwrap_or_default();
        Ok(topics.iter().map(status).collect())
    }

    /// Keeps a user online without a connection, for `heartbeat_ttl`. `events` are those of its connections.
    pub(super) async fn beat(
        &self,
        user: &str,
        events: EventMask,
        options: &StatusOptions,
    ) -> Result<(), EngineError> {
        let topic = user_topic(user);
        let ttl = options.heartbeat_ttl;
        let mut commands = redis::pipe();
        self.events.announce(&mut commands, &self.keys, &topic);
        self.events.announce_vacancy(&mut commands, &self.keys, &topic, ttl);
        let mut keys = vec![self.keys.member_counts(&topic)];
        keys.extend(self.events.keys(&self.keys, &topic));
        let mut command = self.scripts.beat.call(&keys, &[]);
        for argument in self.events.arguments(&self.keys, &topic) {
            command.arg(argument);
        }
        command.arg(milliseconds(ttl)).arg(events.bits());
        commands.add_command(command);
        let result = self.links.of_topic(&topic)?.pipeline(&commands).await;
        result.map(drop).inspect_err(|_| self.events.forget_announced())
    }
}

fn read_status(answer: &Value) -> Option<UserStatus> {
    let Value::Array(answer) = answer else { return None };
    let &[Value::Int(online), Value::Int(connections), Value::Int(last_seen), Value::Int(time)] =
        answer.as_slice()
    else {
        return None;
    };
    Some(UserStatus { online: online == 1, connections: connections.try_into().ok()?, last_seen, time })
}
