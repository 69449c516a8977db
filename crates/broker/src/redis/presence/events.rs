//! Writes of members with events. Their scripts carry the end of this node's lease by Redis' clock and change nothing
//! after it, so nothing of a node is executed after the word of the one that reaps it.

use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, TopicName};
use redis::{Cmd, Pipeline, Value};

use super::repair::Rewrite;
use super::{ATTEMPTS_MAX, COMMAND_BYTES_MAX, COMMAND_MEMBERS_MAX, LATE, PresenceStore, Write, backstop};
use crate::contract::{EngineError, Member};
use crate::redis::events::EventWriter;
use crate::redis::frame::member_body;
use crate::redis::keys::Incarnation;
use crate::redis::reaper::Reaped;
use crate::redis::server::link::CommandLink;

/// The parts that the calls of a topic's scripts have in common.
struct EventCalls<'a> {
    presence: &'a PresenceStore,
    events: &'a EventWriter,
    topic: &'a TopicName,
    incarnation: Incarnation,
    /// The end of the lease.
    until: u64,
    /// The users of the node's members.
    users: usize,
}

impl PresenceStore {
    /// Returns the writer if the members have events.
    pub(super) fn events_of(&self, members: &[Member]) -> Option<&EventWriter> {
        self.events.as_deref().filter(|_| members.iter().any(|member| !member.events.is_empty()))
    }

    /// An incarnation of this node, which was fenced after its lease.
    pub(super) fn fenced_before(&self, incarnation: Incarnation) -> Reaped {
        Reaped { incarnation, gone: self.events.as_ref().map(|_| self.lease.length()) }
    }

    /// Adds members with events.
    pub(super) async fn join(
        &self,
        write: Write<'_>,
        members: &[Member],
        events: &EventWriter,
    ) -> Result<(), EngineError> {
        let topic = write.topic;
        let (stats, was_listed) = {
            let mut own = self.own();
            (own.stats(topic), own.list(topic, true))
        };
        let incarnation = write.incarnation;
        let result = write.run(|until| {
            let mut commands = redis::pipe();
            if !was_listed {
                self.put_topic(&mut commands, topic, incarnation);
            }
            events.announce(&mut commands, &self.keys, topic);
            let calls = EventCalls { presence: self, events, topic, incarnation, until, users: stats.users };
            calls.joins(members).for_each(|(command, _)| {
                commands.add_command(command);
            });
            commands
        });
        let result = result.await;
        self.settle_events(write, result, events)
    }

    /// Removes a client whose topic may have events.
    pub(super) async fn part(
        &self,
        write: Write<'_>,
        client: ClientId,
        left: &Left,
        events: &EventWriter,
    ) -> Result<(), EngineError> {
        let (topic, incarnation) = (write.topic, write.incarnation);
        let (stats, is_dirty) = {
            let own = self.own();
            (own.stats(topic), own.is_dirty(topic))
        };
        let delay = events.offline_delay();
        let result = write.run(|until| {
            let mut commands = redis::pipe();
            events.announce(&mut commands, &self.keys, topic);
            // Redis may have no other member although this node has.
            if stats.clients == 0 || is_dirty {
                events.announce_vacancy(&mut commands, &self.keys, topic, delay);
            }
            let calls = EventCalls { presence: self, events, topic, incarnation, until, users: stats.users };
            commands.add_command(calls.part(&[client.0.as_bytes()], left));
            commands
        });
        let mut result = result.await;
        // Only now it is certain that the script has run: a reaper has to know of the topic until then.
        let is_vacated = {
            let mut own = self.own();
            result.is_ok()
                && own.incarnation == incarnation
                && own.is_vacated(topic)
                && own.list(topic, false)
        };
        if is_vacated {
            let mut commands = redis::pipe();
            commands.srem(self.keys.member_topics(incarnation), topic.as_str());
            result = match write.link() {
                Ok(mut link) => link.pipeline(&commands).await.map(|_| ()),
                Err(error) => Err(error),
            };
        }
        self.settle_events(write, result, events)
    }

    /// The arguments of an admission about events; empty without.
    pub(super) fn admission_arguments(
        &self,
        write: &Write<'_>,
        events: Option<&EventWriter>,
    ) -> Result<[String; 6], EngineError> {
        let Some(events) = events else { return Ok(Default::default()) };
        let until = self.lease.held_until(write.incarnation).ok_or(EngineError::Unavailable)?;
        let [topic, length_max, retention, channel, seen_ttl] = events.arguments(&self.keys, write.topic);
        Ok([topic, length_max, retention, channel, seen_ttl, until.to_string()])
    }

    fn settle_events(
        &self,
        write: Write<'_>,
        result: Result<(), EngineError>,
        events: &EventWriter,
    ) -> Result<(), EngineError> {
        result.inspect_err(|_| events.forget_announced())?;
        let is_void = write.is_void();
        write.settle();
        if is_void { Err(EngineError::Unavailable) } else { Ok(()) }
    }
}

impl Write<'_> {
    /// Runs the commands that `build` makes of the end of the lease. A script that comes too late is sent again if the
    /// lease was renewed meanwhile; if not, the topic is left to the node's next incarnation.
    async fn run(&self, build: impl Fn(u64) -> Pipeline) -> Result<(), EngineError> {
        for _ in 0..=ATTEMPTS_MAX {
            let until = self.presence.lease.held_until(self.incarnation).ok_or(EngineError::Unavailable)?;
            let answers = self.link()?.pipeline(&build(until)).await?;
            if !answers.contains(&Value::Int(LATE)) {
                return Ok(());
            }
        }
        Err(EngineError::Unavailable)
    }
}

impl Rewrite<'_> {
    /// Adds the commands of a topic that may have events: nothing is stored that is stored already, so each difference is
    /// one event.
    pub(super) async fn put_topic_with_events(
        &mut self,
        link: &mut CommandLink,
        index: usize,
        (strangers, members): (&[&[u8]], &[Member]),
        events: &EventWriter,
    ) -> Result<(), EngineError> {
        let (presence, incarnation) = (self.presence, self.incarnation);
        let topic = &self.topics[index].0.clone();
        let users = presence.own().stats(topic).users;
        let until = presence.lease.held_until(incarnation).ok_or(EngineError::Unavailable)?;
        let calls = EventCalls { presence, events, topic, incarnation, until, users };
        let commands = &mut self.round.commands;
        events.announce_always(commands, &presence.keys, topic);
        if !members.is_empty() {
            presence.put_topic(commands, topic, incarnation);
        }
        // Without members the topic stays among those of the node, which costs little until the node ends.
        if members.is_empty() || !strangers.is_empty() {
            events.announce_vacancy(commands, &presence.keys, topic, events.offline_delay());
        }
        let mut strangers: Vec<_> = strangers.chunks(COMMAND_MEMBERS_MAX).collect();
        if strangers.is_empty() && members.is_empty() {
            // It corrects the counts.
            strangers.push(&[]);
        }
        for strangers in strangers {
            self.round.commands.add_command(calls.part(strangers, &Left::Unknown));
            self.round.members += strangers.len();
            self.send_if_full(link, index).await?;
        }
        for (command, (members, bytes)) in calls.joins(members) {
            self.round.commands.add_command(command);
            self.round.members += members;
            self.round.bytes += bytes;
            self.send_if_full(link, index).await?;
        }
        self.round.end_topic(index);
        Ok(())
    }
}

impl EventCalls<'_> {
    /// Returns calls that add all members, each with the number of its members and of their bytes.
    fn joins(&self, members: &[Member]) -> impl Iterator<Item = (Cmd, (usize, usize))> {
        let mut members = members.iter().peekable();
        std::iter::from_fn(move || {
            members.peek()?;
            let mut command = self.call(&self.presence.scripts.join);
            let (mut count, mut bytes) = (0, 0);
            for member in members.by_ref().take(COMMAND_MEMBERS_MAX) {
                let body = member_body(member);
                count += 1;
                bytes += body.len();
                command.arg(member.info.client.0.as_bytes()).arg(body);
                if bytes >= COMMAND_BYTES_MAX {
                    break;
                }
            }
            Some((command, (count, bytes)))
        })
    }

    /// Returns a call that removes clients.
    fn part(&self, clients: &[impl AsRef<[u8]>], left: &Left) -> Cmd {
        let (code, text) = codes::left(left);
        let mut command = self.call(&self.presence.scripts.part);
        command.arg(self.events.offline_delay().as_millis().to_string()).arg(code).arg(&*text);
        for client in clients {
            command.arg(client.as_ref());
        }
        command
    }

    fn call(&self, script: &crate::redis::scripts::Script) -> Cmd {
        let Self { presence, events, topic, incarnation, until, users } = self;
        let mut keys = vec![presence.keys.members(topic, *incarnation), presence.keys.member_counts(topic)];
        keys.extend(events.keys(&presence.keys, topic));
        let mut command = script.call(&keys, &[]);
        for argument in events.arguments(&presence.keys, topic) {
            command.arg(argument);
        }
        command.arg(until.to_string()).arg(incarnation.to_string()).arg(users.to_string()).arg(backstop());
        command
    }
}
