//! Several commands in one request: one after the other, or in parallel. Nothing is done unless all of them can be
//! read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::time::Instant;

use fanwire_protocol::json::fields::{FieldError, object};
use fanwire_protocol::json::null_is_default;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::answer_budget::AnswerBudget;
use super::command::{self, ApiCommand};
use super::error::ApiError;
use super::method::{self, Method};
use super::parallel::side_by_side;
use super::refusal::HttpRefusal;
use super::reply::{self, ApiReply};
use crate::node::Node;

/// Commands of one batch that are carried out at the same time.
const BATCH_WIDTH: usize = 1024;

/// A batch that was understood, but for commands that are answered with an error.
#[derive(Debug)]
pub(super) struct Batch {
    commands: Vec<Result<ApiCommand, ApiError>>,
    parallel: bool,
}

/// The answer to one command, under its method's name.
#[derive(Debug)]
struct BatchReply(&'static str, ApiReply);

/// Answers `{"replies":[...]}`, in the order of the commands.
pub(super) async fn run(node: &Node, budget: &AnswerBudget, text: &str) -> Result<ApiReply, HttpRefusal> {
    let started = Instant::now();
    let reply = match decode(text, node.settings.api.commands_max)? {
        Ok(batch) => batch.run(node, budget).await,
        Err(error) => Err(error),
    };
    node.metrics.api_request(method::BATCH, reply.as_ref().err().map(ApiError::code), started.elapsed());
    Ok(reply)
}

pub(super) fn decode(text: &str, commands_max: usize) -> Result<Result<Batch, ApiError>, HttpRefusal> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request<'a> {
        #[serde(borrow, deserialize_with = "null_is_default")]
        commands: Vec<Option<&'a RawValue>>,
        #[serde(deserialize_with = "null_is_default")]
        parallel: bool,
    }

    let Request { commands, parallel } = object(text).map_err(HttpRefusal::malformed)?;
    if commands.len() > commands_max {
        let message = format!("more than {commands_max} commands, the limit that api.commands_max sets");
        return Ok(Err(ApiError::bad_request(message)));
    }
    let commands = commands
        .into_iter()
        .enumerate()
        .map(|(place, command)| {
            let number = place + 1;
            let Some(command) = command else {
                return Ok(Err(ApiError::bad_request(format!("command {number} is null"))));
            };
            decode_command(command).map_err(|error| HttpRefusal::malformed_command(number, error))
        })
        .collect::<Result<_, _>>()?;
    Ok(Ok(Batch { commands, parallel }))
}

impl Batch {
    async fn run(self, node: &Node, budget: &AnswerBudget) -> ApiReply {
        #[derive(Serialize)]
        struct Replies {
            replies: Vec<BatchReply>,
        }

        let names: Vec<_> = self
            .commands
            .iter()
            .map(|command| match command {
                Ok(command) => command.method().name(),
                Err(_) => method::OTHER,
            })
            .collect();
        let replies = if self.parallel {
            let commands = self.commands.into_iter().map(|command| {
                let (node, budget) = (node.clone(), budget.clone());
                async move { command?.run(&node, &budget).await }
            });
            side_by_side(BATCH_WIDTH, commands).await
        } else {
            command::in_order(node, budget, self.commands).await
        };
        let replies = names.into_iter().zip(replies).map(|(name, reply)| BatchReply(name, reply)).collect();
        reply::result(&Replies { replies })
    }
}

/// `{"publish":{...}}`; a command that names no method of ours is answered, not refused.
fn decode_command(command: &RawValue) -> Result<Result<ApiCommand, ApiError>, FieldError> {
    let Methods(methods) = object(command.get())?;
    for method in Method::served() {
        if let Some(Some(parameters)) = methods.get(method.name()) {
            return ApiCommand::decode(method, parameters.get()).map(Ok);
        }
    }
    Ok(Err(ApiError::NOT_FOUND))
}

/// A command's fields, each once: of two commands of one method none is lost unseen.
struct Methods<'a>(HashMap<Cow<'a, str>, Option<&'a RawValue>>);

impl<'de> Deserialize<'de> for Methods<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Methods<'de>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object of methods")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut methods = HashMap::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    match methods.entry(name) {
                        Entry::Occupied(_) => return Err(A::Error::custom("a method is doubled")),
                        Entry::Vacant(place) => place.insert(map.next_value()?),
                    };
                }
                Ok(Methods(methods))
            }
        }

        from.deserialize_map(Each)
    }
}

impl Serialize for BatchReply {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        match &self.1 {
            Ok(result) => map.serialize_entry(self.0, result)?,
            Err(error) => map.serialize_entry("error", error)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Vec<Result<Method, u32>> {
        let batch = decode(text, 100).unwrap().unwrap();
        let method = |command: Result<ApiCommand, ApiError>| {
            command.map(|command| command.method()).map_err(|error| error.code())
        };
        batch.commands.into_iter().map(method).collect()
    }

    #[test]
    fn commands_are_named_by_their_key() {
        let text = r#"{"commands":[
            {"publish":{"channel":"a","data":1}},
            {"presence_stats":{},"unknown":[1]},
            {"no_such_method":{}},
            {"batch":{"commands":[]}},
            {"map_publish":{}},
            {},
            {"publish":null},
            null,
            {"rpc":{"method":"a"}},
            {"history":{},"publish":{}}
        ]}"#;
        let expected = [
            Ok(Method::Publish),
            Ok(Method::PresenceStats),
            Err(104),
            Err(104),
            Err(104),
            Err(104),
            Err(104),
            Err(107),
            Ok(Method::Rpc),
            Ok(Method::Publish),
        ];
        assert_eq!(shape(text), expected);
        assert!(shape("{}").is_empty());
        assert!(shape(r#"{"commands":null,"parallel":null}"#).is_empty());
    }

    #[test]
    fn parallel_is_asked_for() {
        let parallel = |text| decode(text, 1).unwrap().unwrap().parallel;
        assert!(parallel(r#"{"commands":[],"parallel":true}"#));
        assert!(!parallel(r#"{"commands":[]}"#));
    }

    #[test]
    fn what_cannot_be_read_is_refused_whole() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"commands":{}}"#,
            r#"{"commands":[1]}"#,
            r#"{"commands":[[]]}"#,
            r#"{"commands":[{"publish":[]}]}"#,
            r#"{"commands":[{"publish":{}},{"publish":{"channel":1}}]}"#,
            r#"{"commands":[],"parallel":1}"#,
        ] {
            assert!(matches!(decode(text, 10), Err(HttpRefusal::Malformed(_))), "{text}");
        }
        let second = decode(r#"{"commands":[{"publish":{}},{"publish":{"channel":1}}]}"#, 10);
        let why = r#"command 2: the field "channel" has a wrong type: expected a string"#;
        assert_eq!(second.unwrap_err(), HttpRefusal::Malformed(why.into()));
        let twice = decode(r#"{"commands":[{"publish":{},"Publish":{}}]}"#, 10).unwrap_err();
        assert!(twice.to_string().contains(r#"command 1: the field "publish" is doubled"#), "{twice}");
    }

    #[test]
    fn too_many_commands_name_the_limit() {
        let text = |count| format!(r#"{{"commands":[{}]}}"#, vec![r#"{"info":{}}"#; count].join(","));
        assert!(decode(&text(3), 3).unwrap().is_ok());
        let error = decode(&text(4), 3).unwrap().unwrap_err();
        assert_eq!(error.code(), 107);
        assert!(serde_json::to_string(&error).unwrap().contains("more than 3 commands"));
    }

    #[test]
    fn replies_are_exact() {
        let text = |reply| serde_json::to_string(&reply).unwrap();
        let empty = RawValue::from_string("{}".into()).unwrap();
        assert_eq!(text(BatchReply("subscribe", Ok(empty))), r#"{"subscribe":{}}"#);
        let error = BatchReply("publish", Err(ApiError::NOT_FOUND));
        assert_eq!(text(error), r#"{"error":{"code":104,"message":"not found"}}"#);
    }
}
