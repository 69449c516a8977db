//! One command: from its method and parameters to a result in JSON or an error. All commands are counted and timed
//! here.

use std::time::Instant;

use fanwire_protocol::json::fields::{FieldError, object};
use fanwire_protocol::json::null_is_default;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer_budget::AnswerBudget;
use super::cluster_command::{self, ClusterCommand};
use super::dead_letters::{self, ApiDeadLetters, ApiLetters};
use super::error::ApiError;
use super::history::{self, ApiHistory};
use super::method::Method;
use super::presence;
use super::publish::{self, ApiPublish};
use super::reply::{ApiReply, result};
use super::user_status::{self, ApiUserStatus};
use crate::node::Node;

/// A command that was understood.
#[derive(Clone, Debug)]
pub(super) enum ApiCommand {
    Publish(ApiPublish),
    Broadcast(ApiPublish),
    Presence(ApiTopic),
    PresenceStats(ApiTopic),
    History(ApiHistory),
    HistoryRemove(ApiTopic),
    UserStatus(ApiUserStatus),
    DeadLetters(ApiDeadLetters),
    DeadLettersRetry(ApiLetters),
    DeadLettersRemove(ApiLetters),
    /// A command about clients of all nodes, with its parameters as they came.
    Cluster(ClusterCommand, Box<RawValue>),
    /// A method that is known and answered with error 104, calls of extensions among them.
    NotServed(Method),
}

/// The parameters of a command that names a topic and nothing else.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiTopic {
    #[serde(alias = "topic", deserialize_with = "null_is_default")]
    pub(super) channel: String,
}

impl ApiCommand {
    pub(super) fn decode(method: Method, parameters: &str) -> Result<Self, FieldError> {
        if let Some(request) = ClusterCommand::decode(method, parameters)? {
            let parameters = RawValue::from_string(parameters.trim().to_owned());
            return Ok(Self::Cluster(request, parameters.expect("it was read as an object")));
        }
        Ok(match method {
            Method::Publish => Self::Publish(object(parameters)?),
            Method::Broadcast => Self::Broadcast(object(parameters)?),
            Method::Presence => Self::Presence(object(parameters)?),
            Method::PresenceStats => Self::PresenceStats(object(parameters)?),
            Method::History => Self::History(object(parameters)?),
            Method::HistoryRemove => Self::HistoryRemove(object(parameters)?),
            Method::UserStatus => Self::UserStatus(object(parameters)?),
            Method::DeadLetters => Self::DeadLetters(object(parameters)?),
            Method::DeadLettersRetry => Self::DeadLettersRetry(object(parameters)?),
            Method::DeadLettersRemove => Self::DeadLettersRemove(object(parameters)?),
            _ => {
                object::<serde::de::IgnoredAny>(parameters)?;
                Self::NotServed(method)
            }
        })
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::Publish(_) => Method::Publish,
            Self::Broadcast(_) => Method::Broadcast,
            Self::Presence(_) => Method::Presence,
            Self::PresenceStats(_) => Method::PresenceStats,
            Self::History(_) => Method::History,
            Self::HistoryRemove(_) => Method::HistoryRemove,
            Self::UserStatus(_) => Method::UserStatus,
            Self::DeadLetters(_) => Method::DeadLetters,
            Self::DeadLettersRetry(_) => Method::DeadLettersRetry,
            Self::DeadLettersRemove(_) => Method::DeadLettersRemove,
            Self::Cluster(request, _) => request.method(),
            Self::NotServed(method) => *method,
        }
    }

    pub(super) async fn run(self, node: &Node, budget: &AnswerBudget) -> ApiReply {
        self.begin(node, budget).await.finish(node).await
    }

    async fn begin(self, node: &Node, budget: &AnswerBudget) -> StartedCommand {
        let (method, started) = (self.method(), Instant::now());
        StartedCommand { method, started, state: self.carry_out(node, budget).await }
    }

    async fn carry_out(self, node: &Node, budget: &AnswerBudget) -> Result<CommandState, ApiError> {
        let instead = self.instead();
        let _turn = if instead.is_some() { budget.turn().await } else { None };
        let reply = match self {
            Self::Publish(request) => {
                return Ok(CommandState::Publishing(publish::publish(node, request).await?));
            }
            Self::Broadcast(request) => publish::broadcast(node, request).await,
            Self::Presence(request) => presence::presence(node, budget, &request.channel).await,
            Self::PresenceStats(request) => result(&presence::stats(node, &request.channel).await?),
            Self::History(request) => history::history(node, budget, request).await,
            Self::HistoryRemove(request) => result(&history::remove(node, &request.channel).await?),
            Self::UserStatus(request) => user_status::user_status(node, request).await,
            Self::DeadLetters(request) => dead_letters::list(node, &request).await,
            Self::DeadLettersRetry(request) => result(&dead_letters::retry(node, &request).await?),
            Self::DeadLettersRemove(request) => result(&dead_letters::remove(node, &request).await?),
            Self::Cluster(request, parameters) => cluster_command::run(node, request, &parameters).await,
            Self::NotServed(_) => Err(ApiError::NOT_FOUND),
        };
        let reply = match instead {
            Some(instead) => budget.take(reply, instead),
            None => reply,
        };
        reply.map(CommandState::Done)
    }

    /// The advice for a caller whose answer is too long; `None` for a command whose answer never is.
    fn instead(&self) -> Option<&'static str> {
        match self {
            Self::History(_) => Some(history::INSTEAD),
            Self::Presence(_) => Some(presence::INSTEAD),
            Self::DeadLetters(_) => Some(dead_letters::INSTEAD),
            Self::Cluster(ClusterCommand::Channels(_), _) => Some("ask with a narrower pattern"),
            _ => None,
        }
    }
}

/// Runs commands in order; one that could not be decoded has its error as its reply. Consecutive publications do not
/// wait for each other's answers: those of one topic keep their order and are published together.
pub(super) async fn in_order(
    node: &Node,
    budget: &AnswerBudget,
    commands: impl IntoIterator<Item = Result<ApiCommand, ApiError>>,
) -> Vec<ApiReply> {
    let mut replies = Vec::new();
    let mut started = Vec::new();
    for command in commands {
        if !matches!(command, Ok(ApiCommand::Publish(_))) {
            finish(node, &mut started, &mut replies).await;
        }
        match command {
            Ok(command) => started.push(command.begin(node, budget).await),
            Err(error) => replies.push(Err(error)),
        }
    }
    finish(node, &mut started, &mut replies).await;
    replies
}

async fn finish(node: &Node, started: &mut Vec<StartedCommand>, replies: &mut Vec<ApiReply>) {
    for command in started.drain(..) {
        replies.push(command.finish(node).await);
    }
}

/// A command that was carried out, or a publication on its way.
struct StartedCommand {
    method: Method,
    started: Instant,
    state: Result<CommandState, ApiError>,
}

enum CommandState {
    Publishing(publish::PendingPublish),
    Done(Box<RawValue>),
}

impl StartedCommand {
    async fn finish(self, node: &Node) -> ApiReply {
        let reply = match self.state {
            Ok(CommandState::Publishing(publishing)) => {
                publishing.await.and_then(|published| result(&published))
            }
            Ok(CommandState::Done(reply)) => Ok(reply),
            Err(error) => Err(error),
        };
        let code = reply.as_ref().err().map(ApiError::code);
        node.metrics.api_request(self.method.name(), code, self.started.elapsed());
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_methods() -> impl Iterator<Item = Method> {
        Method::served().chain([Method::NotServed])
    }

    #[test]
    fn every_method_takes_an_empty_object_and_nulls() {
        let nulls = r#"{"channel":null,"channels":null,"data":null,"b64data":null,"tags":null,"skip_history":null,
            "idempotency_key":null,"delta":null,"exclude":null,"subscribers":null,"version":null,"version_epoch":null,"user":null,"client":null,
            "session":null,"expire_at":null,"expired":null,"info":null,"b64info":null,"recover_since":null,
            "override":null,"whitelist":null,"disconnect":null,"limit":null,"since":null,"reverse":null,
            "pattern":null,"users":null,"method":null,"params":null,"ids":null,"all":null,"label_filter":{"a":[1]},"all_users":true}"#;
        for method in all_methods() {
            for parameters in ["{}", " { } ", nulls] {
                let command = ApiCommand::decode(method, parameters);
                assert!(command.is_ok_and(|command| command.method() == method), "{method:?} {parameters}");
            }
        }
    }

    #[test]
    fn no_method_takes_anything_but_an_object() {
        for method in all_methods() {
            for parameters in ["", " ", "hello", "[]", "[{}]", "1", "null", "{", "{}}", "{} {}", "\"\""] {
                assert!(ApiCommand::decode(method, parameters).is_err(), "{method:?} {parameters}");
            }
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        let wrong = [
            (Method::Publish, r#"{"channel":1}"#),
            (Method::Publish, r#"{"version":-1}"#),
            (Method::Publish, r#"{"tags":{"a":1}}"#),
            (Method::Publish, r#"{"tags":[]}"#),
            (Method::Publish, r#"{"b64data":1}"#),
            (Method::Publish, r#"{"skip_history":"yes"}"#),
            (Method::Publish, r#"{"exclude":1}"#),
            (Method::Publish, r#"{"subscribers":"yes"}"#),
            (Method::Publish, r#"{"data":nul}"#),
            (Method::Broadcast, r#"{"channels":"a"}"#),
            (Method::Broadcast, r#"{"channels":[1]}"#),
            (Method::Subscribe, r#"{"user":7}"#),
            (Method::Subscribe, r#"{"recover_since":[]}"#),
            (Method::Subscribe, r#"{"override":{"presence":true}}"#),
            (Method::Unsubscribe, r#"{"client":{}}"#),
            (Method::Disconnect, r#"{"whitelist":"a"}"#),
            (Method::Disconnect, r#"{"disconnect":[]}"#),
            (Method::Disconnect, r#"{"disconnect":{"code":"3000"}}"#),
            (Method::Refresh, r#"{"expire_at":"tomorrow"}"#),
            (Method::Refresh, r#"{"expired":1}"#),
            (Method::Presence, r#"{"channel":[]}"#),
            (Method::History, r#"{"limit":"1"}"#),
            (Method::History, r#"{"since":{"offset":-1}}"#),
            (Method::History, r#"{"since":[1,"a"]}"#),
            (Method::Channels, r#"{"pattern":[]}"#),
            (Method::UserStatus, r#"{"users":"42"}"#),
            (Method::UserStatus, r#"{"users":[42]}"#),
            (Method::DeadLetters, r#"{"limit":"1"}"#),
            (Method::DeadLettersRetry, r#"{"ids":[1]}"#),
            (Method::DeadLettersRemove, r#"{"all":"yes"}"#),
        ];
        for (method, parameters) in wrong {
            assert!(ApiCommand::decode(method, parameters).is_err(), "{method:?} {parameters}");
        }
    }
}
