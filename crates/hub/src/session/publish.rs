//! Publishing by a client.

use fanwire_protocol::centrifuge::PublishRequest;
use fanwire_protocol::{Disconnect, ErrorCode, json};

use super::{Context, Session, named};
use crate::PublicationFormat;
use crate::effect::TopicRequest;
use crate::permission::{Asker, may_publish};

impl Session {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, id: u32, request: PublishRequest) {
        let topic = match named(&request.channel) {
            Ok(topic) => topic,
            Err(why) => return self.close(context, why),
        };
        let refusal = context.namespace(topic.as_str()).and_then(|namespace| {
            let subscribed = self.subscription(context, topic.as_str()).is_some();
            let asker = Asker { user: self.user(), subscribed };
            if request.kind != 0 || !namespace.publication_format.takes(&request.data) {
                Err(ErrorCode::BAD_REQUEST)
            } else if !may_publish(context.settings, namespace, asker) {
                Err(ErrorCode::PERMISSION_DENIED)
            } else {
                Ok(())
            }
        });
        if let Err(error) = refusal {
            return context.refuse(id, error);
        }
        let Some(info) = self.info_in(context, topic.as_str()) else {
            return self.close(context, Disconnect::BAD_REQUEST);
        };
        self.ask(context, topic, TopicRequest::Publish { command: id, data: request.data, info });
    }
}

impl PublicationFormat {
    /// Whether a publication may have this data.
    pub fn takes(self, data: &[u8]) -> bool {
        match self {
            Self::NotEmpty => !data.is_empty(),
            Self::Json => json::check(data).is_ok(),
            Self::JsonObject => json::check(data).is_ok() && json::is_object(data),
            Self::Binary => true,
        }
    }
}
