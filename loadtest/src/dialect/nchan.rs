//! A WebSocket subscriber of Nchan: the path names its topics, and every frame is one published message.

use std::rc::Rc;

use crate::client::Lost;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Units, websocket_request};

/// Separates the topics of one connection, which are a "multiplexed channel" of Nchan.
const TOPIC_DELIMITER: &str = ",";

/// The dialect of all clients of a run.
pub(crate) struct Nchan {
    pub(crate) host: String,
    /// The part of the path before the topics.
    pub(crate) path: &'static str,
    pub(crate) audience: Rc<Audience>,
}

impl Dialect for Nchan {
    fn framing(&self) -> Framing {
        Framing::WebSocket(Units::Whole)
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        let topics: Vec<String> = self.audience.topic_names_of(client).collect();
        if topics.is_empty() {
            return Err(Lost::NotOffered("to clients without a topic"));
        }
        let path = format!("{}{}", self.path, topics.join(TOPIC_DELIMITER));
        websocket_request(out, &self.host, &path, client, "");
        Ok(Progress::Waiting)
    }

    /// Nchan responds when the client is subscribed.
    fn opened(&self, _client: usize, _head: &[u8], _say: &mut Say<'_>) -> Result<Progress, Lost> {
        Ok(Progress::Live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    #[test]
    fn the_path_names_every_topic() {
        let hello = |topics| {
            let audience = Audience::new("load:", Seats::All { topics });
            let dialect = Nchan { host: "localhost".to_owned(), path: "/subscribe/", audience };
            let mut out = Vec::new();
            dialect.hello(0, &mut out).map(|_| String::from_utf8(out).unwrap())
        };
        let request = hello(2).unwrap();
        assert!(request.starts_with("GET /subscribe/load:topic-0,load:topic-1 HTTP/1.1\r\n"), "{request}");
        assert!(hello(0).is_err());
    }
}
