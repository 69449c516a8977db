//! The times at which a session is due for something: a ping, a missing pong, the end of its credentials.

use std::time::Duration;

use fanwire_protocol::reason::{Close, CloseReason, Mistake, Unsubscribed};
use fanwire_protocol::wire::{Pings, Wire};
use fanwire_protocol::{ClientId, TopicName};

use super::asking::Step;
use super::subscription::Subscription;
use super::{Context, Now, Phase, Session};
use crate::effect::Effect;
use crate::hook::HookEvent;
use crate::hook_settings::HookSlot;
use crate::{ClientSettings, Expiry};

/// Milliseconds since the node started; `NEVER` for what will not come.
type Deadline = u64;
const NEVER: Deadline = Deadline::MAX;

/// A token's life as shown to clients: longer would overflow their timers.
const TTL_SECONDS_MAX: i64 = 365 * 24 * 3600;

#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    ping_at: Deadline,
    /// Set while a ping waits for an answer that has to come.
    pong_by: Deadline,
    /// Stale, refused or expired: the connection ends.
    close_at: Deadline,
    /// The earliest end of a subscription, in seconds as subscriptions keep it; 0: none ends.
    subscription_close_at: u32,
    /// A ping was sent and not answered yet: one pong is welcome.
    is_pinged: bool,
}

impl Timing {
    pub(super) fn fresh(wire: Wire, settings: &ClientSettings, now: Now) -> Self {
        let stale_at = now.millis + settings.stale_close_delay.as_millis() as u64;
        Self {
            ping_at: NEVER,
            pong_by: NEVER,
            close_at: if wire.connects() { stale_at } else { NEVER },
            subscription_close_at: 0,
            is_pinged: false,
        }
    }
}

/// Returns the seconds until an expiry, as a client is told of them: `None` when there is nothing to tell, an error when
/// it is over already.
pub(super) fn ttl(expiry: Expiry, now: Now) -> Result<Option<u32>, AlreadyOver> {
    match expiry {
        Expiry::Never => Ok(None),
        Expiry::At(unix) if unix <= now.unix() => Err(AlreadyOver),
        Expiry::At(unix) => Ok(Some((unix - now.unix()).min(TTL_SECONDS_MAX) as u32)),
    }
}

/// The same for what a token says: nothing expires where everything is allowed.
pub(super) fn token_ttl(
    expiry: Expiry,
    settings: &ClientSettings,
    now: Now,
) -> Result<Option<u32>, AlreadyOver> {
    if settings.insecure { Ok(None) } else { ttl(expiry, now) }
}

pub(super) struct AlreadyOver;

impl Session {
    /// Returns the time at which the session has to be looked at next, in milliseconds since the node started.
    pub fn deadline(&self) -> u64 {
        let Timing { ping_at, pong_by, close_at, subscription_close_at, is_pinged: _ } = self.timing;
        let subscription = match subscription_close_at {
            0 => NEVER,
            seconds => u64::from(seconds) * 1000,
        };
        ping_at.min(pong_by).min(close_at).min(subscription)
    }

    /// Does what is due.
    pub fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now.millis;
        if self.phase == Phase::Closed {
            return;
        }
        self.rest_bucket(context);
        if self.timing.close_at <= now {
            let why = match self.phase {
                Phase::Fresh | Phase::Connecting | Phase::Refused => CloseReason::Stale,
                Phase::Open | Phase::Closed => CloseReason::Expired,
            };
            match context.settings.hooks.refresh.filter(|_| self.may_be_prolonged()) {
                Some(slot) => self.ask_to_refresh(context, slot),
                None => return self.close(context, why),
            }
        }
        if self.timing.pong_by <= now {
            return self.close(context, CloseReason::NoPong);
        }
        if self.timing.ping_at <= now
            && let Some(interval) = context.settings.ping_interval
        {
            self.timing.ping_at = now + interval.as_millis() as u64;
            // While a pong is still expected, a further ping would bring one too many.
            if self.timing.pong_by == NEVER {
                self.ping(context);
            }
        }
        if self.timing.subscription_close_at != 0
            && u64::from(self.timing.subscription_close_at) * 1000 <= now
        {
            self.end_expired_subscriptions(context);
        }
    }

    fn ping(&mut self, context: &mut Context<'_>) {
        self.timing.is_pinged = true;
        let is_answered = matches!(self.mode.pings, Pings::Messages | Pings::Frames);
        if let Some(timeout) = context.settings.pong_timeout.filter(|_| is_answered) {
            self.timing.pong_by = context.now.millis + timeout.as_millis() as u64;
        }
        // Made where it is to lie: pings are the most frequent effect of idle clients, and pushing copies the whole of one.
        context.effects.extend(std::iter::once_with(|| Effect::Ping));
    }

    /// The client answered a ping.
    pub(super) fn pong(&mut self, context: &mut Context<'_>) {
        if !std::mem::take(&mut self.timing.is_pinged) {
            return self.close(context, Close::mistake(Mistake::PongUnasked));
        }
        self.timing.pong_by = NEVER;
    }

    /// A pong of the client's transport. It may come unasked (RFC 6455 section 5.5.3), and is no answer to the
    /// protocol's own pings.
    pub fn transport_pong(&mut self) {
        if self.mode.pings == Pings::Frames {
            self.timing.is_pinged = false;
            self.timing.pong_by = NEVER;
        }
    }

    /// Allows the pong its whole time again: what the client sent is not read yet, so the pong may be in it.
    pub fn extend_pong(&mut self, context: &mut Context<'_>) {
        if let Some(timeout) = context.settings.pong_timeout.filter(|_| self.timing.pong_by != NEVER) {
            self.timing.pong_by = context.now.millis + timeout.as_millis() as u64;
        }
    }

    /// The first ping comes at a moment in the second half of the interval, so that clients that connected together are
    /// not pinged together. The moment follows from the client's id, which is random.
    pub(super) fn begin_pings(&mut self, context: &Context<'_>) {
        if let Some(interval) = context.settings.ping_interval {
            let interval = interval.as_millis() as u64;
            let choices = interval - interval / 2 + 1;
            self.timing.ping_at = context.now.millis + interval / 2 + share(self.client, choices);
        }
    }

    /// Ends the connection some time after its credentials do, or never. Where a hook prolongs them, it is asked as soon as
    /// they end.
    pub(super) fn expire_after(&mut self, context: &Context<'_>, ttl: Option<u32>) {
        let settings = context.settings;
        self.timing.close_at = match ttl {
            None => NEVER,
            Some(ttl) => {
                let delay = settings.hooks.refresh.map_or(settings.expired_close_delay, |_| Duration::ZERO);
                context.now.millis + u64::from(ttl) * 1000 + delay.as_millis() as u64
            }
        };
    }

    /// The credentials may have ended, and no hook is asked about them yet.
    fn may_be_prolonged(&self) -> bool {
        self.phase == Phase::Open && !self.steps().any(|step| matches!(step, Step::Refresh))
    }

    /// Asks whether the credentials that have ended still hold. Without an answer, the connection ends.
    #[cold]
    #[inline(never)]
    fn ask_to_refresh(&mut self, context: &mut Context<'_>, slot: HookSlot) {
        let patience = context.settings.hooks.patience + context.settings.expired_close_delay;
        self.timing.close_at = context.now.millis + patience.as_millis() as u64;
        self.question(context, slot, HookEvent::Refresh, Step::Refresh);
    }

    /// Allows a connect the time that its hook may take.
    pub(super) fn close_later(&mut self, context: &Context<'_>) {
        let patience = context.settings.hooks.patience + context.settings.stale_close_delay;
        let close_at = context.now.millis + patience.as_millis() as u64;
        self.timing.close_at = self.timing.close_at.max(close_at);
    }

    /// A refused client has this long to go by itself.
    pub(super) fn refuse_connection(&mut self, context: &Context<'_>) {
        const GRACE_MILLIS: u64 = 5000;
        self.phase = Phase::Refused;
        self.work = None;
        self.timing.close_at = context.now.millis + GRACE_MILLIS;
    }

    /// Returns the second at which a subscription that lives for `ttl` is ended, or its hook is asked about it.
    pub(super) fn subscription_close_at(
        context: &Context<'_>,
        ttl: Option<u32>,
        is_renewed_by_hook: bool,
    ) -> u32 {
        let delay = match is_renewed_by_hook {
            true => 0,
            false => context.settings.expired_subscription_close_delay.as_millis() as u64,
        };
        ttl.map_or(0, |ttl| {
            let millis = context.now.millis + delay;
            u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX).saturating_add(ttl).max(1)
        })
    }

    /// Keeps the earliest end of a subscription known.
    pub(super) fn note_subscription_end(&mut self) {
        self.timing.subscription_close_at =
            self.subscriptions.iter().map(|s| s.close_at).filter(|&at| at != 0).min().unwrap_or(0);
    }

    fn end_expired_subscriptions(&mut self, context: &mut Context<'_>) {
        let now = context.now.millis;
        let is_over = |close_at: u32| close_at != 0 && u64::from(close_at) * 1000 <= now;
        let over: Vec<_> = self.subscriptions.iter().filter(|s| is_over(s.close_at)).cloned().collect();
        for subscription in over {
            if self.ask_to_sub_refresh(context, &subscription) {
                continue;
            }
            if subscription.traits.server_side {
                return self.close(context, CloseReason::SubscriptionExpired);
            }
            self.unsubscribe_by_server(context, subscription.topic, Unsubscribed::Expired);
        }
        self.note_subscription_end();
    }

    /// Asks the hook whether a subscription that has ended still holds. Returns false if there is none, or it was asked and
    /// does not answer.
    fn ask_to_sub_refresh(&mut self, context: &mut Context<'_>, subscription: &Subscription) -> bool {
        let topic = context.registry.topic(subscription.topic).name.clone();
        let hook = context.namespace(&topic).ok().and_then(|namespace| namespace.hooks.sub_refresh);
        let Some(slot) = hook else { return false };
        let asked = || {
            self.steps().filter_map(|step| match step {
                Step::SubRefresh { topic, .. } => Some(topic),
                _ => None,
            })
        };
        if asked().any(|asked| *asked == topic) {
            return false;
        }
        let is_asked = asked().count() < usize::from(Self::ASKED_MAX);
        let settings = context.settings;
        // Others are asked about first.
        let patience = match is_asked {
            true => settings.hooks.patience + settings.expired_subscription_close_delay,
            false => Duration::from_secs(1),
        };
        let seconds = u32::try_from(patience.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let close_at = Self::subscription_close_at(context, Some(seconds), true);
        if let Some(subscription) = self.subscriptions.find_mut(subscription.topic) {
            subscription.close_at = close_at;
        }
        if is_asked {
            let event = HookEvent::SubRefresh { topic: topic.clone() };
            self.question(context, slot, event, Step::SubRefresh { topic, close_at });
        }
        true
    }

    /// A subscription whose hook was asked lives on, for good without `ttl`.
    pub(super) fn prolong_subscription(
        &mut self,
        context: &Context<'_>,
        topic: &TopicName,
        ttl: Option<u32>,
    ) {
        let close_at = Self::subscription_close_at(context, ttl, true);
        let slot = context.registry.find(topic);
        if let Some(subscription) = slot.and_then(|slot| self.subscriptions.find_mut(slot)) {
            subscription.close_at = close_at;
        }
        self.note_subscription_end();
    }

    /// A subscription does not live on.
    pub(super) fn expire_subscription(&mut self, context: &mut Context<'_>, topic: &TopicName) {
        let Some(subscription) = self.subscription(context, topic) else { return };
        if subscription.traits.server_side {
            return self.close(context, CloseReason::SubscriptionExpired);
        }
        let slot = subscription.topic;
        self.unsubscribe_by_server(context, slot, Unsubscribed::Expired);
    }
}

/// Returns a number below `choices` that follows from the client's id: ids that differ have any of them, however little
/// they differ.
fn share(client: ClientId, choices: u64) -> u64 {
    // Fibonacci hashing: the multiplication carries the low bits, which differ in any case, to the high ones.
    let (_, low) = client.0.as_u64_pair();
    let spread = low.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((u128::from(spread) * u128::from(choices)) >> 64) as u64
}
