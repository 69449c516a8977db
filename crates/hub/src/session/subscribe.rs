//! Subscribing: the checks in the order the protocol states, the request to the topic's owner, the result.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::filter::Filter;
use fanwire_protocol::reason::{Close, CloseReason, Left, Mistake, RequestError, Unserved, Unsubscribed};
use fanwire_protocol::reply::{Outcome, Push, Subscribed};
use fanwire_protocol::request::{Request, StreamPosition, Subscribe, SubscribeExtras};
use fanwire_protocol::{ClientInfo, Position, TopicName};

use super::asking::Step;
use super::subscription::{Subscription, Traits};
use super::timing::{AlreadyOver, token_ttl};
use super::{Context, Refusal, Session, named};
use crate::effect::{Completion, Effect, Membership, RecoveryRequest, SubscriptionStart, TopicRequest};
use crate::hook::{HookEvent, SubscribeGrant};
use crate::hook_settings::HookSlot;
use crate::namespace::SlowPolicy;
use crate::permission::{Asker, may_read_history, may_read_presence, may_subscribe, subscribe_hook};
use crate::registry::SubscriberKind;
use crate::{GrantOptions, NameError, Namespace, RecoveryMode, SubscriptionClaims, TokenError};

/// The party that wants the subscription, and so is told of it.
#[derive(Debug)]
pub(super) enum Initiator {
    /// The client, by the request of this id.
    Request(u32),
    /// The server, as part of connect.
    Connect,
    /// The server, asked by its API.
    Api(Box<Completion>),
}

/// The party that opens a topic to a client.
#[derive(Debug)]
enum Warrant {
    Namespace,
    Token(Box<SubscriptionClaims>),
    /// It is yet to be asked.
    Hook(HookSlot),
}

/// A subscription that passed every check.
#[derive(Debug)]
pub(super) struct Plan {
    initiator: Initiator,
    options: GrantOptions,
    wishes: Wishes,
    /// Seconds until the credentials end.
    ttl: Option<u32>,
    known: Option<StreamPosition>,
    or_refuse: bool,
    filter: Option<Arc<Filter>>,
}

impl Plan {
    /// For a request that was checked.
    #[inline(always)]
    fn by_client(id: u32, options: GrantOptions, wishes: Wishes, request: Subscribe) -> Self {
        let (known, filter) = match request.extras {
            None => (None, None),
            Some(extras) => (extras.since, extras.filter.and_then(Result::ok)),
        };
        let or_refuse = request.or_refuse;
        Self { initiator: Initiator::Request(id), options, wishes, ttl: None, known, or_refuse, filter }
    }

    pub(super) fn by_server(
        initiator: Initiator,
        options: GrantOptions,
        known: Option<StreamPosition>,
    ) -> Self {
        Self {
            initiator,
            options,
            wishes: Wishes::default(),
            ttl: None,
            known,
            or_refuse: false,
            filter: None,
        }
    }

    pub(super) fn living(self, ttl: Option<u32>) -> Self {
        Self { ttl, ..self }
    }

    /// For a client that keeps its places.
    pub(super) fn with_position(self) -> Self {
        Self { wishes: Wishes { positioned: true, recoverable: true, ..self.wishes }, ..self }
    }

    /// For a client that others are not to be told of, if it is `unseen`.
    pub(super) fn unseen(self, unseen: bool) -> Self {
        Self { wishes: Wishes { unseen, ..self.wishes }, ..self }
    }
}

/// A subscribe of the client, checked before it is carried out.
#[derive(Debug)]
pub(super) struct PlannedSubscribe {
    pub(super) id: u32,
    /// Nothing if there is a plan for the topic already.
    pub(super) plan: Option<(TopicName, Plan)>,
}

/// The options that a client asks for, and gets where its namespace allows them.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    positioned: bool,
    recoverable: bool,
    join_leave: bool,
    unseen: bool,
}

/// A subscription on its way to the topic's owner.
#[derive(Debug)]
pub(super) struct Subscribing {
    pub(super) topic: TopicName,
    initiator: Initiator,
    traits: Traits,
    ttl: Option<u32>,
    /// Its hook prolongs it, so its client is not told of the end.
    is_renewed_by_hook: bool,
    data: Bytes,
    shows_time: bool,
    /// The topic has the status of a user, which is the data of the subscription too.
    tells_status: bool,
    has_own_info: bool,
    /// It asks for what it missed.
    was_recovering: bool,
    filter: Option<Arc<Filter>>,
    /// Later requests for the topic.
    pub(super) waiting: VecDeque<Request>,
    /// The server wants the subscription ended as soon as it is made.
    pub(super) end_with: Option<Unsubscribed>,
}

impl Subscribing {
    pub(super) fn is_positioned(&self) -> bool {
        self.traits.positioned
    }

    /// Returns the subscription as its client is told of it.
    fn into_subscribed(self, mut start: SubscriptionStart) -> (Initiator, Subscribed) {
        if let Some((filter, recovered)) = self.filter.as_ref().zip(start.recovered.as_mut()) {
            recovered.retain(|publication| filter.takes(publication.tags.as_deref()));
        }
        let status = start.recovered.as_ref().filter(|_| self.tells_status).and_then(|told| told.first());
        let data = status.map_or(self.data, |status| status.data.clone());
        let Traits { positioned, recoverable, .. } = self.traits;
        let subscribed = Subscribed {
            ttl: self.ttl.filter(|_| !self.is_renewed_by_hook),
            positioned,
            recoverable,
            was_recovering: self.was_recovering,
            top: start.position.filter(|_| positioned),
            recovered: start.recovered,
            shows_time: self.shows_time,
            data,
        };
        (self.initiator, subscribed)
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, context: &mut Context<'_>, id: u32, request: Subscribe) {
        match self.plan_subscribe(context, id, request) {
            Ok(Some((topic, namespace, plan))) => self.request_subscription(context, topic, namespace, plan),
            // A hook is asked.
            Ok(None) => {}
            Err(refusal) => self.refuse(context, id, refusal),
        }
    }

    /// Checks what the subscription would be by this request. Where a hook decides on it, the hook is asked, and nothing
    /// returned.
    #[inline(always)]
    pub(super) fn plan_subscribe<'a>(
        &mut self,
        context: &mut Context<'a>,
        id: u32,
        request: Subscribe,
    ) -> Result<Option<(TopicName, &'a Namespace, Plan)>, Refusal> {
        let (topic, namespace, warrant) = self.check_subscribe(context, &request)?;
        let claims = match warrant {
            Warrant::Namespace => None,
            Warrant::Token(claims) => Some(claims),
            Warrant::Hook(slot) => {
                self.ask_to_subscribe(context, slot, id, topic, request);
                return Ok(None);
            }
        };
        let plan = plan_subscription(context, namespace, id, request, claims)?;
        Ok(Some((topic, namespace, plan)))
    }

    #[cold]
    fn ask_to_subscribe(
        &mut self,
        context: &mut Context<'_>,
        slot: HookSlot,
        id: u32,
        topic: TopicName,
        mut request: Subscribe,
    ) {
        let data = request.extras.as_mut().map(|extras| std::mem::take(&mut extras.data));
        let event = HookEvent::Subscribe { topic: topic.clone(), data: data.unwrap_or_default() };
        let step = Step::Subscribe { id, topic, request: request.into(), end_with: None };
        self.question(context, slot, event, step);
    }

    /// The protocol's checks, in its order. Returns what opens the topic to the client.
    fn check_subscribe<'a>(
        &self,
        context: &Context<'a>,
        request: &Subscribe,
    ) -> Result<(TopicName, &'a Namespace, Warrant), Refusal> {
        let topic = named(&request.topic)?;
        if request.unserved == Some(Unserved::Delta) {
            return Err(Close::mistake(Mistake::Unserved(Unserved::Delta)).into());
        }
        if topic.as_str().len() > context.namespaces.rules.length_max {
            return Err(NameError::TooLong.into());
        }
        if self.is_subscribed_or_about_to(context, &topic) {
            return Err(RequestError::AlreadySubscribed.into());
        }
        if self.is_at_limit(context) {
            return Err(RequestError::LimitExceeded.into());
        }
        let namespace = context.namespace(&topic)?;
        if request.unserved == Some(Unserved::Kind) {
            return Err(RequestError::PermissionDenied.into());
        }
        let warrant = self.warrant(context, namespace, &topic, &request.token)?;
        if let Some(unserved) = request.unserved {
            return Err(Mistake::Unserved(unserved).into());
        }
        if let Some(extras) = &request.extras {
            check_filter(context, namespace, &topic, extras)?;
        }
        Ok((topic, namespace, warrant))
    }

    fn warrant(
        &self,
        context: &Context<'_>,
        namespace: &Namespace,
        topic: &TopicName,
        token: &str,
    ) -> Result<Warrant, Refusal> {
        if token.is_empty() {
            if let Some(slot) = subscribe_hook(context.namespaces, namespace, topic) {
                return Ok(Warrant::Hook(slot));
            }
            let may =
                may_subscribe(context.settings, context.namespaces, namespace, topic, self.asking_user());
            return if may { Ok(Warrant::Namespace) } else { Err(RequestError::PermissionDenied.into()) };
        }
        let claims = context.tokens.subscription(token, context.now.unix()).map_err(|error| match error {
            TokenError::Expired => RequestError::TokenExpired,
            TokenError::Invalid(_) => RequestError::PermissionDenied,
            TokenError::Unavailable => RequestError::Internal,
        })?;
        match self.is_for(&claims, topic) {
            true => Ok(Warrant::Token(claims.into())),
            false => Err(CloseReason::InvalidToken.into()),
        }
    }

    pub(super) fn is_subscribed_or_about_to(&self, context: &Context<'_>, topic: &TopicName) -> bool {
        self.subscription(context, topic).is_some()
            || self.subscribing(topic).is_some()
            || self.asks_to_subscribe(topic)
            || self.prepared().is_some_and(|prepared| prepared.has(topic))
    }

    /// Returns true if the session has all the subscriptions it may have, those on their way, asked about and prepared
    /// included.
    pub(super) fn is_at_limit(&self, context: &Context<'_>) -> bool {
        let on_their_way = self.work.as_ref().map_or(0, |work| work.subscribing.len());
        let prepared = self.prepared().map_or(0, |prepared| prepared.subscriptions_count());
        let wanted = on_their_way + prepared + self.asked_subscriptions();
        self.subscriptions.len() + wanted >= context.settings.subscriptions_max
    }

    /// Returns true if a subscription token is for this topic and this client.
    pub(super) fn is_for(&self, claims: &SubscriptionClaims, topic: &TopicName) -> bool {
        *claims.topic == *topic.as_str()
            && *claims.user == *self.asking_user()
            && (claims.client.is_empty() || *claims.client == *self.client.to_string())
    }

    /// Asks the topic's owner for the subscription.
    pub(super) fn request_subscription(
        &mut self,
        context: &mut Context<'_>,
        topic: TopicName,
        namespace: &Namespace,
        plan: Plan,
    ) {
        let Plan { initiator, options, wishes, ttl, known, or_refuse, filter } = plan;
        let Some(client_info) = self.info.clone() else { return };
        let traits = traits(context, namespace, &options, &wishes, &initiator, &client_info.user);
        if let Initiator::Api(completion) = &initiator
            && traits.positioned
            && self.has_full_cursor()
        {
            // The client would go on without it, and not be told that something is missing.
            return (completion.0)(RequestError::LimitExceeded);
        }
        let wanted = wanted(namespace, traits, known, or_refuse);
        let has_own_info = !options.info.is_empty();
        let info = match has_own_info {
            false => client_info,
            true => Arc::new(ClientInfo { subscription: options.info, ..ClientInfo::clone(&client_info) }),
        };
        if let Initiator::Request(_) = initiator {
            self.asked = self.asked.saturating_add(1);
        }
        self.work().subscribing.push(Subscribing {
            topic: topic.clone(),
            initiator,
            traits,
            ttl,
            is_renewed_by_hook: namespace.hooks.sub_refresh.is_some(),
            data: options.data,
            shows_time: namespace.show_time,
            tells_status: namespace.status,
            has_own_info,
            was_recovering: wanted.known().is_some(),
            filter,
            waiting: VecDeque::new(),
            end_with: None,
        });
        let membership = Membership { info, presence: traits.presence, join_leave: traits.join_leave };
        context.effects.push(Effect::Topic(topic, TopicRequest::Subscribe { membership, wanted }));
    }

    /// The topic's owner answered: from now on the connection gets what the topic brings.
    pub(super) fn subscribed(
        &mut self,
        context: &mut Context<'_>,
        topic: TopicName,
        membership: Membership,
        result: Result<SubscriptionStart, RequestError>,
    ) {
        let Some(place) = self.subscribing(&topic) else {
            // Connect failed meanwhile, and nobody waits for this subscription any more.
            if result.is_ok() {
                context.effects.push(Effect::unsubscribe(topic, membership, Left::Refused));
            }
            return;
        };
        let mut subscribing = self.work().subscribing.swap_remove(place);
        if let Initiator::Request(_) = subscribing.initiator {
            self.asked = self.asked.saturating_sub(1);
        }
        let waiting = std::mem::take(&mut subscribing.waiting);
        self.work().release(&waiting);
        let end_with = subscribing.end_with.take();
        match result {
            Err(error) => match subscribing.initiator {
                Initiator::Request(id) => context.refuse(id, error),
                Initiator::Connect => self.connect_subscribed(context, &topic, Err(error)),
                Initiator::Api(completion) => (completion.0)(error),
            },
            Ok(mut start) => {
                if let Some(recovered) = &mut start.recovered {
                    recovered.retain(|publication| !publication.excludes(self.client));
                }
                self.add_subscription(context, &topic, &subscribing, membership, start.position);
                let (initiator, subscribed) = subscribing.into_subscribed(start);
                match initiator {
                    Initiator::Request(id) => context.reply(id, Outcome::Subscribed(subscribed)),
                    Initiator::Connect => self.connect_subscribed(context, &topic, Ok(subscribed)),
                    Initiator::Api(_) => push_subscribed(context, &topic, subscribed),
                }
            }
        }
        if let Some(reason) = end_with {
            self.unsubscribe_topic(context, &topic, reason);
        }
        if !waiting.is_empty() {
            self.serve_waiting(context, waiting);
        }
        self.rest();
    }

    fn add_subscription(
        &mut self,
        context: &mut Context<'_>,
        topic: &TopicName,
        subscribing: &Subscribing,
        membership: Membership,
        position: Option<Position>,
    ) {
        let traits = subscribing.traits;
        let wire = self.mode.wire;
        let kind = SubscriberKind { wire, joins: traits.joins, slow: traits.slow, is_filtered: false };
        let (slot, place) = context.registry.add_filtered(
            topic,
            context.connection.slot,
            kind,
            traits.positioned,
            subscribing.filter.clone(),
        );
        if let Some(position) = position {
            context.registry.set_position(slot, position);
        }
        let info = self.info_now(context, topic, traits, membership.info);
        self.subscriptions.add(Subscription {
            topic: slot,
            place,
            close_at: Self::subscription_close_at(context, subscribing.ttl, subscribing.is_renewed_by_hook),
            traits,
            info: subscribing.has_own_info.then_some(info),
        });
        self.note_subscription_end();
    }

    /// Returns the client's info for a new subscription. The connection's credentials may have been refreshed while it
    /// was on its way, and then the topic's owner has to know.
    fn info_now(
        &self,
        context: &mut Context<'_>,
        topic: &TopicName,
        traits: Traits,
        sent: Arc<ClientInfo>,
    ) -> Arc<ClientInfo> {
        let Some(own) = self.info.as_ref().filter(|own| own.connection != sent.connection) else {
            return sent;
        };
        let subscription = sent.subscription.clone();
        let info = Arc::new(ClientInfo { subscription, ..ClientInfo::clone(own) });
        if traits.presence {
            let update = TopicRequest::UpdatePresence { info: info.clone(), join_leave: traits.join_leave };
            context.effects.push(Effect::Topic(topic.clone(), update));
        }
        info
    }
}

/// Checks the filter that the client asks for.
fn check_filter(
    context: &Context<'_>,
    namespace: &Namespace,
    topic: &TopicName,
    extras: &SubscribeExtras,
) -> Result<(), Refusal> {
    let Some(filter) = &extras.filter else { return Ok(()) };
    if !namespace.allow_tags_filter {
        return Err(Mistake::Unserved(Unserved::TagFilter).into());
    }
    match filter {
        Err(error) => Err(Mistake::Filter(*error).into()),
        Ok(filter) if context.registry.has_room_for(topic, filter) => Ok(()),
        Ok(_) => Err(RequestError::LimitExceeded.into()),
    }
}

/// Checks what the subscription would be by these claims.
#[inline(always)]
fn plan_subscription(
    context: &Context<'_>,
    namespace: &Namespace,
    id: u32,
    request: Subscribe,
    claims: Option<Box<SubscriptionClaims>>,
) -> Result<Plan, Refusal> {
    let (options, ttl) = match claims {
        None => (GrantOptions::default(), None),
        Some(claims) => {
            let ttl = token_ttl(claims.expiry, context.settings, context.now)
                .map_err(|AlreadyOver| RequestError::Expired)?;
            claims.check(namespace)?;
            (claims.options, ttl)
        }
    };
    let wishes = Wishes {
        positioned: request.positioned,
        recoverable: request.recoverable,
        join_leave: request.join_leave,
        unseen: request.unseen,
    };
    Ok(Plan { ttl, ..Plan::by_client(id, options, wishes, request) })
}

/// Checks what the subscription would be as a hook grants it. The client's wishes count for nothing.
pub(super) fn plan_hooked_subscription(
    context: &Context<'_>,
    namespace: &Namespace,
    id: u32,
    request: Subscribe,
    grant: SubscribeGrant,
) -> Result<Plan, Refusal> {
    let SubscribeGrant { options, expiry } = grant;
    let ttl =
        token_ttl(expiry, context.settings, context.now).map_err(|AlreadyOver| RequestError::Expired)?;
    options.check(namespace.publication_format, ["info", "data"])?;
    let wishes = Wishes { unseen: request.unseen, ..Wishes::default() };
    Ok(Plan { ttl, ..Plan::by_client(id, options, wishes, request) })
}

/// Returns the traits of a subscription: the namespace's options, the token's overrides on top, then the wishes
/// that the namespace grants.
fn traits(
    context: &Context<'_>,
    namespace: &Namespace,
    options: &GrantOptions,
    wishes: &Wishes,
    initiator: &Initiator,
    user: &str,
) -> Traits {
    let overrides = options.overrides;
    let asker = Asker::subscriber(user);
    let may_read_history = may_read_history(context.settings, namespace, asker);
    let has_history = namespace.history.is_some();
    let recoverable = has_history
        && (overrides.force_recovery.unwrap_or(namespace.force_recovery)
            || (wishes.recoverable && (namespace.allow_recovery || may_read_history)));
    let positioned = recoverable
        || (has_history
            && (overrides.force_positioning.unwrap_or(namespace.force_positioning)
                || (wishes.positioned && (namespace.allow_positioning || may_read_history))));
    let join_leave = !wishes.unseen && overrides.join_leave.unwrap_or(namespace.join_leave);
    let force_joins = overrides.force_push_join_leave.unwrap_or(namespace.force_push_join_leave);
    // Whoever has a position in a stream would miss what is dropped: closed, it comes back and recovers.
    let is_gapless = positioned && namespace.recovery_mode == RecoveryMode::Stream;
    let wishes_joins = wishes.join_leave && may_read_presence(context.settings, namespace, asker);
    Traits {
        presence: !wishes.unseen && overrides.presence.unwrap_or(namespace.keeps_members()),
        join_leave,
        joins: join_leave && (force_joins || wishes_joins),
        positioned,
        recoverable,
        server_side: !matches!(initiator, Initiator::Request(_)),
        slow: if is_gapless { SlowPolicy::Close } else { namespace.slow_policy },
    }
}

fn wanted(
    namespace: &Namespace,
    traits: Traits,
    known: Option<StreamPosition>,
    or_refuse: bool,
) -> RecoveryRequest {
    if !traits.positioned {
        return RecoveryRequest::Nothing;
    }
    let known = known.filter(|_| traits.recoverable);
    match (namespace.recovery_mode, known) {
        (RecoveryMode::Stream, Some(known)) => RecoveryRequest::Since { known, or_refuse },
        (RecoveryMode::Cache, Some(known)) => RecoveryRequest::Newest(known),
        (RecoveryMode::Cache, None) if traits.recoverable && namespace.auto_cache_recover => {
            RecoveryRequest::Newest(StreamPosition::default())
        }
        (_, None) => RecoveryRequest::Position,
    }
}

/// Tells the client of a subscription that it did not ask for, and then of what it missed.
fn push_subscribed(context: &mut Context<'_>, topic: &TopicName, subscription: Subscribed) {
    let (recovered, shows_time) = (subscription.recovered.clone(), subscription.shows_time);
    let epoch = subscription.top.map(|top| top.epoch);
    context.push(Push::Subscribed { topic: topic.clone(), subscription });
    for publication in recovered.into_iter().flatten() {
        context.push(Push::Publication { topic: topic.clone(), publication, epoch, shows_time });
    }
}
