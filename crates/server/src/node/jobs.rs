//! What a topic's owner does: subscriptions, publishes, reads and repairs, each one call of the engine or a few.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::{EngineError, HistoryQuery, PresenceStats, Publish, Published, Since};
use fanwire_hub::effect::{Answer, Joined, KnownPosition, Membership, Wanted};
use fanwire_hub::{HistoryBounds, Namespace};
use fanwire_protocol::{ClientId, ClientInfo, Disconnect, ErrorCode, Position, Publication, TopicName};
use tokio::sync::oneshot;

use super::follow::Follow;
use super::{GROUP_MAX, Topics, waiting_bytes};
use crate::inbox::{Address, Inbox, Message};
use crate::users::UserMessage;

/// What the API asks of a topic. The asker may have gone when the answer comes.
#[derive(Debug)]
pub(crate) enum TopicCall {
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

/// Who is told what became of a publish.
#[derive(Debug)]
pub(crate) enum Publisher {
    Client(Address, u32),
    Backend(oneshot::Sender<Result<Published, ErrorCode>>),
}

/// A connection of a user who may have only so many, on all nodes together.
#[derive(Debug)]
pub(crate) struct Admission {
    pub from: Address,
    pub info: Arc<ClientInfo>,
    pub connections_max: usize,
    /// The user's owner, to be told if the connection is refused.
    pub owner: Inbox,
}

/// What a topic's owner does next.
#[derive(Debug)]
pub(super) enum Job {
    Subscribe(Address, Membership, Wanted),
    Unsubscribe(Address, Membership),
    UpdatePresence(Arc<ClientInfo>, bool),
    Publish(Publish, Publisher),
    /// A client's command of that number.
    Read(Address, u32, Read),
    Call(TopicCall),
    /// Asks the stream for what may have been missed.
    Repair,
    Admit(Admission),
    Dismiss(ClientId),
}

#[derive(Debug)]
pub(super) enum Read {
    Presence,
    PresenceStats,
    History(HistoryCall),
}

impl Topics {
    pub(super) async fn do_job(self: &Rc<Self>, name: &TopicName, job: Job) {
        match job {
            Job::Subscribe(from, membership, wanted) => {
                self.do_subscribe(name, from, membership, wanted).await;
            }
            Job::Unsubscribe(from, membership) => self.unsubscribe(name, from, &membership).await,
            Job::UpdatePresence(info, join_leave) => {
                self.ignore(self.engine.add_presence(name, info, join_leave).await);
            }
            Job::Publish(publish, publisher) => self.do_publish(name, publish, publisher).await,
            Job::Read(from, command, read) => self.do_read(name, from, command, read).await,
            Job::Call(call) => self.do_call(name, call).await,
            Job::Repair => self.repair(name).await,
            Job::Admit(admission) => self.do_admit(name, admission).await,
            Job::Dismiss(client) => self.ignore(self.engine.remove_presence(name, client).await),
        }
    }

    async fn do_subscribe(
        self: &Rc<Self>,
        name: &TopicName,
        from: Address,
        membership: Membership,
        wanted: Wanted,
    ) {
        let result = self.subscribe(name, from, &membership, wanted).await;
        let join = (result.is_ok() && membership.join_leave).then(|| membership.info.clone());
        self.answer(from, Answer::Subscribed { topic: name.clone(), membership, result });
        // After the answer, so that a client sees its own join last.
        if let Some(info) = join {
            self.ignore(self.engine.publish_join(name, info).await);
            self.deliver_events();
        }
        // Doubts of a topic without subscribers were of no consequence.
        self.enqueue_repair(name);
    }

    /// Makes a subscription. What the client misses and what it will be sent meet exactly at the position that
    /// was delivered last, since deliveries and the answer leave from here in order.
    async fn subscribe(
        self: &Rc<Self>,
        name: &TopicName,
        from: Address,
        membership: &Membership,
        wanted: Wanted,
    ) -> Result<Joined, ErrorCode> {
        let namespace = self.namespace(name)?;
        if self.members(name) == 0 {
            self.engine.subscribe(name).await.map_err(error)?;
            self.pass_old_events(name).await;
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

    /// Events of an earlier subscription that still wait in the inbox are not for new subscribers, who would find a
    /// hole behind them.
    async fn pass_old_events(&self, name: &TopicName) {
        if self.are_shared() {
            let (reach, reached) = oneshot::channel();
            self.inboxes[self.shard].send(Message::Barrier(reach));
            // Dropped either way.
            let _ = reached.await;
            self.following(name, |follow| *follow = Follow::default());
        }
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
            self.following(name, |follow| follow.begin(top));
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
            let read = history.publications.into_iter().next();
            let is_ahead = |position: Position| {
                position.epoch == history.top.epoch && position.offset < history.top.offset
            };
            // What the stream has already is on its way, and comes as the newest rather than after it.
            self.wait_while(name, is_ahead).await;
            let position = self.position(name).unwrap_or(history.top);
            if history.top.epoch == position.epoch
                && history.top.offset < position.offset
                && self.newest_of(name).is_none()
            {
                continue;
            }
            let is_known = known.offset == position.offset && position.epoch.as_str() == known.epoch;
            let mut newest = self.newest_of(name).into_iter().chain(read);
            let newest = newest.find(|newest| newest.offset == position.offset);
            let recovered = if is_known { Some(Vec::new()) } else { newest.map(|newest| vec![newest]) };
            self.count_recovery(recovered.is_some());
            return Ok(Joined { position: Some(position), recovered });
        }
    }

    /// Waits a moment for events that are on their way.
    async fn wait_while(&self, name: &TopicName, is_so: impl Fn(Position) -> bool) {
        const PATIENCE: u32 = 500;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..PATIENCE {
            if !self.position(name).is_some_and(&is_so) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn newest_of(&self, name: &TopicName) -> Option<Arc<Publication>> {
        self.topics.borrow().get(name).and_then(|topic| topic.newest.clone())
    }

    async fn unsubscribe(self: &Rc<Self>, name: &TopicName, from: Address, membership: &Membership) {
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
                (topic.follow, topic.newest) = Default::default();
            }
            self.ignore(self.engine.unsubscribe(name).await);
        }
    }

    /// Publishes, and with it everything that waits to be published right behind it.
    async fn do_publish(self: &Rc<Self>, name: &TopicName, publish: Publish, publisher: Publisher) {
        let (following, followers) = self.following_publishes(name);
        self.counters.publications.add(1 + following.len() as u64);
        let bytes = waiting_bytes(&publish) + following.iter().map(waiting_bytes).sum::<usize>();
        if following.is_empty() {
            let result = self.engine.publish(name, publish).await.map_err(error);
            self.tell(publisher, result);
        } else {
            let group = [publish].into_iter().chain(following).collect();
            let results = self.engine.publish_group(name, group).await;
            for (publisher, result) in [publisher].into_iter().chain(followers).zip(results) {
                self.tell(publisher, result.map_err(error));
            }
        }
        self.waiting_bytes.set(self.waiting_bytes.get().saturating_sub(bytes));
        self.deliver_events();
    }

    fn following_publishes(&self, name: &TopicName) -> (Vec<Publish>, Vec<Publisher>) {
        let mut topics = self.topics.borrow_mut();
        let (mut group, mut publishers) = (Vec::new(), Vec::new());
        if let Some(topic) = topics.get_mut(name) {
            while group.len() + 1 < GROUP_MAX && matches!(topic.jobs.front(), Some(Job::Publish(..))) {
                let Some(Job::Publish(publish, publisher)) = topic.jobs.pop_front() else { break };
                group.push(publish);
                publishers.push(publisher);
            }
        }
        (group, publishers)
    }

    pub(super) fn tell(&self, publisher: Publisher, result: Result<Published, ErrorCode>) {
        match publisher {
            Publisher::Client(address, command) => {
                self.answer(address, Answer::Published { command, result: result.map(|_| ()) });
            }
            Publisher::Backend(reply) => {
                // A caller that has gone needs no answer.
                let _ = reply.send(result);
            }
        }
    }

    /// Asks the stream for what may have been missed, once for all subscribers. What fails is tried again.
    async fn repair(self: &Rc<Self>, name: &TopicName) {
        // The semaphore is never closed.
        let _permit = self.repairs.acquire().await;
        let since = {
            let mut topics = self.topics.borrow_mut();
            let Some(topic) = topics.get_mut(name) else { return };
            topic.repairing = false;
            topic.follow.ask().filter(|_| topic.total > 0)
        };
        let (Some(since), Some(history)) = (since, self.namespace(name).ok().and_then(|n| n.history)) else {
            return;
        };
        let asked = Since { offset: since.offset, epoch: since.epoch.as_str() };
        match self.engine.recover(name, Some(asked), history.size, history.meta_ttl).await {
            Ok(answer) => {
                self.count_repair(answer.complete);
                if let Some(repaired) = self.following(name, |follow| follow.repair(answer)) {
                    self.deliver_repaired(name, repaired);
                }
                self.enqueue_repair(name);
            }
            Err(error) => {
                tracing::debug!(%error, topic = %name, "a stream could not be asked for what was missed");
                self.following(name, Follow::doubt);
                self.unrepaired.borrow_mut().push(name.clone());
            }
        }
    }

    async fn do_read(&self, name: &TopicName, from: Address, command: u32, read: Read) {
        let answer = match read {
            Read::Presence => Answer::Presence { command, result: self.presence(name).await },
            Read::PresenceStats => {
                let stats = self.engine.presence_stats(name).await.map_err(error);
                Answer::PresenceStats { command, result: stats.map(|stats| (stats.clients, stats.users)) }
            }
            Read::History(query) => Answer::History { command, result: self.history(name, query).await },
        };
        self.answer(from, answer);
    }

    async fn do_call(&self, name: &TopicName, call: TopicCall) {
        // A caller that has gone needs no answer.
        match call {
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

    async fn do_admit(&self, name: &TopicName, admission: Admission) {
        let Admission { from, info, connections_max, owner } = admission;
        let user = info.user.clone();
        let result = match self.engine.admit(name, info, connections_max).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                owner.send(Message::User(UserMessage::Unregister { user, from }));
                Err(Disconnect::CONNECTION_LIMIT)
            }
            Err(error) => {
                // A limit is no reason to turn everybody away; this node's own count has been checked.
                tracing::debug!(%error, "a user's connections could not be counted on all nodes");
                Ok(())
            }
        };
        self.answer(from, Answer::Registered(result));
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

    fn count_recovery(&self, complete: bool) {
        if complete { self.counters.recoveries.add(1) } else { self.counters.recoveries_failed.add(1) }
    }

    fn count_repair(&self, complete: bool) {
        if complete { self.counters.repairs.add(1) } else { self.counters.repairs_failed.add(1) }
    }

    /// For what is done on the way out, when nobody is left to tell.
    fn ignore(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the engine did not follow a departure");
        }
    }
}

fn error(error: EngineError) -> ErrorCode {
    match error {
        EngineError::UnrecoverablePosition => ErrorCode::UNRECOVERABLE_POSITION,
        EngineError::Unavailable | EngineError::Foreign | EngineError::Full | EngineError::Refused => {
            ErrorCode::INTERNAL
        }
    }
}
