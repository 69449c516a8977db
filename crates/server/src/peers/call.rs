//! The messages between nodes, in JSON: calls of the API as they came, and their answers.

use std::time::Duration;

use fanwire_protocol::ClientId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::names::ORDERS_KEPT;
use crate::api::ApiError;
use crate::message::{ShardMessage, UserMessage};

/// Asks a node to carry out a call of the API for its own clients.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Call<'a> {
    /// The node that asks.
    pub from: Uuid,
    /// The time of the call, in seconds since 1970 by Redis' clock.
    pub sent: u64,
    /// The asking node's number for it; without one no answer is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    pub method: &'a str,
    #[serde(borrow)]
    pub parameters: &'a RawValue,
}

impl<'a> Call<'a> {
    /// Returns true if it is older than orders are kept: its clients have left or reconnected. `now` is Redis' time.
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        now.as_secs().saturating_sub(self.sent) > ORDERS_KEPT.ttl.as_secs()
    }
}

/// The method of a call that every node carries out, the asking one too: [`Single`].
pub(crate) const SINGLE: &str = "!single";

/// Makes a connection of the asking node its user's only one.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Single {
    pub user: Box<str>,
    /// The asking node's name for the connection.
    pub connection: Uuid,
}

impl Single {
    /// The message for the user's owner. `is_ours` means that this node asked.
    pub(crate) fn heard(self, is_ours: bool) -> ShardMessage {
        let here = is_ours.then_some(ClientId(self.connection));
        ShardMessage::User(UserMessage::Single { user: self.user, here })
    }

    /// The message for the user's owner on the asking node, if the call could not be sent.
    pub(crate) fn unsent(self) -> ShardMessage {
        ShardMessage::User(UserMessage::Unsent { user: self.user, here: ClientId(self.connection) })
    }
}

/// One node's answer to a call.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CallAnswer {
    /// The node that answers.
    pub node: Uuid,
    pub number: u64,
    /// One of these two, as in the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// A result in JSON, or an error.
pub(crate) type CallResult = Result<Box<RawValue>, ApiError>;

impl CallAnswer {
    pub(crate) fn new(node: Uuid, number: u64, outcome: CallResult) -> Self {
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { node, number, result, error }
    }

    /// `None` if it says neither.
    pub(crate) fn into_outcome(self) -> Option<CallResult> {
        self.error.map(Err).or(self.result.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use fanwire_protocol::reason::RequestError;

    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let parameters = RawValue::from_string(r#"{"user": "42"}"#.to_owned()).unwrap();
        for number in [None, Some(7)] {
            let (from, sent) = (Uuid::from_u128(1), 1_000_000);
            let call = Call { from, sent, number, method: "disconnect", parameters: &parameters };
            let text = serde_json::to_string(&call).unwrap();
            let read: Call<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!((read.from, read.number, read.method), (call.from, number, "disconnect"));
            assert_eq!(read.parameters.get(), r#"{"user": "42"}"#);
            for (now, is_overdue) in [(0, false), (1_000_300, false), (1_000_301, true)] {
                assert_eq!(read.is_overdue(Duration::from_secs(now)), is_overdue);
            }
        }
        for outcome in [Ok(parameters.clone()), Err(RequestError::BadRequest.into())] {
            let expected = format!("{outcome:?}");
            let text = serde_json::to_string(&CallAnswer::new(Uuid::from_u128(1), 7, outcome)).unwrap();
            let read: CallAnswer = serde_json::from_str(&text).unwrap();
            assert_eq!((read.number, format!("{:?}", read.into_outcome().unwrap())), (7, expected));
        }
    }
}
