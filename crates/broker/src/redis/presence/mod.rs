//! Presence under leases: each node stores its own members in Redis, and they count while its lease lasts. A member
//! that stays costs nothing, and a dead node's members are absent as soon as its lease ends.
//!
//! This node's members are known here ([`own`]); Redis has a copy. Events after which the copy may differ, such as a
//! call without an answer or a loss of data in Redis, make the topic *dirty*, and it is rewritten ([`repair`]).
//! Nothing is written unless the lease is held.

mod events;
mod own;
mod read;
mod repair;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, TopicName};
use redis::{Pipeline, Value};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::Instant;

use super::events::EventWriter;
use super::frame::member_body;
use super::keys::{Incarnation, Keys};
use super::lease::Lease;
use super::nodes::{BACKSTOP, NodeTable, Peer};
use super::reaper::{Reaped, Reaper};
use super::scripts::Scripts;
use super::server::link::{CommandLink, Links};
use crate::contract::{EngineError, Member, PresenceStats};
use own::Own;

/// The answer of a script that has not run since the lease it carries has ended.
const LATE: i64 = -2;

/// The times that a late script is sent again, if the lease has been renewed.
const ATTEMPTS_MAX: usize = 2;

/// The most members in one command, and the bytes at which it gets no more.
const COMMAND_MEMBERS_MAX: usize = 500;
const COMMAND_BYTES_MAX: usize = 256 << 10;

pub(super) struct PresenceStore {
    keys: Arc<Keys>,
    links: Links,
    scripts: Arc<Scripts>,
    nodes: Arc<NodeTable>,
    lease: Arc<Lease>,
    reaper: Arc<Reaper>,
    /// Writes the events of members, if there are outboxes.
    events: Option<Arc<EventWriter>>,
    /// Not locked while the lease's status is locked.
    own: Mutex<Own>,
    /// Notified when topics are no longer being rewritten.
    rewritten: Notify,
    /// Locked during a repair, and while the node leaves.
    repairing: AsyncMutex<()>,
    live: Mutex<Option<LiveNodes>>,
}

/// The nodes that were live a moment ago.
#[derive(Clone)]
struct LiveNodes {
    asked: Instant,
    incarnations: Arc<[Incarnation]>,
}

impl PresenceStore {
    /// The longest time that the list of live nodes is used.
    const LIVE_NODES_AGE_MAX: Duration = Duration::from_secs(1);

    pub(super) fn new(
        keys: Arc<Keys>,
        links: Links,
        scripts: Arc<Scripts>,
        nodes: Arc<NodeTable>,
        lease: Arc<Lease>,
        reaper: Arc<Reaper>,
        events: Option<Arc<EventWriter>>,
    ) -> Self {
        let own = Mutex::new(Own::new(lease.incarnation()));
        Self {
            keys,
            links,
            scripts,
            nodes,
            lease,
            reaper,
            events,
            own,
            rewritten: Notify::new(),
            repairing: AsyncMutex::default(),
            live: Mutex::default(),
        }
    }

    pub(super) async fn peers(&self) -> Result<Vec<Peer>, EngineError> {
        let peers = self.lease.peers().await?;
        Ok(peers.into_iter().map(|(_, peer)| peer).collect())
    }

    pub(super) fn fenced(&self) -> watch::Receiver<u64> {
        self.lease.fenced()
    }

    /// Adds members of one topic. After an error the first of them may have been added.
    pub(super) async fn add(&self, topic: &TopicName, members: &[Member]) -> Result<(), EngineError> {
        for members in members.chunks(COMMAND_MEMBERS_MAX) {
            self.add_some(topic, members).await?;
        }
        Ok(())
    }

    /// Replaces a member, unless the node was fenced since it was added: then others have removed it.
    pub(super) async fn replace(&self, topic: &TopicName, member: Member) -> Result<(), EngineError> {
        if !self.own().has(topic, member.info.client) {
            return Ok(());
        }
        self.add_some(topic, &[member]).await
    }

    async fn add_some(&self, topic: &TopicName, members: &[Member]) -> Result<(), EngineError> {
        let write = self.begin_write(topic, |own| {
            members.iter().for_each(|member| own.add(topic, member.clone()));
        });
        write.until_possible().await?;
        if let Some(events) = self.events_of(members) {
            return self.join(write, members, events).await;
        }

        let key = self.keys.members(topic, write.incarnation);
        let mut commands = redis::pipe();
        let (stats, was_listed) = {
            let mut own = self.own();
            (own.stats(topic), own.list(topic, true))
        };
        if !was_listed {
            self.put_topic(&mut commands, topic, write.incarnation);
        }
        let mut members = members.iter().peekable();
        while members.peek().is_some() {
            put_members(&mut commands, &key, &mut members);
        }
        commands.hset(self.keys.member_counts(topic), write.incarnation.to_string(), counts(stats));
        // Another program may have deleted both keys meanwhile, so their TTL is set again.
        expire(&mut commands, &self.keys.member_counts(topic));
        write.finish(commands).await
    }

    /// Adds the client unless `clients_max` others are present. If Redis is unavailable or full, only clients of this
    /// node count.
    pub(super) async fn admit(
        &self,
        topic: &TopicName,
        member: Member,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        match self.ask_to_admit(topic, &member, clients_max).await {
            Err(EngineError::Unavailable | EngineError::Full) if !self.lease.is_over() => {
                let mut own = self.own();
                let is_admitted = own.others(topic, member.info.client) < clients_max;
                if is_admitted {
                    own.add(topic, member);
                    own.mark_dirty(topic);
                }
                Ok(is_admitted)
            }
            result => result,
        }
    }

    pub(super) async fn remove(
        &self,
        topic: &TopicName,
        client: ClientId,
        left: &Left,
    ) -> Result<(), EngineError> {
        if !self.own().may_have(topic, client) {
            return Ok(());
        }
        let has_no_events = self.own().has_no_events(topic);
        let write = self.begin_write(topic, |own| own.remove(topic, client));
        let possible = write.until_possible().await;
        if write.is_void() {
            // The node that fenced this one has removed the client.
            return Ok(());
        }
        possible?;
        if let Some(events) = self.events.as_deref().filter(|_| !has_no_events) {
            return self.part(write, client, left, events).await;
        }

        let stats = {
            let mut own = self.own();
            let stats = own.stats(topic);
            if stats.clients == 0 {
                own.list(topic, false);
            }
            stats
        };
        let mut commands = redis::pipe();
        self.put_removal(&mut commands, topic, write.incarnation, stats, &[client.0.as_bytes()]);
        if stats.clients == 0 {
            commands.srem(self.keys.member_topics(write.incarnation), topic.as_str());
        }
        write.finish(commands).await
    }

    /// Removes the node from the cluster, and its members from presence.
    pub(super) async fn leave(&self) -> Result<(), EngineError> {
        let Some(incarnation) = self.lease.end().await else { return Ok(()) };
        let _none_repairs = self.repairing.lock().await;
        // From here on other nodes may reap this node's members.
        self.nodes.resign(incarnation).await?;
        let (dirty, leftovers) = {
            let mut own = self.own();
            let dirty = own.dirty().into_iter().map(|(topic, _)| topic).collect();
            let leftovers = own.take_leftovers();
            *own = Own::new(incarnation);
            (dirty, leftovers)
        };
        let reaped = Reaped { incarnation, gone: self.events.as_ref().map(|_| Duration::ZERO) };
        self.reaper.take_out(reaped, dirty).await?;
        self.reaper.reap(reaped).await?;
        for (before, topics) in leftovers {
            self.reaper.take_out(self.fenced_before(before), topics).await?;
        }
        Ok(())
    }

    async fn ask_to_admit(
        &self,
        topic: &TopicName,
        member: &Member,
        clients_max: usize,
    ) -> Result<bool, EngineError> {
        let info = &member.info;
        let write = self.begin_write(topic, |_| ());
        write.until_possible().await?;
        let (others, stats, was_listed) = {
            let mut own = self.own();
            (own.others(topic, info.client), own.stats_with(topic, info), own.list(topic, true))
        };
        let mut script_keys =
            vec![self.keys.members(topic, write.incarnation), self.keys.member_counts(topic)];
        let events = self.events_of(std::slice::from_ref(member));
        if let Some(events) = events {
            script_keys.extend(events.keys(&self.keys, topic));
        }
        let body = member_body(member);
        let incarnation = write.incarnation.to_string();
        let texts = [stats.users.to_string(), others.to_string(), clients_max.to_string(), backstop()];
        let mut link = write.link()?;

        let mut attempts = 0;
        let mut nodes_age_max = Self::LIVE_NODES_AGE_MAX;
        let is_admitted = loop {
            let is_fresh = nodes_age_max.is_zero();
            let nodes = self.live_nodes(nodes_age_max).await?;
            let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            let mut arguments = vec![info.client.0.as_bytes().as_slice(), &body, incarnation.as_bytes()];
            arguments.extend(texts.iter().map(String::as_bytes));
            arguments.push(if is_fresh { b"1" } else { b"0" });
            let of_events = self.admission_arguments(&write, events)?;
            arguments.extend(of_events.iter().map(String::as_bytes));
            arguments.extend(nodes.iter().map(String::as_bytes));
            let mut commands = redis::pipe();
            // A reaper has to know of the topic before it has a member.
            if !was_listed {
                self.put_topic(&mut commands, topic, write.incarnation);
            }
            if let Some(events) = events {
                events.announce(&mut commands, &self.keys, topic);
            }
            commands.add_command(self.scripts.admit.call(&script_keys, &arguments));
            match link.pipeline(&commands).await?.last() {
                // An unlisted node: one that has joined since, or a dead one.
                Some(Value::Int(-1)) if !is_fresh => nodes_age_max = Duration::ZERO,
                // The lease may have been renewed meanwhile.
                Some(Value::Int(LATE)) if attempts < ATTEMPTS_MAX => attempts += 1,
                Some(Value::Int(LATE)) => return Err(EngineError::Unavailable),
                Some(Value::Int(0)) => break false,
                Some(Value::Int(1)) => break true,
                _ => return Err(link.nonsense()),
            }
        };
        if is_admitted {
            if write.is_void() {
                return Err(EngineError::Unavailable);
            }
            self.own().add(topic, member.clone());
            write.settle();
            return Ok(true);
        }
        let is_empty = {
            let mut own = self.own();
            own.incarnation == write.incarnation && own.stats(topic).clients == 0 && own.list(topic, false)
        };
        if is_empty {
            let mut commands = redis::pipe();
            commands.srem(self.keys.member_topics(write.incarnation), topic.as_str());
            // If this fails the topic is dirty and the result is the same.
            let _ = write.finish(commands).await;
        } else {
            write.settle();
        }
        Ok(false)
    }

    /// Returns the other live nodes.
    async fn live_nodes(&self, age_max: Duration) -> Result<Arc<[Incarnation]>, EngineError> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(LiveNodes { asked, incarnations }) = live
            && asked.elapsed() < age_max
        {
            return Ok(incarnations);
        }
        let asked = Instant::now();
        let own = self.lease.incarnation();
        let peers = self.nodes.peers().await?;
        let incarnations: Arc<[_]> =
            peers.into_iter().map(|(incarnation, _)| incarnation).filter(|peer| *peer != own).collect();
        let live = LiveNodes { asked, incarnations: Arc::clone(&incarnations) };
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        Ok(incarnations)
    }

    /// Adds the topic to those with members of the node. Its key may be on another server than the topic's keys, so a
    /// script cannot do it.
    fn put_topic(&self, commands: &mut Pipeline, topic: &TopicName, incarnation: Incarnation) {
        let topics = self.keys.member_topics(incarnation);
        commands.sadd(&topics, topic.as_str());
        expire(commands, &topics);
    }

    fn put_removal(
        &self,
        commands: &mut Pipeline,
        topic: &TopicName,
        incarnation: Incarnation,
        left: PresenceStats,
        clients: &[impl AsRef<[u8]>],
    ) {
        let keys = [self.keys.members(topic, incarnation), self.keys.member_counts(topic)];
        let (channel, incarnation) = (self.keys.channel(topic), incarnation.to_string());
        let counts = if left.clients == 0 { String::new() } else { counts(left) };
        let ttl = backstop();
        let mut arguments =
            vec![channel.as_bytes(), incarnation.as_bytes(), counts.as_bytes(), ttl.as_bytes()];
        arguments.extend(clients.iter().map(AsRef::as_ref));
        commands.add_command(self.scripts.remove.call(&keys, &arguments));
    }

    /// Begins a write of single members, and changes the table.
    fn begin_write<'a>(&'a self, topic: &'a TopicName, change: impl FnOnce(&mut Own)) -> Write<'a> {
        let mut own = self.own();
        own.begin_write(topic);
        change(&mut own);
        Write { presence: self, topic, incarnation: own.incarnation, is_settled: false }
    }

    /// Returns the table of the node's current incarnation.
    fn own(&self) -> MutexGuard<'_, Own> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let incarnation = self.lease.incarnation();
        if own.incarnation != incarnation {
            own.begin_again(incarnation);
        }
        own
    }
}

/// A write of single members of a topic. The topic becomes dirty unless the write is settled: a call that is dropped
/// half-way may or may not have taken effect.
struct Write<'a> {
    presence: &'a PresenceStore,
    topic: &'a TopicName,
    incarnation: Incarnation,
    is_settled: bool,
}

impl Write<'_> {
    /// Waits until the lease is held and the topic is not being rewritten.
    async fn until_possible(&self) -> Result<(), EngineError> {
        loop {
            let rewritten = self.presence.rewritten.notified();
            if !self.presence.own().is_rewritten(self.topic) {
                break;
            }
            rewritten.await;
        }
        let held = self.presence.lease.hold().await?;
        if held == self.incarnation { Ok(()) } else { Err(EngineError::Unavailable) }
    }

    /// Returns true if the node was fenced since the write began.
    fn is_void(&self) -> bool {
        self.presence.own().incarnation != self.incarnation
    }

    /// Returns the topic's link. From now on Redis may have some of the topic.
    fn link(&self) -> Result<CommandLink, EngineError> {
        let link = self.presence.links.of_topic(self.topic)?;
        let mut own = self.presence.own();
        if own.incarnation == self.incarnation {
            own.send(self.topic);
        }
        Ok(link)
    }

    async fn finish(self, commands: Pipeline) -> Result<(), EngineError> {
        self.link()?.pipeline(&commands).await?;
        let is_void = self.is_void();
        self.settle();
        if is_void { Err(EngineError::Unavailable) } else { Ok(()) }
    }

    /// Notes that Redis has run the write. The write counts only if the lease is still held.
    fn settle(mut self) {
        self.is_settled = self.presence.lease.held() == Some(self.incarnation);
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        let mut own = self.presence.own();
        if own.incarnation == self.incarnation {
            own.end_write(self.topic, !self.is_settled);
        } else if !self.is_settled {
            own.leave_behind(self.incarnation, self.topic.clone());
        }
    }
}

impl fmt::Debug for PresenceStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceStore")
            .field("incarnation", &self.lease.incarnation())
            .finish_non_exhaustive()
    }
}

/// The contents of one command.
struct Put {
    members: usize,
    bytes: usize,
}

/// Adds one command with the next members.
fn put_members<'a>(
    commands: &mut Pipeline,
    key: &str,
    members: &mut impl Iterator<Item = &'a Member>,
) -> Put {
    let mut command = redis::cmd("HSET");
    command.arg(key);
    let mut put = Put { members: 0, bytes: 0 };
    for member in members.take(COMMAND_MEMBERS_MAX) {
        let body = member_body(member);
        put.members += 1;
        put.bytes += body.len();
        command.arg(member.info.client.0.as_bytes()).arg(body);
        if put.bytes >= COMMAND_BYTES_MAX {
            break;
        }
    }
    commands.add_command(command);
    expire(commands, key);
    put
}

fn expire(commands: &mut Pipeline, key: &str) {
    commands.cmd("PEXPIRE").arg(key).arg(backstop());
}

fn backstop() -> String {
    BACKSTOP.as_millis().to_string()
}

fn counts(stats: PresenceStats) -> String {
    format!("{}:{}", stats.clients, stats.users)
}
