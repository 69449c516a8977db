//! Publishing by a client.

use bytes::Bytes;
use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{CloseReason, Mistake, RequestError, Unserved};
use fanwire_protocol::request::Publish;

use super::{Context, Refusal, Session, named};
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_publish};

impl Session {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, id: u32, request: Publish) {
        match self.check_publish(context, &request) {
            Ok(topic) => self.send_publication(context, topic, id, request.data),
            Err(refusal) => self.refuse(context, id, refusal),
        }
    }

    fn check_publish(&self, context: &Context<'_>, request: &Publish) -> Result<TopicName, Refusal> {
        let topic = named(&request.topic)?;
        let namespace = context.namespace(&topic)?;
        if request.is_unserved {
            return Err(Mistake::Unserved(Unserved::Kind).into());
        }
        let format = namespace.publication_format;
        format.check(&request.data).map_err(|unfit| Mistake::Data(unfit.to_string().into()))?;
        let subscribed = self.subscription(context, &topic).is_some();
        let asker = Asker::new(context.namespaces, namespace, &topic, self.user(), subscribed);
        if !may_publish(context.settings, namespace, asker) {
            return Err(RequestError::PermissionDenied.into());
        }
        Ok(topic)
    }

    /// Sends a publication that passed the checks to the topic's owner.
    fn send_publication(&mut self, context: &mut Context<'_>, topic: TopicName, id: u32, data: Bytes) {
        let Some(info) = self.info_in(context, &topic) else {
            return self.close(context, CloseReason::BadRequest);
        };
        self.ask(context, topic, TopicRequest::Publish { id, data, info });
    }
}
