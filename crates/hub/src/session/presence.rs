//! Asking who is in a topic.

use std::sync::Arc;

use fanwire_protocol::centrifuge::{PresenceResult, PresenceStatsResult, ReplyMessage};
use fanwire_protocol::{ClientInfo, ErrorCode, TopicName};

use super::{Context, Refusal, Session, named};
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_read_presence};

impl Session {
    pub(super) fn presence(&mut self, context: &mut Context<'_>, id: u32, topic: &str) {
        if let Some(topic) = self.may_ask_presence(context, id, topic) {
            self.ask(context, topic, TopicRequest::Presence { command: id });
        }
    }

    pub(super) fn presence_stats(&mut self, context: &mut Context<'_>, id: u32, topic: &str) {
        if let Some(topic) = self.may_ask_presence(context, id, topic) {
            self.ask(context, topic, TopicRequest::PresenceStats { command: id });
        }
    }

    /// The topic, if the client may know who is in it; otherwise it was told why not.
    fn may_ask_presence(&mut self, context: &mut Context<'_>, id: u32, topic: &str) -> Option<TopicName> {
        let topic = named(topic).map_err(|why| self.close(context, why)).ok()?;
        let allowed = context.namespace(topic.as_str()).map_err(Refusal::from).and_then(|namespace| {
            let subscribed = self.subscription(context, topic.as_str()).is_some();
            let asker = Asker::new(context.topics, namespace, topic.as_str(), self.user(), subscribed);
            if !namespace.presence {
                Err(ErrorCode::NOT_AVAILABLE.into())
            } else if !may_read_presence(context.settings, namespace, asker) {
                Err(ErrorCode::PERMISSION_DENIED.into())
            } else {
                Ok(())
            }
        });
        allowed.map_err(|refusal| self.refuse(context, id, refusal)).ok()?;
        Some(topic)
    }
}

pub(super) fn reply(context: &mut Context<'_>, id: u32, result: Result<Vec<Arc<ClientInfo>>, ErrorCode>) {
    match result {
        Ok(clients) => {
            let presence = clients.iter().map(|info| (info.client.to_string(), (&**info).into())).collect();
            context.reply(ReplyMessage {
                id,
                presence: Some(PresenceResult { presence }),
                ..ReplyMessage::default()
            });
        }
        Err(error) => context.refuse(id, error),
    }
}

pub(super) fn reply_stats(context: &mut Context<'_>, id: u32, result: Result<(usize, usize), ErrorCode>) {
    match result {
        Ok((clients, users)) => {
            let stats = PresenceStatsResult { num_clients: clients as u32, num_users: users as u32 };
            context.reply(ReplyMessage { id, presence_stats: Some(stats), ..ReplyMessage::default() });
        }
        Err(error) => context.refuse(id, error),
    }
}
