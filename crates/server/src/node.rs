//! Where hub and broker meet: the owner of a topic on this node.
//!
//! A topic's name picks the shard that owns it. Only the owner calls the engine for the topic, one call after the
//! other, and only the owner sends the topic's publications to the shards that have subscribers. What is asked
//! of one topic is therefore done in the order in which it was asked.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use fanwire_broker::{
    Engine, EngineError, Event, HistoryOptions, HistoryQuery, MemorySettings, PresenceStats, Publish,
    Published, Since,
};
use fanwire_hub::delivery::{Delivery, Message as Content};
use fanwire_hub::effect::{Answer, Joined, KnownPosition, Membership, TopicRequest, Wanted};
use fanwire_hub::{HistoryBounds, Namespace};
use fanwire_protocol::{ClientInfo, Epoch, ErrorCode, Position, Publication, TopicName};
use tokio::sync::oneshot;

use crate::counters::Counters;
use crate::inbox::{Address, Inbox, Message};
use crate::settings::{EngineSettings, Settings};

/// What the API asks of a topic. The asker may have gone when the answer comes.
#[derive(Debug)]
pub(crate) enum TopicCall {
    Publish { publish: Box<Publish>, reply: oneshot::Sender<Result<Published, ErrorCode>> },
    Presence { reply: oneshot::Sender<Result<Vec<Arc<ClientInfo>>, ErrorCode>> },
    PresenceStats { reply: oneshot::Sender<Result<PresenceStats, ErrorCode>> },
    History { query: HistoryCall, reply: oneshot::Sender<Result<HistoryPage, ErrorCode>> },
    RemoveHistory { reply: oneshot::Sender<Result<(), ErrorCode>> },
}

#[derive(Debug)]
pub(crate) struct HistoryCall {
    pub limit: usize,
    pub since: Option<KnownPosition>,
    pub reverse: bool,
}

/// A page of history, with the top of the stream.
pub(crate) type HistoryPage = (Position, Vec<Arc<Publication>>);

#[derive(Debug)]
enum Job {
    Request(Address, TopicRequest),
    Call(TopicCall),
}

/// A topic that has subscribers on this node, or something to do.
#[derive(Debug, Default)]
struct Topic {
    /// Subscriptions on each shard.
    members: Box<[u32]>,
    total: usize,
    /// The last that was delivered, in a topic with history.
    position: Option<Position>,
    jobs: VecDeque<Job>,
    /// Its jobs are being done.
    busy: bool,
}

/// The topics that one shard owns.
pub(crate) struct Topics {
    engine: Engine,
    /// What the engine delivered during the call that is being made.
    events: Rc<RefCell<VecDeque<Event>>>,
    topics: RefCell<HashMap<TopicName, Topic>>,
    inboxes: Arc<[Inbox]>,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Topics {
    pub(crate) fn new(settings: Arc<Settings>, inboxes: Arc<[Inbox]>, counters: Arc<Counters>) -> Rc<Self> {
        let events = Rc::<RefCell<VecDeque<Event>>>::default();
        let delivered = events.clone();
        let deliver = Box::new(move |event| delivered.borrow_mut().push_back(event));
        let EngineSettings::Memory(memory) = &settings.engine else { panic!("not yet") };
        let memory = MemorySettings {
            idempotency_ttl: memory.idempotency_ttl,
            history_bytes_max: memory.history_bytes_max / settings.shards,
            ..MemorySettings::default()
        };
        let engine = Engine::memory(memory, deliver);
        Rc::new(Self { engine, events, topics: RefCell::default(), inboxes, settings, counters })
    }

    pub(crate) fn request(self: &Rc<Self>, topic: TopicName, from: Address, request: TopicRequest) {
        self.enqueue(topic, Job::Request(from, request));
    }

    pub(crate) fn call(self: &Rc<Self>, topic: TopicName, call: TopicCall) {
        self.enqueue(topic, Job::Call(call));
    }

    /// Topics that have subscribers, or something to do.
    pub(crate) fn len(&self) -> usize {
        self.topics.borrow().len()
    }

    /// Releases what has expired in the engine; called about once a second.
    pub(crate) fn sweep(&self) {
        self.engine.sweep();
    }

    fn enqueue(self: &Rc<Self>, name: TopicName, job: Job) {
        let is_busy = {
            let mut topics = self.topics.borrow_mut();
            let topic = topics.entry(name.clone()).or_default();
            topic.jobs.push_back(job);
            std::mem::replace(&mut topic.busy, true)
        };
        if is_busy {
            return;
        }
        // An engine in memory answers at once, and then no task is needed.
        let mut work = Box::pin(self.clone().work(name));
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::task::spawn_local(work);
        }
    }

    /// Does a topic's jobs, one after the other, until none is left.
    async fn work(self: Rc<Self>, name: TopicName) {
        while let Some(job) = self.next_job(&name) {
            match job {
                Job::Request(from, request) => self.do_request(&name, from, request).await,
                Job::Call(call) => self.do_call(&name, call).await,
            }
        }
    }

    /// The topic's next job; forgets the topic when there is none and nobody is subscribed.
    fn next_job(&self, name: &TopicName) -> Option<Job> {
        let mut topics = self.topics.borrow_mut();
        let topic = topics.get_mut(name)?;
        let job = topic.jobs.pop_front();
        if job.is_none() {
            topic.busy = false;
            topic.jobs = VecDeque::new();
            if topic.total == 0 {
                topics.remove(name);
                if topics.capacity() > 4 * topics.len().max(64) {
                    let kept = 2 * topics.len();
                    topics.shrink_to(kept);
                }
            }
        }
        job
    }

    async fn do_request(&self, name: &TopicName, from: Address, request: TopicRequest) {
        let answer = match request {
            TopicRequest::Subscribe { membership, wanted } => {
                let result = self.subscribe(name, from, &membership, wanted).await;
                let join = (result.is_ok() && membership.join_leave).then(|| membership.info.clone());
                self.answer(from, Answer::Subscribed { topic: name.clone(), membership, result });
                // After the answer, so that a client sees its own join last.
                if let Some(info) = join {
                    self.ignore(self.engine.publish_join(name, info).await);
                    self.deliver_events();
                }
                return;
            }
            TopicRequest::Unsubscribe { membership } => {
                self.unsubscribe(name, from, &membership).await;
                return;
            }
            TopicRequest::UpdatePresence { info, join_leave } => {
                self.ignore(self.engine.add_presence(name, info, join_leave).await);
                return;
            }
            TopicRequest::Publish { command, data, info } => {
                let result = match self.history_of(name) {
                    Ok(history) => {
                        let publish = Publish { data, info: Some(info), history, ..Publish::default() };
                        self.publish(name, publish).await.map(|_| ())
                    }
                    Err(error) => Err(error),
                };
                Answer::Published { command, result }
            }
            TopicRequest::Presence { command } => {
                Answer::Presence { command, result: self.presence(name).await }
            }
            TopicRequest::PresenceStats { command } => {
                let stats = self.engine.presence_stats(name).await.map_err(error);
                Answer::PresenceStats { command, result: stats.map(|stats| (stats.clients, stats.users)) }
            }
            TopicRequest::History { command, limit, since, reverse } => {
                let query = HistoryCall { limit, since, reverse };
                Answer::History { command, result: self.history(name, query).await }
            }
        };
        self.answer(from, answer);
    }

    async fn do_call(&self, name: &TopicName, call: TopicCall) {
        // A caller that has gone needs no answer.
        match call {
            TopicCall::Publish { publish, reply } => {
                let _ = reply.send(self.publish(name, *publish).await);
            }
            TopicCall::Presence { reply } => {
                let _ = reply.send(self.presence(name).await);
            }
            TopicCall::PresenceStats { reply } => {
                let _ = reply.send(self.engine.presence_stats(name).await.map_err(error));
            }
            TopicCall::History { query, reply } => {
                let _ = reply.send(self.history(name, query).await);
            }
            TopicCall::RemoveHistory { reply } => {
                let _ = reply.send(self.engine.remove_history(name).await.map_err(error));
            }
        }
    }

    /// Makes a subscription. What the client misses and what it will be sent meet exactly at the position that
    /// was delivered last, since deliveries and the answer leave from here in order.
    async fn subscribe(
        &self,
        name: &TopicName,
        from: Address,
        membership: &Membership,
        wanted: Wanted,
    ) -> Result<Joined, ErrorCode> {
        let namespace = self.namespace(name)?;
        if self.members(name) == 0 {
            self.engine.subscribe(name).await.map_err(error)?;
        }
        let joined = self.join(name, namespace, membership, wanted).await;
        if joined.is_ok() {
            let mut topics = self.topics.borrow_mut();
            let topic = topics.entry(name.clone()).or_default();
            if topic.members.is_empty() {
                topic.members = vec![0; self.inboxes.len()].into();
            }
            topic.members[usize::from(from.shard)] += 1;
            topic.total += 1;
        } else {
            if membership.presence {
                self.ignore(self.engine.remove_presence(name, membership.info.client).await);
            }
            self.leave_if_last(name).await;
        }
        joined
    }

    /// Presence and position of a new subscription.
    async fn join(
        &self,
        name: &TopicName,
        namespace: &Namespace,
        membership: &Membership,
        wanted: Wanted,
    ) -> Result<Joined, ErrorCode> {
        if membership.presence {
            let Membership { info, join_leave, .. } = membership;
            self.engine.add_presence(name, info.clone(), *join_leave).await.map_err(error)?;
        }
        let Some(HistoryBounds { meta_ttl, .. }) = namespace.history else { return Ok(Joined::default()) };
        if self.position(name).is_none() {
            let top = self.engine.recover(name, None, 0, meta_ttl).await.map_err(error)?.top;
            if self.position(name).is_none() {
                self.set_position(name, top);
            }
        }
        // The position is always read after the last wait: what was delivered during one went to others only.
        match wanted {
            Wanted::Nothing => Ok(Joined::default()),
            Wanted::Position => Ok(Joined { position: self.position(name), recovered: None }),
            Wanted::Missed { known, or_refuse } => self.missed(name, &known, or_refuse, meta_ttl).await,
            Wanted::Newest(known) => self.newest(name, &known, meta_ttl).await,
        }
    }

    async fn missed(
        &self,
        name: &TopicName,
        known: &KnownPosition,
        or_refuse: bool,
        meta_ttl: Duration,
    ) -> Result<Joined, ErrorCode> {
        let since = Since { offset: known.offset, epoch: &known.epoch };
        let limit = self.settings.client.recovery_max;
        loop {
            let recovery = self.engine.recover(name, Some(since), limit, meta_ttl).await.map_err(error)?;
            let position = self.position(name).unwrap_or(recovery.top);
            let is_same_stream = recovery.top.epoch == position.epoch;
            if recovery.complete && is_same_stream && recovery.top.offset < position.offset {
                // Publications overtook the answer: what lies between is in neither.
                continue;
            }
            let complete = recovery.complete && is_same_stream;
            self.count_recovery(complete);
            if !complete && or_refuse {
                return Err(ErrorCode::UNRECOVERABLE_POSITION);
            }
            let mut missed = recovery.publications;
            missed.retain(|publication| publication.offset <= position.offset);
            return Ok(Joined { position: Some(position), recovered: complete.then_some(missed) });
        }
    }

    async fn newest(
        &self,
        name: &TopicName,
        known: &KnownPosition,
        meta_ttl: Duration,
    ) -> Result<Joined, ErrorCode> {
        let query = HistoryQuery { limit: 1, since: None, reverse: true };
        loop {
            let history = self.engine.history(name, query, meta_ttl).await.map_err(error)?;
            let position = self.position(name).unwrap_or(history.top);
            if history.top.epoch == position.epoch && history.top.offset < position.offset {
                continue;
            }
            let is_known = known.offset == position.offset && position.epoch.as_str() == known.epoch;
            let newest = history.publications.into_iter().find(|newest| newest.offset == position.offset);
            let recovered = if is_known { Some(Vec::new()) } else { newest.map(|newest| vec![newest]) };
            self.count_recovery(recovered.is_some());
            return Ok(Joined { position: Some(position), recovered });
        }
    }

    async fn unsubscribe(&self, name: &TopicName, from: Address, membership: &Membership) {
        if let Some(topic) = self.topics.borrow_mut().get_mut(name)
            && let Some(members) = topic.members.get_mut(usize::from(from.shard))
        {
            // Every subscription that was made is given back once.
            debug_assert!(*members > 0 && topic.total > 0);
            *members = members.saturating_sub(1);
            topic.total = topic.total.saturating_sub(1);
        }
        if membership.presence {
            self.ignore(self.engine.remove_presence(name, membership.info.client).await);
            self.deliver_events();
        } else if membership.join_leave {
            self.ignore(self.engine.publish_leave(name, membership.info.clone()).await);
            self.deliver_events();
        }
        self.leave_if_last(name).await;
    }

    async fn leave_if_last(&self, name: &TopicName) {
        if self.members(name) == 0 {
            if let Some(topic) = self.topics.borrow_mut().get_mut(name) {
                topic.position = None;
            }
            self.ignore(self.engine.unsubscribe(name).await);
        }
    }

    async fn publish(&self, name: &TopicName, publish: Publish) -> Result<Published, ErrorCode> {
        self.counters.publications.add(1);
        let published = self.engine.publish(name, publish).await.map_err(error);
        self.deliver_events();
        published
    }

    async fn presence(&self, name: &TopicName) -> Result<Vec<Arc<ClientInfo>>, ErrorCode> {
        self.engine.presence(name).await.map_err(error)
    }

    async fn history(&self, name: &TopicName, query: HistoryCall) -> Result<HistoryPage, ErrorCode> {
        let HistoryBounds { meta_ttl, .. } = self.namespace(name)?.history.ok_or(ErrorCode::NOT_AVAILABLE)?;
        let since = query.since.as_ref().map(|since| Since { offset: since.offset, epoch: &since.epoch });
        let query = HistoryQuery { limit: query.limit, since, reverse: query.reverse };
        let history = self.engine.history(name, query, meta_ttl).await.map_err(error)?;
        Ok((history.top, history.publications))
    }

    /// Sends on what the engine delivered.
    fn deliver_events(&self) {
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else { return };
            self.deliver(event);
        }
    }

    fn deliver(&self, event: Event) {
        let (name, content) = match event {
            Event::Publication { topic, publication, epoch } => {
                if let Some(epoch) = epoch
                    && self.advance(&topic, epoch, publication.offset) == Step::Repeated
                {
                    return;
                }
                let first = epoch.filter(|_| publication.offset == 1);
                (topic, Content::Publication(publication, first))
            }
            Event::Join { topic, info } => (topic, Content::Join(info)),
            Event::Leave { topic, info } => (topic, Content::Leave(info)),
            Event::Interrupted { .. } => return,
        };
        let delivery = Arc::new(Delivery::new(name.clone(), content));
        self.send_to_members(&name, || Message::Deliver(delivery.clone()));
    }

    /// Moves the delivered position on, and tells the shards when the stream has a hole.
    fn advance(&self, name: &TopicName, epoch: Epoch, offset: u64) -> Step {
        let before = self.position(name);
        let step = match before {
            Some(position) if position.epoch == epoch && offset <= position.offset => Step::Repeated,
            Some(position) if position.epoch == epoch && offset == position.offset + 1 => Step::Next,
            Some(_) => Step::Hole,
            None => Step::Next,
        };
        match step {
            Step::Repeated => {}
            Step::Next => self.set_position(name, Position { epoch, offset }),
            Step::Hole => {
                self.send_to_members(name, || Message::Lost(name.clone()));
                self.set_position(name, Position { epoch, offset });
            }
        }
        step
    }

    fn send_to_members(&self, name: &TopicName, message: impl Fn() -> Message) {
        if let Some(topic) = self.topics.borrow().get(name) {
            for (inbox, _) in self.inboxes.iter().zip(&topic.members).filter(|(_, members)| **members > 0) {
                inbox.send(message());
            }
        }
    }

    fn members(&self, name: &TopicName) -> usize {
        self.topics.borrow().get(name).map_or(0, |topic| topic.total)
    }

    fn position(&self, name: &TopicName) -> Option<Position> {
        self.topics.borrow().get(name).and_then(|topic| topic.position)
    }

    fn set_position(&self, name: &TopicName, position: Position) {
        if let Some(topic) = self.topics.borrow_mut().get_mut(name) {
            topic.position = Some(position);
        }
    }

    fn namespace(&self, name: &TopicName) -> Result<&Namespace, ErrorCode> {
        self.settings.topics.of(name.as_str()).map_err(|_| ErrorCode::UNKNOWN_TOPIC)
    }

    fn history_of(&self, name: &TopicName) -> Result<Option<HistoryOptions>, ErrorCode> {
        Ok(self.namespace(name)?.history.map(history_options))
    }

    fn count_recovery(&self, complete: bool) {
        if complete { self.counters.recoveries.add(1) } else { self.counters.recoveries_failed.add(1) }
    }

    fn answer(&self, to: Address, answer: Answer) {
        self.inboxes[usize::from(to.shard)].send(Message::Answer(to.connection, answer));
    }

    /// For what is done on the way out, when nobody is left to tell.
    fn ignore(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the engine did not follow a departure");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Next,
    Repeated,
    Hole,
}

pub(crate) fn history_options(bounds: HistoryBounds) -> HistoryOptions {
    HistoryOptions { size: bounds.size, ttl: bounds.ttl, meta_ttl: bounds.meta_ttl }
}

fn error(error: EngineError) -> ErrorCode {
    match error {
        EngineError::UnrecoverablePosition => ErrorCode::UNRECOVERABLE_POSITION,
        EngineError::Unavailable | EngineError::Foreign | EngineError::Full | EngineError::Refused => {
            ErrorCode::INTERNAL
        }
    }
}
