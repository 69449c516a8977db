//! A client of `peers/ws.js`: one message names its topics, and the echo confirms the subscription.

use std::rc::Rc;

use serde_json::json;

use crate::client::Lost;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Units, websocket_request};

/// The dialect of all clients of a run.
pub(crate) struct Ws {
    pub(crate) host: String,
    pub(crate) audience: Rc<Audience>,
}

const STEP_SUBSCRIBING: u8 = 0;
const STEP_LIVE: u8 = 1;

impl Dialect for Ws {
    fn framing(&self) -> Framing {
        Framing::WebSocket(Units::Whole)
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        websocket_request(out, &self.host, "/", client, "");
        Ok(Progress::Waiting)
    }

    fn opened(&self, client: usize, _head: &[u8], say: &mut Say<'_>) -> Result<Progress, Lost> {
        let topics: Vec<String> = self.audience.topic_names_of(client).collect();
        say.text(json!({ "subscribe": topics }).to_string().as_bytes());
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        _client: usize,
        step: &mut u8,
        message: &[u8],
        _say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        match *step {
            STEP_SUBSCRIBING if message.starts_with(br#"{"subscribed":"#) => {
                *step = STEP_LIVE;
                Ok(Progress::Live)
            }
            STEP_SUBSCRIBING => Err(Lost::refused(message)),
            _ => Ok(Progress::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    #[test]
    fn a_client_is_live_when_its_topics_are_echoed() {
        let audience = Audience::new("", Seats::All { topics: 1 });
        let dialect = Ws { host: "localhost".to_owned(), audience };
        let mut out = Vec::new();
        let mut say = Say::new(&mut out);
        let mut step = 0;
        let opened = dialect.opened(0, b"", &mut say).unwrap();
        let answered = dialect.message(0, &mut step, br#"{"subscribed":["topic-0"]}"#, &mut say).unwrap();
        let later = dialect.message(0, &mut step, b"anything", &mut say).unwrap();
        assert_eq!([opened, answered, later], [Progress::Waiting, Progress::Live, Progress::Other]);
        assert!(dialect.message(0, &mut 0, b"anything", &mut Say::new(&mut Vec::new())).is_err());
    }
}
