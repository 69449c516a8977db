//! A NATS client over WebSocket: text commands in binary frames, whose boundaries need not be those of commands.

use std::rc::Rc;

use crate::client::Lost;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Units, websocket_request};

/// The first command of clients and publishers. Without `verbose` only failures are answered.
pub(crate) const CONNECT: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"lang":"loadtest","version":"1","protocol":1}"#,
    "\r\n"
);
pub(crate) const PING: &str = "PING\r\n";
pub(crate) const PONG: &str = "PONG\r\n";

/// The dialect of all clients of a run.
pub(crate) struct Nats {
    pub(crate) host: String,
    pub(crate) audience: Rc<Audience>,
}

const STEP_GREETING: u8 = 0;
const STEP_SUBSCRIBING: u8 = 1;
const STEP_LIVE: u8 = 2;

impl Dialect for Nats {
    fn framing(&self) -> Framing {
        Framing::WebSocket(Units::NatsCommands)
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        websocket_request(out, &self.host, "/", client, "");
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        client: usize,
        step: &mut u8,
        message: &[u8],
        say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        let command = message.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        match (command, *step) {
            (b"PING", _) => {
                say.binary(PONG.as_bytes());
                Ok(Progress::Ping)
            }
            (b"INFO", STEP_GREETING) => {
                say.binary(self.subscribe(client).as_bytes());
                *step = STEP_SUBSCRIBING;
                Ok(Progress::Waiting)
            }
            // Commands are handled in order, so this one follows the subscriptions.
            (b"PONG", STEP_SUBSCRIBING) => {
                *step = STEP_LIVE;
                Ok(Progress::Live)
            }
            (b"-ERR", _) | (_, STEP_GREETING) => Err(Lost::refused(message)),
            (_, STEP_SUBSCRIBING) => Ok(Progress::Waiting),
            _ => Ok(Progress::Other),
        }
    }
}

impl Nats {
    fn subscribe(&self, client: usize) -> String {
        let mut commands = CONNECT.to_owned();
        for (place, topic) in self.audience.topic_names_of(client).enumerate() {
            commands += &format!("SUB {topic} {}\r\n", place + 1);
        }
        commands + PING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    fn dialect() -> Nats {
        let audience = Audience::new("load:", Seats::All { topics: 2 });
        Nats { host: "localhost".to_owned(), audience }
    }

    fn follow(messages: &[&str]) -> Result<Vec<Progress>, Lost> {
        let (mut step, mut out) = (0, Vec::new());
        messages
            .iter()
            .map(|message| dialect().message(0, &mut step, message.as_bytes(), &mut Say::new(&mut out)))
            .collect()
    }

    #[test]
    fn a_client_is_live_when_the_server_has_come_to_its_ping() {
        use Progress::{Live, Other, Ping, Waiting};
        let messages = ["INFO {} \r\n", "PING\r\n", "PONG\r\n", "PING", "INFO {}"];
        assert_eq!(follow(&messages).unwrap(), [Waiting, Ping, Live, Ping, Other]);
        assert!(
            dialect().subscribe(0).ends_with("}\r\nSUB load:topic-0 1\r\nSUB load:topic-1 2\r\nPING\r\n")
        );
    }

    #[test]
    fn errors_are_told_in_the_server_s_words() {
        let lost = follow(&["INFO {}", "-ERR 'Authorization Violation'"]).unwrap_err();
        assert!(lost.to_string().contains("Authorization"), "{lost}");
        assert!(follow(&["HELLO"]).is_err());
    }
}
