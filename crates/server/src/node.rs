//! A handle on the running node, shared by the HTTP API, the internal port and the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use fanwire_broker::{
    HistoryOptions, HistoryPage, NewPublication, Outboxes, PresenceStats, Published, UserStatuses,
};
use fanwire_hub::effect::Completion;
use fanwire_hub::session::{Control, Now};
use fanwire_hub::{NameError, Namespace, TokenPrint};
use fanwire_protocol::reason::RequestError;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use crate::accept::admission::{ClientNetwork, HttpConnections, OpenFiles, Port};
use crate::accept::tls::Tls;
use crate::auth::Tokens;
use crate::counters::Counters;
use crate::hooks::Hooks;
use crate::inbox::{Inbox, Inboxes};
use crate::message::{
    AnswerTo, Filter, HistoryCall, Holder, KeyedSession, ParkedAt, PublishCaller, RateExceeded, Recipients,
    Requester, SessionAnswer, SessionAsk, SessionCall, SessionOrder, ShardMessage, Survey, TopicCall,
    Unreachable, UserMessage, Via,
};
use crate::metrics::Metrics;
use crate::peers::{Caller, PATIENCE, Peers, ReplyTo, Sending};
use crate::permit::Permits;
use crate::session_key::{SessionKey, SessionSigner};
use crate::settings::Settings;
use crate::tasks::Tasks;
use crate::topics::history_options;

/// The server's name in connect results and in `info`.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " Fanwire");

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Node(Arc<NodeShared>);

#[derive(Debug)]
pub(crate) struct NodeShared {
    /// Random, for this run.
    pub id: Uuid,
    pub settings: Arc<Settings>,
    pub tokens: Tokens,
    /// Makes the keys of sessions.
    pub sessions: SessionSigner,
    /// TLS on the client port, if it is encrypted.
    pub tls: Option<Tls>,
    pub inboxes: Inboxes,
    /// The shared engine and the other nodes, with the Redis engine.
    pub peers: Option<Peers>,
    /// The application's backends.
    pub hooks: Hooks,
    /// The events of members, if the application wants any.
    pub outboxes: Option<Outboxes>,
    /// The status of users, if a namespace has it.
    pub statuses: Option<UserStatuses>,
    /// One for each shard.
    pub counters: Vec<Arc<Counters>>,
    /// The HTTP connections of each shard's listener.
    pub http_connections: Vec<Arc<HttpConnections>>,
    /// Those of the internal port.
    pub internal_connections: Arc<HttpConnections>,
    /// The node's long-lived tasks.
    pub tasks: Tasks,
    pub metrics: Metrics,
    /// Gives out permits for client connections.
    pub permits: Permits,
    started: Instant,
    draining: AtomicBool,
}

impl std::ops::Deref for Node {
    type Target = NodeShared;

    fn deref(&self) -> &NodeShared {
        &self.0
    }
}

/// What a node talks to beside its clients.
#[derive(Debug)]
pub(crate) struct Links {
    pub peers: Option<Peers>,
    pub hooks: Hooks,
    pub outboxes: Option<Outboxes>,
    pub statuses: Option<UserStatuses>,
}

/// The clients that an order of the API is for. At least one of user, client and session is named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audience {
    pub user: Option<Box<str>>,
    pub client: Option<ClientId>,
    pub session: Option<SessionKey>,
    /// Clients of the user that are exempt.
    pub except: Vec<ClientId>,
}

impl Node {
    pub(crate) fn new(
        settings: Arc<Settings>,
        tokens: Tokens,
        tls: Option<Tls>,
        inboxes: Inboxes,
        Links { peers, hooks, outboxes, statuses }: Links,
        counters: Vec<Arc<Counters>>,
        metrics: Metrics,
    ) -> Self {
        let shares = settings.files();
        let files = |share| Arc::new(OpenFiles::new(share));
        let client_files = files(shares.map_or(usize::MAX, |shares| shares.clients + shares.http));
        let connections = || HttpConnections::new(Port::Client, settings.limits(), client_files.clone());
        let http_connections = inboxes.all.iter().map(|_| connections()).collect();
        let internal_files = files(shares.map_or(usize::MAX, |shares| shares.internal));
        let internal_connections =
            HttpConnections::new(Port::Internal, settings.internal_limits(), internal_files);
        let open_files_max = shares.map(|shares| shares.clients);
        let permits = Permits::new(&settings, open_files_max, counters.clone());
        Self(Arc::new(NodeShared {
            id: peers.as_ref().map_or_else(Uuid::new_v4, Peers::id),
            settings,
            tokens,
            sessions: SessionSigner::new(),
            tls,
            inboxes,
            peers,
            hooks,
            outboxes,
            statuses,
            counters,
            http_connections,
            internal_connections,
            tasks: Tasks::default(),
            metrics,
            permits,
            started: Instant::now(),
            draining: AtomicBool::new(false),
        }))
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { millis: self.started.elapsed().as_millis() as u64, unix_millis: unix.as_millis() as i64 }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Client connections of the whole node.
    pub(crate) fn connections(&self) -> u64 {
        self.counters.iter().flat_map(|counters| &counters.connections).map(|counter| counter.value()).sum()
    }

    /// A topic with its namespace.
    pub(crate) fn topic(&self, name: &str) -> Result<(TopicName, &Namespace), NameError> {
        self.settings.namespaces.topic(name)
    }

    /// The bounds on a namespace's history; `None` without history.
    pub(crate) fn history_options(namespace: &Namespace) -> Option<HistoryOptions> {
        namespace.history.map(history_options)
    }

    /// The inbox of the topic's owner.
    pub(crate) fn owner_of(&self, topic: &TopicName) -> &Inbox {
        self.inboxes.of_topic(topic)
    }

    /// The inbox of the user's owner.
    pub(crate) fn owner_of_user(&self, user: &str) -> &Inbox {
        self.inboxes.of_user(user)
    }

    /// The inbox of the shard that counts the holder's connections.
    pub(crate) fn owner_of_holder(&self, holder: &Holder) -> &Inbox {
        self.inboxes.of_holder(holder)
    }

    /// Starts to publish. Waits while the node's fan-out is full, and gives up with error 111. Publications of one topic
    /// keep the order in which they were started.
    pub(crate) async fn publish(
        &self,
        topic: TopicName,
        publish: NewPublication,
    ) -> Result<impl Future<Output = Result<Published, RequestError>> + use<>, RequestError> {
        const PATIENCE: Duration = Duration::from_secs(2);
        if !self.inboxes.wait_for_room(tokio::time::Instant::now() + PATIENCE).await {
            return Err(RequestError::TooManyRequests);
        }
        let (reply, answer) = oneshot::channel();
        let message = ShardMessage::Publish(topic.clone(), Box::new(publish), PublishCaller::Backend(reply));
        self.owner_of(&topic).send(message);
        // Only a node that shuts down drops a call without an answer.
        Ok(async move { answer.await.unwrap_or(Err(RequestError::Internal)) })
    }

    /// The clients in a topic, or [`RequestError::LimitExceeded`] if they take more than `bytes_max`.
    pub(crate) async fn presence(
        &self,
        topic: TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, RequestError> {
        self.call(topic, |reply| TopicCall::Presence { bytes_max, reply }).await
    }

    pub(crate) async fn presence_stats(&self, topic: TopicName) -> Result<PresenceStats, RequestError> {
        self.call(topic, |reply| TopicCall::PresenceStats { reply }).await
    }

    pub(crate) async fn history(
        &self,
        topic: TopicName,
        query: HistoryCall,
    ) -> Result<HistoryPage, RequestError> {
        self.call(topic, |reply| TopicCall::History { query, reply }).await
    }

    pub(crate) async fn remove_history(&self, topic: TopicName) -> Result<(), RequestError> {
        self.call(topic, |reply| TopicCall::RemoveHistory { reply }).await
    }

    async fn call<T>(
        &self,
        topic: TopicName,
        call: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> TopicCall,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.owner_of(&topic).send(ShardMessage::Call(topic, call(reply)));
        // Only a node that shuts down drops a call without an answer.
        answer.await.unwrap_or(Err(RequestError::Internal))
    }

    /// Sends an order to every session that it is for, and waits until it is carried out.
    pub(crate) async fn control(&self, audience: Audience, control: Control) -> Result<(), RequestError> {
        let (failed, mut failures) = mpsc::unbounded_channel();
        let completion = Completion(Arc::new(move |error| {
            // The receiver lives until every copy of the completion is dropped.
            let _ = failed.send(error);
        }));
        let Audience { user, client, session, except } = audience;
        match (user, client, session) {
            (user, only, Some(key)) => {
                let filter = Filter { only, except: except.into_iter().collect() };
                let to = Recipients::Session(Arc::new(KeyedSession { key, user, filter }));
                match self.inbox_of(&key) {
                    Some(inbox) => {
                        inbox.send(ShardMessage::Control(SessionOrder { to, control, completion }));
                    }
                    None => drop(completion),
                }
            }
            (Some(user), only, None) => {
                let filter = Arc::new(Filter { only, except: except.into_iter().collect() });
                let inbox = self.owner_of_user(&user);
                inbox.send(ShardMessage::User(UserMessage::Control { user, filter, control, completion }));
            }
            (None, Some(client), None) => {
                for inbox in self.inboxes.all.iter() {
                    let to = Recipients::Client(client);
                    let (control, completion) = (control.clone(), completion.clone());
                    inbox.send(ShardMessage::Control(SessionOrder { to, control, completion }));
                }
                drop(completion);
            }
            (None, None, None) => return Err(RequestError::BadRequest),
        }
        let mut result = Ok(());
        while let Some(error) = failures.recv().await {
            result = Err(error);
        }
        result
    }

    /// Counts a request without a session, on the shard that it came to. Returns the limit if it is one too many.
    pub(crate) async fn count_request(&self, shard: usize, requester: Requester) -> Result<(), RateExceeded> {
        let (reply, answer) = oneshot::channel();
        self.inboxes.all[shard].send(ShardMessage::Count(requester, reply));
        // Only a node that shuts down drops a call without an answer.
        answer.await.unwrap_or(Err(RateExceeded::Alone))
    }

    /// Hands a client's call to its session, on whichever node that is.
    pub(crate) async fn ask_session(
        &self,
        from: ClientNetwork,
        key: SessionKey,
        ask: SessionAsk,
    ) -> Result<SessionAnswer, Unreachable> {
        if key.node != self.id {
            return match &self.peers {
                Some(peers) => peers.ask_session(from, key, ask).await,
                None => Err(Unreachable::NoSession),
            };
        }
        // A guess takes no room in the inbox.
        let inbox = self.inbox_of(&key).filter(|_| self.sessions.made(&key)).ok_or(Unreachable::NoSession)?;
        // Nothing is read from sockets either.
        if self.inboxes.are_requests_full() {
            return Ok(SessionAnswer::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let answer_to = AnswerTo::Task(reply);
        inbox.send(ShardMessage::Session(Box::new(SessionCall { key, ask, answer: answer_to })));
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            // Only a node that shuts down drops a call without an answer.
            Ok(Err(_)) | Err(_) => Err(Unreachable::Late),
        }
    }

    /// Hands what a poll that waits has to say to its session, on whichever node that is, behind what it says `before`. The
    /// answer goes to the poll's shard. Returns what is on its way to another node.
    pub(crate) fn poll_session(
        &self,
        key: SessionKey,
        ask: SessionAsk,
        at: ParkedAt,
        before: Option<Sending>,
    ) -> Option<Sending> {
        match (self.inbox_of(&key), &self.peers) {
            (Some(inbox), _) => {
                let answer = AnswerTo::Parked(at);
                inbox.send(ShardMessage::Session(Box::new(SessionCall { key, ask, answer })));
            }
            (None, Some(peers)) if key.node != self.id => {
                return Some(peers.poll_session(key, ask, at, before));
            }
            (None, _) => self.answer_poll(at, SessionAnswer::Gone),
        }
        None
    }

    /// Sends an answer to the shard where its poll waits, on whichever node that is.
    pub(crate) fn answer_poll(&self, at: ParkedAt, answer: SessionAnswer) {
        let ParkedAt { via, address } = at;
        if via.node == self.id {
            self.inboxes.answer_poll(address, answer);
        } else if let Some(peers) = &self.peers {
            peers.answer_call(Caller { via, reply_to: ReplyTo::Poll(address) }, answer);
        }
    }

    /// Takes room for an answer to a poll that came this way. Returns false if another node has forwarded it, and there is too
    /// little.
    pub(crate) fn may_answer(&self, via: Via, body_bytes: usize) -> bool {
        via.node == self.id || self.peers.as_ref().is_none_or(|peers| peers.may_answer(via, body_bytes))
    }

    /// Takes room for the last answer of a session, which is sent however little is left.
    pub(crate) fn charge_answer(&self, via: Via, body_bytes: usize) {
        if let Some(peers) = self.peers.as_ref().filter(|_| via.node != self.id) {
            peers.charge_answer(via, body_bytes);
        }
    }

    /// The inbox of the shard that a key names, if it names one of this node.
    pub(crate) fn inbox_of(&self, key: &SessionKey) -> Option<&Inbox> {
        self.inboxes.all.get(usize::from(key.shard)).filter(|_| key.node == self.id)
    }

    /// The number of subscribers of each topic on this node, but for the excluded client.
    pub(crate) async fn subscribers(
        &self,
        topics: Arc<[TopicName]>,
        exclude: Option<ClientId>,
    ) -> Vec<usize> {
        let (reply, mut answers) = mpsc::unbounded_channel();
        for inbox in self.inboxes.all.iter() {
            let (topics, reply) = (topics.clone(), reply.clone());
            inbox.send(ShardMessage::Survey(Survey::Subscribers { topics, exclude, reply }));
        }
        drop(reply);
        let mut all = vec![0; topics.len()];
        while let Some(counts) = answers.recv().await {
            all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
        }
        all
    }

    /// Closes the connections of a token on this node, and returns how many there were.
    pub(crate) async fn close_revoked(&self, token: TokenPrint) -> usize {
        let (reply, mut answers) = mpsc::unbounded_channel();
        for inbox in self.inboxes.all.iter() {
            inbox.send(ShardMessage::Revoke(token, reply.clone()));
        }
        drop(reply);
        let mut closed = 0;
        while let Some(count) = answers.recv().await {
            closed += count;
        }
        closed
    }

    /// The topics with subscribers on this node, and the number of subscribers.
    pub(crate) async fn topics(&self) -> FxHashMap<TopicName, usize> {
        let (reply, mut answers) = mpsc::unbounded_channel();
        for inbox in self.inboxes.all.iter() {
            inbox.send(ShardMessage::Survey(Survey::Topics(reply.clone())));
        }
        drop(reply);
        let mut all = FxHashMap::default();
        while let Some(topics) = answers.recv().await {
            for (topic, subscribers) in topics {
                *all.entry(topic).or_default() += subscribers;
            }
        }
        all
    }
}
