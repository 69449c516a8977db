//! From commands to requests.

use std::collections::HashMap;
use std::sync::Arc;

use super::command::*;
use crate::filter::Filter;
use crate::reason::{Mistake, Unserved};
use crate::request::{
    Ask, Connect, ConnectExtras, History, Publish, Request, StreamPosition, SubRefresh, Subscribe,
    SubscribeExtras,
};

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
        let topics = if subs.is_empty() { Vec::new() } else { topics(subs) };
        let extras = if data.is_empty() && version.is_empty() && headers.is_empty() {
            None
        } else {
            let headers = headers.into_iter().collect();
            Some(ConnectExtras { cursor: None, data, version, headers }.into())
        };
        Self { token, topics, unseen: false, name, extras }
    }
}

impl From<SubscribeRequest> for Subscribe {
    fn from(request: SubscribeRequest) -> Self {
        let unserved = if !matches!(&*request.delta, "" | "fossil") {
            Some(Unserved::Delta)
        } else {
            (request.kind != 0).then_some(Unserved::Kind)
        };
        let has_extras = request.recover || !request.data.is_empty() || request.tf.is_some();
        let extras = has_extras.then(|| {
            let filter = request.tf.map(|tree| Filter::try_from(&*tree).map(Arc::new));
            let since = since(request.recover, request.offset, request.epoch);
            SubscribeExtras { since, data: request.data, filter }.into()
        });
        Self {
            topic: request.channel,
            token: request.token,
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            or_refuse: request.flag & SubscribeRequest::FLAG_REJECT_UNRECOVERED != 0,
            unserved,
            extras,
            unseen: false,
        }
    }
}

fn topics(subs: HashMap<String, SubscribeRequest>) -> Vec<(String, Option<StreamPosition>)> {
    let position = |request: SubscribeRequest| since(request.recover, request.offset, request.epoch);
    subs.into_iter().map(|(topic, request)| (topic, position(request))).collect()
}

fn since(recover: bool, offset: u64, epoch: String) -> Option<StreamPosition> {
    recover.then_some(StreamPosition { offset, epoch })
}
