//! The owner of a topic on this node: hub and broker meet here.
//!
//! A topic's name picks the shard that owns it. Only the owner calls the engine for the topic, one call after the
//! other, and only the owner sends the topic's publications to the shards that have subscribers. What is asked
//! of one topic is therefore done in the order in which it was asked.

pub(crate) mod follow;
mod jobs;
pub(crate) mod repair;
mod status;
mod subscribe;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use fanwire_broker::{
    Engine, Event, HistoryOptions, Member, MemorySettings, NewPublication, Outboxes, Redis,
    UNPUBLISHED_META_TTL_MAX, Usage, UserStatuses, planted,
};
use fanwire_hub::delivery::Delivery;
use fanwire_hub::effect::{Answer, TopicRequest};
use fanwire_hub::hook::PublishOptions;
use fanwire_hub::{HistoryBounds, Namespace};
use fanwire_protocol::capacity::GiveBack;
use fanwire_protocol::reason::{Left, RequestError};
use fanwire_protocol::reply::Push;
use fanwire_protocol::{ClientId, Epoch, EventMask, Position, Publication, TopicName};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::allowance::ReadAllowance;
use crate::condition::Condition;
use crate::counters::Counters;
use crate::inbox::Inboxes;
use crate::message::{Address, HolderAdmission, PublishCaller, ShardMessage, TopicCall};
use crate::settings::{EngineSettings, Settings};
use crate::tasks::PanicAlarm;
use follow::{Follow, NextStep, Stamped};
use jobs::{Job, ReadJob, SubscribeJob};

/// Publications that go to the engine together at most.
const GROUP_MAX: usize = 256;

/// The bound on publications that wait for the engine on one shard, in bytes. Further ones get error 111.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The most topics without publications that are remembered. Beyond it subscribers of the oldest may get a false gap
/// notification.
const FRESH_MAX: usize = 1 << 20;

/// Topics that are renewed in one sweep.
const RENEWALS_MAX: usize = 4096;

/// The bytes that a waiting publication counts for beside its data.
const WAITING_BYTES_EACH: usize = 512;

/// The topics that one shard owns.
pub(crate) struct Topics {
    shard: usize,
    engine: Engine,
    /// The status of users, if a namespace has it.
    statuses: Option<UserStatuses>,
    /// The events that an engine in memory delivered during the current call.
    events: Rc<RefCell<VecDeque<Event>>>,
    topics: RefCell<HashMap<TopicName, Topic>>,
    /// Topics whose repair failed or is not due yet, each once. They count as being repaired.
    unrepaired: RefCell<Vec<TopicName>>,
    /// Bounds the parts of streams that are read for repairs.
    parts: Semaphore,
    /// Topics that had no publication when they were subscribed, by the time of the next look at them.
    fresh: RefCell<VecDeque<(Instant, TopicName)>>,
    /// Idle topics with something to publish. They start once all messages in the inbox are taken.
    begun: RefCell<Vec<TopicName>>,
    /// Topics with a subscription that waits until their stream was delivered further. Notified when it was followed.
    advances: RefCell<HashMap<TopicName, Rc<Condition>>>,
    /// Publications that wait for the engine.
    waiting_bytes: Cell<usize>,
    inboxes: Inboxes,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    /// A topic's task has panicked.
    broken: Rc<Notify>,
}

/// A topic with local subscribers or pending work.
#[derive(Debug, Default)]
struct Topic {
    /// Subscriptions on each shard.
    members: Box<[u32]>,
    total: usize,
    /// The namespace has history. Set by the first subscription.
    keeps: bool,
    /// New subscribers get the newest publication.
    keeps_newest: bool,
    /// Clients are told the time of each publication.
    shows_time: bool,
    /// The position up to which the stream was delivered, in a topic with history.
    follow: Follow,
    /// It has the status of a user.
    tells_status: bool,
    /// The status may have changed without a word, and has to be asked for.
    is_stale: bool,
    /// The publication that was delivered last, if new subscribers get it.
    newest: Option<Arc<Publication>>,
    jobs: VecDeque<Job>,
    /// A task is doing its jobs.
    busy: bool,
    /// A repair is among its jobs, or postponed.
    repairing: bool,
}

impl Topics {
    /// `redis` is the Redis engine, if the settings ask for it.
    pub(crate) fn new(
        shard: usize,
        settings: Arc<Settings>,
        redis: Option<Redis>,
        outboxes: Option<Outboxes>,
        statuses: Option<UserStatuses>,
        inboxes: Inboxes,
        counters: Arc<Counters>,
    ) -> Rc<Self> {
        let events = Rc::<RefCell<VecDeque<Event>>>::default();
        let memory = || memory_engine(&settings, outboxes, statuses.as_ref(), events.clone());
        let engine = redis.map_or_else(memory, Engine::Redis);
        Rc::new(Self {
            shard,
            engine,
            statuses,
            events,
            topics: RefCell::default(),
            unrepaired: RefCell::default(),
            parts: Semaphore::new(repair::PARTS_MAX),
            fresh: RefCell::default(),
            begun: RefCell::default(),
            advances: RefCell::default(),
            waiting_bytes: Cell::new(0),
            inboxes,
            settings,
            counters,
            broken: Rc::default(),
        })
    }

    /// Waits until a task of a topic has panicked.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let broken = self.broken.clone();
        async move { broken.notified().await }
    }

    /// Returns true if other nodes have the same topics.
    pub(crate) fn are_shared(&self) -> bool {
        matches!(self.engine, Engine::Redis(_))
    }

    /// Does what a session asks, and answers it. `allowance` comes with reads.
    pub(crate) fn handle_request(
        self: &Rc<Self>,
        topic: TopicName,
        from: Address,
        request: TopicRequest,
        allowance: Option<ReadAllowance>,
    ) {
        let job = match request {
            TopicRequest::Publish { id, data, tags, info, options } => {
                let publisher = PublishCaller::Client(from, id);
                return match self.namespace(&topic) {
                    Ok(&Namespace { history, no_echo, .. }) => {
                        let PublishOptions { skip_history, idempotency_key, version, version_epoch } =
                            options.map(|options| *options).unwrap_or_default();
                        let publish = NewPublication {
                            data,
                            tags,
                            exclude: no_echo.then_some(info.client),
                            info: Some(info),
                            history: history.filter(|_| !skip_history).map(history_options),
                            idempotency_key,
                            version,
                            version_epoch,
                        };
                        self.publish(topic, publish, publisher);
                    }
                    Err(error) => self.tell(publisher, Err(error)),
                };
            }
            TopicRequest::Subscribe { membership, wanted } => {
                Job::Subscribe(SubscribeJob { from, membership, wanted, allowance })
            }
            TopicRequest::Unsubscribe { membership, left } => Job::Unsubscribe(from, membership, left),
            TopicRequest::UpdatePresence { info, join_leave } => Job::UpdatePresence(info, join_leave),
            TopicRequest::Presence { id } => Job::Read(from, ReadJob::Presence { id }, allowance),
            TopicRequest::PresenceStats { id } => Job::Read(from, ReadJob::PresenceStats { id }, allowance),
            TopicRequest::History { id, limit, since, reverse } => {
                Job::Read(from, ReadJob::History { id, limit, since, reverse }, allowance)
            }
        };
        self.enqueue(topic, job);
    }

    /// Does what the API asks.
    pub(crate) fn call(self: &Rc<Self>, topic: TopicName, call: TopicCall) {
        self.enqueue(topic, Job::Call(call));
    }

    pub(crate) fn publish(
        self: &Rc<Self>,
        topic: TopicName,
        publish: NewPublication,
        publisher: PublishCaller,
    ) {
        let waiting = self.waiting_bytes.get() + waiting_bytes(&publish);
        if waiting > WAITING_BYTES_MAX {
            return self.tell(publisher, Err(RequestError::TooManyRequests));
        }
        self.waiting_bytes.set(waiting);
        if !self.push_job(&topic, Job::Publish(publish, publisher)) {
            self.begun.borrow_mut().push(topic);
        }
    }

    /// Hands publications that waited together to the engine together. Returns true if there were any. Call it after
    /// [`Topics::publish`].
    pub(crate) fn publish_begun(self: &Rc<Self>) -> bool {
        let begun = self.begun.take();
        let some = !begun.is_empty();
        begun.into_iter().for_each(|topic| self.start(topic));
        some
    }

    /// Admits a connection to the cluster's own `topic` that counts its holder's connections. The holder's owner gets the
    /// answer.
    pub(crate) fn admit(self: &Rc<Self>, topic: TopicName, admission: HolderAdmission) {
        self.enqueue(topic, Job::Admit(admission));
    }

    /// Adds a connection to a topic of the cluster's own, whether or not the engine is reached now.
    pub(crate) fn enter(self: &Rc<Self>, topic: TopicName, member: Member) {
        self.enqueue(topic, Job::Enter(member));
    }

    /// Removes a connection from its user's.
    pub(crate) fn dismiss(self: &Rc<Self>, topic: TopicName, client: ClientId, left: Left) {
        self.enqueue(topic, Job::Dismiss(client, left));
    }

    /// Handles an event from the Redis engine, or of a user's status.
    pub(crate) fn event(self: &Rc<Self>, event: Event) {
        // Events may arrive after the last subscriber has left.
        if self.topics.borrow().contains_key(event.topic()) {
            self.deliver(event);
        }
    }

    /// The number of topics with local subscribers or pending work.
    pub(crate) fn len(&self) -> usize {
        self.topics.borrow().len()
    }

    /// The usage of this shard's engine.
    pub(crate) fn usage(&self) -> Usage {
        self.engine.usage()
    }

    /// Releases expired data in the engine, and tries failed repairs again. Called about once a second.
    pub(crate) fn sweep(self: &Rc<Self>) {
        self.engine.sweep();
        for name in self.unrepaired.take() {
            if let Some(topic) = self.topics.borrow_mut().get_mut(&name) {
                topic.repairing = false;
            }
            self.enqueue_repair(&name);
        }
        self.renew_fresh();
    }

    /// An engine soon forgets the position of a stream without publications. Its subscribers must not get a false gap
    /// notification, so the stream is asked again in time.
    fn renew_fresh(self: &Rc<Self>) {
        let now = Instant::now();
        for _ in 0..RENEWALS_MAX {
            let is_due = self.fresh.borrow().front().is_some_and(|(due, _)| *due <= now);
            let due = if is_due { self.fresh.borrow_mut().pop_front() } else { None };
            let Some((_, topic)) = due else { return };
            if self.position(&topic).is_some_and(|position| position.offset == 0) {
                self.following(&topic, Follow::mark_dirty);
                self.enqueue_repair(&topic);
                self.note_fresh(topic);
            }
        }
    }

    /// Renews the topic later, if it has no publication then.
    fn note_fresh(&self, topic: TopicName) {
        if self.position(&topic).is_some_and(|position| position.offset == 0) {
            let mut fresh = self.fresh.borrow_mut();
            if fresh.len() == FRESH_MAX {
                fresh.pop_front();
            }
            fresh.push_back((Instant::now() + UNPUBLISHED_META_TTL_MAX / 3, topic));
        }
    }

    /// Repairs the topic if that is due, and later if it is not.
    fn enqueue_repair(self: &Rc<Self>, name: &TopicName) {
        let is_due = {
            let mut topics = self.topics.borrow_mut();
            let Some(topic) = topics.get_mut(name) else { return };
            let due = if topic.is_stale { Some(Instant::now()) } else { topic.follow.due() };
            let Some(due) = due.filter(|_| topic.total > 0 && !topic.repairing) else {
                return;
            };
            topic.repairing = true;
            due <= Instant::now()
        };
        if is_due {
            self.enqueue(name.clone(), Job::Repair);
        } else {
            self.unrepaired.borrow_mut().push(name.clone());
        }
    }

    /// Repairs the dirty topic with the next sweep.
    fn postpone_repair(&self, name: &TopicName) {
        let mut topics = self.topics.borrow_mut();
        let is_wanted =
            topics.get_mut(name).is_some_and(|topic| !std::mem::replace(&mut topic.repairing, true));
        if is_wanted {
            self.unrepaired.borrow_mut().push(name.clone());
        }
    }

    fn enqueue(self: &Rc<Self>, name: TopicName, job: Job) {
        if !self.push_job(&name, job) {
            self.start(name);
        }
    }

    /// Returns true if the topic was busy, or is about to be.
    fn push_job(&self, name: &TopicName, job: Job) -> bool {
        let mut topics = self.topics.borrow_mut();
        let topic = topics.entry(name.clone()).or_default();
        match job {
            // Subscribers wait for what is missing; nothing else waits for a repair.
            Job::Repair => topic.jobs.push_front(job),
            job => topic.jobs.push_back(job),
        }
        std::mem::replace(&mut topic.busy, true)
    }

    fn start(self: &Rc<Self>, name: TopicName) {
        // An engine in memory answers at once, so that no task is needed.
        let mut work = Box::pin(self.clone().work(name));
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let alarm = PanicAlarm(self.broken.clone());
            tokio::task::spawn_local(async move {
                let _alarm = alarm;
                planted::run("topic", work).await;
            });
        }
    }

    /// Does a topic's jobs, one after the other, until none is left.
    async fn work(self: Rc<Self>, name: TopicName) {
        while let Some(job) = self.next_job(&name) {
            self.do_job(&name, job).await;
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
                topics.give_back();
            }
        }
        job
    }

    /// Delivers the events of an engine in memory.
    fn deliver_events(self: &Rc<Self>) {
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else { return };
            self.deliver(event);
        }
    }

    fn deliver(self: &Rc<Self>, event: Event) {
        match event {
            Event::Publication { topic, publication, epoch: None } => {
                if self.tells_status(&topic) {
                    self.take_status(&topic, publication);
                } else {
                    self.send_publication(topic, publication, None);
                }
            }
            Event::Publication { topic, publication, epoch: Some(epoch) } => {
                let step = self.following(&topic, |follow| follow.take(epoch, &publication));
                match step {
                    Some(NextStep::Deliver) => self.send_stamped(topic, Stamped { epoch, publication }),
                    Some(NextStep::Early) => self.enqueue_repair(&topic),
                    Some(NextStep::Repeated) => {}
                    // A node without history in its settings still gets publications that other nodes keep.
                    None => self.send_publication(topic, publication, None),
                }
            }
            Event::Join { topic, info } => self.send(Push::Join { topic, info }),
            Event::Leave { topic, info } => self.send(Push::Leave { topic, info }),
            Event::Gap { topic } => {
                if self.tells_status(&topic) {
                    self.mark_stale(&topic);
                }
                self.following(&topic, Follow::mark_dirty);
                self.enqueue_repair(&topic);
            }
        }
    }

    fn send_stamped(&self, topic: TopicName, Stamped { epoch, publication }: Stamped) {
        if let Some(topic) = self.topics.borrow_mut().get_mut(&topic)
            && topic.keeps_newest
        {
            topic.newest = Some(publication.clone());
        }
        self.send_publication(topic, publication, Some(epoch));
    }

    fn send_publication(&self, topic: TopicName, publication: Arc<Publication>, epoch: Option<Epoch>) {
        let shows_time = self.topics.borrow().get(&topic).is_some_and(|topic| topic.shows_time);
        self.send(Push::Publication { topic, publication, epoch, shows_time });
    }

    /// Sends one message to every shard with subscribers.
    fn send(&self, push: Push) {
        let delivery = Arc::new(Delivery::new(push));
        if let Some(topic) = delivery.push.topic() {
            self.send_to_members(topic, || ShardMessage::Deliver(delivery.clone()));
        }
    }

    fn send_to_members(&self, name: &TopicName, message: impl Fn() -> ShardMessage) {
        if let Some(topic) = self.topics.borrow().get(name) {
            for (inbox, _) in self.inboxes.all.iter().zip(&topic.members).filter(|(_, members)| **members > 0)
            {
                inbox.send(message());
            }
        }
    }

    /// Acts on the position of the topic's stream, if it has history.
    fn following<T>(&self, name: &TopicName, act: impl FnOnce(&mut Follow) -> T) -> Option<T> {
        let mut topics = self.topics.borrow_mut();
        let topic = topics.get_mut(name).filter(|topic| topic.keeps)?;
        let result = act(&mut topic.follow);
        if let Some(advance) = self.advances.borrow().get(name) {
            advance.notify();
        }
        Some(result)
    }

    fn position(&self, name: &TopicName) -> Option<Position> {
        self.topics.borrow().get(name).and_then(|topic| topic.follow.position())
    }

    fn tells_status(&self, name: &TopicName) -> bool {
        self.settings.status.is_some()
            && self.topics.borrow().get(name).is_some_and(|topic| topic.tells_status)
    }

    fn members(&self, name: &TopicName) -> usize {
        self.topics.borrow().get(name).map_or(0, |topic| topic.total)
    }

    fn namespace(&self, name: &TopicName) -> Result<&Namespace, RequestError> {
        self.settings.namespaces.of(name).map_err(|_| RequestError::UnknownTopic)
    }

    /// The events of the topic's members. The cluster's own topics have those that their members bring.
    fn events_of(&self, name: &TopicName) -> EventMask {
        self.namespace(name).map(|namespace| namespace.events).unwrap_or_default()
    }

    fn send_answer(&self, to: Address, answer: Answer, allowance: Option<ReadAllowance>) {
        self.inboxes.all[usize::from(to.shard)].send(match allowance {
            Some(allowance) => ShardMessage::ReadAnswer(to.connection, answer, allowance),
            None => ShardMessage::Answer(to.connection, answer),
        });
    }

    /// Lets a session's shard ask again with a larger allowance.
    fn ask_for_more(&self, to: Address, topic: TopicName, request: TopicRequest, allowance: ReadAllowance) {
        let message = ShardMessage::Larger(to.connection, topic, request, allowance);
        self.inboxes.all[usize::from(to.shard)].send(message);
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("engine", &self.engine).finish_non_exhaustive()
    }
}

pub(crate) fn history_options(bounds: HistoryBounds) -> HistoryOptions {
    HistoryOptions { size: bounds.size, ttl: bounds.ttl, meta_ttl: bounds.meta_ttl }
}

fn memory_engine(
    settings: &Settings,
    outboxes: Option<Outboxes>,
    statuses: Option<&UserStatuses>,
    events: Rc<RefCell<VecDeque<Event>>>,
) -> Engine {
    let mut memory = MemorySettings::default();
    if let Some(Outboxes::Memory(outbox)) = outboxes {
        memory.outbox = Some(outbox);
    }
    if let Some(UserStatuses::Memory(status)) = statuses {
        memory.status = Some(status.clone());
    }
    if let EngineSettings::Memory(configured) = &settings.engine {
        memory.idempotency_ttl = configured.idempotency_ttl;
        memory.history_bytes_max = configured.history_bytes_max / settings.shards;
        memory.idempotency_bytes_max /= settings.shards;
    }
    Engine::memory(memory, Box::new(move |event| events.borrow_mut().push_back(event)))
}

fn waiting_bytes(publish: &NewPublication) -> usize {
    publish.data.len() + WAITING_BYTES_EACH
}
