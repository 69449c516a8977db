//! From commands to requests.

use std::sync::Arc;

use super::command::*;
use crate::filter::Filter;
use crate::reason::{Mistake, Unserved};
use crate::request::{Ask, Connect, History, Publish, Request, StreamPosition, SubRefresh, Subscribe};

/// Of several requests in one command the first in this order counts. Without a request, id 0 makes it a pong and any
/// other id a mistake; only `send` goes without an id.
impl From<Command> for Request {
    fn from(command: Command) -> Self {
        let id = command.id;
        let ask = if let Some(connect) = command.connect {
            Ask::Connect(connect.into())
        } else if let Some(Empty {}) = command.ping {
            Ask::Ping
        } else if let Some(subscribe) = command.subscribe {
            Ask::Subscribe(subscribe.into())
        } else if let Some(UnsubscribeRequest { channel }) = command.unsubscribe {
            Ask::Unsubscribe { topic: channel }
        } else if let Some(PublishRequest { channel, data, kind }) = command.publish {
            Ask::Publish(Publish { topic: channel, data, tags: None, is_unserved: kind != 0 })
        } else if let Some(PresenceRequest { channel }) = command.presence {
            Ask::Presence { topic: channel }
        } else if let Some(PresenceStatsRequest { channel }) = command.presence_stats {
            Ask::PresenceStats { topic: channel }
        } else if let Some(HistoryRequest { channel, limit, since, reverse }) = command.history {
            let limit = usize::try_from(limit).ok();
            let since = since.map(|StreamPositionMessage { offset, epoch }| StreamPosition { offset, epoch });
            Ask::History(History { topic: channel, limit, since, reverse })
        } else if let Some(RpcRequest { data, method }) = command.rpc {
            Ask::Call { method, data }
        } else if let Some(SendRequest { data }) = command.send {
            return Self { id, ask: Ask::Send { method: None, data } };
        } else if let Some(RefreshRequest { token }) = command.refresh {
            Ask::Refresh { token }
        } else if let Some(SubRefreshRequest { channel, token, kind }) = command.sub_refresh {
            Ask::SubRefresh(SubRefresh { topic: channel, token, is_unserved: kind != 0 })
        } else if id == 0 {
            return Self { id, ask: Ask::Pong };
        } else {
            Ask::Wrong(Mistake::NoRequest)
        };
        Self { id, ask: if id == 0 { Ask::Wrong(Mistake::NoId) } else { ask } }
    }
}

impl From<ConnectRequest> for Connect {
    fn from(request: ConnectRequest) -> Self {
        let ConnectRequest { token, data, subs, name, version, headers } = request;
        let position = |request: SubscribeRequest| since(request.recover, request.offset, request.epoch);
        let topics = subs.into_iter().map(|(topic, request)| (topic, position(request))).collect();
        let headers = headers.into_iter().collect();
        Self { token, topics, cursor: None, unseen: false, data, name, version, headers }
    }
}

impl From<SubscribeRequest> for Subscribe {
    fn from(request: SubscribeRequest) -> Self {
        let unserved = if !matches!(&*request.delta, "" | "fossil") {
            Some(Unserved::Delta)
        } else {
            (request.kind != 0).then_some(Unserved::Kind)
        };
        let filter = request.tf.map(|tree| Filter::try_from(&*tree).map(Arc::new));
        Self {
            topic: request.channel,
            token: request.token,
            since: since(request.recover, request.offset, request.epoch),
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            data: request.data,
            or_refuse: request.flag & SubscribeRequest::FLAG_REJECT_UNRECOVERED != 0,
            unserved,
            filter,
            unseen: false,
        }
    }
}

fn since(recover: bool, offset: u64, epoch: String) -> Option<StreamPosition> {
    recover.then_some(StreamPosition { offset, epoch })
}
