//! The jobs of a topic's owner, and those of them that are one call of the engine: publishes and reads.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_broker::{
    EngineError, HistoryPage, HistoryQuery, Member, NewPublication, Published, ReadLimit, Since,
};
use fanwire_hub::HistoryBounds;
use fanwire_hub::effect::{Answer, Membership, RecoveryRequest, TopicRequest};
use fanwire_protocol::reason::{Left, RequestError};
use fanwire_protocol::request::StreamPosition;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};

use super::{GROUP_MAX, Topics, waiting_bytes};
use crate::allowance::ReadAllowance;
use crate::message::{
    Address, HistoryCall, HolderAdmission, PublishCaller, ShardMessage, TopicCall, UserMessage,
};

/// A job of a topic's owner.
#[derive(Debug)]
pub(super) enum Job {
    Subscribe(SubscribeJob),
    Unsubscribe(Address, Membership, Left),
    UpdatePresence(Arc<ClientInfo>, bool),
    Publish(NewPublication, PublishCaller),
    Read(Address, ReadJob, Option<ReadAllowance>),
    Call(TopicCall),
    /// Asks the stream for publications that may be missing.
    Repair,
    Admit(HolderAdmission),
    /// Adds a member to a topic of the cluster's own.
    Enter(Member),
    Dismiss(ClientId, Left),
}

/// A subscription that a client wants.
#[derive(Debug)]
pub(super) struct SubscribeJob {
    pub from: Address,
    pub membership: Membership,
    pub wanted: RecoveryRequest,
    /// For the recovered publications.
    pub allowance: Option<ReadAllowance>,
}

/// A read for a client's request.
#[derive(Debug)]
pub(super) enum ReadJob {
    Presence { id: u32 },
    PresenceStats { id: u32 },
    History { id: u32, limit: usize, since: Option<StreamPosition>, reverse: bool },
}

impl From<ReadJob> for TopicRequest {
    fn from(job: ReadJob) -> Self {
        match job {
            ReadJob::Presence { id } => Self::Presence { id },
            ReadJob::PresenceStats { id } => Self::PresenceStats { id },
            ReadJob::History { id, limit, since, reverse } => Self::History { id, limit, since, reverse },
        }
    }
}

impl SubscribeJob {
    pub(super) fn bytes_max(&self) -> usize {
        bytes_max(self.allowance.as_ref())
    }

    /// Returns true if a recovery that does not succeed is asked for again, or refuses the subscription.
    pub(super) fn may_fail(&self, is_too_long: bool) -> bool {
        let or_refuse = matches!(self.wanted, RecoveryRequest::Since { or_refuse: true, .. });
        or_refuse || (is_too_long && self.may_grow())
    }

    /// Returns true if missed publications may be asked for again, with a larger allowance.
    pub(super) fn may_grow(&self) -> bool {
        self.allowance.as_ref().is_some_and(ReadAllowance::may_grow)
    }
}

/// Without an allowance nothing is read.
fn bytes_max(allowance: Option<&ReadAllowance>) -> usize {
    allowance.map_or(0, ReadAllowance::bytes)
}

impl Topics {
    pub(super) async fn do_job(self: &Rc<Self>, name: &TopicName, job: Job) {
        match job {
            Job::Subscribe(subscribe) => self.do_subscribes(name, subscribe).await,
            Job::Unsubscribe(from, membership, left) => {
                self.do_unsubscribes(name, (from, membership, left)).await;
            }
            Job::UpdatePresence(info, join_leave) => {
                let member = Member::new(info, join_leave).with_events(self.events_of(name));
                self.ignore(self.engine.replace_presence(name, member).await);
            }
            Job::Publish(publish, publisher) => self.do_publish(name, publish, publisher).await,
            Job::Read(from, read, allowance) => self.do_read(name, from, read, allowance).await,
            Job::Call(call) => self.do_call(name, call).await,
            Job::Repair => self.repair(name).await,
            Job::Admit(admission) => self.do_admit(name, admission).await,
            Job::Enter(member) => self.ignore(self.engine.add_presence(name, vec![member]).await),
            Job::Dismiss(client, left) => {
                self.ignore(self.engine.remove_presence(name, client, &left).await);
            }
        }
    }

    /// Publishes, together with the publishes that wait right behind it.
    async fn do_publish(
        self: &Rc<Self>,
        name: &TopicName,
        publish: NewPublication,
        publisher: PublishCaller,
    ) {
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

    fn following_publishes(&self, name: &TopicName) -> (Vec<NewPublication>, Vec<PublishCaller>) {
        let jobs = self.following_jobs(name, |job| matches!(job, Job::Publish(..)));
        let publishes = jobs.into_iter().filter_map(|job| match job {
            Job::Publish(publish, publisher) => Some((publish, publisher)),
            _ => None,
        });
        publishes.unzip()
    }

    /// The jobs of one kind that wait right behind one of that kind.
    pub(super) fn following_jobs(&self, name: &TopicName, is_of_kind: fn(&Job) -> bool) -> Vec<Job> {
        let mut topics = self.topics.borrow_mut();
        let Some(topic) = topics.get_mut(name) else { return Vec::new() };
        let count = topic.jobs.iter().take(GROUP_MAX - 1).take_while(|job| is_of_kind(job)).count();
        topic.jobs.drain(..count).collect()
    }

    pub(super) fn tell(&self, publisher: PublishCaller, result: Result<Published, RequestError>) {
        match publisher {
            PublishCaller::Client(address, id) => {
                self.send_answer(address, Answer::Published { id, result: result.map(|_| ()) }, None);
            }
            PublishCaller::Backend(reply) => {
                // A caller that has gone needs no answer.
                let _ = reply.send(result);
            }
        }
    }

    async fn do_read(
        &self,
        name: &TopicName,
        from: Address,
        read: ReadJob,
        allowance: Option<ReadAllowance>,
    ) {
        let bytes_max = bytes_max(allowance.as_ref());
        let (answer, is_too_long) = match &read {
            ReadJob::Presence { id } => {
                let result = self.presence(name, bytes_max).await;
                let is_too_long = matches!(result, Err(RequestError::LimitExceeded));
                (Answer::Presence { id: *id, result }, is_too_long)
            }
            ReadJob::PresenceStats { id } => {
                let stats = self.engine.presence_stats(name).await.map_err(error);
                let result = stats.map(|stats| (stats.clients, stats.users));
                (Answer::PresenceStats { id: *id, result }, false)
            }
            ReadJob::History { id, limit, since, reverse } => {
                let limit = ReadLimit { publications: *limit, bytes: bytes_max };
                let query = HistoryCall { limit, since: since.clone(), reverse: *reverse };
                let result = self.history(name, query).await;
                let is_cut = result.as_ref().is_ok_and(|page| page.is_cut || page_bytes(page) > bytes_max);
                let result = result.map(|HistoryPage { top, publications, .. }| (top, publications));
                let shows_time = self.namespace(name).is_ok_and(|namespace| namespace.show_time);
                (Answer::History { id: *id, result, shows_time }, is_cut)
            }
        };
        match allowance {
            Some(allowance) if is_too_long && allowance.may_grow() => {
                self.ask_for_more(from, name.clone(), read.into(), allowance);
            }
            allowance => self.send_answer(from, answer, allowance),
        }
    }

    async fn do_call(&self, name: &TopicName, call: TopicCall) {
        // A caller that has gone needs no answer.
        match call {
            TopicCall::Presence { bytes_max, reply } => {
                let _ = reply.send(self.presence(name, bytes_max).await);
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
            TopicCall::Barrier(reached) => drop(reached),
        }
    }

    async fn do_admit(&self, name: &TopicName, admission: HolderAdmission) {
        let HolderAdmission { holder, from, member, connections_max } = admission;
        let client = member.info.client;
        let result = self.engine.admit(name, member, connections_max).await;
        // This shard owns the holder too.
        let counted = UserMessage::Counted { holder, client, from, result };
        self.inboxes.all[self.shard].send(ShardMessage::User(counted));
    }

    async fn presence(
        &self,
        name: &TopicName,
        bytes_max: usize,
    ) -> Result<Vec<Arc<ClientInfo>>, RequestError> {
        self.engine.presence(name, bytes_max).await.map_err(error)
    }

    async fn history(&self, name: &TopicName, query: HistoryCall) -> Result<HistoryPage, RequestError> {
        let HistoryBounds { meta_ttl, .. } =
            self.namespace(name)?.history.ok_or(RequestError::NotAvailable)?;
        let since = query.since.as_ref().map(|since| Since { offset: since.offset, epoch: &since.epoch });
        let query = HistoryQuery { limit: query.limit, since, reverse: query.reverse };
        self.engine.history(name, query, meta_ttl).await.map_err(error)
    }

    /// Ignores the result of a call for which no client waits.
    pub(super) fn ignore(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "a call to the engine for which no client waits failed");
        }
    }
}

fn page_bytes(page: &HistoryPage) -> usize {
    page.publications.iter().map(|publication| publication.answer_bytes()).sum()
}

pub(super) fn error(error: EngineError) -> RequestError {
    match error {
        EngineError::UnrecoverablePosition => RequestError::UnrecoverablePosition,
        EngineError::TooLong => RequestError::LimitExceeded,
        EngineError::Unavailable | EngineError::Foreign | EngineError::Full | EngineError::Refused => {
            RequestError::Internal
        }
    }
}
