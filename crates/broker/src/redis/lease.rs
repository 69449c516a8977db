//! This node's lease: while it lasts the node's members count, and nobody else touches them.
//!
//! One task renews it three times in its length. Whoever writes under the lease asks [`Lease::hold`] first, which
//! knows by this node's own clock when it may have ended; then it is renewed before anything is written. A node that
//! learns that it was taken for dead goes on as another [`Incarnation`]. What belongs to the old one is lost.

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
    /// For how long the lease has to be held before this node takes others for dead: as long as they may take to
    /// come back when all have lost Redis.
    patience: Duration,
    status: Mutex<Status>,
    /// Held while the lease is being renewed.
    renewing: AsyncMutex<()>,
    /// Somebody waits for the lease.
    wanted: Notify,
    heartbeats: watch::Sender<Heartbeats>,
    fenced: watch::Sender<u64>,
}

/// What attempts to renew the lease have found. Sent after each, whatever became of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeats {
    /// How many times the lease had vanished though nobody took the node for dead: Redis has lost things.
    pub(super) lapses: u64,
    /// Nodes whose lease has ended, as far as this node may take out their members.
    pub(super) ended: Vec<Incarnation>,
}

struct Status {
    incarnation: Incarnation,
    /// By this node's clock, counted from before the attempt, so that it ends here before it does in Redis.
    ends: Option<Instant>,
    /// Since when the lease was held on a connection that was there all the time.
    held_since: Option<Instant>,
    /// When the lease began that was held last, by Redis' clock. There is one once the node has joined.
    began: Option<u64>,
    /// The node has left, or must not join.
    is_over: bool,
}

impl Lease {
    /// How long after another's lease should have ended one looks.
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

    /// Under which incarnation to write, if the lease certainly lasts.
    pub(super) fn held(&self) -> Option<Incarnation> {
        let status = self.status();
        let is_held = !status.is_over && status.ends.is_some_and(|ends| Instant::now() < ends);
        is_held.then_some(status.incarnation)
    }

    /// Under which incarnation to write; renews the lease first if it may have ended. Does not wait for a connection.
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
        // It may be one that was under way, which is as good.
        heartbeats.changed().await.map_err(|_| EngineError::Unavailable)?;
        self.held().ok_or(EngineError::Unavailable)
    }

    /// The nodes that live, after this one has joined.
    pub(super) async fn peers(&self) -> Result<Vec<(Incarnation, Peer)>, EngineError> {
        self.hold().await?;
        self.nodes.peers().await
    }

    pub(super) fn heartbeats(&self) -> watch::Receiver<Heartbeats> {
        self.heartbeats.subscribe()
    }

    /// How many times the node was taken for dead.
    pub(super) fn fenced(&self) -> watch::Receiver<u64> {
        self.fenced.subscribe()
    }

    pub(super) fn is_over(&self) -> bool {
        self.status().is_over
    }

    /// From here on the lease is not renewed any more: one attempt that is under way is waited for. Returns what the
    /// lease was held as, if it was.
    pub(super) async fn end(&self) -> Option<Incarnation> {
        self.give_up();
        let _none_under_way = self.renewing.lock().await;
        let status = self.status();
        status.began.map(|_| status.incarnation)
    }

    /// Renews the lease for as long as the node is to live.
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
                    // What other nodes could do meanwhile is not known.
                    self.status().held_since = None;
                }
            }
        }
    }

    /// Tries once; returns when to try again.
    async fn renew(&self) -> Instant {
        let started = Instant::now();
        let (incarnation, began) = {
            let status = self.status();
            (status.incarnation, status.began)
        };
        let usual = started + self.length / 3;
        match self.nodes.heartbeat(incarnation, began.is_none()).await {
            Ok(Heartbeat::Held { since, next_end, ended }) => {
                let may_clean = self.held_from(started, since) + self.patience;
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
            // It was about to leave in any case.
            Ok(Heartbeat::Fenced) if self.is_over() => usual,
            Ok(Heartbeat::Fenced) => {
                self.begin_again();
                if began.is_none() {
                    // Nobody can know an incarnation that has never been: the server makes no sense.
                    self.tell(|heartbeats| heartbeats.ended.clear());
                    return usual;
                }
                tracing::warn!(
                    "this node was taken for dead while it was paused or cut off: its clients connect anew"
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

    /// The lease that began then is held from `started` on; returns since when without interruption.
    fn held_from(&self, started: Instant, began: u64) -> Instant {
        let mut status = self.status();
        let is_same = status.began.replace(began) == Some(began);
        let since = status.held_since.filter(|_| is_same).unwrap_or(started);
        status.held_since = Some(since);
        status.ends = Some(started + self.length);
        since
    }

    fn give_up(&self) {
        self.status().is_over = true;
        self.tell(|_| ());
    }

    /// As another.
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
        Self { incarnation: Incarnation::random(), ends: None, held_since: None, began: None, is_over: false }
    }
}
