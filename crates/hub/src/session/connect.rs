//! The connect command: who the client is, and which topics the server subscribes it to before it answers.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::centrifuge::{
    ConnectRequest, ConnectResult, ReplyMessage, SubscribeRequest, SubscribeResult,
};
use fanwire_protocol::{ClientInfo, Disconnect, ErrorCode, TopicName};
use rustc_hash::FxHasher;

use super::refusal::unfit_token;
use super::subscribe::{Origin, Plan};
use super::timing::{AlreadyOver, token_ttl};
use super::{Context, Phase, Pings, Refusal, Session};
use crate::effect::{Effect, KnownPosition};
use crate::permission::may_subscribe;
use crate::{ConnectionClaims, Expiry, GrantOptions, NameError, TokenError, TopicGrant};

/// A connect command whose answer is being put together.
#[derive(Debug)]
pub(super) struct Connecting {
    command: u32,
    result: ConnectResult,
    /// Lifetime of the credentials, in seconds.
    ttl: Option<u32>,
    /// Subscriptions to make once the user is registered.
    plans: Vec<(TopicName, Plan)>,
    /// Subscriptions on their way.
    outstanding: usize,
    error: Option<ErrorCode>,
}

const NO_TOKEN: &str = "no token, and client.allow_anonymous_connect_without_token is off";

impl Session {
    pub(super) fn connect(&mut self, context: &mut Context<'_>, id: u32, request: ConnectRequest) {
        match self.plan_connection(context, id, request) {
            Ok(connecting) => {
                self.phase = Phase::Connecting;
                self.work().connecting = Some(connecting);
                let single = context.settings.personal_topic.as_ref().is_some_and(|p| p.single_connection);
                match self.user() {
                    "" => self.registered(context, Ok(())),
                    user => context.effects.push(Effect::Register { user: user.into(), single }),
                }
            }
            Err(Refusal::Unfit(unfit)) => self.close(context, unfit_token(unfit)),
            Err(Refusal::Close(why)) => self.close(context, why),
            Err(refusal) => {
                self.refuse(context, id, refusal);
                self.refuse_connection(context);
            }
        }
    }

    fn plan_connection(
        &mut self,
        context: &Context<'_>,
        command: u32,
        request: ConnectRequest,
    ) -> Result<Connecting, Refusal> {
        let claims = claims(context, &request.token)?;
        let ttl = token_ttl(claims.expiry, context).map_err(|AlreadyOver| ErrorCode::EXPIRED)?;
        self.grants = fingerprint(&claims.topics);
        let plans = plan_topics(context, &claims, request.subs)?;
        claims.check(context.settings.info_format, context.topics)?;
        let client = self.client;
        self.info = Some(Arc::new(ClientInfo {
            user: claims.user,
            client,
            connection: claims.info,
            subscription: Bytes::new(),
        }));
        let settings = context.settings;
        let pinged = settings.ping_interval.filter(|_| self.manner.pings == Pings::Messages);
        let result = ConnectResult {
            client: client.to_string(),
            version: context.version.to_owned(),
            expires: ttl.is_some(),
            ttl: ttl.unwrap_or(0),
            ping: pinged.map_or(0, |interval| interval.as_secs().max(1) as u32),
            pong: pinged.is_some() && settings.pong_timeout.is_some(),
            time: if settings.include_server_time { context.now.unix_millis } else { 0 },
            ..ConnectResult::default()
        };
        Ok(Connecting { command, result, ttl, plans, outstanding: 0, error: None })
    }

    /// The user's connections were counted: make the server-side subscriptions, or give up.
    pub(super) fn registered(&mut self, context: &mut Context<'_>, result: Result<(), Disconnect>) {
        if let Err(why) = result {
            // The user was not counted, so nothing is to be given back.
            self.info = None;
            return self.close(context, why);
        }
        let Some(connecting) = self.work().connecting.as_mut() else { return };
        let plans = std::mem::take(&mut connecting.plans);
        connecting.outstanding = plans.len();
        for (topic, plan) in plans {
            self.join(context, topic, plan);
        }
        self.finish_connect(context);
    }

    /// One server-side subscription of the connect was made, or was not.
    pub(super) fn connect_subscribed(
        &mut self,
        context: &mut Context<'_>,
        topic: &TopicName,
        result: Result<SubscribeResult, ErrorCode>,
    ) {
        let Some(connecting) = self.work().connecting.as_mut() else { return };
        connecting.outstanding -= 1;
        match result {
            Ok(result) => {
                connecting.result.subs.insert(topic.as_str().to_owned(), result);
            }
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
            context.refuse(connecting.command, error);
            self.end(context);
            // Nothing is left to give back when the connection goes.
            self.info = None;
            return self.refuse_connection(context);
        }
        let queued = std::mem::take(&mut work.queued);
        work.release(&queued);
        self.phase = Phase::Open;
        self.begin_pings(context);
        self.expire_after(context, connecting.ttl);
        let reply = ReplyMessage {
            id: connecting.command,
            connect: Some(connecting.result),
            ..ReplyMessage::default()
        };
        context.effects.push(Effect::Open(reply));
        for (id, request) in queued {
            if self.phase == Phase::Open {
                self.request(context, id, request);
            }
        }
        self.rest();
    }
}

/// What a token says, or what holds without one.
fn claims(context: &Context<'_>, token: &str) -> Result<ConnectionClaims, Refusal> {
    let settings = context.settings;
    if token.is_empty() {
        if !settings.insecure && !settings.allow_anonymous_connect_without_token {
            return Err(Disconnect::bad_request(NO_TOKEN).into());
        }
        return Ok(ConnectionClaims {
            user: "".into(),
            expiry: Expiry::Never,
            info: Bytes::new(),
            topics: Vec::new(),
        });
    }
    let claims = context.tokens.connection(token, context.now.unix()).map_err(|error| match error {
        TokenError::Expired => Refusal::Error(ErrorCode::TOKEN_EXPIRED),
        TokenError::Invalid(_) => Refusal::Close(Disconnect::INVALID_TOKEN),
        TokenError::Unavailable => Refusal::Error(ErrorCode::INTERNAL),
    })?;
    if claims.user.is_empty() && settings.disallow_anonymous_connection_tokens && !settings.insecure {
        return Err(Disconnect::PERMISSION_DENIED.into());
    }
    Ok(claims)
}

/// The server-side subscriptions: what the token grants, the user's own topic, and what the client asks for and
/// could have without a token.
fn plan_topics(
    context: &Context<'_>,
    claims: &ConnectionClaims,
    mut asked: HashMap<String, SubscribeRequest>,
) -> Result<Vec<(TopicName, Plan)>, Refusal> {
    let subscriptions_max = context.settings.subscriptions_max;
    let mut plans: Vec<(TopicName, Plan)> = Vec::new();
    let mut planned = HashSet::new();
    let mut add = |topic: &str, options: GrantOptions, asked: Option<SubscribeRequest>| {
        let Some(name) = TopicName::new(topic).filter(|name| planned.insert(name.clone())) else {
            return Ok(());
        };
        // Checked for each, so that a list that is too long costs no more than the longest that is accepted.
        if plans.len() == subscriptions_max {
            return Err(Disconnect::TOPIC_LIMIT);
        }
        plans.push((name, Plan::by_server(Origin::Connect, options, asked.and_then(known_position))));
        Ok(())
    };
    for TopicGrant { topic, options } in &claims.topics {
        context.namespace(topic).map_err(|error| Refusal::name("channels or subs of the token", error))?;
        add(topic, options.clone(), asked.remove(&**topic))?;
    }
    if let Some(personal) = context.settings.personal_topic.as_ref().filter(|_| !claims.user.is_empty()) {
        let topic = context.topics.personal_topic(&personal.namespace, &claims.user);
        let topic = topic.map_err(Disconnect::bad_request)?;
        context
            .namespace(&topic)
            .map_err(|error| Refusal::name("sub of the token, for its own topic", error))?;
        let asked = asked.remove(&topic);
        add(&topic, GrantOptions::default(), asked)?;
    }
    for (topic, request) in asked {
        let namespace = match context.namespace(&topic) {
            Ok(namespace) => namespace,
            Err(NameError::UnknownNamespace) => {
                let why = "subs has a topic whose namespace is not configured; leave it out";
                return Err(Disconnect::bad_request(why).into());
            }
            Err(_) => continue,
        };
        if may_subscribe(context.settings, context.topics, namespace, &topic, &claims.user) {
            add(&topic, GrantOptions::default(), Some(request))?;
        }
    }
    Ok(plans)
}

fn known_position(request: SubscribeRequest) -> Option<KnownPosition> {
    request.recover.then_some(KnownPosition { offset: request.offset, epoch: request.epoch })
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
