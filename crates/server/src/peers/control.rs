//! Doing what other nodes ask, in the order in which they asked, and taking their answers.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fanwire_broker::{Event, LinkState, Publish, Recovery, Since, UNPUBLISHED_META_TTL_MAX};
use fanwire_protocol::{Disconnect, Epoch, Publication};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, interval_at, sleep_until, timeout};
use uuid::Uuid;

use super::held::{HELD, held_here};
use super::message::{Answer, Call, Outcome, SINGLE, Single};
use super::queue::Receiver;
use super::{Cluster, ORDERS_KEPT, answers_topic};
use crate::api;
use crate::message::{Message, UserMessage};
use crate::node::Node;
use crate::topics::follow::{Follow, Step};
use crate::topics::repair::PART;

/// What arrives for the cluster itself.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Events of `!control`.
    pub calls: Receiver<Event>,
    /// Some of those did not fit.
    pub missed: Arc<Notify>,
    pub answers: Receiver<Arc<Publication>>,
}

/// How long a call of another node may take; nobody waits for it any more by then.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// Calls of other nodes that are done at the same time.
const CALLS_MAX: usize = 1024;

/// Connections that are missing for so long while others are there are not just being opened anew.
const WEDGED_AFTER: Duration = Duration::from_secs(5);

/// How often orders are compared with what is kept of them, whatever happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
const _: () = assert!(CHECK_INTERVAL.as_secs() < UNPUBLISHED_META_TTL_MAX.as_secs());

/// Between attempts to reach the engine.
const PAUSE: Duration = Duration::from_millis(200);

/// Does this node's part in the cluster for as long as it is polled.
pub(crate) async fn run(node: Node, cluster: Cluster, arrivals: Arrivals) {
    let Arrivals { calls, missed, answers } = arrivals;
    tokio::join!(
        listen(node.clone(), cluster.clone(), calls, missed),
        take_answers(&cluster, answers),
        return_from_the_dead(&node, &cluster),
        watch_links(&cluster)
    );
}

/// Notices connections that stay away while others are there.
async fn watch_links(cluster: &Cluster) {
    let mut state = cluster.0.redis.state();
    let mut partial_since = None;
    loop {
        // Every failed attempt is a change, so the time counts from the first.
        partial_since = match &*state.borrow_and_update() {
            LinkState::Partial(_) => partial_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        let wedged_at = partial_since.map(|since| since + WEDGED_AFTER);
        cluster.0.wedged.store(wedged_at.is_some_and(|at| at <= Instant::now()), Relaxed);
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = sleep_until(wedged_at.unwrap_or_else(Instant::now)),
                if wedged_at.is_some_and(|at| at > Instant::now()) => {}
        }
    }
}

/// Others took this node for dead and said that its clients left: they have to connect anew, and find what they
/// missed.
async fn return_from_the_dead(node: &Node, cluster: &Cluster) {
    let mut fenced = cluster.0.redis.fenced();
    while fenced.changed().await.is_ok() {
        tracing::warn!(
            connections = node.connections(),
            "this node was out of reach for longer than its lease, so its clients have to connect anew"
        );
        for inbox in node.inboxes.all.iter() {
            inbox.send(Message::Close(Disconnect::INSUFFICIENT_STATE));
        }
    }
}

async fn listen(node: Node, cluster: Cluster, mut calls: Receiver<Event>, missed: Arc<Notify>) {
    let mut listener =
        Listener { node, calls: Arc::new(Semaphore::new(CALLS_MAX)), follow: Follow::default(), cluster };
    listener.begin().await;
    // Keeps alive where the orders stand, too.
    let mut checks = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
    loop {
        let due = listener.follow.due();
        tokio::select! {
            event = calls.receive() => match event {
                Some(event) => listener.take(event).await,
                None => return,
            },
            () = missed.notified() => listener.follow.doubt(),
            _ = checks.tick() => listener.follow.doubt(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => listener.repair().await,
        }
    }
}

async fn take_answers(cluster: &Cluster, mut answers: Receiver<Arc<Publication>>) {
    while let Some(publication) = answers.receive().await {
        match serde_json::from_slice::<Answer>(&publication.data) {
            Ok(answer) => {
                let waiting = cluster.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(asker) = waiting.get(&answer.number) {
                    // Who does not wait any more needs no answer.
                    let _ = asker.send(answer);
                }
            }
            Err(error) => tracing::warn!(%error, "another node answers what cannot be read"),
        }
    }
}

struct Listener {
    node: Node,
    cluster: Cluster,
    /// How far the orders have been followed.
    follow: Follow,
    calls: Arc<Semaphore>,
}

impl Listener {
    /// Subscribes, for good, and finds out where the orders stand.
    async fn begin(&mut self) {
        let shared = &self.cluster.0;
        // Calls may go through any of the connections.
        if shared.redis.state().wait_for(|state| *state == LinkState::Up).await.is_err() {
            return;
        }
        loop {
            let top = async {
                // Whether this node may join is known only then.
                shared.redis.peers().await?;
                shared.redis.subscribe(&shared.answers).await?;
                shared.redis.subscribe(&shared.control).await?;
                shared.redis.recover(&shared.control, None, 0, ORDERS_KEPT.meta_ttl).await
            };
            match top.await {
                Ok(answer) => {
                    self.follow.begin(answer.top);
                    shared.is_listening.store(true, Relaxed);
                    return;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Publication { publication, epoch: None, .. } => self.call(&publication).await,
            Event::Publication { publication, epoch: Some(epoch), .. } => {
                self.order(epoch, publication).await;
            }
            Event::Interrupted { .. } => {
                self.follow.doubt();
                // What is not kept may have been missed for good.
                for inbox in self.node.inboxes.all.iter() {
                    inbox.send(Message::User(UserMessage::AllHeard));
                }
            }
            Event::Join { .. } | Event::Leave { .. } => {}
        }
    }

    async fn order(&mut self, epoch: Epoch, publication: Arc<Publication>) {
        if self.follow.take(epoch, &publication) == Step::Deliver {
            self.call(&publication).await;
        }
    }

    /// Reads the orders that may have been missed, or the first part of them.
    async fn repair(&mut self) {
        let shared = &self.cluster.0;
        let Some(asked) = self.follow.ask() else { return };
        let since = Since { offset: asked.since.offset, epoch: asked.since.epoch.as_str() };
        let read = |limit| shared.redis.recover_part(&shared.control, since, limit, ORDERS_KEPT.meta_ttl);
        let mut answer = read(PART).await;
        if answer.as_ref().is_ok_and(Recovery::begins_too_long) {
            answer = read(1.into()).await;
        }
        match answer {
            Ok(answer) => {
                let repaired = self.follow.repair(asked, answer, Instant::now());
                if repaired.foreign > 0 {
                    shared.redis.note_foreign(&shared.control, repaired.foreign);
                }
                if repaired.lost {
                    tracing::warn!("orders of other nodes for clients of this one may have been lost");
                }
                for stamped in repaired.deliver {
                    self.call(&stamped.publication).await;
                }
            }
            Err(_) => {
                self.follow.doubt();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Begins a call of another node. Calls begin in order; none waits for the one before it to end.
    async fn call(&self, publication: &Publication) {
        let call: Call<'_> = match serde_json::from_slice(&publication.data) {
            Ok(call) => call,
            Err(error) => return tracing::warn!(%error, "another node says what cannot be read"),
        };
        let is_ours = call.from == self.cluster.0.id;
        if call.method == SINGLE {
            match serde_json::from_str::<Single>(call.parameters.get()) {
                Ok(single) => self.node.owner_of(&single.user).send(single.heard(is_ours)),
                Err(error) => tracing::warn!(%error, "another node says what cannot be read"),
            }
            return;
        }
        let time = self.cluster.0.redis.time();
        if is_ours || time.is_some_and(|now| call.is_overdue(now)) {
            return;
        }
        // The semaphore is never closed.
        let Ok(permit) = self.calls.clone().acquire_owned().await else { return };
        let (node, cluster) = (self.node.clone(), self.cluster.clone());
        let (from, number) = (call.from, call.number);
        let (method, parameters) = (call.method.to_owned(), call.parameters.to_owned());
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = async {
                match &*method {
                    HELD => held_here(&node, parameters.get()).await,
                    method => api::run_here(&node, method, parameters.get()).await,
                }
            };
            let outcome = timeout(CALL_PATIENCE, outcome).await;
            if let (Ok(outcome), Some(number)) = (outcome, number) {
                cluster.answer(from, number, outcome).await;
            }
        });
    }
}

impl Cluster {
    async fn answer(&self, to: Uuid, number: u64, outcome: Outcome) {
        let answer = Answer::new(self.0.id, number, outcome);
        let data = serde_json::to_vec(&answer).expect("its parts are JSON");
        let publish = Publish { data: data.into(), ..Publish::default() };
        if let Err(error) = self.0.redis.publish(&answers_topic(to), publish).await {
            tracing::debug!(%error, "another node's call could not be answered");
        }
    }
}
