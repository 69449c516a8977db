//! Clients of plain HTTP: `GET /subscribe?topic=...` names the topics, and publications come as Server-Sent Events, as lines
//! of JSON, or as messages of a WebSocket without a protocol on it.

use std::rc::Rc;

use crate::client::Lost;
use crate::dialect::{
    Audience, Dialect, Framing, Progress, PushFormat, Say, Tokens, Units, websocket_request,
};

/// The dialect of all clients of a run.
pub(crate) struct Plain {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) tokens: Tokens,
    pub(crate) audience: Rc<Audience>,
    pub(crate) format: PushFormat,
}

impl Dialect for Plain {
    fn framing(&self) -> Framing {
        self.format.framing(Units::Whole)
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        let topics: Vec<String> =
            self.audience.topic_names_of(client).map(|topic| format!("topic={topic}")).collect();
        let target = format!("{}?{}", self.path, topics.join("&"));
        let token = format!("Authorization: Bearer {}\r\n", self.tokens.connection(client)?);
        let accepted = match self.format {
            PushFormat::Events => "text/event-stream",
            PushFormat::Lines => "application/x-ndjson",
            PushFormat::WebSocket => {
                websocket_request(out, &self.host, &target, client, &token);
                return Ok(Progress::Waiting);
            }
        };
        let host = &self.host;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accepted}\r\n{token}\r\n");
        out.extend_from_slice(request.as_bytes());
        Ok(Progress::Waiting)
    }

    fn opened(&self, _client: usize, _head: &[u8], _say: &mut Say<'_>) -> Result<Progress, Lost> {
        Ok(Progress::Live)
    }

    fn message(
        &self,
        _client: usize,
        _step: &mut u8,
        message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        let begins_with = |words: [&str; 2]| words.iter().any(|words| message.starts_with(words.as_bytes()));
        let (ping, first, refusal) = match self.format {
            PushFormat::Events => (Some(":"), ["retry: ", "event: subscribed"], "event: disconnect"),
            PushFormat::Lines => (Some(""), [r#"{"subscribed":"#; 2], r#"{"disconnect":"#),
            PushFormat::WebSocket => (None, [r#"{"subscribed":"#; 2], r#"{"error":"#),
        };
        match message {
            _ if ping.is_some_and(|ping| message == ping.as_bytes()) => Ok(Progress::Ping),
            _ if message.starts_with(refusal.as_bytes()) => Err(Lost::refused(message)),
            _ if begins_with(first) => Ok(Progress::Waiting),
            _ => Ok(Progress::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    fn dialect(format: PushFormat) -> Plain {
        Plain {
            host: "localhost".to_owned(),
            path: "/subscribe".to_owned(),
            tokens: Tokens::of_secret("secret"),
            audience: Audience::new("load:", Seats::All { topics: 2 }),
            format,
        }
    }

    fn hello(format: PushFormat) -> String {
        let mut out = Vec::new();
        dialect(format).hello(0, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn follow(format: PushFormat, message: &str) -> Result<Progress, Lost> {
        dialect(format).message(0, &mut 0, message.as_bytes(), &mut Say::new(&mut Vec::new()))
    }

    #[test]
    fn the_query_names_every_topic_and_the_headers_the_format() {
        for (format, header) in [
            (PushFormat::Events, "Accept: text/event-stream\r\n"),
            (PushFormat::Lines, "Accept: application/x-ndjson\r\n"),
            (PushFormat::WebSocket, "Upgrade: websocket\r\n"),
        ] {
            let request = hello(format);
            let line = "GET /subscribe?topic=load:topic-0&topic=load:topic-1 HTTP/1.1\r\n";
            assert!(request.starts_with(line) && request.ends_with("\r\n\r\n"), "{request}");
            assert!(request.contains(header) && request.contains("Authorization: Bearer "), "{request}");
        }
    }

    #[test]
    fn messages_are_told_apart() {
        use Progress::{Other, Ping, Waiting};
        use PushFormat::{Events, Lines, WebSocket};
        for (format, message, progress) in [
            (Events, ":", Ping),
            (Events, "retry: 2500", Waiting),
            (Events, "event: subscribed\nid: a\ndata: {}", Waiting),
            (Events, "data: {}", Other),
            (Lines, "", Ping),
            (Lines, r#"{"subscribed":[]}"#, Waiting),
            (Lines, r#"{"topic":"a","data":1}"#, Other),
            (WebSocket, r#"{"subscribed":[]}"#, Waiting),
            (WebSocket, "", Other),
        ] {
            assert_eq!(follow(format, message).unwrap(), progress, "{format:?} {message}");
        }
        for (format, message) in [
            (Events, "event: disconnect\ndata: {\"code\":3001}"),
            (Lines, r#"{"disconnect":{"code":3001}}"#),
            (WebSocket, r#"{"error":{"code":103}}"#),
        ] {
            assert!(follow(format, message).is_err(), "{message}");
        }
    }
}
