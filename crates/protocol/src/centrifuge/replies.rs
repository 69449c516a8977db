//! Replies made from the words that the rest of the gateway uses.

use super::reply::*;
use crate::{Disconnect, Epoch, ErrorCode, TopicName, Unsubscribed};

impl ReplyMessage {
    /// The server's ping: a reply without anything in it.
    pub fn ping() -> Self {
        Self::default()
    }

    /// The answer to a refused command.
    pub fn error(id: u32, error: ErrorCode) -> Self {
        Self::error_because(id, error, error.message.to_owned())
    }

    /// The same with a message that says what was wrong with the command.
    pub fn error_because(id: u32, error: ErrorCode, message: String) -> Self {
        let ErrorCode { code, temporary, .. } = error;
        Self { id, error: Some(Error { code, message, temporary }), ..Self::default() }
    }

    /// A publication for the topic's subscribers. `first` is the epoch of the stream that this publication begins.
    pub fn push_publication(
        topic: &TopicName,
        publication: &crate::Publication,
        first: Option<Epoch>,
    ) -> Self {
        let mut publication = PublicationMessage::from(publication);
        if let Some(epoch) = first {
            epoch.as_str().clone_into(&mut publication.epoch);
        }
        PushMessage { publication: Some(publication), ..PushMessage::to(topic) }.into()
    }

    pub fn push_join(topic: &TopicName, info: &crate::ClientInfo) -> Self {
        PushMessage { join: Some(JoinLeaveMessage { info: Some(info.into()) }), ..PushMessage::to(topic) }
            .into()
    }

    pub fn push_leave(topic: &TopicName, info: &crate::ClientInfo) -> Self {
        PushMessage { leave: Some(JoinLeaveMessage { info: Some(info.into()) }), ..PushMessage::to(topic) }
            .into()
    }

    pub fn push_unsubscribe(topic: &TopicName, unsubscribed: &Unsubscribed) -> Self {
        let unsubscribe = Unsubscribe { code: unsubscribed.code, reason: unsubscribed.reason.to_owned() };
        PushMessage { unsubscribe: Some(unsubscribe), ..PushMessage::to(topic) }.into()
    }

    /// A server-side subscription that started after the connection was made.
    pub fn push_subscribe(topic: &TopicName, subscribe: SubscribePush) -> Self {
        PushMessage { subscribe: Some(subscribe), ..PushMessage::to(topic) }.into()
    }

    /// For transports whose end carries no code.
    pub fn push_disconnect(disconnect: &Disconnect) -> Self {
        let disconnect =
            DisconnectPush { code: disconnect.code.into(), reason: disconnect.reason.clone().into_owned() };
        PushMessage { disconnect: Some(disconnect), ..PushMessage::default() }.into()
    }

    /// The server moved the end of the connection's credentials, to `ttl` seconds from now when they expire at all.
    pub fn push_refresh(expires: bool, ttl: u32) -> Self {
        PushMessage { refresh: Some(Refresh { expires, ttl }), ..PushMessage::default() }.into()
    }
}

impl PushMessage {
    fn to(topic: &TopicName) -> Self {
        Self { channel: topic.as_str().to_owned(), ..Self::default() }
    }
}

impl From<PushMessage> for ReplyMessage {
    fn from(push: PushMessage) -> Self {
        Self { push: Some(push), ..Self::default() }
    }
}

impl From<&crate::ClientInfo> for ClientInfoMessage {
    fn from(info: &crate::ClientInfo) -> Self {
        Self {
            user: info.user.as_ref().to_owned(),
            client: info.client.to_string(),
            conn_info: info.connection.clone(),
            chan_info: info.subscription.clone(),
        }
    }
}

impl From<&crate::Publication> for PublicationMessage {
    fn from(publication: &crate::Publication) -> Self {
        Self {
            data: publication.data.clone(),
            info: publication.info.as_deref().map(ClientInfoMessage::from),
            offset: publication.offset,
            tags: publication.tags.as_deref().cloned().unwrap_or_default(),
            epoch: String::new(),
        }
    }
}
