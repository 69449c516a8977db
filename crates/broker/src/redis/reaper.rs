//! Removes the members of dead nodes. Any node may do so: a script deletes a member and publishes its leave in one
//! step, so two nodes may reap at once, and one may die half-way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::TopicName;
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::Left;
use redis::{Cmd, Value};

use super::arguments::milliseconds;
use super::events::EventWriter;
use super::keys::{Incarnation, Keys};
use super::lease::Lease;
use super::nodes::{NodeTable, REAPING_MAX};
use super::scripts::Scripts;
use super::server::link::Links;
use crate::contract::EngineError;

pub(super) struct Reaper {
    nodes: Arc<NodeTable>,
    keys: Arc<Keys>,
    links: Links,
    scripts: Arc<Scripts>,
    events: Arc<EventWriter>,
}

/// A node whose members are removed.
#[derive(Clone, Copy)]
pub(super) struct Reaped {
    pub(super) incarnation: Incarnation,
    /// The time for which its members have been gone, if they may have events.
    pub(super) gone: Option<Duration>,
}

impl Reaper {
    /// The members removed in one round trip, without events and with them. Redis may do nothing else meanwhile, which takes
    /// one or two milliseconds.
    const MEMBERS: usize = 500;
    const MEMBERS_WITH_EVENTS: usize = 128;
    /// The most topics in one round trip, and of those that turn out to have many members.
    const TOPICS: usize = 64;
    const LARGE_TOPICS: usize = 8;

    pub(super) fn new(
        nodes: Arc<NodeTable>,
        keys: Arc<Keys>,
        links: Links,
        scripts: Arc<Scripts>,
        events: Arc<EventWriter>,
    ) -> Self {
        Self { nodes, keys, links, scripts, events }
    }

    /// Reaps nodes whose lease has ended, forever.
    pub(super) async fn run(self: Arc<Self>, lease: Arc<Lease>) {
        let mut heartbeats = lease.heartbeats();
        while heartbeats.changed().await.is_ok() {
            let ended = heartbeats.borrow_and_update().ended.clone();
            for dead in ended {
                if let Err(error) = self.claim_and_reap(dead, &lease).await {
                    // The next heartbeat reports the node again.
                    tracing::debug!(%error, "some members of a dead node remain");
                }
            }
        }
    }

    /// Removes all members of a node of this application, and the node from the table.
    pub(super) async fn reap(&self, dead: Reaped) -> Result<(), EngineError> {
        self.reap_application(&self.keys, dead).await?;
        self.nodes.forget(dead.incarnation).await
    }

    /// Removes all members of a node from some topics of this application. Returns the finished topics. A topic that
    /// fails does not prevent the others.
    pub(super) async fn take_out(
        &self,
        dead: Reaped,
        topics: Vec<TopicName>,
    ) -> Result<HashSet<TopicName>, EngineError> {
        self.take_out_of(&self.keys, dead, topics).await
    }

    async fn claim_and_reap(&self, incarnation: Incarnation, lease: &Lease) -> Result<(), EngineError> {
        let Some(node) = self.nodes.claim(incarnation, lease.incarnation()).await? else { return Ok(()) };
        tracing::warn!(node = %node.name, "node is dead; removing its members from presence");
        let dead = Reaped { incarnation, gone: node.has_events.then(|| lease.length()) };
        self.reap_application(&self.keys.of_application(&node.application), dead).await?;
        self.nodes.forget(incarnation).await
    }

    /// The rest of the delay of a vacancy whose last member has been gone for some time.
    fn delay_after(&self, gone: Duration) -> Duration {
        self.events.offline_delay().saturating_sub(gone)
    }

    async fn reap_application(&self, keys: &Keys, dead: Reaped) -> Result<(), EngineError> {
        let listed = keys.member_topics(dead.incarnation);
        loop {
            let mut command = redis::cmd("SRANDMEMBER");
            command.arg(&listed).arg(Self::TOPICS);
            let mut link = self.links.any()?;
            let answer = link.command(&command).await?;
            let Value::Array(names) = answer else { return Err(link.nonsense()) };
            if names.is_empty() {
                return Ok(());
            }
            let topics = names.iter().filter_map(read_topic).collect();
            let finished = self.take_out_of(keys, dead, topics).await?;
            let is_finished = |name: &&Value| read_topic(name).is_none_or(|topic| finished.contains(&topic));
            let mut command = redis::cmd("SREM");
            command.arg(&listed);
            let mut are_any_finished = false;
            // Unreadable names are removed too: otherwise they would come back each time.
            for name in names.iter().filter(is_finished) {
                if let Value::BulkString(name) = name {
                    command.arg(name);
                    are_any_finished = true;
                }
            }
            if !are_any_finished {
                return Err(EngineError::Refused);
            }
            if link.command(&command).await? == Value::Int(0) {
                return Err(link.nonsense());
            }
        }
    }

    async fn take_out_of(
        &self,
        keys: &Keys,
        dead: Reaped,
        topics: Vec<TopicName>,
    ) -> Result<HashSet<TopicName>, EngineError> {
        let mut finished = HashSet::new();
        for (index, topics) in self.links.by_link(topics) {
            for batch in topics.chunks(Self::TOPICS) {
                let mut left = batch.to_vec();
                let mut at_once = Self::TOPICS;
                while !left.is_empty() {
                    let some = left.split_off(left.len().saturating_sub(at_once));
                    left.extend(self.take_some_out(keys, dead, index, some, &mut finished).await?);
                    at_once = Self::LARGE_TOPICS;
                }
            }
        }
        Ok(finished)
    }

    /// Returns the topics that have more members.
    async fn take_some_out(
        &self,
        keys: &Keys,
        dead: Reaped,
        link: usize,
        topics: Vec<TopicName>,
        finished: &mut HashSet<TopicName>,
    ) -> Result<Vec<TopicName>, EngineError> {
        let mut link = self.links.link(link)?;
        let mut commands = redis::pipe();
        // What is announced is written after it.
        if let Some(delay) = dead.gone.map(|gone| self.delay_after(gone)) {
            for topic in &topics {
                self.events.announce_always(&mut commands, keys, topic);
                self.events.announce_vacancy(&mut commands, keys, topic, delay);
            }
        }
        let announcements = commands.len();
        let members = if dead.gone.is_some() { Self::MEMBERS_WITH_EVENTS } else { Self::MEMBERS };
        // A user with two devices is done in one call.
        let members_each = (members / topics.len()).max(2);
        for topic in &topics {
            commands.add_command(self.removal(keys, dead, topic, members_each));
        }
        // Other nodes wait while this continues.
        commands.cmd("PEXPIRE").arg(keys.reaping(dead.incarnation)).arg(milliseconds(REAPING_MAX));
        let mut answers = link.run(&commands).await?;
        // Without them the topics are not finished, and are announced the next time.
        for (answer, command) in answers.drain(..announcements).zip(commands.cmd_iter()) {
            link.accept(answer, command)?;
        }
        let mut left = Vec::new();
        let removals = commands.cmd_iter().skip(announcements);
        for ((topic, command), answer) in topics.into_iter().zip(removals).zip(answers) {
            match link.accept(answer, command) {
                Ok(Value::Int(members)) if members > 0 => left.push(topic),
                // Another program's value stays.
                Ok(Value::Int(_)) | Err(EngineError::Foreign) => {
                    finished.insert(topic);
                }
                Err(EngineError::Unavailable) => return Err(EngineError::Unavailable),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(left)
    }

    fn removal(&self, keys: &Keys, dead: Reaped, topic: &TopicName, members: usize) -> Cmd {
        let Reaped { incarnation, gone } = dead;
        let mut script_keys = vec![keys.members(topic, incarnation), keys.member_counts(topic)];
        let mut arguments = vec![keys.channel(topic), incarnation.to_string(), members.to_string()];
        if let Some(gone) = gone {
            script_keys.extend(self.events.keys(keys, topic));
            arguments.extend(self.events.arguments(keys, topic));
            let times = [self.delay_after(gone), gone];
            arguments.extend(times.map(|time| time.as_millis().to_string()));
            let (code, text) = codes::left(&Left::NodeDied);
            arguments.extend([code.to_string(), text.into_owned()]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
        self.scripts.reap.call(&script_keys, &arguments)
    }
}

fn read_topic(name: &Value) -> Option<TopicName> {
    let Value::BulkString(name) = name else { return None };
    TopicName::new(std::str::from_utf8(name).ok()?)
}
