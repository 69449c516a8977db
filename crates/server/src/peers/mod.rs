//! Calls to the other nodes: commands for clients and questions about them reach every node.
//!
//! Nodes talk through two topics of the cluster's own. `!control` carries orders and questions. Orders are kept, so a
//! node that was cut off carries them out when it is back; questions are not. `!node:ID` carries the answers to one node,
//! and letters: calls of clients to sessions of that node.

mod names;
mod call;
mod queue;
mod reach;
mod arrivals;
mod askers;
mod forwarding;
mod held;
mod letter;
mod live_nodes;
mod session_calls;
mod signers;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use std::{fmt, io, thread};

use fanwire_broker::{
    Incompatible, LinkError, LinkState, LogRateLimit, NewPublication, Peer, Redis, RedisSettings, planted,
};
use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{ClientId, TopicName};
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::accept::admission::ClientNetwork;
use crate::inbox::Inboxes;
use crate::message::{SessionAnswer, Via};
use askers::Askers;
use forwarding::Forwarding;
use live_nodes::LiveNodeList;
use names::{CONTROL, answers_topic};
use signers::Signers;

pub(crate) use arrivals::Arrivals;
pub(crate) use call::{Call, CallAnswer, CallResult, SINGLE, Single};
pub(crate) use held::{HELD, Held};
pub(crate) use letter::{Caller, Letter, ReplyTo, Secret};
pub(crate) use names::{ORDER_BYTES_MAX, ORDERS_KEPT, PATIENCE, anonymous_topic, holder_topic};
pub(crate) use queue::Receiver;
pub(crate) use reach::{SUBSCRIBERS, SubscribersAnswer, SubscribersQuestion};
pub(crate) use session_calls::Sending;

/// The time that a node which leaves has to tell the others.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// A handle on the other nodes of the cluster, and on the engine that all share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers(Arc<PeersShared>);

struct PeersShared {
    redis: Redis,
    id: Uuid,
    /// The topic of orders and questions to all nodes.
    control: TopicName,
    /// The topic of answers to this node.
    answers: TopicName,
    inboxes: Inboxes,
    thread: Thread,
    /// Calls that wait for answers, by number.
    waiting: Askers<mpsc::UnboundedSender<CallAnswer>>,
    /// Letters that wait for answers, by number.
    waiting_letters: Askers<oneshot::Sender<SessionAnswer>>,
    /// Questions for secrets that wait for answers, by number.
    waiting_secrets: Askers<oneshot::Sender<Secret>>,
    /// The signers of other nodes, to check keys of their sessions.
    signers: Signers,
    /// The room of clients for calls to other nodes, and for the answers.
    forwarding: Forwarding<ClientNetwork>,
    /// The room for answers to polls, for each network and node that they came by: twice that of the network there, which takes
    /// room for an answer once it has come.
    answering: Forwarding<Via>,
    live_nodes: LiveNodeList,
    /// Answers and letters to this node that did not fit among those that wait.
    dropped: Arc<AtomicU64>,
    /// The limit on log lines about orders that could not be sent: without Redis each client may cause one.
    unsent: LogRateLimit,
    next_call: AtomicU64,
    /// Orders of other nodes arrive.
    is_listening: AtomicBool,
    /// Some connections have been missing for a while, and others not.
    wedged: AtomicBool,
}

/// The reasons for which a node cannot try to join its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("engine.redis: {0}")]
    Redis(#[from] LinkError),
    #[error("the thread for Redis could not be started: {0}")]
    Thread(#[from] io::Error),
}

/// The thread that reads everything that Redis sends, beside the shards and the control runtime, so that neither health
/// nor the API waits for a flood of messages.
struct Thread {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("redis".to_owned()).spawn(move || {
            runtime.block_on(planted::run("redis", async {
                // An error is the end as well.
                let _ = stopped.await;
            }));
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }
}

/// The state of a node's connection to Redis and to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedisStatus {
    /// Redis has not been reached yet.
    Connecting,
    /// Redis was reached; the node is not part of the cluster yet.
    Joining,
    Joined,
    /// Redis does not answer, as far as this node can tell to no node.
    Degraded,
    /// Redis answers, but not on every connection that this node needs.
    Wedged,
}

/// The two kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallType {
    /// Changes something. It is kept for nodes that are cut off.
    Order,
    /// Reads something. It is worth nothing when it comes late.
    Question,
}

/// The names of the other nodes, with what they answered.
#[derive(Debug)]
pub(crate) struct Answers {
    pub outcomes: Vec<(Box<str>, CallResult)>,
    /// Nodes that did not answer in time.
    pub missing: Vec<Box<str>>,
}

impl Peers {
    /// Joins the cluster, in the background; other nodes' calls arrive at the receiver.
    pub(crate) fn start(
        settings: RedisSettings,
        id: Uuid,
        name: &str,
        inboxes: Inboxes,
        forwarded_bytes_per_second_max: usize,
    ) -> Result<(Self, Arrivals), JoinError> {
        let (deliver, arrivals) = arrivals::deliver(inboxes.clone());
        let thread = Thread::start()?;
        let redis = {
            let _entered = thread.runtime.enter();
            Redis::start(settings, Peer { id, name: name.into() }, deliver)?
        };
        let topic = |name: String| TopicName::new(&name).expect("no name here is empty");
        let peers = Self(Arc::new(PeersShared {
            redis,
            id,
            control: topic(CONTROL.to_owned()),
            answers: answers_topic(id),
            inboxes,
            thread,
            waiting: Askers::default(),
            waiting_letters: Askers::default(),
            waiting_secrets: Askers::default(),
            signers: Signers::default(),
            forwarding: Forwarding::new(forwarded_bytes_per_second_max),
            answering: Forwarding::new(2 * forwarded_bytes_per_second_max),
            live_nodes: LiveNodeList::default(),
            dropped: arrivals.dropped.clone(),
            unsent: LogRateLimit::default(),
            next_call: AtomicU64::new(0),
            is_listening: AtomicBool::new(false),
            wedged: AtomicBool::new(false),
        }));
        Ok((peers, arrivals))
    }

    pub(crate) fn redis(&self) -> &Redis {
        &self.0.redis
    }

    /// This node's id in the cluster.
    pub(crate) fn id(&self) -> Uuid {
        self.0.id
    }

    /// The topic of orders and questions.
    pub(crate) fn control_topic(&self) -> &TopicName {
        &self.0.control
    }

    /// The topic of answers to this node.
    pub(crate) fn answers_topic(&self) -> &TopicName {
        &self.0.answers
    }

    /// Answers and letters to this node that did not fit among those that wait.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Notes that orders of other nodes arrive.
    pub(crate) fn set_listening(&self) {
        self.0.is_listening.store(true, Relaxed);
    }

    /// Notes whether some connections to Redis have been missing for a while, and others not.
    pub(crate) fn set_wedged(&self, wedged: bool) {
        self.0.wedged.store(wedged, Relaxed);
    }

    /// The state of this node's connection to Redis and to its cluster.
    pub(crate) fn status(&self) -> RedisStatus {
        // Before orders of other nodes arrive it is not safe to have clients.
        let is_listening = self.0.is_listening.load(Relaxed);
        match &*self.0.redis.state().borrow() {
            LinkState::Up if !is_listening => RedisStatus::Joining,
            _ if !is_listening => RedisStatus::Connecting,
            LinkState::Up => RedisStatus::Joined,
            LinkState::Partial(_) if self.0.wedged.load(Relaxed) => RedisStatus::Wedged,
            LinkState::Partial(_) => RedisStatus::Joined,
            LinkState::Down(_) | LinkState::Refused(_) => RedisStatus::Degraded,
        }
    }

    /// A sentence about the fault in the work with Redis, if there is one.
    pub(crate) fn trouble(&self) -> Option<String> {
        let missing = match &*self.0.redis.state().borrow() {
            LinkState::Up | LinkState::Down(LinkError::NotYet) => None,
            LinkState::Partial(error) | LinkState::Down(error) => Some(error.to_string()),
            LinkState::Refused(reason) => Some(reason.to_string()),
        };
        let foreign = || {
            let is_so = self.0.redis.stats().foreign_lately;
            is_so.then(|| "publications of others arrive through Redis, see the log".to_owned())
        };
        missing.or_else(|| self.0.redis.not_permitted()).or_else(foreign)
    }

    /// Leaves the cluster, and removes the rest of this node's members from presence. Without it that happens when the
    /// lease ends.
    pub(crate) async fn leave(&self) {
        let left = timeout(LEAVE_PATIENCE, self.0.redis.leave()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!(
                "the other nodes could not be told that this node leaves; they notice when its lease ends"
            );
        }
    }

    /// Waits for the cluster to refuse this node, which is final.
    pub(crate) async fn refused(&self) -> Incompatible {
        let mut state = self.0.redis.state();
        loop {
            if let LinkState::Refused(why) = &*state.borrow_and_update() {
                return why.clone();
            }
            if state.changed().await.is_err() {
                // The engine has ended, and the node with it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends a call of the API to every other node, and returns the answers.
    pub(crate) async fn ask(
        &self,
        call_type: CallType,
        method: &str,
        parameters: &RawValue,
    ) -> Result<Answers, RequestError> {
        let mut outcomes = Vec::new();
        let take = |node, outcome| {
            outcomes.push((node, outcome));
            ControlFlow::Continue(())
        };
        let missing = self.gather(call_type, method, parameters, PATIENCE, take).await?;
        if !missing.is_empty() {
            tracing::warn!(method, nodes = ?missing, "nodes did not answer in time");
        }
        Ok(Answers { outcomes, missing })
    }

    /// Sends a call to all other nodes and hands their answers to `take`, until it breaks or the time is over. Returns
    /// the names of the nodes that have not answered.
    async fn gather(
        &self,
        call_type: CallType,
        method: &str,
        parameters: &RawValue,
        patience: Duration,
        mut take: impl FnMut(Box<str>, CallResult) -> ControlFlow<()>,
    ) -> Result<Vec<Box<str>>, RequestError> {
        let others = self.alive().await?.into_iter().filter(|peer| peer.id != self.0.id);
        let mut missing: HashMap<Uuid, Box<str>> = others.map(|peer| (peer.id, peer.name)).collect();
        if missing.is_empty() && call_type == CallType::Question {
            return Ok(Vec::new());
        }
        let number = self.0.next_call.fetch_add(1, Relaxed);
        let (answer, mut answers) = mpsc::unbounded_channel();
        let _waiting = self.0.waiting.enter(number, answer);
        let call = Call { from: self.0.id, sent: self.seconds(), number: Some(number), method, parameters };
        self.send(call_type, &call).await?;

        let deadline = Instant::now() + patience;
        while !missing.is_empty() {
            let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await else { break };
            if let Some(name) = missing.remove(&answer.node)
                && let Some(outcome) = answer.into_outcome()
                && take(name, outcome).is_break()
            {
                break;
            }
        }
        Ok(missing.into_values().collect())
    }

    /// Hands an answer to the call that waits for it.
    pub(crate) fn take_answer(&self, answer: CallAnswer) {
        self.0.waiting.tell(answer.number, |asker| {
            // A call that was given up needs no answer.
            let _ = asker.send(answer);
        });
    }

    /// Answers a call of another node.
    pub(crate) async fn answer(&self, to: Uuid, number: u64, outcome: CallResult) {
        let answer = CallAnswer::new(self.0.id, number, outcome);
        let data = serde_json::to_vec(&answer).expect("its parts are JSON");
        let publish = NewPublication { data: data.into(), ..NewPublication::default() };
        if let Err(error) = self.0.redis.publish(&answers_topic(to), publish).await {
            tracing::debug!(%error, "another node's call could not be answered");
        }
    }

    /// Makes a connection of this node its user's only one. All nodes are told, this one too.
    pub(crate) fn make_single(&self, user: &str, connection: ClientId) {
        let single = Single { user: user.into(), connection: connection.0 };
        let peers = self.clone();
        self.0.thread.runtime.spawn(async move {
            let parameters = serde_json::value::to_raw_value(&single).expect("it is made for JSON");
            let (from, sent) = (peers.0.id, peers.seconds());
            let call = Call { from, sent, number: None, method: SINGLE, parameters: &parameters };
            if let Err(error) = peers.send(CallType::Order, &call).await {
                if peers.0.unsent.is_due() {
                    tracing::warn!(
                        error = codes::error(error).text,
                        "a user's connections on other nodes could not be closed"
                    );
                }
                peers.0.inboxes.of_user(&single.user).send(single.unsent());
            }
        });
    }

    /// Returns all nodes that are alive, this one included.
    async fn alive(&self) -> Result<Vec<Peer>, RequestError> {
        self.0.redis.peers().await.map_err(|_| RequestError::Internal)
    }

    /// Redis' time. It is known once the node has joined; before that no calls are made.
    fn seconds(&self) -> u64 {
        self.0.redis.time().unwrap_or_default().as_secs()
    }

    async fn send(&self, call_type: CallType, call: &Call<'_>) -> Result<(), RequestError> {
        let data = serde_json::to_vec(call).expect("its parts are JSON");
        let history = (call_type == CallType::Order).then_some(ORDERS_KEPT);
        let publish = NewPublication { data: data.into(), history, ..NewPublication::default() };
        self.0.redis.publish(&self.0.control, publish).await.map_err(|_| RequestError::Internal)?;
        Ok(())
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("redis", &self.0.redis).finish_non_exhaustive()
    }
}
