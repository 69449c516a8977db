//! Reads the members of all live nodes, page by page, so that not more is read than the answer may hold.

use std::collections::HashSet;
use std::sync::Arc;

use fanwire_protocol::{ANSWER_OVERHEAD_BYTES, ClientInfo, TopicName};
use redis::Value;

use super::PresenceStore;
use crate::contract::{EngineError, PresenceStats};
use crate::redis::frame::FrameContent;
use crate::redis::keys::Incarnation;
use crate::redis::reply::{self, MembersPage};
use crate::redis::server::link::CommandLink;

/// The bytes of members up to which the number of users is exact. Above it a user on several nodes counts once on each.
const USERS_EXACT_BYTES_MAX: usize = 2 << 20;

/// The bytes of a page. A page of a single step of Redis may exceed them.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// The live nodes with members in a topic.
type Alive = Vec<(Incarnation, PresenceStats)>;

impl PresenceStore {
    /// Returns the members of all live nodes.
    pub(in crate::redis) async fn list(
        &self,
        topic: &TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        let mut link = self.links.of_topic(topic)?;
        let alive = self.alive(&mut link, topic).await?;
        let mut present = Vec::new();
        self.read(&mut link, topic, &alive, bytes_max, |info| present.push(info)).await?;
        Ok(present)
    }

    pub(in crate::redis) async fn stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        let mut link = self.links.of_topic(topic)?;
        let alive = self.alive(&mut link, topic).await?;
        let clients = total_clients(&alive);
        let users = alive.iter().map(|(_, stats)| stats.users).fold(0, usize::saturating_add);
        if alive.len() < 2 {
            return Ok(PresenceStats { clients, users });
        }
        let (mut read, mut names) = (0, HashSet::new());
        let result = self.read(&mut link, topic, &alive, USERS_EXACT_BYTES_MAX, |info| {
            read += 1;
            if !names.contains(&info.user) {
                names.insert(info.user.clone());
            }
        });
        match result.await {
            Ok(()) => Ok(PresenceStats { clients: read, users: names.len() }),
            Err(EngineError::TooLong) => Ok(PresenceStats { clients, users }),
            Err(error) => Err(error),
        }
    }

    async fn alive(&self, link: &mut CommandLink, topic: &TopicName) -> Result<Alive, EngineError> {
        let mut command = redis::cmd("HGETALL");
        let counts = link.command(command.arg(self.keys.member_counts(topic))).await?;
        let counts = reply::pairs(counts).ok_or_else(|| link.nonsense())?;
        // Unreadable counts are of another program.
        let counts: Alive = counts.iter().filter_map(|(node, counts)| parse_counts(node, counts)).collect();
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

    /// Calls `take` with each member once. Stops with [`EngineError::TooLong`] if the members exceed `bytes_max`, as
    /// counted by answers.
    async fn read(
        &self,
        link: &mut CommandLink,
        topic: &TopicName,
        alive: &Alive,
        bytes_max: usize,
        mut take: impl FnMut(Arc<ClientInfo>),
    ) -> Result<(), EngineError> {
        if total_clients(alive).saturating_mul(ANSWER_OVERHEAD_BYTES) > bytes_max {
            return Err(EngineError::TooLong);
        }
        let keys: Vec<_> = alive.iter().map(|(node, _)| self.keys.members(topic, *node)).collect();
        let mut keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
        let (mut cursor, mut bytes) = (b"0".to_vec(), 0_usize);
        let mut taken = HashSet::new();
        while !keys.is_empty() {
            let arguments = [PAGE_BYTES_MAX, bytes_max - bytes].map(|bytes| bytes.to_string());
            let arguments = [&cursor, arguments[0].as_bytes(), arguments[1].as_bytes()];
            let answer = reply::members(link.script(&self.scripts.members, &keys, &arguments).await?);
            let (done, next, bodies) = match answer {
                Some(MembersPage::Page { done, next, bodies }) if done <= keys.len() => (done, next, bodies),
                Some(MembersPage::TooLong) => return Err(EngineError::TooLong),
                _ => return Err(link.nonsense()),
            };
            keys.drain(..done);
            cursor = next;
            if bodies.is_empty() && !keys.is_empty() {
                return Err(link.nonsense());
            }
            for body in bodies {
                let body_bytes = body.len();
                bytes += match FrameContent::parse(body, 0) {
                    Ok(FrameContent::Member(info)) if taken.insert(info.client) => {
                        let bytes = info.answer_bytes();
                        take(info);
                        bytes
                    }
                    // It was in an earlier page.
                    Ok(FrameContent::Member(_)) => 0,
                    // An unreadable member is of a node of another version. The others still count.
                    _ => ANSWER_OVERHEAD_BYTES + body_bytes,
                };
                if bytes > bytes_max {
                    return Err(EngineError::TooLong);
                }
            }
        }
        Ok(())
    }
}

fn total_clients(alive: &Alive) -> usize {
    alive.iter().map(|(_, stats)| stats.clients).fold(0, usize::saturating_add)
}

fn parse_counts(node: &[u8], counts: &[u8]) -> Option<(Incarnation, PresenceStats)> {
    let node = Incarnation::parse(node)?;
    let (clients, users) = std::str::from_utf8(counts).ok()?.split_once(':')?;
    Some((node, PresenceStats { clients: clients.parse().ok()?, users: users.parse().ok()? }))
}
