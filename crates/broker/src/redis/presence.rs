//! Presence under leases: each node keeps its own members in Redis, and they count while the node shows that it is
//! alive. A member costs nothing while it stays, and a dead node's members are absent at once when its lease ends.
//!
//! What this node's members are is known here; Redis has a copy. Whatever may have made the copy differ, a call
//! without an answer or a Redis that lost its data, makes the topic *doubtful*, and it is written anew.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use redis::{Pipeline, Value};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::frame::{Content, member_body};
use super::keys::{Keys, NodeId};
use super::link::{Links, Ready};
use super::reply;
use super::settings::RedisSettings;
use crate::capacity::shrunk_capacity;
use crate::engine::EngineError;
use crate::members::{Member, Members};
use crate::presence::PresenceStats;

pub(super) struct Presence {
    node: NodeId,
    keys: Arc<Keys>,
    links: Arc<Links>,
    settings: Arc<RedisSettings>,
    own: Mutex<Own>,
    /// The node has shown that it is alive, so its members count.
    is_known: AtomicBool,
    /// The node has taken its leave, and must not show that it is alive any more.
    has_left: AtomicBool,
}

/// The members of this node.
#[derive(Default)]
struct Own {
    /// Clients choose topic names, so this is no place for a fast hash.
    topics: HashMap<TopicName, Present>,
    /// Topics of which Redis' copy may be wrong.
    doubtful: HashSet<TopicName>,
}

#[derive(Default)]
struct Present {
    members: Members,
    /// Counts changes, so that one is noticed that happens while the topic is being written anew.
    changes: u64,
}

impl Presence {
    /// What is kept for members lives as long as this if nobody takes care of it any more.
    const BACKSTOP: Duration = Duration::from_secs(24 * 60 * 60);
    /// How often everything is written anew, so that the backstop is never reached by a node that lives.
    const RENEWAL: Duration = Duration::from_secs(8 * 60 * 60);
    /// Topics that are written anew in one round trip.
    const REPAIR_BATCH: usize = 128;
    /// Up to so many members the number of users is exact; above it a user on several nodes counts on each.
    const USERS_EXACT_MAX: usize = 10_000;

    pub(super) fn new(keys: Arc<Keys>, links: Arc<Links>, settings: Arc<RedisSettings>) -> Self {
        Self {
            node: Uuid::new_v4(),
            keys,
            links,
            settings,
            own: Mutex::default(),
            is_known: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        }
    }

    pub(super) async fn admit(
        &self,
        topic: &TopicName,
        info: Arc<ClientInfo>,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        if self.stats(topic).await?.clients >= clients_max {
            return Ok(false);
        }
        self.add(topic, Member { info, announce_leave: false }).await?;
        Ok(true)
    }

    pub(super) async fn add(&self, topic: &TopicName, member: Member) -> Result<(), EngineError> {
        let info = Arc::clone(&member.info);
        let stats = {
            let mut own = self.own();
            let present = own.topics.entry(topic.clone()).or_default();
            present.members.add(member);
            present.changes += 1;
            present.members.stats()
        };
        let mut commands = redis::pipe();
        let members = self.keys.members(topic, self.node);
        commands.hset(&members, info.client.0.as_bytes(), member_body(&info));
        self.put_counts(&mut commands, topic, stats);
        expire(&mut commands, &members);
        let done = self.write(topic, commands).await;
        if !self.is_known.load(Ordering::Acquire) && done.is_ok() {
            self.beat().await?;
        }
        done
    }

    pub(super) async fn remove(&self, topic: &TopicName, client: ClientId) -> Result<(), EngineError> {
        let stats = {
            let mut own = self.own();
            let Own { topics, doubtful } = &mut *own;
            let Some(present) = topics.get_mut(topic) else { return Ok(()) };
            present.members.remove(client);
            present.changes += 1;
            let stats = present.members.stats();
            if present.members.is_empty() && !doubtful.contains(topic) {
                own.forget(topic);
            }
            stats
        };
        let mut commands = redis::pipe();
        commands.hdel(self.keys.members(topic, self.node), client.0.as_bytes());
        self.put_counts(&mut commands, topic, stats);
        self.write(topic, commands).await
    }

    /// All that are present on live nodes.
    pub(super) async fn list(&self, topic: &TopicName) -> Result<Vec<Arc<ClientInfo>>, EngineError> {
        let mut link = self.links.of_topic(topic)?;
        let alive = self.alive(&mut link, topic).await?;
        let nodes = alive.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        self.load(&mut link, topic, &nodes).await
    }

    pub(super) async fn stats(&self, topic: &TopicName) -> Result<PresenceStats, EngineError> {
        let mut link = self.links.of_topic(topic)?;
        let alive = self.alive(&mut link, topic).await?;
        let clients = alive.iter().map(|(_, stats)| stats.clients).sum();
        let users = alive.iter().map(|(_, stats)| stats.users).sum();
        if alive.len() < 2 || clients > Self::USERS_EXACT_MAX {
            return Ok(PresenceStats { clients, users });
        }
        let nodes = alive.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        let members = self.load(&mut link, topic, &nodes).await?;
        let users = members.iter().map(|info| &*info.user).collect::<HashSet<_>>().len();
        Ok(PresenceStats { clients: members.len(), users })
    }

    /// Shows that the node is alive, and repairs what is doubtful, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut link = self.links.watch_first();
        let mut beats = interval(self.settings.lease / 3);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                // The first sign of life after a loss should not wait.
                changed = link.changed() => if changed.is_err() { return },
            }
            if renewed.elapsed() >= Self::RENEWAL {
                renewed = Instant::now();
                self.doubt_all();
            }
            // Without a connection there is nothing to do until the next change.
            if self.beat().await.is_ok() {
                self.repair().await;
            }
        }
    }

    /// Takes the node's members out of presence, all at once.
    pub(super) async fn leave(&self) -> Result<(), EngineError> {
        self.has_left.store(true, Ordering::Release);
        let mut link = self.links.link(0)?;
        link.command(redis::cmd("DEL").arg(self.keys.node(self.node))).await?;
        Ok(())
    }

    /// Renews the lease. If it had ended, or Redis has lost it, nothing else can be trusted to be there.
    async fn beat(&self) -> Result<(), EngineError> {
        if self.has_left.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut link = self.links.link(0)?;
        let lease = u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX);
        let mut command = redis::cmd("SET");
        command.arg(self.keys.node(self.node)).arg(1).arg("PX").arg(lease).arg("GET");
        let before = link.command(&command).await?;
        if before == Value::Nil && self.is_known.load(Ordering::Acquire) {
            self.doubt_all();
        }
        self.is_known.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes doubtful topics anew. What fails remains doubtful.
    async fn repair(&self) {
        let doubtful: Vec<TopicName> = self.own().doubtful.iter().cloned().collect();
        let mut by_link: HashMap<usize, Vec<TopicName>> = HashMap::new();
        for topic in doubtful {
            by_link.entry(self.links.index_of(&topic)).or_default().push(topic);
        }
        for (index, topics) in by_link {
            for batch in topics.chunks(Self::REPAIR_BATCH) {
                let Ok(mut link) = self.links.link(index) else { return };
                let mut commands = redis::pipe();
                let written: Vec<_> =
                    batch.iter().map(|topic| (topic, self.put_all(&mut commands, topic))).collect();
                match link.pipeline(&commands).await {
                    Ok(_) => {
                        for (topic, changes) in written {
                            self.trust(topic, changes);
                        }
                    }
                    Err(EngineError::Unavailable) => return,
                    // One topic that cannot be written must not keep the others of its batch from being it.
                    Err(_) => self.repair_singly(&mut link, batch).await,
                }
            }
        }
    }

    async fn repair_singly(&self, link: &mut Ready, topics: &[TopicName]) {
        for topic in topics {
            let mut commands = redis::pipe();
            let changes = self.put_all(&mut commands, topic);
            if link.pipeline(&commands).await.is_ok() {
                self.trust(topic, changes);
            }
        }
    }

    /// The nodes that have members in the topic and are alive.
    async fn alive(
        &self,
        link: &mut Ready,
        topic: &TopicName,
    ) -> Result<Vec<(NodeId, PresenceStats)>, EngineError> {
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
            commands.exists(self.keys.node(*node));
        }
        let alive = link.pipeline(&commands).await?;
        let alive = counts.into_iter().zip(alive).filter(|(_, alive)| *alive == Value::Int(1));
        Ok(alive.map(|(counts, _)| counts).collect())
    }

    async fn load(
        &self,
        link: &mut Ready,
        topic: &TopicName,
        nodes: &[NodeId],
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

    /// Writes a change. Without a good answer the topic is doubtful.
    async fn write(&self, topic: &TopicName, commands: Pipeline) -> Result<(), EngineError> {
        // If the call is dropped half-way nobody knows either.
        let doubt = Doubt { presence: self, topic: Some(topic) };
        self.links.of_topic(topic)?.pipeline(&commands).await?;
        doubt.dispel();
        Ok(())
    }

    /// Everything of the topic, whatever there is now; returns at which count of changes.
    fn put_all(&self, commands: &mut Pipeline, topic: &TopicName) -> u64 {
        let (infos, stats, changes) = {
            let own = self.own();
            let present = own.topics.get(topic);
            let infos = present.map(|present| present.members.list()).unwrap_or_default();
            let stats = present.map(|present| present.members.stats()).unwrap_or_default();
            (infos, stats, present.map_or(0, |present| present.changes))
        };
        let members = self.keys.members(topic, self.node);
        commands.del(&members);
        if !infos.is_empty() {
            let fields: Vec<_> =
                infos.iter().map(|info| (info.client.0.as_bytes(), member_body(info))).collect();
            commands.hset_multiple(&members, &fields);
            expire(commands, &members);
        }
        self.put_counts(commands, topic, stats);
        changes
    }

    fn put_counts(&self, commands: &mut Pipeline, topic: &TopicName, stats: PresenceStats) {
        let counts = self.keys.member_counts(topic);
        let node = self.node.simple().to_string();
        if stats.clients == 0 {
            commands.hdel(counts, node);
        } else {
            commands.hset(&counts, node, format!("{}:{}", stats.clients, stats.users));
            expire(commands, &counts);
        }
    }

    fn doubt_all(&self) {
        let mut own = self.own();
        let Own { topics, doubtful } = &mut *own;
        doubtful.extend(topics.keys().cloned());
    }

    /// The topic was written as it was at that count of changes.
    fn trust(&self, topic: &TopicName, changes: u64) {
        let mut own = self.own();
        let Own { topics, doubtful } = &mut *own;
        let present = topics.get(topic);
        if present.map_or(0, |present| present.changes) == changes {
            doubtful.remove(topic);
            if present.is_some_and(|present| present.members.is_empty()) {
                own.forget(topic);
            }
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    fn forget(&mut self, topic: &TopicName) {
        self.topics.remove(topic);
        if let Some(capacity) = shrunk_capacity(self.topics.len(), self.topics.capacity()) {
            self.topics.shrink_to(capacity);
        }
    }
}

/// Makes a topic doubtful unless it is told that all went well.
struct Doubt<'a> {
    presence: &'a Presence,
    topic: Option<&'a TopicName>,
}

impl Doubt<'_> {
    fn dispel(mut self) {
        self.topic = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(topic) = self.topic {
            self.presence.own().doubtful.insert(topic.clone());
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("node", &self.node).finish_non_exhaustive()
    }
}

fn expire(commands: &mut Pipeline, key: &str) {
    commands.cmd("EXPIRE").arg(key).arg(Presence::BACKSTOP.as_secs());
}

fn parse_counts(node: &[u8], counts: &[u8]) -> Option<(NodeId, PresenceStats)> {
    let node = Uuid::try_parse_ascii(node).ok()?;
    let (clients, users) = std::str::from_utf8(counts).ok()?.split_once(':')?;
    Some((node, PresenceStats { clients: clients.parse().ok()?, users: users.parse().ok()? }))
}
