//! Carries out the calls of other nodes, in the order in which they were sent.

use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::{
    EngineError, Event, LinkState, LogRateLimit, Recovery, Since, UNPUBLISHED_META_TTL_MAX,
};
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{ClientId, Epoch, Publication, TopicName};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use crate::api;
use crate::message::{Holder, ShardMessage, TopicCall, UserMessage};
use crate::node::Node;
use crate::peers::{
    Call, CallResult, HELD, Held, ORDERS_KEPT, Peers, Receiver, SINGLE, SUBSCRIBERS, Single,
    SubscribersAnswer, SubscribersQuestion, holder_topic,
};
use crate::topics::follow::{Follow, NextStep};
use crate::topics::repair::PART;

/// The time limit for a call of another node. The asking node has given up by then.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// The most calls of other nodes that are carried out at the same time.
const CALLS_MAX: usize = 1024;

/// The interval at which orders are compared with the stream, whatever happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
const _: () = assert!(CHECK_INTERVAL.as_secs() < UNPUBLISHED_META_TTL_MAX.as_secs());

/// The pause between attempts to reach the engine.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows the calls of other nodes for as long as it is polled.
pub(super) async fn follow(node: Node, peers: Peers, mut calls: Receiver<Event>, missed: Arc<Notify>) {
    let mut follower = CommandFollower {
        node,
        calls: Arc::new(Semaphore::new(CALLS_MAX)),
        follow: Follow::default(),
        log_limit: LogRateLimit::default(),
        peers,
    };
    follower.begin().await;
    // It also keeps the position of the stream alive.
    let mut checks = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
    loop {
        let due = follower.follow.due();
        tokio::select! {
            event = calls.receive() => match event {
                Some(event) => follower.take(event).await,
                None => return,
            },
            () = missed.notified() => follower.follow.mark_dirty(),
            _ = checks.tick() => follower.follow.mark_dirty(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => follower.repair().await,
        }
    }
}

struct CommandFollower {
    node: Node,
    peers: Peers,
    /// The position up to which the orders were followed.
    follow: Follow,
    calls: Arc<Semaphore>,
    /// In a rolling update each call may be of an unknown version.
    log_limit: LogRateLimit,
}

impl CommandFollower {
    /// Subscribes for good, and reads the position of the orders.
    async fn begin(&mut self) {
        let (redis, control) = (self.peers.redis(), self.peers.control_topic());
        // Calls may go through any of the connections.
        if redis.state().wait_for(|state| *state == LinkState::Up).await.is_err() {
            return;
        }
        loop {
            let top = async {
                // This fails unless the node may join.
                redis.peers().await?;
                redis.subscribe(self.peers.answers_topic()).await?;
                redis.subscribe(control).await?;
                self.read_revocations().await?;
                redis.recover(control, None, 0, ORDERS_KEPT.meta_ttl).await
            };
            match top.await {
                Ok(answer) => {
                    self.follow.begin(answer.top);
                    self.peers.set_listening();
                    return;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Learns what the cluster does not trust. What changes from now on is an order.
    async fn read_revocations(&self) -> Result<(), EngineError> {
        let (redis, now) = (self.peers.redis(), self.node.now().unix());
        let past = self.node.tokens.revocations().replace(redis.revocations().await?, now);
        redis.remove_revocations(&past).await
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Publication { publication, epoch: None, .. } => self.call(&publication).await,
            Event::Publication { publication, epoch: Some(epoch), .. } => {
                self.order(epoch, publication).await;
            }
            Event::Gap { .. } => {
                self.follow.mark_dirty();
                // Messages that are not kept may be lost.
                for inbox in self.node.inboxes.all.iter() {
                    inbox.send(ShardMessage::User(UserMessage::AllHeard));
                }
            }
            Event::Join { .. } | Event::Leave { .. } => {}
        }
    }

    async fn order(&mut self, epoch: Epoch, publication: Arc<Publication>) {
        if self.follow.take(epoch, &publication) == NextStep::Deliver {
            self.call(&publication).await;
        }
    }

    /// Reads the orders that may be missing, or the first part of them.
    async fn repair(&mut self) {
        let (redis, control) = (self.peers.redis(), self.peers.control_topic());
        let Some(asked) = self.follow.ask() else { return };
        let since = Since { offset: asked.since.offset, epoch: asked.since.epoch.as_str() };
        let read = |limit| redis.recover_part(control, since, limit, ORDERS_KEPT.meta_ttl);
        let mut answer = read(PART).await;
        if answer.as_ref().is_ok_and(Recovery::begins_too_long) {
            answer = read(1.into()).await;
        }
        match answer {
            Ok(answer) => {
                let repaired = self.follow.repair(asked, answer, Instant::now());
                if repaired.foreign > 0 {
                    redis.note_foreign(control, repaired.foreign);
                }
                if repaired.lost {
                    tracing::warn!("orders of other nodes to clients of this node may be lost");
                    if self.read_revocations().await.is_err() {
                        self.follow.mark_dirty();
                    }
                }
                for stamped in repaired.deliver {
                    self.call(&stamped.publication).await;
                }
            }
            Err(_) => {
                self.follow.mark_dirty();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Starts a call of another node. Calls start in order, and none waits for the end of another.
    async fn call(&self, publication: &Publication) {
        let call: Call<'_> = match serde_json::from_slice(&publication.data) {
            Ok(call) => call,
            Err(error) => return self.cannot_decode(&error),
        };
        let is_ours = call.from == self.peers.id();
        if call.method == SINGLE {
            match serde_json::from_str::<Single>(call.parameters.get()) {
                Ok(single) => self.node.owner_of_user(&single.user).send(single.heard(is_ours)),
                Err(error) => self.cannot_decode(&error),
            }
            return;
        }
        let time = self.peers.redis().time();
        if is_ours || time.is_some_and(|now| call.is_overdue(now)) {
            return;
        }
        // The semaphore is never closed.
        let Ok(permit) = self.calls.clone().acquire_owned().await else { return };
        let (node, peers) = (self.node.clone(), self.peers.clone());
        let (from, number) = (call.from, call.number);
        let (method, parameters) = (call.method.to_owned(), call.parameters.to_owned());
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = async {
                match &*method {
                    HELD => held_here(&node, parameters.get()).await,
                    SUBSCRIBERS => subscribers_here(&node, parameters.get()).await,
                    method => api::run_here(&node, method, parameters.get()).await,
                }
            };
            let outcome = timeout(CALL_PATIENCE, outcome).await;
            if let (Ok(outcome), Some(number)) = (outcome, number) {
                peers.answer(from, number, outcome).await;
            }
        });
    }

    fn cannot_decode(&self, error: &serde_json::Error) {
        if self.log_limit.is_due() {
            tracing::warn!(%error, "a call of another node cannot be decoded");
        }
    }
}

/// Answers another node: the number of the holder's connections that were admitted here.
async fn held_here(node: &Node, parameters: &str) -> CallResult {
    let holder: Holder = serde_json::from_str(parameters).map_err(|_| RequestError::BadRequest)?;
    let owner = node.owner_of_holder(&holder);
    // The barrier waits for connections that were admitted before the question.
    let (reached, barrier) = oneshot::channel();
    owner.send(ShardMessage::Call(holder_topic(&holder), TopicCall::Barrier(reached)));
    let _ = barrier.await;
    let (reply, held) = oneshot::channel();
    owner.send(ShardMessage::User(UserMessage::Held { holder, reply }));
    let connections = held.await.map_err(|_| RequestError::Internal)?;
    serde_json::value::to_raw_value(&Held { connections }).map_err(|_| RequestError::Internal.into())
}

/// Answers another node: the number of subscribers of topics here.
async fn subscribers_here(node: &Node, parameters: &str) -> CallResult {
    let SubscribersQuestion { topics, exclude } =
        serde_json::from_str(parameters).map_err(|_| RequestError::BadRequest)?;
    let topics: Option<Vec<TopicName>> = topics.iter().map(|topic| TopicName::new(topic)).collect();
    let topics = topics.ok_or(RequestError::BadRequest)?;
    let counts = node.subscribers(topics.into(), exclude.map(ClientId)).await;
    serde_json::value::to_raw_value(&SubscribersAnswer { counts }).map_err(|_| RequestError::Internal.into())
}
