//! The connect request: who the client is, and which topics the server subscribes it to before it answers.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::cursor::Cursor;
use fanwire_protocol::reason::{Close, CloseReason, Left, Mistake, RequestError};
use fanwire_protocol::reply::{Connected, Outcome, Reply, Subscribed};
use fanwire_protocol::request::{Ask, Connect, Request, StreamPosition};
use fanwire_protocol::wire::Pings;
use fanwire_protocol::{ClientInfo, TopicName};
use rustc_hash::FxHasher;

use super::asking::Step;
use super::subscribe::{Initiator, Plan, PlannedSubscribe};
use super::timing::{AlreadyOver, token_ttl};
use super::{Context, Now, Phase, Refusal, Session, Verify};
use crate::effect::Effect;
use crate::hook::HookEvent;
use crate::hook_settings::HookSlot;
use crate::kept::{Kept, META_TOO_LONG, TooLong};
use crate::permission::may_subscribe;
use crate::{
    ClaimExtras, ClientSettings, ConnectionClaims, Expiry, GrantOptions, NameError, TokenError, TokenKind,
    TopicGrant,
};

/// A connection that passed every check.
#[derive(Debug)]
pub(super) struct ConnectionPlan {
    pub(super) user: Box<str>,
    info: Bytes,
    /// The fingerprint of what the token grants.
    grants: u64,
    /// Seconds until the credentials end.
    ttl: Option<u32>,
    /// `None`: there are none.
    pub(super) subscriptions: Option<Box<ConnectSubscriptions>>,
    /// Handed to the client; empty: nothing.
    data: Box<[u8]>,
}

impl ConnectionPlan {
    /// With data for the client.
    pub(super) fn with_data(self, data: &[u8]) -> Self {
        Self { data: data.into(), ..self }
    }
}

/// A connect request whose answer is being put together.
#[derive(Debug)]
pub(super) struct Connecting {
    id: u32,
    result: Box<Connected>,
    /// Seconds until the credentials end, though the client may not be told.
    ttl: Option<u32>,
    /// Subscriptions on their way.
    outstanding: u32,
    subscriptions: Option<Box<ConnectSubscriptions>>,
    error: Option<RequestError>,
}

/// The subscriptions that a connection begins with. Most begin without any.
#[derive(Debug, Default)]
pub(super) struct ConnectSubscriptions {
    /// Those that the server makes once the user is registered.
    pub(super) by_server: Vec<(TopicName, Plan)>,
    /// Subscribes of the client that were prepared with the connect request.
    pub(super) subscribes: Vec<PlannedSubscribe>,
}

impl Session {
    pub(super) fn connect(&mut self, context: &mut Context<'_>, id: u32, request: Connect) {
        if !request.token.is_empty()
            && let Some(keys) = context.tokens.awaits_keys(TokenKind::Connection, &request.token)
        {
            self.phase = Phase::Connecting;
            return self.wait_for_keys(context, keys, Request { id, ask: Ask::Connect(request) });
        }
        self.connect_with_keys(context, id, request);
    }

    /// Connects by a token that can be verified or not, or without one.
    #[inline(always)]
    pub(super) fn connect_with_keys(&mut self, context: &mut Context<'_>, id: u32, request: Connect) {
        match self.plan_connect(context, id, request) {
            Ok(Some(plan)) => self.admit(context, id, plan),
            // A hook is asked.
            Ok(None) => self.phase = Phase::Connecting,
            Err(refusal) => self.refuse_to_connect(context, id, refusal),
        }
    }

    /// Checks what the client would be by this request. Where a hook knows clients without a token, it is asked, and
    /// nothing returned.
    #[inline(always)]
    pub(super) fn plan_connect(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        mut request: Connect,
    ) -> Result<Option<ConnectionPlan>, Refusal> {
        if let Some(extras) = &mut request.extras {
            self.keep_headers(context, std::mem::take(&mut extras.headers))?;
        }
        let hook = context.settings.hooks.connect.filter(|_| request.token.is_empty());
        let (plan, extras) = match hook {
            None => {
                let (plan, extras) = plan_connect(context, request)?;
                (Some(plan), extras)
            }
            Some(slot) => {
                self.ask_to_connect(context, slot, id, request);
                (None, None)
            }
        };
        if self.work.is_some() && !context.settings.hooks.kept.outlasts_connect {
            self.keep(Kept::default());
        }
        if let Some(extras) = extras {
            self.keep_extras(context, *extras)?;
        }
        Ok(plan)
    }

    /// Keeps what few tokens have.
    #[cold]
    #[inline(never)]
    pub(super) fn keep_extras(
        &mut self,
        context: &mut Context<'_>,
        extras: ClaimExtras,
    ) -> Result<(), Close> {
        let ClaimExtras { meta, print } = extras;
        // In the turn in which the token was verified: a revocation comes before it or finds the connection.
        context.effects.extend(print.map(Effect::Token));
        // A token that says nothing leaves what an earlier one said.
        if !meta.is_empty() {
            self.keep_meta(context, meta).map_err(|TooLong| Close::unfit_token(META_TOO_LONG))?;
        }
        Ok(())
    }

    #[cold]
    fn ask_to_connect(&mut self, context: &mut Context<'_>, slot: HookSlot, id: u32, mut request: Connect) {
        let (data, version) = request.extras.as_mut().map_or_else(Default::default, |extras| {
            (std::mem::take(&mut extras.data), std::mem::take(&mut extras.version))
        });
        let event = HookEvent::Connect {
            data,
            name: std::mem::take(&mut request.name).into(),
            version: version.into(),
            topics: request.topics.iter().map(|(topic, _)| (&**topic).into()).collect(),
        };
        self.question(context, slot, event, Step::Connect { id, request: request.into() });
        self.close_later(context);
    }

    /// Keeps headers of the client's own word, as far as hooks are sent them, beside those of its request.
    fn keep_headers(&mut self, context: &Context<'_>, headers: Vec<(String, String)>) -> Result<(), Refusal> {
        let rules = &context.settings.hooks.kept;
        if rules.emulated.is_empty() || headers.is_empty() {
            return Ok(());
        }
        let kept = self.work.as_ref().and_then(|work| work.kept.as_deref().cloned());
        let kept = kept.unwrap_or_default().with_emulated(rules, headers);
        self.keep(kept.map_err(|TooLong| Close::mistake(Mistake::TooManyHeaders))?);
        Ok(())
    }

    /// Refuses a request without which the client is not to be connected.
    pub(super) fn refuse_to_connect(&mut self, context: &mut Context<'_>, id: u32, refusal: Refusal) {
        self.refuse(context, id, refusal);
        if self.phase != Phase::Closed {
            self.refuse_connection(context);
        }
    }

    /// Makes the client who its plan says it is, and has it counted where connections are limited.
    #[inline(always)]
    pub(super) fn admit(&mut self, context: &mut Context<'_>, id: u32, plan: ConnectionPlan) {
        let ConnectionPlan { user, info, grants, ttl, subscriptions, data } = plan;
        let client = self.client;
        self.grants = grants;
        self.info = Some(Arc::new(ClientInfo { user, client, connection: info, subscription: Bytes::new() }));
        let settings = context.settings;
        let is_told = matches!(self.mode.pings, Pings::Messages | Pings::Unanswered);
        let pinged = settings.ping_interval.filter(|_| is_told);
        let result = Box::new(Connected {
            client,
            version: context.version,
            ttl: ttl.filter(|_| settings.hooks.refresh.is_none()),
            data,
            ping_interval: pinged,
            pong: pinged.is_some() && self.mode.pings == Pings::Messages && settings.pong_timeout.is_some(),
            time_millis: settings.include_server_time.then_some(context.now.unix_millis),
            topics: Vec::new(),
            session: None,
        });
        self.phase = Phase::Connecting;
        self.work().connecting =
            Some(Connecting { id, result, ttl, outstanding: 0, subscriptions, error: None });
        match settings.address_connections_max {
            0 => self.address_registered(context, Ok(())),
            _ => context.effects.push(Effect::RegisterAddress),
        }
    }

    /// The address's connections were counted: have the user's counted, or give up.
    pub(super) fn address_registered(&mut self, context: &mut Context<'_>, result: Result<(), CloseReason>) {
        let single = context.settings.personal_topic.as_ref().is_some_and(|p| p.single_connection);
        match self.user() {
            _ if result.is_err() => self.registered(context, result),
            "" if context.settings.events.is_empty() => self.registered(context, result),
            "" => context.effects.push(Effect::Register { user: "".into(), single: false }),
            user => context.effects.push(Effect::Register { user: user.into(), single }),
        }
    }

    /// The connections of the address and the user were counted: make the server-side subscriptions, or give up.
    pub(super) fn registered(&mut self, context: &mut Context<'_>, result: Result<(), CloseReason>) {
        if let Err(reason) = result {
            // The user was not counted, so nothing is to be given back.
            self.info = None;
            return self.close(context, reason);
        }
        // The user is known to those who block one by now, so none slips through.
        if context.tokens.is_blocked(self.user(), context.now.unix()) {
            return self.close(context, CloseReason::PermissionDenied);
        }
        let Some(connecting) = self.work().connecting.as_mut() else { return };
        if let Some(subscriptions) = connecting.subscriptions.as_mut() {
            let plans = std::mem::take(&mut subscriptions.by_server);
            connecting.outstanding = plans.len() as u32;
            for (topic, plan) in plans {
                // Every plan was made for a topic that has a namespace.
                let Ok(namespace) = context.namespace(&topic) else { continue };
                self.request_subscription(context, topic, namespace, plan);
            }
        }
        self.finish_connect(context);
    }

    /// One server-side subscription of the connect was made, or was not.
    pub(super) fn connect_subscribed(
        &mut self,
        context: &mut Context<'_>,
        topic: &TopicName,
        result: Result<Subscribed, RequestError>,
    ) {
        let Some(connecting) = self.work().connecting.as_mut() else { return };
        connecting.outstanding -= 1;
        match result {
            Ok(subscribed) => connecting.result.topics.push((topic.clone(), subscribed)),
            Err(error) => connecting.error = Some(error),
        }
        self.finish_connect(context);
    }

    fn finish_connect(&mut self, context: &mut Context<'_>) {
        let work = self.work();
        let Some(connecting) = work.connecting.take_if(|connecting| connecting.outstanding == 0) else {
            return;
        };
        if let Some(error) = connecting.error {
            context.refuse(connecting.id, error);
            self.end(context, Left::Refused);
            // Nothing is left to give back when the connection goes.
            self.info = None;
            return self.refuse_connection(context);
        }
        let queued = (!work.queued.is_empty()).then(|| std::mem::take(&mut work.queued));
        if let Some(queued) = &queued {
            work.release(queued);
        }
        self.phase = Phase::Open;
        self.begin_pings(context);
        self.expire_after(context, connecting.ttl);
        let result = Ok(Outcome::Connected(connecting.result));
        context.effects.push(Effect::Open(Reply { id: connecting.id, result }));
        if let Some(subscriptions) = connecting.subscriptions {
            self.request_prepared(context, subscriptions.subscribes);
        }
        for request in queued.into_iter().flatten() {
            if self.phase == Phase::Open {
                self.serve(context, request);
            }
        }
        self.rest();
    }
}

/// Checks what a client would be by the token of this request.
#[inline(always)]
fn plan_connect(
    context: &Context<'_>,
    request: Connect,
) -> Result<(ConnectionPlan, Option<Box<ClaimExtras>>), Refusal> {
    let mut claims = claims(context.settings, context.tokens, context.now, &request.token)?;
    let extras = claims.extras.take();
    match plan_connection(context, claims, request) {
        Ok(plan) => Ok((plan, extras)),
        Err(Refusal::Unfit(unfit)) => Err(Close::unfit_token(unfit).into()),
        Err(refusal) => Err(refusal),
    }
}

/// Returns the claims that hold without a token.
pub(super) fn anonymous(settings: &ClientSettings) -> Result<ConnectionClaims, Refusal> {
    if !settings.insecure && !settings.allow_anonymous_connect_without_token {
        return Err(Close::mistake(Mistake::NoToken).into());
    }
    Ok(ConnectionClaims {
        user: "".into(),
        expiry: Expiry::Never,
        info: Bytes::new(),
        topics: Vec::new(),
        extras: None,
    })
}

/// Returns the claims of a token, or those that hold without one.
#[inline(always)]
pub(super) fn claims(
    settings: &ClientSettings,
    tokens: &dyn Verify,
    now: Now,
    token: &str,
) -> Result<ConnectionClaims, Refusal> {
    if token.is_empty() {
        return anonymous(settings);
    }
    let claims = tokens.connection(token, now.unix()).map_err(|error| match error {
        TokenError::Expired => Refusal::Error(RequestError::TokenExpired),
        TokenError::Invalid(_) => Refusal::Close(CloseReason::InvalidToken.into()),
        TokenError::Unavailable => Refusal::Error(RequestError::Internal),
    })?;
    if claims.user.is_empty() && settings.disallow_anonymous_connection_tokens && !settings.insecure {
        return Err(CloseReason::PermissionDenied.into());
    }
    Ok(claims)
}

/// Checks what a client would be by these claims, with the topics that it asks for.
#[inline(always)]
pub(super) fn plan_connection(
    context: &Context<'_>,
    claims: ConnectionClaims,
    request: Connect,
) -> Result<ConnectionPlan, Refusal> {
    let ttl = token_ttl(claims.expiry, context.settings, context.now)
        .map_err(|AlreadyOver| RequestError::Expired)?;
    let Connect { topics: asked, unseen, extras, .. } = request;
    let has_topics = !claims.topics.is_empty() || !asked.is_empty();
    let subscriptions = match has_topics || context.settings.personal_topic.is_some() {
        true => {
            let cursor = extras.and_then(|extras| extras.cursor);
            let by_server = plan_topics(context, &claims, asked, unseen, cursor)?;
            Some(ConnectSubscriptions { by_server, subscribes: Vec::new() }.into())
        }
        false => None,
    };
    claims.check(context.settings.info_format, context.namespaces)?;
    let grants = fingerprint(&claims.topics);
    Ok(ConnectionPlan {
        user: claims.user,
        info: claims.info,
        grants,
        ttl,
        subscriptions,
        data: Box::default(),
    })
}

/// The server-side subscriptions: what the token grants, the user's own topic, and what the client asks for and
/// could have without a token.
fn plan_topics(
    context: &Context<'_>,
    claims: &ConnectionClaims,
    asked: Vec<(String, Option<StreamPosition>)>,
    unseen: bool,
    cursor: Option<Box<Cursor>>,
) -> Result<Vec<(TopicName, Plan)>, Refusal> {
    let subscriptions_max = context.settings.subscriptions_max;
    let mut asked: HashMap<String, Option<StreamPosition>> = asked.into_iter().collect();
    let mut plans: Vec<(TopicName, Plan)> = Vec::new();
    let mut planned = HashSet::new();
    let mut add = |topic: TopicName, options: GrantOptions, since: Option<StreamPosition>| {
        if !planned.insert(topic.clone()) {
            return Ok(());
        }
        // Checked for each, so that a list that is too long costs no more than the longest that is accepted.
        if plans.len() == subscriptions_max {
            return Err(CloseReason::TopicLimit);
        }
        let plan = match &cursor {
            None => Plan::by_server(Initiator::Connect, options, since),
            Some(cursor) => {
                let since = since.or_else(|| cursor.position(topic.as_str()).map(StreamPosition::from));
                Plan::by_server(Initiator::Connect, options, since).with_position()
            }
        };
        plans.push((topic, plan.unseen(unseen)));
        Ok(())
    };
    for TopicGrant { topic, options } in &claims.topics {
        let since = asked.remove(&**topic).flatten();
        let (topic, _) =
            context.namespaces.topic(topic).map_err(|error| Refusal::name(error, Mistake::TokenTopicName))?;
        add(topic, options.clone(), since)?;
    }
    if let Some(personal) = context.settings.personal_topic.as_ref().filter(|_| !claims.user.is_empty()) {
        let topic = context.namespaces.personal_topic(&personal.namespace, &claims.user);
        let topic =
            topic.map_err(|error| Close::mistake(Mistake::NoPersonalTopic(error.to_string().into())))?;
        let since = asked.remove(&topic).flatten();
        let (topic, _) =
            context.namespaces.topic(&topic).map_err(|error| Refusal::name(error, Mistake::TokenUserName))?;
        add(topic, GrantOptions::default(), since)?;
    }
    for (topic, since) in asked {
        let (topic, namespace) = match context.namespaces.topic(&topic) {
            Ok(found) => found,
            Err(NameError::UnknownNamespace) => {
                return Err(Close::mistake(Mistake::UnknownNamespace).into());
            }
            Err(_) => continue,
        };
        if may_subscribe(context.settings, context.namespaces, namespace, &topic, &claims.user) {
            add(topic, GrantOptions::default(), since)?;
        }
    }
    Ok(plans)
}

/// Tells grants apart; equal grants, in whatever order, have equal fingerprints on this node.
pub(super) fn fingerprint(topics: &[TopicGrant]) -> u64 {
    let one = |grant: &TopicGrant| {
        let mut hasher = FxHasher::default();
        grant.hash(&mut hasher);
        hasher.finish()
    };
    topics.iter().map(one).fold(0, u64::wrapping_add)
}
