//! A channel of the node's own: what is published there through the connections for commands has to arrive through
//! the one for subscriptions.
//!
//! So a connection is found out that answers and yet brings nothing: one that is half open, or leads to a server that
//! is no longer the one that commands go to.

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
    /// Probes carry the nanoseconds since then.
    started: Instant,
    arrived: Notify,
}

impl Probe {
    /// One that is missed may be late, behind much else or because this node was paused.
    const MISSED_MAX: u32 = 2;
    /// How soon to try again while there is no connection to publish through.
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

    /// Something came through the channel.
    pub(in crate::redis) fn receive(&self, payload: &[u8]) {
        let sent = parse_offset(payload).map(Duration::from_nanos);
        let Some(took) = sent.and_then(|sent| self.started.elapsed().checked_sub(sent)) else { return };
        self.counters.round_trip(took);
        self.arrived.notify_one();
    }

    /// Probes a connection that has joined the channel, and says when it has been heard for the first time. Returns
    /// why it is of no use: too many probes in a row were published and did not arrive.
    pub(in crate::redis) async fn run(&self, on_first: impl FnOnce()) -> LinkError {
        // What came late through a connection before says nothing about this one.
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
                // Not this connection's fault.
                Err(EngineError::Unavailable) => {
                    sleep(Self::UNSENT_PAUSE).await;
                    continue;
                }
                Err(_) => return self.refused(),
            }
            let next = Instant::now() + self.interval;
            // A late one is as good: what counts is that something arrives.
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
