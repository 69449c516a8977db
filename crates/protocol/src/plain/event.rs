//! Server-Sent Events (WHATWG HTML, section 9.2): what a browser's own `EventSource` receives.
//!
//! Every event is one `data` line of JSON, which never holds a line break, and an empty line that ends it.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::centrifuge::codes;
use crate::centrifuge::reply_message::ClientInfoMessage;
use crate::json::{self, is_default};
use crate::reason::Close;
use crate::{Publication, Tags, TopicName};

/// A comment, which `EventSource` ignores: keeps the connection from looking idle to whatever is between.
pub const KEEPALIVE: &[u8] = b":\n\n";

/// Appends the data of a publication's event, which has no name, so that it arrives as `message`:
///
/// ```text
/// {"topic":"news","data":{"a":1},"offset":7,"time":1764457200000,"tags":{"k":"v"},
///  "info":{"user":"42","client":"<uuid>","conn_info":{},"chan_info":{}}}
/// ```
///
/// on one line. `offset`, `tags`, `info` and the two payloads in it are left out when there is none, and `time` unless
/// the client is told the time. A payload that is not JSON is `null`, with its bytes in Base64 beside it, as in
/// `"data":null,"b64data":"/wA="`.
pub fn publication(topic: &TopicName, publication: &Publication, shows_time: bool, to: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Event<'a> {
        topic: &'a str,
        #[serde(flatten, serialize_with = "json::payload::data")]
        data: Bytes,
        #[serde(skip_serializing_if = "is_default")]
        offset: u64,
        #[serde(skip_serializing_if = "is_default")]
        time: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        tags: Option<&'a Tags>,
        #[serde(skip_serializing_if = "Option::is_none")]
        info: Option<ClientInfoMessage>,
    }

    json::write(
        &Event {
            topic: topic.as_str(),
            data: publication.data.clone(),
            offset: publication.offset,
            time: if shows_time { publication.time } else { 0 },
            tags: publication.tags.as_deref().filter(|tags| !tags.is_empty()),
            info: publication.info.as_deref().map(ClientInfoMessage::from),
        },
        to,
    );
}

/// Appends the first event of a stream:
///
/// ```text
/// event: subscribed
/// id: CURSOR
/// data: {"subscribed":[{"topic":"news","recovered":true}],"cursor":"CURSOR"}
/// ```
///
/// An event with a name does not arrive as `message`; its `id` counts all the same. `recovered` is left out for a client that
/// does not come from anywhere.
pub fn subscribed<'a>(
    topics: impl Iterator<Item = (&'a TopicName, Option<bool>)>,
    cursor: &str,
    to: &mut Vec<u8>,
) {
    to.extend_from_slice(format!("event: subscribed\nid: {cursor}\ndata: ").as_bytes());
    beginning(topics, Some(cursor), to);
    to.extend_from_slice(b"\n\n");
}

/// Appends the data of such an event, with the cursor if there is one.
pub fn beginning<'a>(
    topics: impl Iterator<Item = (&'a TopicName, Option<bool>)>,
    cursor: Option<&str>,
    to: &mut Vec<u8>,
) {
    #[derive(Serialize)]
    struct Topic<'a> {
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
    }
    #[derive(Serialize)]
    struct Beginning<'a> {
        subscribed: Vec<Topic<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<&'a str>,
    }

    let topics = topics.map(|(topic, recovered)| Topic { topic: topic.as_str(), recovered });
    json::write(&Beginning { subscribed: topics.collect(), cursor }, to);
}

/// Appends the first line of a stream, which is that data.
pub fn subscribed_line<'a>(
    topics: impl Iterator<Item = (&'a TopicName, Option<bool>)>,
    cursor: &str,
    to: &mut Vec<u8>,
) {
    beginning(topics, Some(cursor), to);
    to.push(b'\n');
}

/// Appends the begin of the first answer to a poll, up to its messages: `{"subscribed":[{"topic":"news"}],"messages":[`.
pub fn subscribed_answer<'a>(topics: impl Iterator<Item = (&'a TopicName, Option<bool>)>, to: &mut Vec<u8>) {
    beginning(topics, None, to);
    // The object goes on.
    to.pop();
    to.extend_from_slice(br#","messages":["#);
}

/// Appends the begin of any further answer.
pub fn answer(to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"messages":["#);
}

/// Appends the end of an answer, with what its client sends with its next poll. The last message may have a comma behind it.
pub fn answer_end(cursor: &str, session: Option<&str>, to: &mut Vec<u8>) {
    messages_end(cursor, to);
    if let Some(session) = session {
        to.extend_from_slice(format!(r#","session":"{session}""#).as_bytes());
    }
    to.push(b'}');
}

/// Appends the end of the last answer of a session that the server ends.
pub fn last_answer_end(cursor: &str, close: &Close, to: &mut Vec<u8>) {
    messages_end(cursor, to);
    to.extend_from_slice(br#","disconnect":"#);
    end(close, to);
    to.push(b'}');
}

fn messages_end(cursor: &str, to: &mut Vec<u8>) {
    if to.last() == Some(&b',') {
        to.pop();
    }
    // Names of sessions and cursors are nothing but letters, digits, dashes, underlines and dots.
    to.extend_from_slice(format!(r#"],"cursor":"{cursor}""#).as_bytes());
}

/// Appends the last answer of a session that the server ends before it begins. It moves no cursor on:
/// `{"messages":[],"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}`.
pub fn disconnect_answer(close: &Close, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"messages":[],"disconnect":"#);
    end(close, to);
    to.push(b'}');
}

/// Appends the last event of a stream that the server ends:
///
/// ```text
/// event: disconnect
/// data: {"code":3001,"reason":"shutdown","reconnect":true}
/// ```
///
/// `EventSource` connects anew by itself after any end of the stream, so a page has to close it where `reconnect` is
/// false.
pub fn disconnect(close: &Close, to: &mut Vec<u8>) {
    to.extend_from_slice(b"event: disconnect\ndata: ");
    end(close, to);
    to.extend_from_slice(b"\n\n");
}

/// Appends the last line: `{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}`.
pub fn disconnect_line(close: &Close, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"disconnect":"#);
    end(close, to);
    to.extend_from_slice(b"}\n");
}

fn end(close: &Close, to: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct End<'a> {
        code: u16,
        reason: &'a str,
        reconnect: bool,
    }

    let (code, reason) = codes::close(close);
    json::write(&End { code, reason: &reason, reconnect: close.reason.reconnects() }, to);
}

/// Appends how long `EventSource` is to wait before it connects anew, in whole milliseconds.
pub fn retry(wait: Duration, to: &mut Vec<u8>) {
    to.extend_from_slice(format!("retry: {}\n\n", wait.as_millis()).as_bytes());
}
