//! Publishing by a client.

use fanwire_protocol::centrifuge::PublishRequest;
use fanwire_protocol::{Disconnect, ErrorCode};

use super::{Context, Refusal, Session, named};
use crate::Namespace;
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_publish};

impl Session {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, id: u32, request: PublishRequest) {
        let topic = match named(&request.channel) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        let checked = context.namespace(topic.as_str()).map_err(Refusal::from).and_then(|namespace| {
            let subscribed = self.subscription(context, topic.as_str()).is_some();
            let asker = Asker::new(context.topics, namespace, topic.as_str(), self.user(), subscribed);
            check(context, namespace, asker, &request)
        });
        if let Err(refusal) = checked {
            return self.refuse(context, id, refusal);
        }
        let Some(info) = self.info_in(context, topic.as_str()) else {
            return self.close(context, Disconnect::BAD_REQUEST);
        };
        self.ask(context, topic, TopicRequest::Publish { command: id, data: request.data, info });
    }
}

fn check(
    context: &Context<'_>,
    namespace: &Namespace,
    asker: Asker<'_>,
    request: &PublishRequest,
) -> Result<(), Refusal> {
    if request.kind != 0 {
        return Err(Refusal::bad_request("type is not 0; leave it out"));
    }
    namespace.publication_format.check(&request.data).map_err(|unfit| unfit.of("data"))?;
    if !may_publish(context.settings, namespace, asker) {
        return Err(ErrorCode::PERMISSION_DENIED.into());
    }
    Ok(())
}
