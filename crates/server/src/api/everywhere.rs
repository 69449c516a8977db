//! Calls that concern clients, wherever they are: done on this node, then on the others.

use fanwire_protocol::ErrorCode;
use serde_json::value::RawValue;

use super::clients::{DisconnectRequest, RefreshRequest, SubscribeRequest, UnsubscribeRequest, Whom};
use super::command::{Reply, result};
use super::error::ApiError;
use super::method::Method;
use super::overview::{self, ChannelsRequest, ChannelsResult, InfoResult};
use crate::cluster::{CallType, ORDER_BYTES_MAX, Outcome};
use crate::fields::{FieldError, object};
use crate::handle::Node;

/// A call that was understood.
#[derive(Clone, Debug)]
pub(super) enum Everywhere {
    Subscribe(Whom, SubscribeRequest),
    Unsubscribe(Whom, UnsubscribeRequest),
    Disconnect(Whom, DisconnectRequest),
    Refresh(Whom, RefreshRequest),
    Channels(ChannelsRequest),
    Info,
}

/// Does a call on all nodes. The answer comes when it has been done, on every node that answered in time.
pub(super) async fn run(node: &Node, request: Everywhere, parameters: &RawValue) -> Reply {
    if node.cluster.is_some()
        && request.call_type() == CallType::Order
        && parameters.get().len() > ORDER_BYTES_MAX
    {
        return Err(ApiError::bad_request(format!(
            "parameters longer than {ORDER_BYTES_MAX} bytes, which is what nodes tell each other"
        )));
    }
    let (method, call_type, merge) = (request.method(), request.call_type(), request.merging(node));
    let here = request.run_here(node).await;
    let Some(cluster) = &node.cluster else { return here };
    match &here {
        // What is wrong here is wrong everywhere. What failed here may be done elsewhere.
        Err(error) if error.code() != ErrorCode::INTERNAL.code => here,
        _ => {
            let there = cluster.ask(call_type, method.name(), parameters).await?;
            merge([here].into_iter().chain(there).collect())
        }
    }
}

/// Does a call of another node on this one.
pub(crate) async fn run_here(node: &Node, method: &str, parameters: &str) -> Reply {
    let method = Method::named(method).ok_or(ApiError::NOT_FOUND)?;
    Everywhere::decode(method, parameters)?.ok_or(ApiError::NOT_FOUND)?.run_here(node).await
}

impl Everywhere {
    /// `None` for a method that concerns no other node.
    pub(super) fn decode(method: Method, parameters: &str) -> Result<Option<Self>, FieldError> {
        Ok(Some(match method {
            Method::Subscribe => Self::Subscribe(object(parameters)?, object(parameters)?),
            Method::Unsubscribe => Self::Unsubscribe(object(parameters)?, object(parameters)?),
            Method::Disconnect => Self::Disconnect(object(parameters)?, object(parameters)?),
            Method::Refresh => Self::Refresh(object(parameters)?, object(parameters)?),
            Method::Channels => Self::Channels(object(parameters)?),
            Method::Info => {
                object::<serde::de::IgnoredAny>(parameters)?;
                Self::Info
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::Subscribe(..) => Method::Subscribe,
            Self::Unsubscribe(..) => Method::Unsubscribe,
            Self::Disconnect(..) => Method::Disconnect,
            Self::Refresh(..) => Method::Refresh,
            Self::Channels(_) => Method::Channels,
            Self::Info => Method::Info,
        }
    }

    fn call_type(&self) -> CallType {
        match self {
            Self::Channels(_) | Self::Info => CallType::Question,
            _ => CallType::Order,
        }
    }

    /// How the answers of all nodes become one.
    fn merging(&self, node: &Node) -> impl Fn(Vec<Outcome>) -> Reply + use<> {
        let (method, topics_max) = (self.method(), node.settings.api.topics_max);
        move |outcomes| match method {
            Method::Channels => result(&ChannelsResult::merged(read(outcomes)?, topics_max)?),
            Method::Info => result(&InfoResult::merged(read(outcomes)?)),
            _ => outcomes.into_iter().reduce(Result::and).unwrap_or(Err(ApiError::NOT_FOUND)),
        }
    }

    async fn run_here(self, node: &Node) -> Reply {
        match self {
            Self::Subscribe(whom, request) => result(&request.run(node, whom).await?),
            Self::Unsubscribe(whom, request) => result(&request.run(node, whom).await?),
            Self::Disconnect(whom, request) => result(&request.run(node, whom).await?),
            Self::Refresh(whom, request) => result(&request.run(node, whom).await?),
            Self::Channels(request) => result(&overview::channels(node, &request.pattern).await?),
            Self::Info => result(&overview::info(node)),
        }
    }
}

/// Every node's result, or the first error.
fn read<T: serde::de::DeserializeOwned>(outcomes: Vec<Outcome>) -> Result<Vec<T>, ApiError> {
    let read =
        |outcome: Outcome| serde_json::from_str(outcome?.get()).map_err(|_| ErrorCode::INTERNAL.into());
    outcomes.into_iter().map(read).collect()
}
