//! The connection for subscriptions: which channels are joined, and what arrives through them.
//!
//! What the engine's owner wants is a table; one task brings the connection in line with it, in batches. A call to
//! subscribe returns when the channel's join is confirmed. When the connection is lost all of that is done again
//! for everything that was wanted, and the owner of each topic is told that events may have been missed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fanwire_protocol::TopicName;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::connection::{Backoff, Connector, LinkError, Opened, identify, lost_error};
use super::frame::{Content, Frame, Lineage};
use super::health::{Health, Seldom};
use super::keys::Keys;
use super::probe::Probe;
use super::settings::RedisSettings;
use super::stats::{CallKind, Counters};
use crate::capacity::shrunk_capacity;
use crate::engine::EngineError;
use crate::event::Event;

/// Takes the engine's events, in the order of each topic. Must not block.
pub type Deliver = Arc<dyn Fn(Event) + Send + Sync>;

pub(super) struct Subscriptions {
    keys: Arc<Keys>,
    settings: Arc<RedisSettings>,
    deliver: Deliver,
    probe: Probe,
    counters: Arc<Counters>,
    /// Never held while an event is delivered, so a delivery may call the engine.
    table: Mutex<Table>,
    /// There may be something to join or leave.
    changed: Notify,
    malformed: Seldom,
}

#[derive(Default)]
struct Table {
    /// A connection exists that brings itself in line.
    attached: bool,
    /// Clients choose topic names, so this is no place for a fast hash.
    interests: HashMap<TopicName, Interest>,
    /// Topics in [`Phase::Queued`], each once.
    joining: VecDeque<TopicName>,
    /// Topics with `leave_noted`, each once, with the time from which they may be left.
    leaving: VecDeque<(Instant, TopicName)>,
}

struct Interest {
    phase: Phase,
    /// Events are delivered.
    wanted: bool,
    /// A subscribe has succeeded, so after a loss the topic is joined again.
    confirmed: bool,
    leave_noted: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Queued,
    Joining,
    Joined,
    Leaving,
}

impl Subscriptions {
    /// Channels in one command.
    const BATCH: usize = 512;

    pub(super) fn new(
        keys: Arc<Keys>,
        settings: Arc<RedisSettings>,
        deliver: Deliver,
        probe: Probe,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            keys,
            settings,
            deliver,
            probe,
            counters,
            table: Mutex::default(),
            changed: Notify::new(),
            malformed: Seldom::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table().interests.len()
    }

    /// Wants the topic's events; returns once they will come.
    pub(super) async fn subscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        let confirmation = {
            let mut table = self.table();
            let Table { attached, interests, joining, .. } = &mut *table;
            if !*attached {
                return Err(EngineError::Unavailable);
            }
            let interest = interests.entry(topic.clone()).or_insert_with(|| {
                joining.push_back(topic.clone());
                Interest::new()
            });
            interest.wanted = true;
            if interest.phase == Phase::Joined {
                interest.confirmed = true;
                return Ok(());
            }
            let (confirm, confirmation) = oneshot::channel();
            interest.waiting.push(confirm);
            confirmation
        };
        self.changed.notify_one();
        // Dropped unanswered when the connection is lost.
        confirmation.await.map_err(|_| EngineError::Unavailable)
    }

    /// Wants the topic's events no more. Its channel is left later, with others.
    pub(super) fn unsubscribe(&self, topic: &TopicName) {
        let mut table = self.table();
        let Table { interests, leaving, .. } = &mut *table;
        let Some(interest) = interests.get_mut(topic) else { return };
        interest.wanted = false;
        interest.confirmed = false;
        interest.waiting.clear();
        if interest.phase == Phase::Joined && !interest.leave_noted {
            interest.leave_noted = true;
            leaving.push_back((Instant::now() + self.settings.leave_delay, topic.clone()));
            self.changed.notify_one();
        }
    }

    /// Connects, and connects again, for ever. `index` is what [`Health`] knows this connection by.
    pub(super) async fn run(self: Arc<Self>, connector: Arc<Connector>, health: Arc<Health>, index: usize) {
        let mut backoff = Backoff::new(&self.settings);
        loop {
            // What is on its way through a connection that was given up must not come between what the next brings.
            let is_current = Arc::new(AtomicBool::new(true));
            let error = match self.connect(&connector, &is_current).await {
                Ok(opened) => {
                    let since = Instant::now();
                    self.attach();
                    let error = self.hold(opened, || health.up(index)).await;
                    is_current.store(false, Ordering::Release);
                    self.detach();
                    backoff.held(since.elapsed());
                    error
                }
                Err(error) => error,
            };
            health.down(index, error);
            backoff.pause().await;
        }
    }

    /// Opens a connection that has joined the node's own channel, so it is known that joining is allowed.
    async fn connect(
        self: &Arc<Self>,
        connector: &Connector,
        is_current: &Arc<AtomicBool>,
    ) -> Result<Opened, LinkError> {
        let (receiver, is_current) = (Arc::clone(self), Arc::clone(is_current));
        let on_push = move |push| {
            if is_current.load(Ordering::Acquire) {
                receiver.receive(push);
            }
        };
        let mut opened = connector.open(on_push).await?;
        self.subscribe_channels(&mut opened.connection, &[self.probe.channel()]).await?;
        Ok(opened)
    }

    /// Keeps the connection until it is lost, or is found to bring nothing. It is not taken to be there before it has
    /// brought something.
    async fn hold(&self, opened: Opened, on_heard: impl FnOnce()) -> LinkError {
        let Opened { mut connection, lineage, lost } = opened;
        tokio::select! {
            () = lost.notified() => LinkError::Closed,
            error = self.probe.run(on_heard) => error,
            error = self.keep_in_line(&mut connection, lineage) => error,
        }
    }

    /// Joins and leaves what is to be, and asks in between whether the server is still what it was.
    async fn keep_in_line(&self, connection: &mut MultiplexedConnection, lineage: Lineage) -> LinkError {
        let mut checks =
            interval_at(Instant::now() + self.settings.probe_interval, self.settings.probe_interval);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Joins go first: somebody waits for them.
            let joins = self.take_joins();
            if !joins.is_empty() {
                match self.join(connection, joins).await {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            let leaves = self.take_leaves();
            if !leaves.is_empty() {
                match self.leave(connection, leaves).await {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            let next_leave = self.table().leaving.front().map(|(due, _)| *due);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next_leave.unwrap_or_else(Instant::now)), if next_leave.is_some() => {}
                _ = checks.tick() => match identify(connection).await {
                    Ok(same) if same == lineage => {}
                    Ok(_) => return LinkError::NotPrimary,
                    Err(error) => return error,
                }
            }
        }
    }

    async fn join(
        &self,
        connection: &mut MultiplexedConnection,
        topics: Vec<TopicName>,
    ) -> Result<(), LinkError> {
        let channels: Vec<String> = topics.iter().map(|topic| self.keys.channel(topic)).collect();
        self.subscribe_channels(connection, &channels).await?;
        for topic in self.joined(topics) {
            (self.deliver)(Event::Interrupted { topic });
        }
        Ok(())
    }

    async fn leave(
        &self,
        connection: &mut MultiplexedConnection,
        topics: Vec<TopicName>,
    ) -> Result<(), LinkError> {
        let channels: Vec<String> = topics.iter().map(|topic| self.keys.channel(topic)).collect();
        let asked = Instant::now();
        let done = connection.unsubscribe(channels).await;
        self.counters.call(CallKind::Subscribe, asked.elapsed(), done.is_ok());
        done.map_err(|error| command_error(&error))?;
        self.left(topics);
        Ok(())
    }

    /// Returns once all of them are joined.
    async fn subscribe_channels(
        &self,
        connection: &mut MultiplexedConnection,
        channels: &[impl AsRef<str>],
    ) -> Result<(), LinkError> {
        let asked = Instant::now();
        let channels: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        let done = connection.subscribe(channels).await;
        self.counters.call(CallKind::Subscribe, asked.elapsed(), done.is_ok());
        done.map_err(|error| command_error(&error))
    }

    /// There is a new connection: everything has to be joined again.
    fn attach(&self) {
        let mut table = self.table();
        let Table { attached, interests, joining, .. } = &mut *table;
        *attached = true;
        joining.extend(interests.keys().cloned());
    }

    /// The connection is lost. Forgets what nobody was promised, and thereby answers who still waits.
    pub(super) fn detach(&self) {
        let mut table = self.table();
        table.attached = false;
        table.joining = VecDeque::new();
        table.leaving = VecDeque::new();
        table.interests.retain(|_, interest| {
            interest.phase = Phase::Queued;
            interest.leave_noted = false;
            interest.waiting = Vec::new();
            interest.confirmed
        });
        table.shrink();
    }

    fn take_joins(&self) -> Vec<TopicName> {
        let mut table = self.table();
        let Table { interests, joining, .. } = &mut *table;
        let mut batch = Vec::new();
        while batch.len() < Self::BATCH
            && let Some(topic) = joining.pop_front()
        {
            let interest = interests.get_mut(&topic).expect("what is queued is in the table");
            if interest.wanted {
                interest.phase = Phase::Joining;
                batch.push(topic);
            } else {
                interests.remove(&topic);
            }
        }
        batch
    }

    /// Returns the topics of which events may have been missed.
    fn joined(&self, topics: Vec<TopicName>) -> Vec<TopicName> {
        let mut table = self.table();
        let Table { interests, leaving, .. } = &mut *table;
        let mut interrupted = Vec::new();
        for topic in topics {
            let interest = interests.get_mut(&topic).expect("what is joining is in the table");
            interest.phase = Phase::Joined;
            if !interest.wanted {
                interest.leave_noted = true;
                leaving.push_back((Instant::now() + self.settings.leave_delay, topic));
                continue;
            }
            let was_confirmed = std::mem::replace(&mut interest.confirmed, true);
            for confirm in interest.waiting.drain(..) {
                // Who does not wait any more need not be told.
                let _ = confirm.send(());
            }
            if was_confirmed {
                interrupted.push(topic);
            }
        }
        interrupted
    }

    fn take_leaves(&self) -> Vec<TopicName> {
        let now = Instant::now();
        let mut table = self.table();
        let Table { interests, leaving, .. } = &mut *table;
        let mut batch = Vec::new();
        while batch.len() < Self::BATCH
            && let Some((due, _)) = leaving.front()
            && *due <= now
            && let Some((_, topic)) = leaving.pop_front()
        {
            let interest = interests.get_mut(&topic).expect("what is to be left is in the table");
            interest.leave_noted = false;
            if !interest.wanted {
                interest.phase = Phase::Leaving;
                batch.push(topic);
            }
        }
        batch
    }

    fn left(&self, topics: Vec<TopicName>) {
        let mut table = self.table();
        let Table { interests, joining, .. } = &mut *table;
        for topic in topics {
            let interest = interests.get_mut(&topic).expect("what is being left is in the table");
            if interest.wanted {
                interest.phase = Phase::Queued;
                joining.push_back(topic);
            } else {
                interests.remove(&topic);
            }
        }
        table.shrink();
    }

    /// Runs in the connection's own task, for one message after the other.
    fn receive(&self, push: PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let mut data = push.data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next())
        else {
            return;
        };
        if channel == self.probe.channel().as_bytes() {
            return self.probe.receive(&payload);
        }
        self.counters.message(channel.len() + payload.len());
        let Some(topic) = self.wanted_topic(&channel) else { return };
        match Frame::parse(Bytes::from(payload)) {
            Ok(Frame { stamp, content: Content::Publication(publication) }) => {
                if stamp.is_some_and(|stamp| stamp.jumped_from.is_some()) {
                    // The offsets between do not exist, or were lost. Only the stream can tell.
                    (self.deliver)(Event::Interrupted { topic: topic.clone() });
                }
                let epoch = stamp.map(|stamp| stamp.epoch);
                (self.deliver)(Event::Publication { topic, publication: Arc::new(publication), epoch });
            }
            Ok(Frame { content: Content::Join(info), .. }) => (self.deliver)(Event::Join { topic, info }),
            Ok(Frame { content: Content::Leave(info), .. }) => (self.deliver)(Event::Leave { topic, info }),
            Ok(Frame { content: Content::Control | Content::Member(_), .. }) => {
                (self.deliver)(Event::Interrupted { topic });
            }
            Err(error) => {
                self.counters.malformed();
                if self.malformed.is_due() {
                    tracing::warn!(%topic, %error, "something that cannot be read arrived through Redis");
                }
                // It may have been a publication, by a node of another version.
                (self.deliver)(Event::Interrupted { topic });
            }
        }
    }

    fn wanted_topic(&self, channel: &[u8]) -> Option<TopicName> {
        let name = self.keys.topic_of(channel)?;
        let table = self.table();
        let (topic, interest) = table.interests.get_key_value(name.as_ref())?;
        interest.wanted.then(|| topic.clone())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn shrink(&mut self) {
        if let Some(capacity) = shrunk_capacity(self.interests.len(), self.interests.capacity()) {
            self.interests.shrink_to(capacity);
        }
        if let Some(capacity) = shrunk_capacity(self.joining.len(), self.joining.capacity()) {
            self.joining.shrink_to(capacity);
        }
        if let Some(capacity) = shrunk_capacity(self.leaving.len(), self.leaving.capacity()) {
            self.leaving.shrink_to(capacity);
        }
    }
}

impl Interest {
    /// Queued to be joined.
    fn new() -> Self {
        Self { phase: Phase::Queued, wanted: true, confirmed: false, leave_noted: false, waiting: Vec::new() }
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriptions").field("topics", &self.len()).finish_non_exhaustive()
    }
}

/// Why channels could not be joined or left. The server may have refused, say for lack of rights.
fn command_error(error: &redis::RedisError) -> LinkError {
    match error.code() {
        Some(code) => LinkError::Refused(format!("SUBSCRIBE: {code}")),
        None => lost_error(error),
    }
}
