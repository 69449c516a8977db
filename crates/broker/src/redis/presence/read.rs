//! Who is present: what all nodes whose lease lasts have written.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::{ANSWER_OVERHEAD_BYTES, ClientInfo, TopicName};
use redis::Value;

use super::Presence;
use crate::engine::EngineError;
use crate::presence::PresenceStats;
use crate::redis::frame::Content;
use crate::redis::keys::Incarnation;
use crate::redis::link::Ready;
use crate::redis::reply;

/// Up to so many members the number of users is exact; above it a user on several nodes counts on each.
const USERS_EXACT_MAX: usize = 10_000;

impl Presence {
    /// All that are present on live nodes.
    pub(in crate::redis) async fn list(
        &self,
        topic: &TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        let mut link = self.links.of_topic(topic)?;
        let alive = self.alive(&mut link, topic).await?;
        let clients = alive.iter().map(|(_, stats)| stats.clients).fold(0, usize::saturating_add);
        // What they say of themselves comes on top: that is known when they are read.
        if clients.saturating_mul(ANSWER_OVERHEAD_BYTES) > bytes_max {
            return Err(EngineError::TooLong);
        }
        let nodes = alive.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        let present = self.load(&mut link, topic, &nodes).await?;
        let bytes = present.iter().map(|info| info.answer_bytes()).fold(0, usize::saturating_add);
        if bytes > bytes_max { Err(EngineError::TooLong) } else { Ok(present) }
    }

    pub(in crate::redis) async fn stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        let mut link = self.links.of_topic(topic)?;
        let alive = self.alive(&mut link, topic).await?;
        let clients = alive.iter().map(|(_, stats)| stats.clients).sum();
        let users = alive.iter().map(|(_, stats)| stats.users).sum();
        if alive.len() < 2 || clients > USERS_EXACT_MAX {
            return Ok(PresenceStats { clients, users });
        }
        let nodes = alive.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        let members = self.load(&mut link, topic, &nodes).await?;
        let users = members.iter().map(|info| &*info.user).collect::<HashSet<_>>().len();
        Ok(PresenceStats { clients: members.len(), users })
    }

    /// The nodes that have members in the topic and are alive.
    async fn alive(
        &self,
        link: &mut Ready,
        topic: &TopicName,
    ) -> Result<Vec<(Incarnation, PresenceStats)>, EngineError> {
        let mut command = redis::cmd("HGETALL");
        let counts = link.command(command.arg(self.keys.member_counts(topic))).await?;
        let counts = reply::pairs(counts).ok_or_else(|| link.nonsense())?;
        // Whoever else writes there writes what is not counted.
        let counts: Vec<_> = counts.iter().filter_map(|(node, counts)| parse_counts(node, counts)).collect();
        if counts.is_empty() {
            return Ok(counts);
        }
        let mut commands = redis::pipe();
        for (node, _) in &counts {
            commands.exists(self.keys.lease(*node));
        }
        let alive = link.pipeline(&commands).await?;
        let alive = counts.into_iter().zip(alive).filter(|(_, alive)| *alive == Value::Int(1));
        Ok(alive.map(|(counts, _)| counts).collect())
    }

    async fn load(
        &self,
        link: &mut Ready,
        topic: &TopicName,
        nodes: &[Incarnation],
    ) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = redis::pipe();
        for node in nodes {
            commands.hgetall(self.keys.members(topic, *node));
        }
        let mut present = Vec::new();
        for members in link.pipeline(&commands).await? {
            let members = reply::pairs(members).ok_or_else(|| link.nonsense())?;
            // A member that cannot be read is of a node of another version. The others are not worth less for it.
            present.extend(members.into_iter().filter_map(|(_, body)| {
                match Content::parse(Bytes::from(body), 0) {
                    Ok(Content::Member(info)) => Some(info),
                    _ => None,
                }
            }));
        }
        Ok(present)
    }
}

fn parse_counts(node: &[u8], counts: &[u8]) -> Option<(Incarnation, PresenceStats)> {
    let node = Incarnation::parse(node)?;
    let (clients, users) = std::str::from_utf8(counts).ok()?.split_once(':')?;
    Some((node, PresenceStats { clients: clients.parse().ok()?, users: users.parse().ok()? }))
}
