//! Commands about clients, on whichever node they are: carried out on this node, then on the others.

use fanwire_protocol::json::fields::{FieldError, object};
use fanwire_protocol::reason::RequestError;
use serde_json::value::RawValue;

use super::clients::{ApiDisconnect, ApiRefresh, ApiSubscribe, ApiUnsubscribe, Whom};
use super::error::ApiError;
use super::method::Method;
use super::overview::{self, ApiChannels, ChannelsResult, InfoResult};
use super::reply::{ApiReply, result};
use super::revocation::{ApiBlockUser, ApiRevokeToken, ApiUnblockUser, RevokeResult};
use crate::node::Node;
use crate::peers::{Answers, CallResult, CallType, ORDER_BYTES_MAX, PATIENCE};

/// A decoded command.
#[derive(Clone, Debug)]
pub(super) enum ClusterCommand {
    Subscribe(Whom, ApiSubscribe),
    Unsubscribe(Whom, ApiUnsubscribe),
    Disconnect(Whom, ApiDisconnect),
    Refresh(Whom, ApiRefresh),
    Channels(ApiChannels),
    Info,
    BlockUser(ApiBlockUser),
    UnblockUser(ApiUnblockUser),
    RevokeToken(ApiRevokeToken),
}

/// Carries out a command on all nodes, and returns when that is done. An order that a node did not carry out in time
/// fails and names the node; a question is answered by the nodes that reply.
pub(super) async fn run(node: &Node, request: ClusterCommand, parameters: &RawValue) -> ApiReply {
    if node.peers.is_some()
        && request.call_type() == CallType::Order
        && parameters.get().len() > ORDER_BYTES_MAX
    {
        return Err(ApiError::bad_request(format!(
            "parameters longer than {ORDER_BYTES_MAX} bytes, which is what nodes tell each other"
        )));
    }
    let (method, call_type) = (request.method(), request.call_type());
    request.keep(node).await?;
    let here = request.run_here(node).await;
    let Some(peers) = &node.peers else { return here };
    match &here {
        // A mistake in the command is the same on every node. A failure of this node is its own.
        Err(error) if error.error() != RequestError::Internal => return here,
        _ => {}
    }
    let there = peers.ask(call_type, method.name(), parameters).await?;
    match call_type {
        CallType::Order => {
            let results = done_by_all((&node.settings.name, here), there)?;
            summed(method, results)
        }
        CallType::Question => {
            let there = there.outcomes.into_iter().map(|(_, outcome)| outcome);
            merged(method, [here].into_iter().chain(there), node.settings.api.topics_max)
        }
    }
}

/// Carries out a command of another node on this one.
pub(crate) async fn run_here(node: &Node, method: &str, parameters: &str) -> ApiReply {
    let method = Method::named(method).ok_or(ApiError::NOT_FOUND)?;
    ClusterCommand::decode(method, parameters)?.ok_or(ApiError::NOT_FOUND)?.run_here(node).await
}

impl ClusterCommand {
    /// Returns `None` for a method that concerns this node alone.
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
            Method::BlockUser => Self::BlockUser(object(parameters)?),
            Method::UnblockUser => Self::UnblockUser(object(parameters)?),
            Method::RevokeToken => Self::RevokeToken(object(parameters)?),
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
            Self::BlockUser(_) => Method::BlockUser,
            Self::UnblockUser(_) => Method::UnblockUser,
            Self::RevokeToken(_) => Method::RevokeToken,
        }
    }

    fn call_type(&self) -> CallType {
        match self {
            Self::Channels(_) | Self::Info => CallType::Question,
            _ => CallType::Order,
        }
    }

    /// Writes what a node that comes later has to know to the engine.
    async fn keep(&self, node: &Node) -> Result<(), ApiError> {
        let kept = match self {
            Self::BlockUser(request) => request.kept(node)?,
            Self::UnblockUser(request) => request.kept()?,
            Self::RevokeToken(request) => request.kept(node)?,
            _ => return Ok(()),
        };
        kept.write(node).await
    }

    async fn run_here(self, node: &Node) -> ApiReply {
        match self {
            Self::Subscribe(whom, request) => result(&request.run(node, whom).await?),
            Self::Unsubscribe(whom, request) => result(&request.run(node, whom).await?),
            Self::Disconnect(whom, request) => result(&request.run(node, whom).await?),
            Self::Refresh(whom, request) => result(&request.run(node, whom).await?),
            Self::Channels(request) => result(&overview::channels(node, &request.pattern).await?),
            Self::Info => result(&overview::info(node)),
            Self::BlockUser(request) => result(&request.run(node).await?),
            Self::UnblockUser(request) => result(&request.run(node)?),
            Self::RevokeToken(request) => result(&request.run(node).await?),
        }
    }
}

/// Returns the results of an order, this node's first, or the first error with the node that it comes from.
fn done_by_all((name, here): (&str, CallResult), there: Answers) -> Result<Vec<Box<RawValue>>, ApiError> {
    let mut results = vec![here.map_err(|error| error.on_node(name))?];
    for (name, outcome) in there.outcomes {
        results.push(outcome.map_err(|error| error.on_node(&name))?);
    }
    if there.missing.is_empty() { Ok(results) } else { Err(ApiError::not_done_by(&there.missing, PATIENCE)) }
}

/// Returns the result of an order that every node has done. Most say nothing more than that.
fn summed(method: Method, mut results: Vec<Box<RawValue>>) -> ApiReply {
    match method {
        Method::RevokeToken => result(&RevokeResult::merged(read(results.into_iter().map(Ok))?)),
        _ => Ok(results.swap_remove(0)),
    }
}

/// Merges the answers of all nodes into one.
fn merged(method: Method, outcomes: impl Iterator<Item = CallResult>, topics_max: usize) -> ApiReply {
    match method {
        Method::Channels => result(&ChannelsResult::merged(read(outcomes)?, topics_max)?),
        _ => result(&InfoResult::merged(read(outcomes)?)),
    }
}

/// Returns every node's result, or the first error.
fn read<T: serde::de::DeserializeOwned>(
    outcomes: impl Iterator<Item = CallResult>,
) -> Result<Vec<T>, ApiError> {
    let read =
        |outcome: CallResult| serde_json::from_str(outcome?.get()).map_err(|_| RequestError::Internal.into());
    outcomes.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_fails_if_a_node_has_not_done_it_and_names_the_node() {
        let done = || Ok(RawValue::from_string("{}".to_owned()).unwrap());
        let failed = || Err(RequestError::Internal.into());
        let check = |here: CallResult, there: Vec<CallResult>, missing: &[&str], expected: &str| {
            let outcomes = there.into_iter().map(|outcome| ("b".into(), outcome)).collect();
            let missing = missing.iter().map(|name| (*name).into()).collect();
            let reply = done_by_all(("a", here), Answers { outcomes, missing });
            let reply = reply.and_then(|results| summed(Method::Disconnect, results));
            assert_eq!(serde_json::to_string(&reply).unwrap(), expected);
        };
        check(done(), vec![], &[], r#"{"Ok":{}}"#);
        check(done(), vec![done()], &[], r#"{"Ok":{}}"#);
        let error = |why| format!(r#"{{"Err":{{"code":100,"message":"internal server error{why}"}}}}"#);
        check(failed(), vec![done()], &[], &error(r#", on node \"a\""#));
        check(done(), vec![failed()], &[], &error(r#", on node \"b\""#));
        let late = ": no answer from c, d within 2 s. A node that is back carries out the order then";
        check(done(), vec![done()], &["c", "d"], &error(late));
    }

    #[test]
    fn closed_connections_are_summed_unless_a_node_closes_none() {
        for (results, expected) in [
            (&["{}"][..], "{}"),
            (&[r#"{"connections_closed":0}"#], r#"{"connections_closed":0}"#),
            (&[r#"{"connections_closed":2}"#, r#"{"connections_closed":1}"#], r#"{"connections_closed":3}"#),
            (&[r#"{"connections_closed":2}"#, "{}"], "{}"),
        ] {
            let results = results.iter().map(|text| RawValue::from_string((*text).to_owned()).unwrap());
            let reply = summed(Method::RevokeToken, results.collect()).unwrap();
            assert_eq!(reply.get(), expected);
        }
    }
}
