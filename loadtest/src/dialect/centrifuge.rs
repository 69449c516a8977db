//! Clients of the Centrifuge protocol over WebSocket, in JSON and in Protobuf: they connect with a token, subscribe, and
//! answer pings. They serve for Fanwire and for other servers of the protocol.

use std::rc::Rc;
use std::time::Duration;

use fanwire_protocol::centrifuge::{Command, ConnectRequest, Encoding, ReplyMessage, SubscribeRequest};
use jsonwebtoken::EncodingKey;
use prost::Message as _;
use serde::Serialize;

use crate::client::Lost;
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Units, websocket_request};

/// Longer than any run, so that no client has to refresh its token.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The offer of clients when compression is measured.
const DEFLATE_OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
const PROTOBUF_OFFER: &str = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n";

const CLIENT_NAME: &str = "loadtest";

/// Makes the tokens of a run's users.
pub(crate) struct Tokens {
    pub(crate) key: EncodingKey,
}

impl Tokens {
    pub(crate) fn of_secret(secret: &str) -> Self {
        Self { key: EncodingKey::from_secret(secret.as_bytes()) }
    }

    /// Returns the token of a client. Every client is a user of its own: the case that costs a server most.
    pub(crate) fn connection(&self, client: usize) -> Result<String, Lost> {
        #[derive(Serialize)]
        struct Claims {
            sub: String,
            exp: u64,
        }
        let claims = Claims {
            sub: format!("user-{client}"),
            exp: jsonwebtoken::get_current_timestamp() + TOKEN_LIFETIME.as_secs(),
        };
        Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &self.key)?)
    }
}

/// The dialect of all clients of a run.
pub(crate) struct Centrifuge {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) tokens: Tokens,
    pub(crate) audience: Rc<Audience>,
    pub(crate) encoding: Encoding,
    pub(crate) deflate: bool,
}

/// The first answer is to connect, every further one to a subscribe; the subscribes are sent together.
const STEP_CONNECTING: u8 = 0;

impl Dialect for Centrifuge {
    fn framing(&self) -> Framing {
        Framing::WebSocket(match self.encoding {
            Encoding::Json => Units::Lines,
            Encoding::Protobuf => Units::LengthPrefixed,
        })
    }

    fn hello(&self, client: usize, out: &mut Vec<u8>) -> Result<Progress, Lost> {
        let mut headers = String::new();
        if self.encoding == Encoding::Protobuf {
            headers += PROTOBUF_OFFER;
        }
        if self.deflate {
            headers += DEFLATE_OFFER;
        }
        websocket_request(out, &self.host, &self.path, client, &headers);
        Ok(Progress::Waiting)
    }

    fn opened(&self, client: usize, head: &[u8], say: &mut Say<'_>) -> Result<Progress, Lost> {
        let head_text = String::from_utf8_lossy(head).to_ascii_lowercase();
        if self.deflate && !head_text.contains("permessage-deflate") {
            return Err(Lost::NotOffered("permessage-deflate"));
        }
        if self.encoding == Encoding::Protobuf && !head_text.contains("centrifuge-protobuf") {
            return Err(Lost::NotOffered("the subprotocol centrifuge-protobuf"));
        }
        self.connect(client, say)?;
        Ok(Progress::Waiting)
    }

    fn message(
        &self,
        client: usize,
        step: &mut u8,
        message: &[u8],
        say: &mut Say<'_>,
    ) -> Result<Progress, Lost> {
        let topics = self.audience.topics_of(client).count();
        match self.read(message)? {
            Answer::Ping => {
                self.pong(say);
                Ok(Progress::Ping)
            }
            Answer::Connected if *step == STEP_CONNECTING => {
                *step += 1;
                for (place, topic) in self.audience.topic_names_of(client).enumerate() {
                    self.subscribe(place as u32 + 2, &topic, say);
                }
                Ok(if topics == 0 { Progress::Live } else { Progress::Waiting })
            }
            Answer::Subscribed if *step != STEP_CONNECTING && usize::from(*step) <= topics => {
                *step += 1;
                Ok(if usize::from(*step) > topics { Progress::Live } else { Progress::Waiting })
            }
            Answer::Other if usize::from(*step) > topics => Ok(Progress::Other),
            // A join or a publication between two subscriptions.
            Answer::Other if *step != STEP_CONNECTING => Ok(Progress::Waiting),
            _ => Err(Lost::refused(message)),
        }
    }
}

/// The kinds of messages that are not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ping,
    Connected,
    Subscribed,
    Other,
}

impl Centrifuge {
    fn connect(&self, client: usize, say: &mut Say<'_>) -> Result<(), Lost> {
        let token = self.tokens.connection(client)?;
        match self.encoding {
            Encoding::Json => say.text(
                format!(r#"{{"id":1,"connect":{{"token":"{token}","name":"{CLIENT_NAME}"}}}}"#).as_bytes(),
            ),
            Encoding::Protobuf => {
                let request =
                    ConnectRequest { token, name: CLIENT_NAME.to_owned(), ..ConnectRequest::default() };
                let command = Command { id: 1, connect: Some(request), ..Command::default() };
                say.binary(&command.encode_length_delimited_to_vec());
            }
        }
        Ok(())
    }

    fn subscribe(&self, id: u32, topic: &str, say: &mut Say<'_>) {
        match self.encoding {
            Encoding::Json => {
                say.text(format!(r#"{{"id":{id},"subscribe":{{"channel":"{topic}"}}}}"#).as_bytes());
            }
            Encoding::Protobuf => {
                let request = SubscribeRequest { channel: topic.to_owned(), ..SubscribeRequest::default() };
                let command = Command { id, subscribe: Some(request), ..Command::default() };
                say.binary(&command.encode_length_delimited_to_vec());
            }
        }
    }

    /// Answers a ping. Both are empty messages.
    fn pong(&self, say: &mut Say<'_>) {
        match self.encoding {
            Encoding::Json => say.text(b"{}"),
            Encoding::Protobuf => say.binary(&[0]),
        }
    }

    fn read(&self, message: &[u8]) -> Result<Answer, Lost> {
        match self.encoding {
            Encoding::Json => read_json(message),
            Encoding::Protobuf => read_protobuf(message),
        }
    }
}

/// Parses an answer in full, since answers are few.
fn read_json(message: &[u8]) -> Result<Answer, Lost> {
    if message == b"{}" {
        return Ok(Answer::Ping);
    }
    let reply: serde_json::Value = serde_json::from_slice(message).map_err(|_| Lost::refused(message))?;
    if reply["connect"].is_object() {
        Ok(Answer::Connected)
    } else if reply["subscribe"].is_object() {
        Ok(Answer::Subscribed)
    } else if reply.get("error").is_some() {
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
    } else if reply.error.is_some() {
        Err(Lost::refused(message))
    } else if reply == ReplyMessage::default() {
        Ok(Answer::Ping)
    } else {
        Ok(Answer::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    fn dialect(encoding: Encoding, topics: usize) -> Centrifuge {
        Centrifuge {
            host: "localhost".to_owned(),
            path: "/connection/websocket".to_owned(),
            tokens: Tokens::of_secret("secret"),
            audience: Audience::new("load:", Seats::All { topics }),
            encoding,
            deflate: false,
        }
    }

    fn follow(dialect: &Centrifuge, messages: &[&[u8]]) -> Result<Progress, Lost> {
        let (mut step, mut out, mut last) = (0, Vec::new(), Progress::Waiting);
        for message in messages {
            last = dialect.message(0, &mut step, message, &mut Say::new(&mut out))?;
        }
        Ok(last)
    }

    #[test]
    fn a_client_is_live_after_its_last_subscription() {
        let connected: &[u8] = br#"{"id":1,"connect":{"client":"a"}}"#;
        let subscribed: &[u8] = br#"{"id":2,"subscribe":{}}"#;
        let json = |topics, messages: &[&[u8]]| follow(&dialect(Encoding::Json, topics), messages).unwrap();
        assert_eq!(json(0, &[connected]), Progress::Live);
        assert_eq!(json(2, &[connected, subscribed]), Progress::Waiting);
        assert_eq!(json(2, &[connected, subscribed, b"{}"]), Progress::Ping);
        assert_eq!(json(2, &[connected, subscribed, subscribed]), Progress::Live);
        let protobuf = dialect(Encoding::Protobuf, 1);
        assert_eq!(follow(&protobuf, &[&[8, 1, 0x2a, 0]]).unwrap(), Progress::Waiting);
        assert_eq!(follow(&protobuf, &[&[8, 1, 0x2a, 0], &[8, 2, 0x32, 0]]).unwrap(), Progress::Live);
        assert_eq!(follow(&protobuf, &[&[]]).unwrap(), Progress::Ping);
    }

    #[test]
    fn refusals_are_told_in_the_server_s_words() {
        let error = br#"{"id":1,"error":{"code":109,"message":"token expired"}}"#;
        let lost = follow(&dialect(Encoding::Json, 1), &[error]).unwrap_err();
        assert!(lost.to_string().contains("token expired"), "{lost}");
        let error = b"\x08\x01\x12\x0f\x08\x6d\x12\x0btoken expired";
        let lost = follow(&dialect(Encoding::Protobuf, 1), &[error]).unwrap_err();
        assert!(lost.to_string().contains("token expired"), "{lost}");
    }

    #[test]
    fn what_was_asked_for_must_be_granted() {
        let mut out = Vec::new();
        let mut dialect = dialect(Encoding::Json, 1);
        dialect.deflate = true;
        let plain = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert!(dialect.opened(0, plain, &mut Say::new(&mut out)).is_err());
        let granted =
            b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n";
        assert!(dialect.opened(0, granted, &mut Say::new(&mut out)).is_ok());
    }
}
