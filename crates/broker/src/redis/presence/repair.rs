//! Rewrites dirty topics: afterwards Redis has exactly the members that this node knows, and others have left, with
//! their announced leaves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::{ClientId, TopicName};
use redis::{Pipeline, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::{COMMAND_MEMBERS_MAX, LATE, PresenceStore, Put, counts, expire, put_members};
use crate::contract::EngineError;
use crate::redis::keys::Incarnation;
use crate::redis::server::link::CommandLink;

/// The interval at which all topics are rewritten, so that keys of a live node do not expire by the backstop.
const RENEWAL: Duration = Duration::from_secs(8 * 60 * 60);
/// The most topics in one rewrite. Writes of single members of these topics wait.
const TOPICS_MAX: usize = 128;
/// The members at which a rewrite gets no further topic and a round trip no further command. A very large topic is
/// written in several round trips.
const MEMBERS_MAX: usize = 2000;
/// The bytes at which a round trip gets no further command.
const ROUND_BYTES_MAX: usize = 2 << 20;

impl PresenceStore {
    /// Repairs dirty topics after each heartbeat, forever.
    pub(in crate::redis) async fn run(self: Arc<Self>) {
        let mut heartbeats = self.lease.heartbeats();
        let mut renewed = Instant::now();
        let mut lapses = 0;
        while heartbeats.changed().await.is_ok() {
            let lapses_now = heartbeats.borrow_and_update().lapses;
            if renewed.elapsed() >= RENEWAL || lapses_now != lapses {
                (renewed, lapses) = (Instant::now(), lapses_now);
                self.own().mark_all_dirty();
            }
            self.repair().await;
        }
    }

    /// Rewrites dirty topics. Topics that fail stay dirty.
    async fn repair(&self) {
        let _alone = self.repairing.lock().await;
        let (leftovers, dirty) = {
            let mut own = self.own();
            (own.take_leftovers(), own.dirty())
        };
        for (dead, topics) in leftovers {
            let reaped = self.fenced_before(dead);
            let finished = self.reaper.take_out(reaped, topics.clone()).await.unwrap_or_default();
            let mut own = self.own();
            for topic in topics.into_iter().filter(|topic| !finished.contains(topic)) {
                own.leave_behind(dead, topic);
            }
        }
        let members: HashMap<TopicName, usize> = dirty.into_iter().collect();
        for (link, topics) in self.links.by_link(members.keys().cloned().collect()) {
            for batch in batches(topics, &members) {
                // Without the lease or the link the rest waits for the next heartbeat.
                let Some(incarnation) = self.lease.held() else { return };
                let Ok(mut link) = self.links.link(link) else { break };
                let mut rewrite = Rewrite::begin(self, incarnation, &batch);
                if rewrite.run(&mut link).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// Topics that are being rewritten. Topics that are not done when this is dropped are dirty again.
pub(super) struct Rewrite<'a> {
    pub(super) presence: &'a PresenceStore,
    pub(super) incarnation: Incarnation,
    pub(super) topics: Vec<(TopicName, RewriteProgress)>,
    /// The commands to send next.
    pub(super) round: Round,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RewriteProgress {
    Open,
    /// Redis has refused a command.
    Refused,
    Done,
}

#[derive(Default)]
pub(super) struct Round {
    pub(super) commands: Pipeline,
    /// The index of each command's topic.
    topics: Vec<usize>,
    /// The topics that end with this round.
    last_of: Vec<usize>,
    pub(super) members: usize,
    pub(super) bytes: usize,
}

impl<'a> Rewrite<'a> {
    fn begin(presence: &'a PresenceStore, incarnation: Incarnation, topics: &[TopicName]) -> Self {
        let mut own = presence.own();
        let topics = topics.iter().filter(|topic| own.incarnation == incarnation && own.begin_rewrite(topic));
        let topics = topics.map(|topic| (topic.clone(), RewriteProgress::Open)).collect();
        Self { presence, incarnation, topics, round: Round::default() }
    }

    async fn run(&mut self, link: &mut CommandLink) -> Result<(), EngineError> {
        if self.topics.is_empty() {
            return Ok(());
        }
        let mut commands = redis::pipe();
        for (topic, _) in &self.topics {
            commands.hkeys(self.presence.keys.members(topic, self.incarnation));
        }
        let there = link.run(&commands).await?;
        for ((index, there), command) in there.into_iter().enumerate().zip(commands.cmd_iter()) {
            // A topic whose key has another program's value must not prevent the others.
            if let Ok(Value::Array(there)) = link.accept(there, command) {
                self.put_topic(link, index, &there).await?;
            }
        }
        self.send(link).await
    }

    /// Adds the commands of a topic. `there` are the clients that Redis has.
    async fn put_topic(
        &mut self,
        link: &mut CommandLink,
        index: usize,
        there: &[Value],
    ) -> Result<(), EngineError> {
        let (presence, incarnation) = (self.presence, self.incarnation);
        let topic = &self.topics[index].0.clone();
        // Later changes of members wait for the end of the rewrite.
        let (stats, members) = {
            let mut own = presence.own();
            let stats = own.stats(topic);
            own.list(topic, stats.clients > 0);
            (stats, own.members(topic))
        };
        let known: HashSet<ClientId> = members.iter().map(|member| member.info.client).collect();
        let strangers: Vec<_> =
            there.iter().filter_map(client_bytes).filter(|client| !is_known(&known, client)).collect();
        let has_no_events = presence.own().has_no_events(topic);
        if let Some(events) = presence.events.as_deref().filter(|_| !has_no_events) {
            return self.put_topic_with_events(link, index, (&strangers, &members), events).await;
        }
        for strangers in strangers.chunks(COMMAND_MEMBERS_MAX) {
            presence.put_removal(&mut self.round.commands, topic, incarnation, stats, strangers);
            self.round.members += strangers.len();
            self.send_if_full(link, index).await?;
        }
        let (key, counts_key) =
            (presence.keys.members(topic, incarnation), presence.keys.member_counts(topic));
        let commands = &mut self.round.commands;
        if stats.clients == 0 {
            commands.hdel(counts_key, incarnation.to_string());
            commands.srem(presence.keys.member_topics(incarnation), topic.as_str());
            self.round.end_topic(index);
            return Ok(());
        }
        presence.put_topic(commands, topic, incarnation);
        let mut members = members.iter().peekable();
        while members.peek().is_some() {
            let Put { members, bytes } = put_members(&mut self.round.commands, &key, &mut members);
            self.round.members += members;
            self.round.bytes += bytes;
            self.send_if_full(link, index).await?;
        }
        let commands = &mut self.round.commands;
        commands.hset(&counts_key, incarnation.to_string(), counts(stats));
        expire(commands, &counts_key);
        self.round.end_topic(index);
        Ok(())
    }

    /// Assigns the new commands to the topic, and sends the round if it is full.
    pub(super) async fn send_if_full(
        &mut self,
        link: &mut CommandLink,
        index: usize,
    ) -> Result<(), EngineError> {
        self.round.topics.resize(self.round.commands.len(), index);
        if self.round.members < MEMBERS_MAX && self.round.bytes < ROUND_BYTES_MAX {
            return Ok(());
        }
        self.send(link).await
    }

    async fn send(&mut self, link: &mut CommandLink) -> Result<(), EngineError> {
        let Round { commands, topics, last_of, .. } = std::mem::take(&mut self.round);
        if self.presence.lease.held() != Some(self.incarnation) {
            return Err(EngineError::Unavailable);
        }
        if commands.is_empty() {
            return Ok(());
        }
        let answers = link.run(&commands).await?;
        for ((answer, command), index) in answers.into_iter().zip(commands.cmd_iter()).zip(topics) {
            if !matches!(link.accept(answer, command), Ok(answer) if answer != Value::Int(LATE)) {
                self.topics[index].1 = RewriteProgress::Refused;
            }
        }
        if self.presence.lease.held() != Some(self.incarnation) {
            return Err(EngineError::Unavailable);
        }
        for index in last_of {
            let progress = &mut self.topics[index].1;
            if *progress == RewriteProgress::Open {
                *progress = RewriteProgress::Done;
            }
        }
        Ok(())
    }
}

impl Round {
    pub(super) fn end_topic(&mut self, index: usize) {
        self.topics.resize(self.commands.len(), index);
        self.last_of.push(index);
    }
}

impl Drop for Rewrite<'_> {
    fn drop(&mut self) {
        let mut own = self.presence.own();
        let is_void = own.incarnation != self.incarnation;
        for (topic, progress) in self.topics.drain(..) {
            let is_done = progress == RewriteProgress::Done;
            if !is_void {
                own.end_rewrite(&topic, !is_done);
            } else if !is_done {
                own.leave_behind(self.incarnation, topic);
            }
        }
        self.presence.rewritten.notify_waiters();
    }
}

/// Splits topics into batches of bounded size.
fn batches(topics: Vec<TopicName>, members: &HashMap<TopicName, usize>) -> Vec<Vec<TopicName>> {
    let mut batches: Vec<Vec<TopicName>> = Vec::new();
    let mut members_in_last = MEMBERS_MAX;
    for topic in topics {
        if members_in_last >= MEMBERS_MAX || batches.last().is_some_and(|last| last.len() >= TOPICS_MAX) {
            batches.push(Vec::new());
            members_in_last = 0;
        }
        members_in_last += members[&topic];
        batches.last_mut().expect("one was pushed for the first topic").push(topic);
    }
    batches
}

fn client_bytes(field: &Value) -> Option<&[u8]> {
    match field {
        Value::BulkString(client) => Some(client),
        _ => None,
    }
}

fn is_known(known: &HashSet<ClientId>, client: &[u8]) -> bool {
    Uuid::from_slice(client).is_ok_and(|client| known.contains(&ClientId(client)))
}
