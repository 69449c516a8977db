//! A client of `peers/socketio.js`: Socket.IO 4 over Engine.IO 4, in text packets, each in a frame of its own.

use std::rc::Rc;

use serde_json::json;

use crate::client::Lost;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Units, websocket_request};

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// Packets of both protocols: the type of Engine.IO, followed in its messages by the type of Socket.IO.
mod packet {
    pub(super) const OPEN: &[u8] = b"0{";
    pub(super) const PING: &[u8] = b"2";
    pub(super) const PONG: &[u8] = b"3";
    pub(super) const CONNECT: &[u8] = b"40";
    /// An event that asks for acknowledgement number 0.
    pub(super) const EVENT: &str = "420";
    pub(super) const ACKNOWLEDGEMENT: &[u8] = b"430";
    pub(super) const DISCONNECT: &[u8] = b"41";
}

/// The dialect of all clients of a run.
pub(crate) struct SocketIo {
    pub(crate) host: String,
    pub(crate) audience: Rc<Audience>,
}

const STEP_OPENING: u8 = 0;
const STEP_CONNECTING: u8 = 1;
const STEP_SUBSCRIBING: u8 = 2;
const STEP_LIVE: u8 = 3;

impl Dialect for SocketIo {
    fn framing(&self) -> Framing {
        Framing::WebSocket(Units::Whole)
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        websocket_request(out, &self.host, PATH, client, "");
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        client: usize,
        step: &mut u8,
        message: &[u8],
        say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        match *step {
            _ if message == packet::PING => {
                say.text(packet::PONG);
                return Ok(Progress::Ping);
            }
            STEP_OPENING if message.starts_with(packet::OPEN) => say.text(packet::CONNECT),
            STEP_CONNECTING if message.starts_with(packet::CONNECT) => {
                let topics: Vec<String> = self.audience.topic_names_of(client).collect();
                say.text(format!("{}{}", packet::EVENT, json!(["subscribe", topics])).as_bytes());
            }
            STEP_SUBSCRIBING if message.starts_with(packet::ACKNOWLEDGEMENT) => {
                *step = STEP_LIVE;
                return Ok(Progress::Live);
            }
            STEP_LIVE if !message.starts_with(packet::DISCONNECT) => return Ok(Progress::Other),
            _ => return Err(Lost::refused(message)),
        }
        *step += 1;
        Ok(Progress::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    fn follow(messages: &[&str]) -> Result<Vec<Progress>, Lost> {
        let audience = Audience::new("", Seats::All { topics: 2 });
        let dialect = SocketIo { host: "localhost".to_owned(), audience };
        let (mut step, mut out) = (0, Vec::new());
        messages
            .iter()
            .map(|message| dialect.message(0, &mut step, message.as_bytes(), &mut Say::new(&mut out)))
            .collect()
    }

    #[test]
    fn a_client_is_live_after_its_acknowledgement() {
        use Progress::{Live, Other, Ping, Waiting};
        let messages =
            [r#"0{"sid":"a","pingInterval":25000}"#, r#"40{"sid":"b"}"#, "2", "430[]", "2", "42[]"];
        assert_eq!(follow(&messages).unwrap(), [Waiting, Waiting, Ping, Live, Ping, Other]);
    }

    #[test]
    fn refusals_are_told() {
        assert!(follow(&[r#"0{"sid":"a"}"#, r#"44{"message":"no"}"#]).is_err());
        assert!(follow(&[r#"0{"sid":"a"}"#, r#"40{"sid":"b"}"#, "430[]", "41"]).is_err());
    }
}
