//! Publishing by a client.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::{CloseReason, Mistake, RequestError, Unserved};
use fanwire_protocol::request::Publish;
use fanwire_protocol::{Tags, TopicName};

use super::{Context, Refusal, Session, named};
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_publish};
use crate::{ClientSettings, Namespace, Namespaces};

impl Session {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, id: u32, request: Publish) {
        let is_subscribed = |topic: &TopicName| self.subscription(context, topic).is_some();
        match check_publish(context.settings, context.namespaces, self.user(), &request, is_subscribed) {
            Ok(topic) => self.send_publication(context, topic, id, request.data, request.tags),
            Err(refusal) => self.refuse(context, id, refusal),
        }
    }

    /// Sends a publication that passed the checks to the topic's owner.
    fn send_publication(
        &mut self,
        context: &mut Context<'_>,
        topic: TopicName,
        id: u32,
        data: Bytes,
        tags: Option<Arc<Tags>>,
    ) {
        let Some(info) = self.info_in(context, &topic) else {
            return self.close(context, CloseReason::BadRequest);
        };
        self.ask(context, topic, TopicRequest::Publish { id, data, tags, info, options: None });
    }
}

/// Checks a publication of a client, and returns its topic.
pub(super) fn check_publish(
    settings: &ClientSettings,
    namespaces: &Namespaces,
    user: &str,
    request: &Publish,
    is_subscribed: impl FnOnce(&TopicName) -> bool,
) -> Result<TopicName, Refusal> {
    let topic = named(&request.topic)?;
    let namespace = namespaces.of(&topic)?;
    if request.is_unserved {
        return Err(Mistake::Unserved(Unserved::Kind).into());
    }
    check_data(namespace, &request.data)?;
    let is_subscribed = is_subscribed(&topic);
    check_permission(settings, namespaces, namespace, user, &topic, is_subscribed)?;
    Ok(topic)
}

pub(super) fn check_data(namespace: &Namespace, data: &[u8]) -> Result<(), Refusal> {
    let format = namespace.publication_format;
    Ok(format.check(data).map_err(|unfit| Mistake::Data(unfit.to_string().into()))?)
}

pub(super) fn check_permission(
    settings: &ClientSettings,
    namespaces: &Namespaces,
    namespace: &Namespace,
    user: &str,
    topic: &TopicName,
    is_subscribed: bool,
) -> Result<(), Refusal> {
    let asker = Asker::new(namespaces, namespace, topic, user, is_subscribed);
    match may_publish(settings, namespace, asker) {
        true => Ok(()),
        false => Err(RequestError::PermissionDenied.into()),
    }
}
