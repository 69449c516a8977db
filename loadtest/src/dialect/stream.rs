//! Clients of the Centrifuge protocol without WebSocket: one request with all commands, replies and pushes in its response.
//!
//! Such a client would answer pings by further requests. This one does not, so its server must not require it.

use std::rc::Rc;

use fanwire_protocol::centrifuge::Encoding;

use crate::client::Lost;
use crate::dialect::commands::{self, Answer};
use crate::dialect::{Audience, BodyUnits, Dialect, Framing, Progress, Say, Tokens};
use crate::http::{JSON, write_post};

/// The header of commands in Protobuf.
const BINARY: &str = "Content-Type: application/octet-stream\r\n";

/// The dialect of all clients of a run.
pub(crate) struct Stream {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) tokens: Tokens,
    pub(crate) audience: Rc<Audience>,
    pub(crate) encoding: Encoding,
}

impl Dialect for Stream {
    fn framing(&self) -> Framing {
        Framing::Body(match self.encoding {
            Encoding::Json => BodyUnits::Lines,
            Encoding::Protobuf => BodyUnits::LengthPrefixed,
        })
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        let (content_type, separator) = match self.encoding {
            Encoding::Json => (JSON, &b"\n"[..]),
            Encoding::Protobuf => (BINARY, &b""[..]),
        };
        let mut body = commands::connect(self.encoding, self.tokens.connection(client)?);
        for (place, topic) in self.audience.topic_names_of(client).enumerate() {
            body.extend_from_slice(separator);
            body.extend_from_slice(&commands::subscribe(self.encoding, place, topic, false));
        }
        write_post(out, &self.host, &self.path, content_type, &body);
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        client: usize,
        step: &mut u8,
        message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        let topics = self.audience.topics_of(client).count();
        let answer = Answer::read(self.encoding, message)?;
        answer.count(step, topics).ok_or_else(|| Lost::refused(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    fn dialect(encoding: Encoding) -> Stream {
        Stream {
            host: "localhost".to_owned(),
            path: "/connection/http_stream".to_owned(),
            tokens: Tokens::of_secret("secret"),
            audience: Audience::new("load:", Seats::All { topics: 2 }),
            encoding,
        }
    }

    #[test]
    fn one_request_has_every_command() {
        let mut out = Vec::new();
        dialect(Encoding::Json).hello(0, &mut out).unwrap();
        let request = String::from_utf8(out).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /connection/http_stream HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let ids: Vec<u64> = body
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [1, 2, 3]);

        let mut out = Vec::new();
        dialect(Encoding::Protobuf).hello(0, &mut out).unwrap();
        assert!(String::from_utf8_lossy(&out).contains("Content-Type: application/octet-stream\r\n"));
    }

    #[test]
    fn a_client_is_live_after_its_last_subscription() {
        let (mut step, mut out) = (0, Vec::new());
        let dialect = dialect(Encoding::Json);
        let messages = [
            r#"{"id":1,"connect":{"client":"a"}}"#,
            r#"{"id":2,"subscribe":{}}"#,
            "{}",
            r#"{"id":3,"subscribe":{}}"#,
            r#"{"push":{"channel":"a","join":{}}}"#,
        ];
        let mut follow =
            |message: &str| dialect.message(0, &mut step, message.as_bytes(), &mut Say::new(&mut out));
        use Progress::{Live, Other, Ping, Waiting};
        assert_eq!(messages.map(|message| follow(message).unwrap()), [Waiting, Waiting, Ping, Live, Other]);
        assert!(follow(r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#).is_err());
        assert!(follow(r#"{"id":4,"connect":{}}"#).is_err());
    }
}
