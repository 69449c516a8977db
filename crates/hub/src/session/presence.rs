//! Asking who is in a topic.

use fanwire_protocol::TopicName;
use fanwire_protocol::reason::RequestError;

use super::{Context, Refusal, Session, named};
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_read_presence};

impl Session {
    pub(super) fn presence(&mut self, context: &mut Context<'_>, id: u32, topic: &str) {
        if let Some(topic) = self.may_ask_presence(context, id, topic) {
            self.ask(context, topic, TopicRequest::Presence { id });
        }
    }

    pub(super) fn presence_stats(&mut self, context: &mut Context<'_>, id: u32, topic: &str) {
        if let Some(topic) = self.may_ask_presence(context, id, topic) {
            self.ask(context, topic, TopicRequest::PresenceStats { id });
        }
    }

    /// The topic, if the client may know who is in it; otherwise it was told why not.
    fn may_ask_presence(&mut self, context: &mut Context<'_>, id: u32, topic: &str) -> Option<TopicName> {
        let topic = named(topic).map_err(|why| self.close(context, why)).ok()?;
        let allowed = context.namespace(&topic).map_err(Refusal::from).and_then(|namespace| {
            let subscribed = self.subscription(context, &topic).is_some();
            let asker = Asker::new(context.namespaces, namespace, &topic, self.user(), subscribed);
            if !namespace.presence {
                Err(RequestError::NotAvailable.into())
            } else if !may_read_presence(context.settings, namespace, asker) {
                Err(RequestError::PermissionDenied.into())
            } else {
                Ok(())
            }
        });
        allowed.map_err(|refusal| self.refuse(context, id, refusal)).ok()?;
        Some(topic)
    }
}
