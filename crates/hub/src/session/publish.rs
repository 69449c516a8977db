//! Publishing by a client.

use fanwire_protocol::TopicName;
use fanwire_protocol::reason::{CloseReason, Mistake, RequestError, Unserved};
use fanwire_protocol::request::Publish;

use super::asking::{Draft, Step};
use super::{Context, Refusal, Session, named};
use crate::effect::TopicRequest;
use crate::hook::PublishOptions;
use crate::hook_settings::HookSlot;
use crate::permission::{Asker, may_publish};
use crate::{ClientSettings, Namespace, Namespaces};

impl Session {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, id: u32, request: Publish) {
        let is_subscribed = |topic: &TopicName| self.subscription(context, topic).is_some();
        match check_publish(context.settings, context.namespaces, self.user(), &request, is_subscribed) {
            Ok((topic, hook)) => {
                let draft = Draft { topic, data: request.data, tags: request.tags };
                match hook {
                    None => self.send_publication(context, id, draft, None),
                    Some(slot) => self.question(context, slot, draft.event(), Step::Publish { id, draft }),
                }
            }
            Err(refusal) => self.refuse(context, id, refusal),
        }
    }

    /// Sends a publication that passed the checks to the topic's owner.
    #[inline(always)]
    pub(super) fn send_publication(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        draft: Draft,
        options: Option<Box<PublishOptions>>,
    ) {
        let Draft { topic, data, tags } = draft;
        let Some(info) = self.info_in(context, &topic) else {
            return self.close(context, CloseReason::BadRequest);
        };
        self.ask(context, topic, TopicRequest::Publish { id, data, tags, info, options });
    }
}

/// Checks a publication of a client, and returns its topic, with the hook that is to decide on it: it does so in place of the
/// namespace's permissions.
pub(super) fn check_publish(
    settings: &ClientSettings,
    namespaces: &Namespaces,
    user: &str,
    request: &Publish,
    is_subscribed: impl FnOnce(&TopicName) -> bool,
) -> Result<(TopicName, Option<HookSlot>), Refusal> {
    let topic = named(&request.topic)?;
    let namespace = namespaces.of(&topic)?;
    if namespace.status {
        return Err(RequestError::NotAvailable.into());
    }
    if request.is_unserved {
        return Err(Mistake::Unserved(Unserved::Kind).into());
    }
    check_data(namespace, &request.data)?;
    if namespace.hooks.publish.is_none() {
        let is_subscribed = is_subscribed(&topic);
        check_permission(settings, namespaces, namespace, user, &topic, is_subscribed)?;
    }
    Ok((topic, namespace.hooks.publish))
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
