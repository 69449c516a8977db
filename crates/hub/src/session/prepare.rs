//! The requests that a connection begins with, where all of them are to be granted or none: each is checked when it is
//! given, and nothing follows from any before the last was.

use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{Close, Mistake, RequestError};
use fanwire_protocol::request::{Ask, Connect, Request, Subscribe};

use super::connect::ConnectionPlan;
use super::subscribe::{Plan, PlannedSubscribe};
use super::{Context, Phase, Refusal, Session};

/// The beginning of a connection, as far as it passed every check.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The id of the connect request.
    id: u32,
    connection: ConnectionPlan,
    subscribes: Vec<PlannedSubscribe>,
}

impl Prepared {
    pub(super) fn has(&self, topic: &TopicName) -> bool {
        let by_server = self.by_server().map(|(planned, _)| planned);
        let mut planned = by_server.chain(self.planned().map(|(planned, _)| planned));
        planned.any(|planned| planned == topic)
    }

    pub(super) fn subscriptions_count(&self) -> usize {
        self.by_server().count() + self.planned().count()
    }

    fn by_server(&self) -> impl Iterator<Item = &(TopicName, Plan)> {
        self.connection.subscriptions.iter().flat_map(|subscriptions| &subscriptions.by_server)
    }

    fn planned(&self) -> impl Iterator<Item = &(TopicName, Plan)> {
        self.subscribes.iter().filter_map(|subscribe| subscribe.plan.as_ref())
    }
}

impl Session {
    /// Checks a request that the connection begins with: connect, then any subscribes. A refusal of one refuses the
    /// connection. Nothing else follows before [`Session::begin`], and requests that are not to be prepared come behind it.
    pub fn prepare(&mut self, context: &mut Context<'_>, request: Request) {
        if self.phase != Phase::Fresh {
            return;
        }
        match context.keys_for(&request.ask) {
            Some(keys) => self.wait_for_keys(context, keys, request),
            None => self.prepare_with_keys(context, request),
        }
    }

    /// Checks such a request whose token, if it has one, can be verified or not.
    pub(super) fn prepare_with_keys(&mut self, context: &mut Context<'_>, request: Request) {
        let Request { id, ask } = request;
        let checked = match ask {
            Ask::Connect(connect) if self.prepared().is_none() => self.prepare_connect(context, id, connect),
            Ask::Connect(_) => Err(Close::mistake(Mistake::SecondConnect).into()),
            Ask::Subscribe(subscribe) if self.prepared().is_some() => {
                self.prepare_subscribe(context, id, subscribe)
            }
            _ => Err(Close::mistake(Mistake::NoConnect).into()),
        };
        if let Err(refusal) = checked {
            self.refuse_to_connect(context, id, refusal);
        }
    }

    /// Begins with what was prepared, unless part of it waits for a hook or for keys: connects, and asks for the subscriptions once that is answered. Each request gets its
    /// reply. After a refusal there is nothing to begin with.
    pub fn begin(&mut self, context: &mut Context<'_>) {
        if self.is_preparing() {
            return;
        }
        if let Some(prepared) = self.work.as_mut().and_then(|work| work.prepared.take()) {
            let Prepared { id, mut connection, subscribes } = *prepared;
            if !subscribes.is_empty() {
                connection.subscriptions.get_or_insert_default().subscribes = subscribes;
            }
            self.admit(context, id, connection);
        }
    }

    fn prepare_connect(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        connect: Connect,
    ) -> Result<(), Refusal> {
        if let Some(connection) = self.plan_connect(context, id, connect)? {
            self.prepare_connection(id, connection);
        }
        Ok(())
    }

    /// The connect request passed its checks.
    pub(super) fn prepare_connection(&mut self, id: u32, connection: ConnectionPlan) {
        self.work().prepared = Some(Box::new(Prepared { id, connection, subscribes: Vec::new() }));
    }

    /// A subscribe passed its checks.
    pub(super) fn prepare_subscription(&mut self, id: u32, plan: Option<(TopicName, Plan)>) {
        if let Some(prepared) = &mut self.work().prepared {
            prepared.subscribes.push(PlannedSubscribe { id, plan });
        }
    }

    fn prepare_subscribe(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        subscribe: Subscribe,
    ) -> Result<(), Refusal> {
        let subscribes = self.prepared().map_or(0, |prepared| prepared.subscribes.len());
        if subscribes >= context.settings.subscriptions_max {
            return Err(RequestError::LimitExceeded.into());
        }
        if !self.may_request(context) {
            return Err(RequestError::TooManyRequests.into());
        }
        let plan = match self.plan_subscribe(context, id, subscribe) {
            Ok(Some((topic, _, plan))) => Some((topic, plan)),
            Ok(None) => return Ok(()),
            // The client gets what it wants, by the connection token say.
            Err(Refusal::Error(RequestError::AlreadySubscribed)) => None,
            Err(refusal) => return Err(refusal),
        };
        self.prepare_subscription(id, plan);
        Ok(())
    }

    pub(super) fn prepared(&self) -> Option<&Prepared> {
        self.work.as_ref()?.prepared.as_deref()
    }

    /// Returns the user who asks: before the connection has begun, the one that it is to belong to.
    pub(super) fn asking_user(&self) -> &str {
        self.prepared().map_or(self.user(), |prepared| &prepared.connection.user)
    }

    /// Asks for the subscriptions that were prepared.
    pub(super) fn request_prepared(&mut self, context: &mut Context<'_>, subscribes: Vec<PlannedSubscribe>) {
        for PlannedSubscribe { id, plan } in subscribes {
            let Some((topic, plan)) = plan else {
                context.refuse(id, RequestError::AlreadySubscribed);
                continue;
            };
            // Every plan was made for a topic that has a namespace.
            let Ok(namespace) = context.namespace(&topic) else { continue };
            self.request_subscription(context, topic, namespace, plan);
        }
    }
}
