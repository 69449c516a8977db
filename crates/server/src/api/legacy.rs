//! The older endpoint, which some client libraries use for everything: `POST /api` with one command or several, one
//! after the other, answered in their order. Nothing is done unless all of them can be read.

use std::borrow::Cow;

use fanwire_protocol::json::fields::object;
use fanwire_protocol::json::null_is_default;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer_budget::AnswerBudget;
use super::command::{self, ApiCommand};
use super::error::ApiError;
use super::method::Method;
use super::refusal::HttpRefusal;
use super::reply::{ApiEnvelope, ApiReply};
use crate::node::Node;

/// A command that was understood, or the error that it is answered with.
#[derive(Debug)]
pub(super) struct Numbered {
    /// Comes back in the reply; 0 is none.
    id: u32,
    command: Result<ApiCommand, ApiError>,
}

/// Answers one line of JSON for each command.
pub(super) async fn run(node: &Node, budget: &AnswerBudget, text: &str) -> Result<Vec<u8>, HttpRefusal> {
    let commands = decode(text, node.settings.api.commands_max)?;
    let ids: Vec<u32> = commands.iter().map(|numbered| numbered.id).collect();
    let replies =
        command::in_order(node, budget, commands.into_iter().map(|numbered| numbered.command)).await;
    let mut lines = Vec::new();
    for (id, reply) in ids.into_iter().zip(replies) {
        write(id, &reply, &mut lines);
    }
    Ok(lines)
}

pub(super) fn decode(text: &str, commands_max: usize) -> Result<Vec<Numbered>, HttpRefusal> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(default, deserialize_with = "null_is_default")]
        id: u32,
        #[serde(borrow, default)]
        method: Name<'a>,
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }

    /// A method by its name or its number.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Name<'a> {
        Number(i64),
        Text(#[serde(borrow)] Cow<'a, str>),
    }

    impl Default for Name<'_> {
        /// Backends that leave out zero values write `publish` so.
        fn default() -> Self {
            Self::Number(0)
        }
    }

    let mut commands = Vec::new();
    for command in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let number = commands.len() + 1;
        let Ok(command) = command else {
            return Err(HttpRefusal::Malformed(format!("command {number}: this is not JSON").into()));
        };
        if commands.len() == commands_max {
            return Err(HttpRefusal::TooMany(commands_max));
        }
        let Line { id, method, params } =
            object(command.get()).map_err(|error| HttpRefusal::malformed_command(number, error))?;
        let method = match method {
            Name::Number(number) => Method::numbered(number),
            Name::Text(name) => Method::named(&name.to_ascii_lowercase()).ok_or_else(|| {
                HttpRefusal::Malformed(format!("command {number}: there is no such method").into())
            })?,
        };
        // Older PHP clients write an empty object as `[]`. Parameters of wrong types inside an object are the one command's
        // error.
        let parameters = params.map(RawValue::get).filter(|params| params.starts_with('{')).unwrap_or("{}");
        let command = ApiCommand::decode(method, parameters).map_err(ApiError::from);
        commands.push(Numbered { id, command });
    }
    if commands.is_empty() {
        return Err(HttpRefusal::Malformed("the body has no command".into()));
    }
    Ok(commands)
}

fn write(id: u32, reply: &ApiReply, lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        lines.push(b'\n');
    }
    let envelope = ApiEnvelope { id, ..ApiEnvelope::from(reply) };
    serde_json::to_writer(lines, &envelope)
        .expect("results are JSON already, and errors are text and numbers");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Vec<(u32, Result<Method, u32>)> {
        let numbered = decode(text, 100).unwrap();
        let method = |Numbered { id, command }: Numbered| {
            (id, command.map(|command| command.method()).map_err(|error| error.code()))
        };
        numbered.into_iter().map(method).collect()
    }

    #[test]
    fn parameters_that_are_no_object_count_as_an_empty_one() {
        for params in ["[]", "null", "[1]", "1", "\"x\"", " [ ] "] {
            let text = format!(r#"{{"id":1,"method":"info","params":{params}}}"#);
            assert_eq!(shape(&text), [(1, Ok(Method::Info))], "{text}");
        }
        assert_eq!(shape(r#"{"id":1,"method":"info"}"#), [(1, Ok(Method::Info))]);
    }

    #[test]
    fn methods_have_names_and_numbers() {
        let one = |method: &str| shape(&format!(r#"{{"id":1,"method":{method},"params":{{}}}}"#))[0].1;
        assert_eq!(one(r#""publish""#), Ok(Method::Publish));
        assert_eq!(one(r#""PUBLISH""#), Ok(Method::Publish));
        assert_eq!(one(r#""Presence_Stats""#), Ok(Method::PresenceStats));
        assert_eq!(one(r#""map_publish""#), Ok(Method::NotServed));
        assert_eq!(one("0"), Ok(Method::Publish));
        assert_eq!(one("5"), Ok(Method::PresenceStats));
        assert_eq!(one("12"), Ok(Method::Refresh));
        assert_eq!(one("33"), Ok(Method::NotServed));
        assert_eq!(one("-1"), Ok(Method::NotServed));
    }

    #[test]
    fn commands_follow_each_other_in_any_way() {
        let publish = r#"{"method":0,"params":{"channel":"a","data":1}}"#;
        let expected = (0, Ok(Method::Publish));
        assert_eq!(shape(publish), [expected]);
        assert_eq!(shape(&format!("  {publish}{publish} \r\n\t {publish}\n")), [expected; 3]);
        assert_eq!(shape(r#"{"id":7,"method":"info"}"#), [(7, Ok(Method::Info))]);
        assert_eq!(shape(r#"{"id":null,"method":"info","params":null,"other":[]}"#), [(0, Ok(Method::Info))]);
        assert_eq!(shape("{}"), [expected]);
    }

    #[test]
    fn parameters_of_wrong_types_are_one_command_s_error() {
        let text = r#"{"id":1,"method":"publish","params":{"channel":1}} {"id":2,"method":"presence","params":{"channel":[]}}"#;
        assert_eq!(shape(text), [(1, Err(107)), (2, Err(107))]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_whole() {
        for text in [
            "",
            " \n ",
            "hello",
            "[]",
            "1",
            "null",
            r#"{"method":"no_such_method","params":{}}"#,
            r#"{"method":"batch"}"#,
            r#"{"method":""}"#,
            r#"{"method":null}"#,
            r#"{"method":1.5}"#,
            r#"{"method":[]}"#,
            r#"{"id":-1,"method":"info"}"#,
            r#"{"id":"1","method":"info"}"#,
            r#"{"method":"info"}{"#,
            r#"{"method":"info"},{"method":"info"}"#,
            r#"{"method":"info"}[]"#,
        ] {
            assert!(matches!(decode(text, 10), Err(HttpRefusal::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn too_many_commands_name_the_limit() {
        let text = |count| r#"{"method":"info"}"#.repeat(count);
        assert_eq!(decode(&text(3), 3).unwrap().len(), 3);
        assert_eq!(decode(&text(4), 3).unwrap_err(), HttpRefusal::TooMany(3));
    }

    #[test]
    fn replies_are_lines_without_a_last_break() {
        let mut lines = Vec::new();
        let empty = || Ok(RawValue::from_string("{}".into()).unwrap());
        write(1, &empty(), &mut lines);
        write(0, &empty(), &mut lines);
        write(3, &Err(ApiError::NOT_FOUND), &mut lines);
        let expected = "{\"id\":1,\"result\":{}}\n{\"result\":{}}\n{\"id\":3,\"error\":{\"code\":104,\"message\":\"not found\"}}";
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }
}
