//! What a topic's owner is asked, and the plain part of doing it: publishes and reads, each one call of the engine.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_broker::{EngineError, HistoryQuery, Member, PresenceStats, Publish, Published, Since};
use fanwire_hub::HistoryBounds;
use fanwire_hub::effect::{Answer, KnownPosition, Membership, Wanted};
use fanwire_protocol::{ClientId, ClientInfo, Disconnect, ErrorCode, Position, Publication, TopicName};
use tokio::sync::oneshot;

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
    Subscribe(Subscribe),
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

/// A subscription that a client wants.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub from: Address,
    pub membership: Membership,
    pub wanted: Wanted,
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
            Job::Subscribe(subscribe) => self.do_subscribes(name, subscribe).await,
            Job::Unsubscribe(from, membership) => self.do_unsubscribes(name, from, membership).await,
            Job::UpdatePresence(info, join_leave) => {
                self.ignore(self.engine.add_presence(name, vec![Member::new(info, join_leave)]).await);
            }
            Job::Publish(publish, publisher) => self.do_publish(name, publish, publisher).await,
            Job::Read(from, command, read) => self.do_read(name, from, command, read).await,
            Job::Call(call) => self.do_call(name, call).await,
            Job::Repair => self.repair(name).await,
            Job::Admit(admission) => self.do_admit(name, admission).await,
            Job::Dismiss(client) => self.ignore(self.engine.remove_presence(name, client).await),
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

    /// For what is done on the way out, when nobody is left to tell.
    pub(super) fn ignore(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the engine did not follow a departure");
        }
    }
}

pub(super) fn error(error: EngineError) -> ErrorCode {
    match error {
        EngineError::UnrecoverablePosition => ErrorCode::UNRECOVERABLE_POSITION,
        EngineError::Unavailable | EngineError::Foreign | EngineError::Full | EngineError::Refused => {
            ErrorCode::INTERNAL
        }
    }
}
