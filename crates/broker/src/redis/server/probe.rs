//! A probe of the subscription connection: messages published to the node's own channel through command connections
//! have to arrive through it.
//!
//! The probe detects a connection that answers but delivers nothing: a half-open one, or one to another server than
//! that of the commands.

use std::sync::Arc;
use std::time::Duration;

use fanwire_protocol::TopicName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use uuid::Uuid;

use super::connection::LinkError;
use super::link::Links;
use crate::contract::EngineError;
use crate::redis::frame::parse_offset;
use crate::redis::keys::Keys;
use crate::redis::stats::RedisCounters;

pub(in crate::redis) struct Probe {
    channel: String,
    interval: Duration,
    links: Links,
    counters: Arc<RedisCounters>,
    /// A probe contains the nanoseconds since this time.
    started: Instant,
    arrived: Notify,
}

impl Probe {
    /// A single missed probe may only be late, behind other messages or because this node was paused.
    const MISSED_MAX: u32 = 2;
    /// The pause while there is no connection to publish through.
    const UNSENT_PAUSE: Duration = Duration::from_millis(50);

    pub(in crate::redis) fn new(
        node: Uuid,
        keys: &Keys,
        interval: Duration,
        links: Links,
        counters: Arc<RedisCounters>,
    ) -> Self {
        let topic = TopicName::new(&format!("!probe:{}", node.simple())).expect("the name is not empty");
        let channel = keys.channel(&topic);
        Self { channel, interval, links, counters, started: Instant::now(), arrived: Notify::new() }
    }

    pub(in crate::redis) fn channel(&self) -> &str {
        &self.channel
    }

    /// Handles a message of the channel.
    pub(in crate::redis) fn receive(&self, payload: &[u8]) {
        let sent = parse_offset(payload).map(Duration::from_nanos);
        let Some(took) = sent.and_then(|sent| self.started.elapsed().checked_sub(sent)) else { return };
        self.counters.round_trip(took);
        self.arrived.notify_one();
    }

    /// Probes a connection that has joined the channel, and calls `on_first` when the first probe arrives. Returns an
    /// error when several probes in a row were published and did not arrive.
    pub(in crate::redis) async fn run(&self, on_first: impl FnOnce()) -> LinkError {
        // Late probes of an earlier connection do not count.
        tokio::select! {
            biased;
            () = self.arrived.notified() => {}
            () = std::future::ready(()) => {}
        }
        let mut on_first = Some(on_first);
        let mut missed = 0;
        loop {
            match self.send().await {
                Ok(()) => {}
                // The command connection is missing, not this one.
                Err(EngineError::Unavailable) => {
                    sleep(Self::UNSENT_PAUSE).await;
                    continue;
                }
                Err(_) => return self.refused(),
            }
            let next = Instant::now() + self.interval;
            // A late probe counts too, since it shows that messages arrive.
            if timeout_at(next, self.arrived.notified()).await.is_ok() {
                missed = 0;
                if let Some(on_first) = on_first.take() {
                    on_first();
                }
            } else {
                missed += 1;
                self.counters.probe_missed();
                if missed == Self::MISSED_MAX {
                    return LinkError::Deaf;
                }
            }
            sleep_until(next).await;
        }
    }

    fn refused(&self) -> LinkError {
        let what = format!("PUBLISH to channel {}", self.channel);
        match self.counters.not_permitted_lately() {
            Some(_) => LinkError::NotPermitted(what),
            None => LinkError::Refused(what),
        }
    }

    async fn send(&self) -> Result<(), EngineError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.channel).arg(self.started.elapsed().as_nanos().to_string());
        self.links.any()?.command(&command).await?;
        Ok(())
    }
}
