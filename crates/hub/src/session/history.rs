//! Asking for what a topic brought before.

use fanwire_protocol::reason::{Mistake, RequestError};
use fanwire_protocol::request::History;

use super::{Context, Refusal, Session, named};
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_read_history};

impl Session {
    pub(super) fn history(&mut self, context: &mut Context<'_>, id: u32, request: History) {
        let topic = match named(&request.topic) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        let since = request.since;
        let allowed = context.namespace(&topic).map_err(Refusal::from).and_then(|namespace| {
            let subscribed = self.subscription(context, &topic).is_some();
            let asker = Asker::new(context.namespaces, namespace, &topic, self.user(), subscribed);
            if namespace.history.is_none() {
                Err(RequestError::NotAvailable.into())
            } else if !may_read_history(context.settings, namespace, asker) {
                Err(RequestError::PermissionDenied.into())
            } else if request.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
                Err(Mistake::ReverseFromStart.into())
            } else {
                Ok(())
            }
        });
        if let Err(refusal) = allowed {
            return self.refuse(context, id, refusal);
        }
        let page_max = context.settings.history_page_max;
        let limit = request.limit.map_or(page_max, |limit| limit.min(page_max));
        self.ask(context, topic, TopicRequest::History { id, limit, since, reverse: request.reverse });
    }
}
