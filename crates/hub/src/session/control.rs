//! The changes that the server's API makes to a session.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{Close, CloseReason, Unsubscribed};
use fanwire_protocol::reply::Push;
use fanwire_protocol::request::StreamPosition;

use super::subscribe::{Initiator, Plan};
use super::timing::{AlreadyOver, ttl};
use super::{Context, Phase, Session};
use crate::effect::Completion;
use crate::{Expiry, GrantOptions};

/// An order of the server's API. It is carried out when the last copy of its completion is dropped.
#[derive(Clone, Debug)]
pub enum Control {
    Disconnect(Close),
    Subscribe(Arc<ServerSubscribe>),
    Unsubscribe {
        topic: TopicName,
        reason: Unsubscribed,
    },
    /// The connection's credentials now end at another time; `info` replaces the connection's when given.
    Refresh {
        expiry: Expiry,
        info: Option<Bytes>,
    },
}

/// A subscription that the API makes for a client.
#[derive(Clone, Debug)]
pub struct ServerSubscribe {
    pub topic: TopicName,
    pub options: GrantOptions,
    pub expiry: Expiry,
    pub recover_since: Option<StreamPosition>,
}

impl Session {
    pub fn control(&mut self, context: &mut Context<'_>, control: &Control, completion: Completion) {
        match (self.phase, control) {
            (Phase::Closed, _) => {}
            (_, Control::Disconnect(why)) => self.close(context, why.clone()),
            // The others speak of what only a connected client has.
            (Phase::Fresh | Phase::Connecting | Phase::Refused, _) => {}
            (Phase::Open, Control::Subscribe(subscribe)) => {
                self.subscribe_by_server(context, subscribe, completion)
            }
            (Phase::Open, Control::Unsubscribe { topic, reason }) => match self.subscribing(topic) {
                Some(place) => self.work().subscribing[place].end_with = Some(*reason),
                None if self.end_asked_with(topic, *reason) => {}
                None => self.unsubscribe_topic(context, topic, *reason),
            },
            (Phase::Open, Control::Refresh { expiry, info }) => {
                let ttl = match ttl(*expiry, context.now) {
                    Ok(ttl) => ttl,
                    Err(AlreadyOver) => return self.close(context, CloseReason::Expired),
                };
                if let Some(info) = info {
                    self.set_connection_info(context, info.clone());
                }
                self.expire_after(context, ttl);
                // The client would fetch a new token for it.
                let ttl = ttl.filter(|_| context.settings.hooks.refresh.is_none());
                context.push(Push::Refreshed { ttl });
            }
        }
    }

    fn subscribe_by_server(
        &mut self,
        context: &mut Context<'_>,
        subscribe: &ServerSubscribe,
        completion: Completion,
    ) {
        let ServerSubscribe { topic, options, expiry, recover_since } = subscribe;
        let Ok(ttl) = ttl(*expiry, context.now) else { return };
        if self.is_subscribed_or_about_to(context, topic) {
            return;
        }
        if self.is_at_limit(context) {
            return self.close(context, CloseReason::TopicLimit);
        }
        // The API orders no subscription to a topic without a namespace.
        let Ok(namespace) = context.namespace(topic) else { return };
        let plan = Plan::by_server(Initiator::Api(completion.into()), options.clone(), recover_since.clone());
        self.request_subscription(context, topic.clone(), namespace, plan.living(ttl));
    }
}
