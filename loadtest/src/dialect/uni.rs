//! Clients of the Centrifuge protocol that only listen: one request with the token and the topics, pushes from then on.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use crate::client::Lost;
use crate::dialect::{
    Audience, Dialect, Framing, Progress, PushFormat, Say, Tokens, Units, websocket_request,
};
use crate::http::{JSON, write_post};

/// The dialect of all clients of a run.
pub(crate) struct Uni {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) tokens: Tokens,
    pub(crate) audience: Rc<Audience>,
    pub(crate) format: PushFormat,
}

const STEP_CONNECTING: u8 = 0;
const STEP_LIVE: u8 = 1;

impl Dialect for Uni {
    fn framing(&self) -> Framing {
        self.format.framing(Units::Lines)
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        match self.format {
            PushFormat::WebSocket => websocket_request(out, &self.host, &self.path, client, ""),
            PushFormat::Events | PushFormat::Lines => {
                let connect = self.connect(client)?;
                write_post(out, &self.host, &self.path, JSON, connect.as_bytes());
            }
        }
        Ok(Progress::Waiting)
    }

    fn opened(&self, client: usize, _head: &[u8], say: &mut Say<'_>) -> Result<Progress, Lost> {
        if self.format == PushFormat::WebSocket {
            say.text(self.connect(client)?.as_bytes());
        }
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        _client: usize,
        step: &mut u8,
        message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        // Before the first event are an empty line and the time after which a client comes back.
        let message = message.trim_ascii_start();
        let push = message.strip_prefix(b"data: ").unwrap_or(message);
        match *step {
            _ if push == b"{}" => Ok(Progress::Ping),
            STEP_CONNECTING if push.starts_with(b"retry: ") => Ok(Progress::Waiting),
            STEP_CONNECTING if push.starts_with(br#"{"connect":"#) => {
                *step = STEP_LIVE;
                Ok(Progress::Live)
            }
            STEP_LIVE if !push.starts_with(br#"{"disconnect":"#) => Ok(Progress::Other),
            _ => Err(Lost::refused(message)),
        }
    }
}

impl Uni {
    fn connect(&self, client: usize) -> Result<String, Lost> {
        let topics = self.audience.topic_names_of(client).map(|topic| (topic, json!({})));
        let subs: Map<String, Value> = topics.collect();
        Ok(json!({ "token": self.tokens.connection(client)?, "subs": subs }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    fn dialect(format: PushFormat) -> Uni {
        Uni {
            host: "localhost".to_owned(),
            path: "/connection/uni".to_owned(),
            tokens: Tokens::of_secret("secret"),
            audience: Audience::new("load:", Seats::All { topics: 2 }),
            format,
        }
    }

    fn follow(messages: &[&str]) -> Result<Vec<Progress>, Lost> {
        let dialect = dialect(PushFormat::Events);
        let (mut step, mut out) = (0, Vec::new());
        messages
            .iter()
            .map(|message| dialect.message(0, &mut step, message.as_bytes(), &mut Say::new(&mut out)))
            .collect()
    }

    #[test]
    fn the_request_is_the_body_or_the_first_message() {
        let mut out = Vec::new();
        dialect(PushFormat::Lines).hello(0, &mut out).unwrap();
        let request = String::from_utf8(out).unwrap();
        assert!(request.starts_with("POST /connection/uni HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(r#""subs":{"load:topic-0":{},"load:topic-1":{}}"#), "{request}");

        let (mut request, mut message) = (Vec::new(), Vec::new());
        let dialect = dialect(PushFormat::WebSocket);
        dialect.hello(0, &mut request).unwrap();
        assert!(request.starts_with(b"GET /connection/uni HTTP/1.1\r\n"));
        assert_eq!(dialect.opened(0, b"", &mut Say::new(&mut message)).unwrap(), Progress::Waiting);
        assert!(!message.is_empty());
    }

    #[test]
    fn a_client_is_live_when_it_is_connected() {
        use Progress::{Live, Other, Ping, Waiting};
        let first = ["\r\nretry: 2500", "data: {\"connect\":{}}"];
        assert_eq!(follow(&first).unwrap(), [Waiting, Live]);
        let messages = ["\r\ndata: {\"connect\":{}}", "data: {}", "data: {\"channel\":\"a\"}", "{}"];
        assert_eq!(follow(&messages).unwrap(), [Live, Ping, Other, Ping]);
        assert!(follow(&[r#"{"disconnect":{"code":3500}}"#]).is_err());
        assert!(follow(&[r#"{"connect":{}}"#, r#"{"disconnect":{"code":3001}}"#]).is_err());
    }
}
