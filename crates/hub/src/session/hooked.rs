//! Answers of hooks: the second half of each request that waited for one, and of what the time brings.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::{CloseReason, RequestError, Unsubscribed};
use fanwire_protocol::reply::Outcome;
use fanwire_protocol::request::{Connect, Subscribe};
use fanwire_protocol::{ClientInfo, TopicName};

use super::asking::{Asking, Draft, Step};
use super::connect::{ConnectionPlan, anonymous, plan_connection};
use super::subscribe::{Plan, plan_hooked_subscription};
use super::timing::{AlreadyOver, token_ttl};
use super::{Context, Phase, Refusal, Session};
use crate::Namespaces;
use crate::effect::{Effect, TopicRequest};
use crate::hook::{HookAnswer, HookClaims, HookDenial, HookResult, PublishChange, PublishOptions, Renewal};
use crate::hook_settings::HookSlot;
use crate::kept::{Kept, META_TOO_LONG, TooLong};

/// Seconds by which credentials are prolonged if their hook does not answer.
const PROLONGED_SECONDS: u32 = 60;

/// The outcome of a question.
pub(super) type Hooked = Result<HookResult, HookDenial>;

impl From<HookDenial> for Refusal {
    fn from(denial: HookDenial) -> Self {
        match denial {
            HookDenial::Error(refused) => Self::Refused(refused),
            HookDenial::Close(close) => Self::Close(close),
            HookDenial::Failed => Self::Error(RequestError::Internal),
        }
    }
}

impl Session {
    /// Goes on with what waited for the answer, and then with the requests behind it.
    #[cold]
    #[inline(never)]
    pub(super) fn hooked(&mut self, context: &mut Context<'_>, answer: HookAnswer) {
        let HookAnswer { number, outcome } = answer;
        let Some(Asking { slot: Some(slot), step, waiting, .. }) = self.take_asking(number) else { return };
        match step {
            Step::Connect { id, request } => self.connect_hooked(context, slot, id, *request, outcome),
            Step::Refresh => self.refresh_hooked(context, slot, outcome),
            Step::Subscribe { id, topic, request, end_with } => {
                self.subscribe_hooked(context, slot, id, &topic, *request, outcome);
                if let Some(reason) = end_with {
                    self.end_when_subscribed(context, &topic, reason);
                }
            }
            Step::SubRefresh { topic, close_at } => {
                self.sub_refresh_hooked(context, slot, &topic, close_at, outcome);
            }
            Step::Publish { id, draft } => self.publish_hooked(context, slot, id, draft, outcome),
            Step::Call { id } => match outcome {
                Ok(HookResult::Called(data)) => context.reply(id, Outcome::Called(data)),
                outcome => self.refuse_hooked(context, id, outcome),
            },
            // Nothing is answered.
            Step::Send => {}
            // It waits for no hook.
            Step::Retry { .. } => {}
        }
        self.serve_waiting(context, waiting);
        self.rest();
    }

    fn refuse_hooked(&mut self, context: &mut Context<'_>, id: u32, outcome: Hooked) {
        self.refuse(context, id, refusal(outcome));
    }

    fn connect_hooked(
        &mut self,
        context: &mut Context<'_>,
        slot: HookSlot,
        id: u32,
        request: Connect,
        outcome: Hooked,
    ) {
        let planned = match outcome {
            Ok(HookResult::Connect(None)) => {
                anonymous(context.settings).and_then(|claims| plan_connection(context, claims, request))
            }
            Ok(HookResult::Connect(Some(claims))) => self
                .plan_hooked_connection(context, *claims, request)
                .map_err(|refusal| context.blame(slot, refusal)),
            outcome => Err(refusal(outcome)),
        };
        match planned {
            Ok(plan) if self.phase == Phase::Fresh => self.prepare_connection(id, plan),
            Ok(plan) => self.admit(context, id, plan),
            Err(refusal) => self.refuse_to_connect(context, id, refusal),
        }
    }

    fn plan_hooked_connection(
        &mut self,
        context: &Context<'_>,
        claims: HookClaims,
        request: Connect,
    ) -> Result<ConnectionPlan, Refusal> {
        let HookClaims { claims, data, meta } = claims;
        context.settings.info_format.check_info(&data).map_err(|unfit| unfit.of("data"))?;
        let plan = plan_connection(context, claims, request)?;
        self.keep_meta(context, meta).map_err(meta_too_long)?;
        Ok(plan.with_data(&data))
    }

    /// Keeps metadata for later hooks.
    pub(super) fn keep_meta(&mut self, context: &Context<'_>, meta: Bytes) -> Result<(), TooLong> {
        let rules = &context.settings.hooks.kept;
        if !rules.has_meta {
            return Ok(());
        }
        let kept = self.work.as_ref().and_then(|work| work.kept.as_deref().cloned());
        let kept = kept.unwrap_or_default().with_meta(rules, meta)?;
        self.keep(kept);
        Ok(())
    }

    /// Keeps headers and metadata for later hooks, in place of what was kept.
    pub fn keep(&mut self, kept: Kept) {
        if !kept.is_empty() {
            self.work().kept = Some(Arc::new(kept));
        } else if let Some(work) = &mut self.work {
            work.kept = None;
            self.rest();
        }
    }

    fn subscribe_hooked(
        &mut self,
        context: &mut Context<'_>,
        slot: HookSlot,
        id: u32,
        topic: &TopicName,
        request: Subscribe,
        outcome: Hooked,
    ) {
        let planned = match outcome {
            Ok(HookResult::Subscribe(grant)) => context
                .namespace(topic)
                .map_err(Refusal::from)
                .and_then(|namespace| plan_hooked_subscription(context, namespace, id, request, *grant))
                .map_err(|refusal| context.blame(slot, refusal)),
            outcome => Err(refusal(outcome)),
        };
        match planned {
            Ok(plan) if self.phase == Phase::Fresh => {
                self.prepare_subscription(id, Some((topic.clone(), plan)))
            }
            Ok(plan) => self.request_hooked_subscription(context, topic, plan),
            Err(refusal) if self.phase == Phase::Fresh => self.refuse_to_connect(context, id, refusal),
            Err(refusal) => self.refuse(context, id, refusal),
        }
    }

    fn request_hooked_subscription(&mut self, context: &mut Context<'_>, topic: &TopicName, plan: Plan) {
        // The question was asked for a topic that has a namespace.
        if let Ok(namespace) = context.namespace(topic) {
            self.request_subscription(context, topic.clone(), namespace, plan);
        }
    }

    fn publish_hooked(
        &mut self,
        context: &mut Context<'_>,
        slot: HookSlot,
        id: u32,
        draft: Draft,
        outcome: Hooked,
    ) {
        match hooked_publication(context.namespaces, draft, outcome) {
            Ok((draft, options)) => {
                let options = (options != PublishOptions::default()).then(|| options.into());
                self.send_publication(context, id, draft, options);
            }
            Err(refusal) => {
                let refusal = context.blame(slot, refusal);
                self.refuse(context, id, refusal);
            }
        }
    }

    fn refresh_hooked(&mut self, context: &mut Context<'_>, slot: HookSlot, outcome: Hooked) {
        let (expiry, info, meta) = match outcome {
            Ok(HookResult::Refresh(Renewal::Expired)) => return self.close(context, CloseReason::Expired),
            Ok(HookResult::Refresh(Renewal::Until { expiry, info, meta })) => (expiry, info, meta),
            Err(HookDenial::Close(close)) => return self.close(context, close),
            // The next time may go better.
            _ => return self.expire_after(context, Some(PROLONGED_SECONDS)),
        };
        let Ok(ttl) = token_ttl(expiry, context.settings, context.now) else {
            return self.close(context, CloseReason::Expired);
        };
        let info = info.unwrap_or_default();
        let is_fit = context.settings.info_format.check_info(&info).map_err(|unfit| unfit.of("info"));
        let is_kept = match meta {
            Some(meta) => self.keep_meta(context, meta).map_err(meta_too_long),
            None => Ok(()),
        };
        if let Err(refusal) = is_fit.map_err(Refusal::from).and(is_kept) {
            context.blame(slot, refusal);
            return self.expire_after(context, Some(PROLONGED_SECONDS));
        }
        if !info.is_empty() {
            self.set_connection_info(context, info);
        }
        self.expire_after(context, ttl);
    }

    fn sub_refresh_hooked(
        &mut self,
        context: &mut Context<'_>,
        slot: HookSlot,
        topic: &TopicName,
        close_at: u32,
        outcome: Hooked,
    ) {
        // Another subscription may be in its place by now.
        let is_meant = |session: &Self, context: &Context<'_>| {
            session.subscription(context, topic).is_some_and(|subscription| subscription.close_at == close_at)
        };
        if !is_meant(self, context) {
            return;
        }
        let (expiry, info) = match outcome {
            Ok(HookResult::Refresh(Renewal::Expired)) => return self.expire_subscription(context, topic),
            Ok(HookResult::Refresh(Renewal::Until { expiry, info, .. })) => (expiry, info),
            Err(HookDenial::Close(close)) => return self.close(context, close),
            _ => return self.prolong_subscription(context, topic, Some(PROLONGED_SECONDS)),
        };
        let ttl = match token_ttl(expiry, context.settings, context.now) {
            Ok(ttl) => ttl,
            Err(AlreadyOver) => return self.expire_subscription(context, topic),
        };
        let info = info.unwrap_or_default();
        let format = context.namespace(topic).map(|namespace| namespace.publication_format);
        let checked = format.unwrap_or_default().check_info(&info).map_err(|unfit| unfit.of("info"));
        if let Err(unfit) = checked {
            context.blame(slot, unfit.into());
            return self.prolong_subscription(context, topic, Some(PROLONGED_SECONDS));
        }
        if !info.is_empty() {
            self.set_subscription_info(context, topic, info);
        }
        self.prolong_subscription(context, topic, ttl);
    }

    /// A subscription's credentials now say something else of the client: others in the topic see it from now on.
    fn set_subscription_info(&mut self, context: &mut Context<'_>, topic: &TopicName, info: Bytes) {
        let Some(own) = self.info.clone() else { return };
        let Some(slot) = context.registry.find(topic) else { return };
        let Some(subscription) = self.subscriptions.find_mut(slot) else { return };
        let info = Arc::new(ClientInfo { subscription: info, ..ClientInfo::clone(&own) });
        subscription.info = Some(info.clone());
        if subscription.traits.presence {
            let join_leave = subscription.traits.join_leave;
            let update = TopicRequest::UpdatePresence { info, join_leave };
            context.effects.push(Effect::Topic(topic.clone(), update));
        }
    }

    /// A subscription that the server wants ended is on its way, or was refused.
    fn end_when_subscribed(&mut self, context: &mut Context<'_>, topic: &TopicName, reason: Unsubscribed) {
        match self.subscribing(topic) {
            Some(place) => self.work().subscribing[place].end_with = Some(reason),
            None if self.phase == Phase::Open => self.unsubscribe_topic(context, topic, reason),
            None => {}
        }
    }
}

/// The refusal of a request whose question was not granted. A result of another kind is none.
fn refusal(outcome: Hooked) -> Refusal {
    outcome.map_or_else(Refusal::from, |_| RequestError::Internal.into())
}

/// Returns a publication as its hook wants it. A refusal that is the answer's own fault can be told by
/// [`Refusal::fault_of_hook`].
pub(super) fn hooked_publication(
    namespaces: &Namespaces,
    draft: Draft,
    outcome: Hooked,
) -> Result<(Draft, PublishOptions), Refusal> {
    let PublishChange { data, tags, options } = match outcome {
        Ok(HookResult::Publish(change)) => *change,
        outcome => return Err(refusal(outcome)),
    };
    if let Some(data) = &data {
        let format = namespaces.of(&draft.topic)?.publication_format;
        format.check(data).map_err(|unfit| unfit.of("data"))?;
    }
    if options.has_long_key() {
        return Err(Refusal::UnfitAnswer("idempotency_key or version_epoch is longer than 256 bytes".into()));
    }
    let Draft { topic, data: own_data, tags: own_tags } = draft;
    Ok((Draft { topic, data: data.unwrap_or(own_data), tags: tags.or(own_tags) }, options))
}

fn meta_too_long(TooLong: TooLong) -> Refusal {
    Refusal::UnfitAnswer(META_TOO_LONG.into())
}

impl Context<'_> {
    /// Returns the refusal for an answer of a hook that leads to this one. What is wrong with the answer itself is the
    /// application's fault: its operator is told, and the client may try again.
    fn blame(&mut self, slot: HookSlot, refusal: Refusal) -> Refusal {
        match refusal.fault_of_hook() {
            Ok(fault) => {
                self.effects.push(Effect::UnfitAnswer(slot, fault.into()));
                RequestError::Internal.into()
            }
            Err(refusal) => refusal,
        }
    }
}
