//! Publishing by HTTP POST on a persistent connection, for any API.
//!
//! Requests depend on the server (`Api`); sending, keeping and reading responses is the same for all.

use std::net::SocketAddrV4;

use memchr::memmem;
use mio::net::TcpStream;

use crate::error::LoadError;
use crate::http::{read_response, write_api_call};
use crate::publish::{Kept, Messages, Publisher};

/// The requests and responses of a server's API.
pub(crate) trait Api {
    /// Appends the requests that publish these messages, and returns how many there are.
    fn write(&self, out: &mut Vec<u8>, topic: &str, messages: &Messages) -> usize;

    /// Returns true if the response confirms all publications.
    fn is_accepted(&self, status: u16, body: &[u8]) -> bool;
}

/// A persistent connection and its requests that have no response yet.
pub(crate) struct HttpPublisher<A> {
    kept: Kept,
    api: A,
    outstanding: usize,
}

impl<A: Api> HttpPublisher<A> {
    pub(crate) fn connect(server: SocketAddrV4, api: A) -> Result<Self, LoadError> {
        Ok(Self { kept: Kept::connect(server)?, api, outstanding: 0 })
    }

    fn take_answers(&mut self) -> Result<(), LoadError> {
        let mut taken = 0;
        while let Some(response) = read_response(&self.kept.received[taken..])? {
            if !self.api.is_accepted(response.status, response.body) {
                let body = String::from_utf8_lossy(response.body);
                return Err(LoadError::Api(format!("{}: {body}", response.status)));
            }
            taken += response.bytes;
            self.outstanding = self
                .outstanding
                .checked_sub(1)
                .ok_or_else(|| LoadError::Unreadable("a response without a request".to_owned()))?;
        }
        self.kept.received.drain(..taken);
        Ok(())
    }
}

impl<A: Api> Publisher for HttpPublisher<A> {
    fn stream(&mut self) -> &mut TcpStream {
        &mut self.kept.stream
    }

    fn ready(&mut self) -> Result<(), LoadError> {
        self.kept.flush()?;
        self.kept.fill()?;
        self.take_answers()
    }

    fn publish(&mut self, topic: &str, messages: &Messages) -> Result<(), LoadError> {
        self.outstanding += self.api.write(&mut self.kept.unsent, topic, messages);
        self.kept.flush()
    }

    fn outstanding(&self) -> usize {
        self.outstanding
    }
}

/// The HTTP API of servers of the Centrifuge protocol: `publish` for one message, `batch` for several.
#[derive(Clone, Debug)]
pub(crate) struct CentrifugeApi {
    pub(crate) host: String,
    /// The path before `/publish`.
    pub(crate) path: String,
    pub(crate) key: String,
    /// Each message has the tag [`WANTED`], and beside it goes one that filters refuse.
    pub(crate) filter: bool,
}

/// The tag of messages that filters take.
pub(crate) const WANTED: (&str, &str) = ("half", "one");
const UNWANTED: (&str, &str) = ("half", "other");

impl Api for CentrifugeApi {
    fn write(&self, out: &mut Vec<u8>, topic: &str, messages: &Messages) -> usize {
        let mut body = Vec::new();
        let tags: &[_] = if self.filter { &[Some(UNWANTED), Some(WANTED)] } else { &[None] };
        let command = if messages.count == 1 && !self.filter {
            write_publish(&mut body, topic, messages, 0, None);
            "publish"
        } else {
            body.extend_from_slice(br#"{"parallel":false,"commands":["#);
            for place in 0..messages.count {
                for (turn, tag) in tags.iter().enumerate() {
                    let is_first = place == 0 && turn == 0;
                    body.extend_from_slice(if is_first { br#"{"publish":"# } else { br#",{"publish":"# });
                    write_publish(&mut body, topic, messages, place, *tag);
                    body.push(b'}');
                }
            }
            body.extend_from_slice(b"]}");
            "batch"
        };
        write_api_call(out, &self.host, &format!("{}/{command}", self.path), &self.key, &body);
        1
    }

    fn is_accepted(&self, status: u16, body: &[u8]) -> bool {
        status == 200 && memmem::find(body, br#""error""#).is_none()
    }
}

fn write_publish(out: &mut Vec<u8>, topic: &str, messages: &Messages, place: u32, tag: Option<(&str, &str)>) {
    out.extend_from_slice(br#"{"channel":""#);
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(br#"","data":"#);
    messages.write(place, out);
    if let Some((key, value)) = tag {
        out.extend_from_slice(format!(r#","tags":{{"{key}":"{value}"}}"#).as_bytes());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_published_and_several_are_a_batch() {
        let api = CentrifugeApi {
            host: "h".to_owned(),
            path: "/api".to_owned(),
            key: "k".to_owned(),
            filter: false,
        };
        for (count, path) in [(1, "POST /api/publish "), (3, "POST /api/batch ")] {
            let mut out = Vec::new();
            let messages = Messages { stream: 2, first: 7, count, payload_bytes: 100, due: 1 };
            assert_eq!(api.write(&mut out, "load:a", &messages), 1);
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(path), "{text}");
            let body: serde_json::Value =
                serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
            let first = if count == 1 { &body } else { &body["commands"][0]["publish"] };
            assert_eq!((&first["channel"], &first["data"]["n"]), (&"load:a".into(), &7.into()));
        }
        assert!(api.is_accepted(200, br#"{"result":{}}"#));
        assert!(!api.is_accepted(200, br#"{"error":{"code":100}}"#));
        assert!(!api.is_accepted(401, b"{}"));
    }
}
