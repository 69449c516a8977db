//! Ending a subscription: by the client's request, by the server, or with the connection.

use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{CloseReason, Left, Unsubscribed};
use fanwire_protocol::reply::{Outcome, Push};

use super::subscription::Subscription;
use super::{Context, Session, named};
use crate::effect::{Effect, Membership};
use crate::registry::TopicSlot;

impl Session {
    pub(super) fn unsubscribe(&mut self, context: &mut Context<'_>, id: u32, topic: &str) {
        let topic = match named(topic) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        if let Some(slot) = context.registry.find(&topic) {
            self.remove_subscription(context, slot, Left::Unsubscribed);
        }
        // Not being subscribed is what the client wanted.
        context.reply(id, Outcome::Unsubscribed);
    }

    /// Ends a subscription for the server and tells the client, which is told even if it was not subscribed.
    pub(super) fn unsubscribe_topic(
        &mut self,
        context: &mut Context<'_>,
        topic: &TopicName,
        reason: Unsubscribed,
    ) {
        if let Some(slot) = context.registry.find(topic) {
            self.remove_subscription(context, slot, Left::ByServer(reason));
        }
        context.push(Push::Unsubscribed { topic: topic.clone(), reason });
    }

    pub(super) fn unsubscribe_by_server(
        &mut self,
        context: &mut Context<'_>,
        topic: TopicSlot,
        reason: Unsubscribed,
    ) {
        let name = context.registry.topic(topic).name.clone();
        self.remove_subscription(context, topic, Left::ByServer(reason));
        context.push(Push::Unsubscribed { topic: name, reason });
    }

    /// The topic's stream was lost on the way: a subscription with a position has to start over.
    pub fn lose_position(&mut self, context: &mut Context<'_>, topic: TopicSlot) {
        let Some(subscription) = self.subscriptions.find(topic) else { return };
        if subscription.traits.server_side {
            return self.close(context, CloseReason::InsufficientState);
        }
        self.unsubscribe_by_server(context, topic, Unsubscribed::InsufficientState);
    }

    fn remove_subscription(&mut self, context: &mut Context<'_>, topic: TopicSlot, left: Left) {
        if let Some(subscription) = self.subscriptions.remove(topic) {
            self.leave(context, subscription, left);
            self.note_subscription_end();
        }
    }

    /// Takes a subscription, which the session has let go of, out of its topic.
    pub(super) fn leave(&mut self, context: &mut Context<'_>, subscription: Subscription, left: Left) {
        let name = context.registry.topic(subscription.topic).name.clone();
        if let Some(moved) = context.registry.remove(subscription.topic, subscription.place) {
            context.effects.push(Effect::Moved(moved));
        }
        let Some(info) = subscription.info.or_else(|| self.info.clone()) else { return };
        let traits = subscription.traits;
        let membership = Membership { info, presence: traits.presence, join_leave: traits.join_leave };
        context.effects.push(Effect::unsubscribe(name, membership, left));
    }
}
