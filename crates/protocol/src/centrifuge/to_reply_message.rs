//! Replies and pushes as messages.

use std::sync::Arc;

use bytes::Bytes;

use super::codes::{self, Code};
use super::command::Empty;
use super::reply_message::*;
use crate::reason::{RefusalDetail, Refused};
use crate::reply::{Connected, Outcome, Push, Reply, Subscribed};
use crate::{ClientInfo, Publication, TopicName};

impl From<&Reply> for ReplyMessage {
    fn from(reply: &Reply) -> Self {
        let message = Self { id: reply.id, ..Self::default() };
        let outcome = match &reply.result {
            Ok(outcome) => outcome,
            Err(refused) => return Self { error: Some(refused.into()), ..message },
        };
        match outcome {
            Outcome::Connected(connected) => Self { connect: Some((&**connected).into()), ..message },
            Outcome::Subscribed(subscribed) => Self { subscribe: Some(subscribed.into()), ..message },
            Outcome::Unsubscribed => Self { unsubscribe: Some(Empty {}), ..message },
            Outcome::Published => Self { publish: Some(Empty {}), ..message },
            Outcome::Presence(clients) => {
                let presence =
                    clients.iter().map(|info| (info.client.to_string(), (&**info).into())).collect();
                Self { presence: Some(PresenceResult { presence }), ..message }
            }
            Outcome::PresenceStats { clients, users } => {
                let stats = PresenceStatsResult { num_clients: *clients as u32, num_users: *users as u32 };
                Self { presence_stats: Some(stats), ..message }
            }
            Outcome::History { top, publications, shows_time } => {
                let history = HistoryResult {
                    publications: messages(publications, *shows_time),
                    epoch: top.epoch.to_string(),
                    offset: top.offset,
                };
                Self { history: Some(history), ..message }
            }
            Outcome::Called(data) => Self { rpc: Some(RpcResult { data: data.clone() }), ..message },
            Outcome::Refreshed { ttl } => {
                let refresh = ExpiryResult { expires: ttl.is_some(), ttl: ttl.unwrap_or(0) };
                Self { refresh: Some(refresh), ..message }
            }
            Outcome::SubRefreshed { ttl } => {
                let refresh = SubRefreshResult { expires: ttl.is_some(), ttl: ttl.unwrap_or(0) };
                Self { sub_refresh: Some(refresh), ..message }
            }
        }
    }
}

impl From<&Push> for PushMessage {
    fn from(push: &Push) -> Self {
        match push {
            Push::Publication { topic, publication, epoch, shows_time } => {
                let mut message = PublicationMessage::new(publication, *shows_time);
                // Clients learn of the stream when they subscribe; of one that began later, by its first publication.
                if let Some(epoch) = epoch
                    && publication.offset == 1
                {
                    epoch.as_str().clone_into(&mut message.epoch);
                }
                Self { publication: Some(message), ..Self::to(topic) }
            }
            Push::Join { topic, info } => Self { join: Some(info.into()), ..Self::to(topic) },
            Push::Leave { topic, info } => Self { leave: Some(info.into()), ..Self::to(topic) },
            Push::Subscribed { topic, subscription } => {
                Self { subscribe: Some(subscription.into()), ..Self::to(topic) }
            }
            Push::Unsubscribed { topic, reason } => {
                let (code, reason) = codes::unsubscribed(*reason);
                let unsubscribe = Unsubscribe { code, reason: reason.to_owned() };
                Self { unsubscribe: Some(unsubscribe), ..Self::to(topic) }
            }
            Push::Refreshed { ttl } => {
                let refresh = Refresh { expires: ttl.is_some(), ttl: ttl.unwrap_or(0) };
                Self { refresh: Some(refresh), ..Self::default() }
            }
        }
    }
}

impl From<PushMessage> for ReplyMessage {
    fn from(push: PushMessage) -> Self {
        Self { push: Some(push), ..Self::default() }
    }
}

impl From<&Refused> for Error {
    fn from(refused: &Refused) -> Self {
        let Code { number, text, .. } = codes::error(refused.error);
        let message = match refused.detail.as_deref() {
            None => text.to_owned(),
            Some(RefusalDetail::Mistake(mistake)) => format!("{text}: {}", codes::mistake(mistake)),
            Some(RefusalDetail::Words { text, .. }) => text.clone(),
        };
        Self { code: number, message, temporary: refused.is_temporary() }
    }
}

impl From<&Connected> for ConnectResult {
    fn from(connected: &Connected) -> Self {
        let subs = connected.topics.iter();
        Self {
            client: connected.client.to_string(),
            version: connected.version.to_owned(),
            expires: connected.ttl.is_some(),
            ttl: connected.ttl.unwrap_or(0),
            data: Bytes::copy_from_slice(&connected.data),
            subs: subs.map(|(topic, subscribed)| (topic.as_str().to_owned(), subscribed.into())).collect(),
            // 0 would say that there are none.
            ping: connected.ping_interval.map_or(0, |interval| interval.as_secs().max(1) as u32),
            pong: connected.pong,
            session: connected.session.as_ref().map(|names| names.session.clone()).unwrap_or_default(),
            node: connected.session.as_ref().and_then(|names| names.node.clone()).unwrap_or_default(),
            time: connected.time_millis.unwrap_or(0),
        }
    }
}

impl From<&Subscribed> for SubscribeResult {
    fn from(subscribed: &Subscribed) -> Self {
        Self {
            expires: subscribed.ttl.is_some(),
            ttl: subscribed.ttl.unwrap_or(0),
            recoverable: subscribed.recoverable,
            epoch: epoch(subscribed),
            publications: messages(
                subscribed.recovered.as_deref().unwrap_or_default(),
                subscribed.shows_time,
            ),
            recovered: subscribed.was_recovering && subscribed.recovered.is_some(),
            offset: offset(subscribed),
            positioned: subscribed.positioned,
            data: subscribed.data.clone(),
            was_recovering: subscribed.was_recovering,
        }
    }
}

/// The push has no room for publications.
impl From<&Subscribed> for SubscribePush {
    fn from(subscribed: &Subscribed) -> Self {
        Self {
            recoverable: subscribed.recoverable,
            epoch: epoch(subscribed),
            offset: offset(subscribed),
            positioned: subscribed.positioned,
            data: subscribed.data.clone(),
        }
    }
}

fn epoch(subscribed: &Subscribed) -> String {
    subscribed.top.map(|top| top.epoch.to_string()).unwrap_or_default()
}

/// The offset from which clients go on through the publications; they drop what is not above it. For a client that
/// recovers everything it is the offset that it asked from.
fn offset(subscribed: &Subscribed) -> u64 {
    match subscribed.recovered.iter().flatten().next() {
        Some(first) => first.offset.saturating_sub(1),
        None => subscribed.top.map_or(0, |top| top.offset),
    }
}

fn messages(publications: &[Arc<Publication>], shows_time: bool) -> Vec<PublicationMessage> {
    publications.iter().map(|publication| PublicationMessage::new(publication, shows_time)).collect()
}

impl From<&Arc<ClientInfo>> for JoinLeaveMessage {
    fn from(info: &Arc<ClientInfo>) -> Self {
        Self { info: Some((&**info).into()) }
    }
}

impl PushMessage {
    fn to(topic: &TopicName) -> Self {
        Self { channel: topic.as_str().to_owned(), ..Self::default() }
    }
}

impl From<&ClientInfo> for ClientInfoMessage {
    fn from(info: &ClientInfo) -> Self {
        Self {
            user: info.user.as_ref().to_owned(),
            client: info.client.to_string(),
            conn_info: info.connection.clone(),
            chan_info: info.subscription.clone(),
        }
    }
}

impl PublicationMessage {
    pub fn new(publication: &Publication, shows_time: bool) -> Self {
        Self {
            data: publication.data.clone(),
            info: publication.info.as_deref().map(ClientInfoMessage::from),
            offset: publication.offset,
            tags: publication.tags.as_deref().cloned().unwrap_or_default(),
            time: if shows_time { publication.time } else { 0 },
            epoch: String::new(),
        }
    }
}
