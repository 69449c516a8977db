//! The connection for subscriptions: joins channels and receives their messages.
//!
//! A table ([`Interests`]) holds the topics that are subscribed; one task joins and leaves channels accordingly, in
//! batches. A call to subscribe returns when the channel's join is confirmed. After a loss the task joins all
//! subscribed channels again, and the owner of each topic receives a gap.

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

/// Receives the engine's events, in the order of each topic. Must not block.
pub type Deliver = Arc<dyn Fn(Event) + Send + Sync>;

pub(in crate::redis) struct ChannelSubscriptions {
    keys: Arc<Keys>,
    settings: Arc<RedisSettings>,
    deliver: Deliver,
    probe: Probe,
    counters: Arc<RedisCounters>,
    /// Not held while an event is delivered, so a delivery may call the engine.
    interests: Mutex<Interests>,
    /// Notified when there may be a channel to join or leave.
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
            malformed: LogRateLimit::default(),
        }
    }

    pub(in crate::redis) fn len(&self) -> usize {
        self.interests().len()
    }

    /// Subscribes to the topic's events; returns once its channel is joined.
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

    /// Unsubscribes from the topic's events. Its channel is left later, with others.
    pub(in crate::redis) fn unsubscribe(&self, topic: &TopicName) {
        if self.interests().unwant(topic) {
            self.changed.notify_one();
        }
    }

    /// Connects, and reconnects after each loss, forever. [`Health`] knows this connection by `index`.
    pub(in crate::redis) async fn run(
        self: Arc<Self>,
        connector: Arc<Connector>,
        health: Arc<Health>,
        index: usize,
    ) {
        let mut backoff = Backoff::new(&self.settings);
        loop {
            // Late messages of an abandoned connection must not mix with those of the next.
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

    /// Opens a connection and joins the probe's channel, which shows that joining is permitted.
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

    /// Uses the connection until it is lost or delivers nothing. It counts as open once it has delivered a message.
    async fn hold(&self, opened: OpenedLink, on_heard: impl FnOnce()) -> LinkError {
        let OpenedLink { mut connection, lineage, lost } = opened;
        tokio::select! {
            () = lost.notified() => LinkError::Closed,
            error = self.probe.run(on_heard) => error,
            error = self.keep_in_line(&mut connection, lineage) => error,
        }
    }

    /// Joins and leaves channels, and checks periodically that the server is still the same primary.
    async fn keep_in_line(&self, connection: &mut MultiplexedConnection, lineage: Lineage) -> LinkError {
        let mut checks =
            interval_at(Instant::now() + self.settings.probe_interval, self.settings.probe_interval);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Joins go first, since callers wait for them.
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
        let gaps = self.interests().joined(topics);
        for topic in gaps {
            (self.deliver)(Event::Gap { topic });
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

    /// Joins channels; returns once all of them are joined.
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

    /// Notes that the connection is lost or must not be used. Waiting calls fail.
    pub(in crate::redis) fn detach(&self) {
        self.interests().detach();
    }

    /// Handles one message, in the connection's own task.
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
                    // The offsets between were lost or never existed. Only the stream can tell.
                    (self.deliver)(Event::Gap { topic: topic.clone() });
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
                (self.deliver)(Event::Gap { topic });
            }
            Err(error) => {
                self.counters.malformed();
                if self.malformed.is_due() {
                    tracing::warn!(%topic, %error, "received a message that cannot be parsed");
                }
                // It may be a publication of a node of another version.
                (self.deliver)(Event::Gap { topic });
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

/// The error of a failed join or leave. The server may have refused it for lack of rights.
fn command_error(command: &str, error: &redis::RedisError) -> LinkError {
    match error.code() {
        Some(code) => refused(command, code),
        None => lost_error(error),
    }
}
