//! Asking for what a topic brought before.

use std::sync::Arc;

use fanwire_protocol::centrifuge::{HistoryRequest, HistoryResult, ReplyMessage};
use fanwire_protocol::{ErrorCode, Position, Publication};

use super::{Context, Refusal, Session, named};
use crate::effect::{KnownPosition, TopicRequest};
use crate::permission::{Asker, may_read_history};

impl Session {
    pub(super) fn history(&mut self, context: &mut Context<'_>, id: u32, request: HistoryRequest) {
        let topic = match named(&request.channel) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        let since = request.since.map(|since| KnownPosition { offset: since.offset, epoch: since.epoch });
        let allowed = context.namespace(topic.as_str()).map_err(Refusal::from).and_then(|namespace| {
            let subscribed = self.subscription(context, topic.as_str()).is_some();
            let asker = Asker::new(context.topics, namespace, topic.as_str(), self.user(), subscribed);
            if namespace.history.is_none() {
                Err(ErrorCode::NOT_AVAILABLE.into())
            } else if !may_read_history(context.settings, namespace, asker) {
                Err(ErrorCode::PERMISSION_DENIED.into())
            } else if request.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
                let why = "since.offset is 0, and nothing comes before it; leave out reverse";
                Err(Refusal::bad_request(why))
            } else {
                Ok(())
            }
        });
        if let Err(refusal) = allowed {
            return self.refuse(context, id, refusal);
        }
        let page_max = context.settings.history_page_max;
        let limit = usize::try_from(request.limit).map_or(page_max, |limit| limit.min(page_max));
        self.ask(
            context,
            topic,
            TopicRequest::History { command: id, limit, since, reverse: request.reverse },
        );
    }
}

pub(super) fn reply(
    context: &mut Context<'_>,
    id: u32,
    result: Result<(Position, Vec<Arc<Publication>>), ErrorCode>,
) {
    match result {
        Ok((position, publications)) => {
            let history = HistoryResult {
                publications: publications.iter().map(|publication| (&**publication).into()).collect(),
                epoch: position.epoch.to_string(),
                offset: position.offset,
            };
            context.reply(ReplyMessage { id, history: Some(history), ..ReplyMessage::default() });
        }
        Err(error) => context.refuse(id, error),
    }
}
