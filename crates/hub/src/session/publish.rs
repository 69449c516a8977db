//! Publishing by a client.

use fanwire_protocol::reason::{CloseReason, Mistake, RequestError, Unserved};
use fanwire_protocol::request::Publish;

use super::{Context, Refusal, Session, named};
use crate::Namespace;
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_publish};

impl Session {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, id: u32, request: Publish) {
        let topic = match named(&request.topic) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        let checked = context.namespace(&topic).map_err(Refusal::from).and_then(|namespace| {
            let subscribed = self.subscription(context, &topic).is_some();
            let asker = Asker::new(context.namespaces, namespace, &topic, self.user(), subscribed);
            check(context, namespace, asker, &request)
        });
        if let Err(refusal) = checked {
            return self.refuse(context, id, refusal);
        }
        let Some(info) = self.info_in(context, &topic) else {
            return self.close(context, CloseReason::BadRequest);
        };
        self.ask(context, topic, TopicRequest::Publish { id, data: request.data, info });
    }
}

fn check(
    context: &Context<'_>,
    namespace: &Namespace,
    asker: Asker<'_>,
    request: &Publish,
) -> Result<(), Refusal> {
    if request.is_unserved {
        return Err(Mistake::Unserved(Unserved::Kind).into());
    }
    let format = namespace.publication_format;
    format.check(&request.data).map_err(|unfit| Mistake::Data(unfit.to_string().into()))?;
    if !may_publish(context.settings, namespace, asker) {
        return Err(RequestError::PermissionDenied.into());
    }
    Ok(())
}
