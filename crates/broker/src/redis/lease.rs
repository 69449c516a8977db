//! This node's lease. While it lasts, the node's members count and no other node removes them.
//!
//! One task renews it three times in its length. A writer under the lease calls [`Lease::hold`] first, which knows by
//! this node's own clock when the lease may have ended, and renews it before anything is written. A node that learns
//! that it was fenced continues as another [`Incarnation`] and loses the state of the old one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::keys::Incarnation;
use super::nodes::{Heartbeat, NodeTable, Peer};
use super::server::health::Health;
use super::server::link::Links;
use super::settings::RedisSettings;
use crate::contract::EngineError;

pub(super) struct Lease {
    nodes: Arc<NodeTable>,
    links: Links,
    health: Arc<Health>,
    length: Duration,
    /// The time that this node has to hold its lease before it fences others: the time that they may need to return
    /// after all nodes have lost Redis.
    patience: Duration,
    status: Mutex<Status>,
    /// Locked while the lease is being renewed.
    renewing: AsyncMutex<()>,
    /// Notified when a caller waits for the lease.
    wanted: Notify,
    heartbeats: watch::Sender<Heartbeats>,
    fenced: watch::Sender<u64>,
}

/// The results of heartbeats. Sent after each, successful or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeats {
    /// The number of times that the lease had vanished although the node was not fenced: Redis has lost data.
    pub(super) lapses: u64,
    /// Nodes whose lease has ended, if this node may remove their members.
    pub(super) ended: Vec<Incarnation>,
}

struct Status {
    incarnation: Incarnation,
    /// The end by this node's clock, counted from before the heartbeat, so that the lease ends here before it does in
    /// Redis.
    ends: Option<Instant>,
    /// The time since which the lease was held without a loss of the connection.
    held_since: Option<Instant>,
    /// The end by Redis' clock. Scripts that carry it change nothing after it.
    until: u64,
    /// The beginning of the last held lease by Redis' clock. `None` until the node has joined.
    began: Option<u64>,
    /// The node has left or must not join.
    is_over: bool,
}

impl Lease {
    /// The delay after the end of another node's lease until this node looks at it.
    const MARGIN: Duration = Duration::from_millis(5);

    pub(super) fn new(
        nodes: Arc<NodeTable>,
        links: Links,
        health: Arc<Health>,
        settings: &RedisSettings,
    ) -> Self {
        Self {
            nodes,
            links,
            health,
            length: settings.lease,
            patience: settings.lease.max(2 * settings.retry_max),
            status: Mutex::new(Status::new()),
            renewing: AsyncMutex::default(),
            wanted: Notify::new(),
            heartbeats: watch::Sender::default(),
            fenced: watch::Sender::default(),
        }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.status().incarnation
    }

    /// Returns the incarnation to write under if the lease certainly lasts.
    pub(super) fn held(&self) -> Option<Incarnation> {
        let status = self.status();
        let is_held = !status.is_over && status.ends.is_some_and(|ends| Instant::now() < ends);
        is_held.then_some(status.incarnation)
    }

    /// Returns the end of the incarnation's lease by Redis' clock, if it certainly lasts.
    pub(super) fn held_until(&self, incarnation: Incarnation) -> Option<u64> {
        if self.held() == Some(incarnation) { Some(self.status().until) } else { None }
    }

    /// Returns the incarnation to write under; renews the lease first if it may have ended. Does not wait for a
    /// connection.
    pub(super) async fn hold(&self) -> Result<Incarnation, EngineError> {
        if let Some(incarnation) = self.held() {
            return Ok(incarnation);
        }
        let mut heartbeats = self.heartbeats();
        self.links.any()?;
        if self.is_over() {
            return Err(EngineError::Unavailable);
        }
        self.wanted.notify_one();
        // It may be a heartbeat that was already in flight, which is as good.
        heartbeats.changed().await.map_err(|_| EngineError::Unavailable)?;
        self.held().ok_or(EngineError::Unavailable)
    }

    /// Returns the live nodes, after this one has joined.
    pub(super) async fn peers(&self) -> Result<Vec<(Incarnation, Peer)>, EngineError> {
        self.hold().await?;
        self.nodes.peers().await
    }

    pub(super) fn heartbeats(&self) -> watch::Receiver<Heartbeats> {
        self.heartbeats.subscribe()
    }

    /// Returns how many times the node was fenced.
    pub(super) fn fenced(&self) -> watch::Receiver<u64> {
        self.fenced.subscribe()
    }

    /// Returns the time for which a heartbeat renews the lease.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    pub(super) fn is_over(&self) -> bool {
        self.status().is_over
    }

    /// Stops renewals, after a heartbeat in flight has finished. Returns the incarnation if the lease was ever held.
    pub(super) async fn end(&self) -> Option<Incarnation> {
        self.give_up();
        let _none_in_flight = self.renewing.lock().await;
        let status = self.status();
        status.began.map(|_| status.incarnation)
    }

    /// Renews the lease until the node leaves.
    pub(super) async fn run(self: Arc<Self>) {
        let mut link = self.links.watch_first();
        loop {
            let next = {
                let _renewing = self.renewing.lock().await;
                if self.is_over() {
                    return;
                }
                self.renew().await
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wanted.notified() => {}
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Other nodes may have been unable to send heartbeats meanwhile.
                    self.status().held_since = None;
                }
            }
        }
    }

    /// Sends one heartbeat; returns the time of the next.
    async fn renew(&self) -> Instant {
        let started = Instant::now();
        let (incarnation, began) = {
            let status = self.status();
            (status.incarnation, status.began)
        };
        let usual = started + self.length / 3;
        match self.nodes.heartbeat(incarnation, began.is_none()).await {
            Ok(Heartbeat::Held { since, until, next_end, ended }) => {
                let may_clean = self.held_from(started, since, until) + self.patience;
                let mut next = usual;
                if let Some(next_end) = next_end {
                    next = next.min(Instant::now() + next_end + Self::MARGIN);
                }
                let is_allowed = started >= may_clean;
                if !is_allowed && !ended.is_empty() {
                    next = next.min(may_clean);
                }
                self.tell(|heartbeats| {
                    heartbeats.lapses += u64::from(began.is_some_and(|began| began != since));
                    heartbeats.ended = if is_allowed { ended } else { Vec::new() };
                });
                next
            }
            // The node is leaving anyway.
            Ok(Heartbeat::Fenced) if self.is_over() => usual,
            Ok(Heartbeat::Fenced) => {
                self.begin_again();
                if began.is_none() {
                    // An incarnation that never joined cannot be fenced: the answer is invalid.
                    self.tell(|heartbeats| heartbeats.ended.clear());
                    return usual;
                }
                tracing::warn!(
                    "this node was fenced while it was paused or disconnected; its clients reconnect"
                );
                self.fenced.send_modify(|times| *times += 1);
                started
            }
            Ok(Heartbeat::Refused(reason)) => {
                self.give_up();
                self.health.refuse(reason);
                usual
            }
            Err(_) => {
                self.tell(|heartbeats| heartbeats.ended.clear());
                usual
            }
        }
    }

    /// Notes that the lease that began at `began` is held from `started`; returns since when without a loss.
    fn held_from(&self, started: Instant, began: u64, until: u64) -> Instant {
        let mut status = self.status();
        let is_same = status.began.replace(began) == Some(began);
        let since = status.held_since.filter(|_| is_same).unwrap_or(started);
        status.held_since = Some(since);
        status.ends = Some(started + self.length);
        status.until = until;
        since
    }

    fn give_up(&self) {
        self.status().is_over = true;
        self.tell(|_| ());
    }

    /// Continues as another incarnation.
    fn begin_again(&self) {
        let mut status = self.status();
        *status = Status { is_over: status.is_over, ..Status::new() };
    }

    fn tell(&self, change: impl FnOnce(&mut Heartbeats)) {
        self.heartbeats.send_modify(change);
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    fn new() -> Self {
        Self {
            incarnation: Incarnation::random(),
            ends: None,
            until: 0,
            held_since: None,
            began: None,
            is_over: false,
        }
    }
}
