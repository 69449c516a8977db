//! The connection for subscriptions: which channels are joined, and what arrives through them.
//!
//! What the engine's owner wants is a table ([`Interests`]); one task brings the connection in line with it, in
//! batches. A call to subscribe returns when the channel's join is confirmed. When the connection is lost all of that
//! is done again for everything that was wanted, and the owner of each topic is told that events may have been missed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fanwire_protocol::TopicName;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::connection::{Backoff, Connector, LinkError, OpenedLink, identify, lost_error, refused};
use super::health::Health;
use super::interests::{Interests, JoinState};
use super::probe::Probe;
use crate::contract::{EngineError, Event};
use crate::redis::frame::{EventFrame, FrameContent, Lineage};
use crate::redis::keys::Keys;
use crate::redis::log_limit::LogRateLimit;
use crate::redis::settings::RedisSettings;
use crate::redis::stats::{CallKind, RedisCounters};

/// Takes the engine's events, in the order of each topic. Must not block.
pub type Deliver = Arc<dyn Fn(Event) + Send + Sync>;

pub(in crate::redis) struct ChannelSubscriptions {
    keys: Arc<Keys>,
    settings: Arc<RedisSettings>,
    deliver: Deliver,
    probe: Probe,
    counters: Arc<RedisCounters>,
    /// Never held while an event is delivered, so a delivery may call the engine.
    interests: Mutex<Interests>,
    /// There may be something to join or leave.
    changed: Notify,
    malformed: LogRateLimit,
}

impl ChannelSubscriptions {
    pub(in crate::redis) fn new(
        keys: Arc<Keys>,
        settings: Arc<RedisSettings>,
        deliver: Deliver,
        probe: Probe,
        counters: Arc<RedisCounters>,
    ) -> Self {
        let interests = Mutex::new(Interests::new(settings.leave_delay));
        Self {
            keys,
            settings,
            deliver,
            probe,
            counters,
            interests,
            changed: Notify::new(),
            malformed: LogRateLimit::new(),
        }
    }

    pub(in crate::redis) fn len(&self) -> usize {
        self.interests().len()
    }

    /// Wants the topic's events; returns once they will come.
    pub(in crate::redis) async fn subscribe(&self, topic: &TopicName) -> Result<(), EngineError> {
        let wanted = self.interests().want(topic);
        match wanted {
            JoinState::Unavailable => Err(EngineError::Unavailable),
            JoinState::Joined => Ok(()),
            JoinState::Joining(confirmation) => {
                self.changed.notify_one();
                confirmation.await.map_err(|_| EngineError::Unavailable)
            }
        }
    }

    /// Wants the topic's events no more. Its channel is left later, with others.
    pub(in crate::redis) fn unsubscribe(&self, topic: &TopicName) {
        if self.interests().unwant(topic) {
            self.changed.notify_one();
        }
    }

    /// Connects, and connects again, for ever. `index` is what [`Health`] knows this connection by.
    pub(in crate::redis) async fn run(
        self: Arc<Self>,
        connector: Arc<Connector>,
        health: Arc<Health>,
        index: usize,
    ) {
        let mut backoff = Backoff::new(&self.settings);
        loop {
            // What is on its way through a connection that was given up must not come between what the next brings.
            let is_current = Arc::new(AtomicBool::new(true));
            let error = match self.connect(&connector, &is_current).await {
                Ok(opened) => {
                    let since = Instant::now();
                    self.interests().attach();
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
    ) -> Result<OpenedLink, LinkError> {
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
    async fn hold(&self, opened: OpenedLink, on_heard: impl FnOnce()) -> LinkError {
        let OpenedLink { mut connection, lineage, lost } = opened;
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
            let joins = self.interests().take_joins();
            if !joins.is_empty() {
                match self.join(connection, joins).await {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            let leaves = self.interests().take_leaves();
            if !leaves.is_empty() {
                match self.leave(connection, leaves).await {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            let next_leave = self.interests().next_leave();
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
        let interrupted = self.interests().joined(topics);
        for topic in interrupted {
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
        done.map_err(|error| command_error("UNSUBSCRIBE", &error))?;
        self.interests().left(topics);
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
        let done = connection.subscribe(channels.as_slice()).await;
        self.counters.call(CallKind::Subscribe, asked.elapsed(), done.is_ok());
        let named = channels.first().copied().unwrap_or_default();
        done.map_err(|error| command_error(&format!("SUBSCRIBE of channel {named}"), &error))
    }

    /// The connection is lost, or is not to be used: whoever waits is told so.
    pub(in crate::redis) fn detach(&self) {
        self.interests().detach();
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
        match EventFrame::parse(Bytes::from(payload)) {
            Ok(EventFrame { stamp, content: FrameContent::Publication(publication) }) => {
                if stamp.is_some_and(|stamp| stamp.jumped_from.is_some()) {
                    // The offsets between do not exist, or were lost. Only the stream can tell.
                    (self.deliver)(Event::Interrupted { topic: topic.clone() });
                }
                let epoch = stamp.map(|stamp| stamp.epoch);
                (self.deliver)(Event::Publication { topic, publication: Arc::new(publication), epoch });
            }
            Ok(EventFrame { content: FrameContent::Join(info), .. }) => {
                (self.deliver)(Event::Join { topic, info })
            }
            Ok(EventFrame { content: FrameContent::Leave(info), .. }) => {
                (self.deliver)(Event::Leave { topic, info })
            }
            Ok(EventFrame { content: FrameContent::Member(_), .. }) => {
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
        self.interests().wanted(&name)
    }

    fn interests(&self) -> MutexGuard<'_, Interests> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChannelSubscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSubscriptions").field("topics", &self.len()).finish_non_exhaustive()
    }
}

/// Why channels could not be joined or left. The server may have refused, say for lack of rights.
fn command_error(command: &str, error: &redis::RedisError) -> LinkError {
    match error.code() {
        Some(code) => refused(command, code),
        None => lost_error(error),
    }
}
