//! The commands of the Centrifuge protocol and the replies to them, in JSON and in Protobuf.

use fanwire_protocol::centrifuge::{
    Command, ConnectRequest, Encoding, FilterNode, ReplyMessage, SubscribeRequest,
};
use prost::Message as _;

use crate::client::Lost;
use crate::dialect::Progress;
use crate::publish::http::WANTED;

const CLIENT_NAME: &str = "loadtest";
const CONNECT: u32 = 1;

/// Returns the first command.
pub(super) fn connect(encoding: Encoding, token: String) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            format!(r#"{{"id":{CONNECT},"connect":{{"token":"{token}","name":"{CLIENT_NAME}"}}}}"#)
                .into_bytes()
        }
        Encoding::Protobuf => {
            let request = ConnectRequest { token, name: CLIENT_NAME.to_owned(), ..ConnectRequest::default() };
            let command = Command { id: CONNECT, connect: Some(request), ..Command::default() };
            command.encode_length_delimited_to_vec()
        }
    }
}

/// Returns the command for the topic in this place, counted from 0. A filter takes publications with the tag
/// [`WANTED`] alone.
pub(super) fn subscribe(encoding: Encoding, place: usize, topic: String, has_filter: bool) -> Vec<u8> {
    let id = CONNECT + 1 + place as u32;
    let (key, value) = WANTED;
    match encoding {
        Encoding::Json => {
            let filter = match has_filter {
                true => format!(r#","tf":{{"key":"{key}","cmp":"eq","val":"{value}"}}"#),
                false => String::new(),
            };
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{topic}"{filter}}}}}"#).into_bytes()
        }
        Encoding::Protobuf => {
            let (key, cmp, val) = (key.to_owned(), "eq".to_owned(), value.to_owned());
            let filter = has_filter.then(|| FilterNode { key, cmp, val, ..FilterNode::default() }.into());
            let request = SubscribeRequest { channel: topic, tf: filter, ..SubscribeRequest::default() };
            let command = Command { id, subscribe: Some(request), ..Command::default() };
            command.encode_length_delimited_to_vec()
        }
    }
}

/// The kinds of messages that are not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ping,
    Connected,
    Subscribed,
    Other,
}

impl Answer {
    /// Parses an answer in full, since answers are few.
    pub(super) fn read(encoding: Encoding, message: &[u8]) -> Result<Self, Lost> {
        match encoding {
            Encoding::Json => read_json(message),
            Encoding::Protobuf => read_protobuf(message),
        }
    }

    /// Counts the answer in `step`: the first is to connect, every further one to a subscribe. Returns `None` if it is out of
    /// turn.
    pub(super) fn count(self, step: &mut u8, topics: usize) -> Option<Progress> {
        let answered = usize::from(*step);
        let is_next = match self {
            Self::Ping => return Some(Progress::Ping),
            Self::Connected => answered == 0,
            Self::Subscribed => (1..=topics).contains(&answered),
            Self::Other if answered > topics => return Some(Progress::Other),
            // A join or a publication between two subscriptions.
            Self::Other => return (answered > 0).then_some(Progress::Waiting),
        };
        is_next.then(|| {
            *step += 1;
            if answered == topics { Progress::Live } else { Progress::Waiting }
        })
    }
}

fn read_json(message: &[u8]) -> Result<Answer, Lost> {
    if message == b"{}" {
        return Ok(Answer::Ping);
    }
    let reply: serde_json::Value = serde_json::from_slice(message).map_err(|_| Lost::refused(message))?;
    if reply["connect"].is_object() {
        Ok(Answer::Connected)
    } else if reply["subscribe"].is_object() {
        Ok(Answer::Subscribed)
    } else if reply.get("error").is_some() || reply["push"]["disconnect"].is_object() {
        Err(Lost::refused(message))
    } else {
        Ok(Answer::Other)
    }
}

fn read_protobuf(message: &[u8]) -> Result<Answer, Lost> {
    let reply = ReplyMessage::decode(message).map_err(|_| Lost::refused(message))?;
    if reply.connect.is_some() {
        Ok(Answer::Connected)
    } else if reply.subscribe.is_some() {
        Ok(Answer::Subscribed)
    } else if reply.error.is_some() || reply.push.as_ref().is_some_and(|push| push.disconnect.is_some()) {
        Err(Lost::refused(message))
    } else if reply == ReplyMessage::default() {
        Ok(Answer::Ping)
    } else {
        Ok(Answer::Other)
    }
}
