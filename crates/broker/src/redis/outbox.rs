//! The outboxes of the cluster, to read, and the work on them that one node at a time does.

mod dead_letters;
mod entry;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::TopicName;
use redis::{Pipeline, Value};
use uuid::Uuid;

use super::arguments::milliseconds;
use super::clock::Clock;
use super::events::EventWriter;
use super::keys::Keys;
use super::scripts::Scripts;
use super::server::link::{CommandLink, Links};
use super::slots;
use crate::contract::EngineError;
use crate::outbox::{Backlog, EventId, OutboxOptions, StoredEvent};
use entry::{read_entry, text, time_of};

/// The outboxes in Redis. Cloning shares the connections.
#[derive(Clone)]
pub struct RedisOutbox {
    keys: Arc<Keys>,
    links: Links,
    scripts: Arc<Scripts>,
    clock: Arc<Clock>,
    events: Arc<EventWriter>,
    options: OutboxOptions,
    lease: Duration,
}

impl RedisOutbox {
    /// The most topics that are looked at, and outboxes that are read, in one round trip.
    const ROUND_MAX: usize = 128;

    pub(super) fn new(
        keys: Arc<Keys>,
        links: Links,
        scripts: Arc<Scripts>,
        clock: Arc<Clock>,
        events: Arc<EventWriter>,
        options: OutboxOptions,
        lease: Duration,
    ) -> Self {
        Self { keys, links, scripts, clock, events, options, lease }
    }

    /// Asks for the work on outboxes, for this time. Returns false if another node does it.
    pub async fn claim(&self, worker: Uuid, length: Duration) -> Result<bool, EngineError> {
        let (worker, length) = (worker.simple().to_string(), milliseconds(length).to_string());
        let arguments = [worker.as_bytes(), length.as_bytes()];
        let mut link = self.links.any()?;
        let key = self.keys.outbox_worker();
        match link.script(&self.scripts.work, &[key.as_bytes()], &arguments).await? {
            Value::Int(claimed) => Ok(claimed == 1),
            _ => Err(link.nonsense()),
        }
    }

    /// Forgets the outboxes that have been empty for so long that every node announces them again before it writes, and
    /// drops what is older than it may be. Returns what is left.
    pub async fn tidy(&self) -> Result<Backlog, EngineError> {
        const EMPTY_MIN: Duration = Duration::from_secs(60);
        // An announcement holds for a while, and what it announces is written before the lease ends.
        let empty_min = EMPTY_MIN.max(2 * self.lease + EventWriter::ANNOUNCED_FOR);
        let now = self.clock.now().ok_or(EngineError::Unavailable)?;
        let oldest = milliseconds(now.saturating_sub(self.options.retention));
        let mut link = self.links.any()?;
        let mut command = redis::cmd("ZRANGE");
        let announced = command.arg(self.keys.outboxes()).arg(0).arg(-1).arg("WITHSCORES");
        let announced = link.command(announced).await?;
        let announced = scores(&announced).ok_or_else(|| link.nonsense())?;
        let mut backlog = self.tidy_letters(&mut link, now).await?;
        for some in announced.chunks(Self::ROUND_MAX) {
            let slots = some.iter().filter_map(|(slot, score)| Some((slots::named(slot)?, *score)));
            let slots: Vec<_> = slots.collect();
            let mut commands = redis::pipe();
            for (slot, _) in &slots {
                let key = self.keys.outbox(*slot);
                commands.cmd("XTRIM").arg(&key).arg("MINID").arg(oldest);
                commands.cmd("XLEN").arg(&key);
                commands.cmd("XRANGE").arg(&key).arg("-").arg("+").arg("COUNT").arg(1);
                commands.cmd("GETDEL").arg(self.keys.dropped_events(*slot));
            }
            let answers = link.pipeline(&commands).await?;
            let mut forget = redis::pipe();
            for ((slot, score), answers) in slots.iter().zip(answers.chunks_exact(4)) {
                let [Value::Int(dropped), Value::Int(length), first, too_many] = answers else {
                    return Err(link.nonsense());
                };
                backlog.dropped += *dropped as u64 + number(too_many).unwrap_or_default();
                backlog.events += *length as u64;
                backlog.oldest = [backlog.oldest, time_of(first)].into_iter().flatten().min();
                if *length == 0 && *score < milliseconds(now.saturating_sub(empty_min)) {
                    self.forget(&mut forget, &self.keys.outboxes(), slots::tag(*slot).as_bytes(), *score);
                }
            }
            if !forget.is_empty() {
                link.pipeline(&forget).await?;
            }
        }
        Ok(backlog)
    }

    /// Returns the outboxes that may have events.
    pub async fn slots(&self) -> Result<Vec<u16>, EngineError> {
        let mut link = self.links.any()?;
        let mut command = redis::cmd("ZRANGE");
        let Value::Array(tags) = link.command(command.arg(self.keys.outboxes()).arg(0).arg(-1)).await? else {
            return Err(link.nonsense());
        };
        Ok(tags.iter().filter_map(|tag| slots::named(text(tag)?)).collect())
    }

    /// Returns the oldest events of each outbox, in order, at most `events_max` of each.
    pub async fn read(&self, slots: &[u16], events_max: usize) -> Result<Vec<StoredEvent>, EngineError> {
        let mut link = self.links.any()?;
        let mut events = Vec::new();
        for some in slots.chunks(Self::ROUND_MAX) {
            let mut commands = redis::pipe();
            for slot in some {
                commands.cmd("XRANGE").arg(self.keys.outbox(*slot)).arg("-").arg("+");
                commands.arg("COUNT").arg(events_max);
            }
            for (slot, entries) in some.iter().zip(link.pipeline(&commands).await?) {
                let Value::Array(entries) = entries else { return Err(link.nonsense()) };
                // An unreadable entry is of another program. It is removed with the next one.
                events.extend(entries.iter().filter_map(|entry| read_entry(*slot, entry)));
            }
        }
        Ok(events)
    }

    /// Removes, of the outbox of each of these events, the event and all before it. What was written since it was read
    /// stays.
    pub async fn remove(&self, last: &[EventId]) -> Result<(), EngineError> {
        let mut link = self.links.any()?;
        for some in last.chunks(Self::ROUND_MAX) {
            let mut commands = redis::pipe();
            for EventId { slot, millis, sequence } in some {
                // The stream stays, so that its ids grow even if Redis' clock is set back.
                let next = format!("{millis}-{}", sequence.saturating_add(1));
                commands.cmd("XTRIM").arg(self.keys.outbox(*slot)).arg("MINID").arg(next);
            }
            link.pipeline(&commands).await?;
        }
        Ok(())
    }

    /// Says which topics are vacant and which users offline, where that is due.
    pub async fn say_due(&self) -> Result<(), EngineError> {
        let now = self.clock.now().ok_or(EngineError::Unavailable)?;
        loop {
            let mut link = self.links.any()?;
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(self.keys.due_vacancies()).arg("-inf").arg(milliseconds(now)).arg("WITHSCORES");
            command.arg("LIMIT").arg(0).arg(Self::ROUND_MAX);
            let due = link.command(&command).await?;
            let due = scores(&due).ok_or_else(|| link.nonsense())?;
            let topics = due
                .iter()
                .filter_map(|(name, score)| Some((TopicName::new(std::str::from_utf8(name).ok()?)?, *score)));
            let topics: Vec<_> = topics.collect();
            if topics.is_empty() {
                return Ok(());
            }
            self.vacate(&mut link, &topics, now).await?;
            if due.len() < Self::ROUND_MAX {
                return Ok(());
            }
        }
    }

    async fn vacate(
        &self,
        link: &mut CommandLink,
        topics: &[(TopicName, u64)],
        now: Duration,
    ) -> Result<(), EngineError> {
        let mut commands = redis::pipe();
        for (topic, _) in topics {
            self.events.announce(&mut commands, &self.keys, topic);
        }
        let announcements = commands.len();
        for (topic, _) in topics {
            let mut keys = vec![self.keys.member_counts(topic)];
            keys.extend(self.events.keys(&self.keys, topic));
            let arguments = self.events.arguments(&self.keys, topic);
            let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
            commands.add_command(self.scripts.vacate.call(&keys, &arguments));
        }
        let answers = link.run(&commands).await?;
        let due = self.keys.due_vacancies();
        let mut after = redis::pipe();
        let answers = answers.into_iter().zip(commands.cmd_iter()).skip(announcements);
        for ((topic, score), (answer, command)) in topics.iter().zip(answers) {
            match link.accept(answer, command) {
                Ok(Value::Int(left)) if left > 0 => {
                    let due_at = milliseconds(now) + left as u64;
                    after.cmd("ZADD").arg(&due).arg("XX").arg("GT").arg(due_at).arg(topic.as_str());
                }
                // Another program's value stays.
                Ok(Value::Int(_)) | Err(EngineError::Foreign) => {
                    self.forget(&mut after, &due, topic.as_str().as_bytes(), *score);
                }
                Ok(_) => return Err(link.nonsense()),
                Err(error) => return Err(error),
            }
        }
        link.pipeline(&after).await?;
        Ok(())
    }

    fn forget(&self, commands: &mut Pipeline, key: &str, member: &[u8], score: u64) {
        let score = score.to_string();
        commands.add_command(self.scripts.forget.call(&[key], &[member, score.as_bytes()]));
    }
}

impl fmt::Debug for RedisOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOutbox").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Reads members of a sorted set with their scores, which are whole numbers.
fn scores(answer: &Value) -> Option<Vec<(Vec<u8>, u64)>> {
    let whole = |score: &Value| match score {
        Value::Double(score) => Some(*score as u64),
        score => Some(std::str::from_utf8(text(score)?).ok()?.parse::<f64>().ok()? as u64),
    };
    let Value::Array(values) = answer else { return None };
    if values.iter().all(|value| matches!(value, Value::Array(_))) {
        let pair = |value: &Value| match value {
            Value::Array(pair) => Some((text(pair.first()?)?.to_vec(), whole(pair.get(1)?)?)),
            _ => None,
        };
        return values.iter().map(pair).collect();
    }
    values.chunks_exact(2).map(|pair| Some((text(&pair[0])?.to_vec(), whole(&pair[1])?))).collect()
}

fn number(value: &Value) -> Option<u64> {
    std::str::from_utf8(text(value)?).ok()?.parse().ok()
}
