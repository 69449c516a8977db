//! Clients of the Centrifuge protocol over WebSocket, in JSON and in Protobuf: they connect with a token, subscribe, and
//! answer pings. They serve for Fanwire and for other servers of the protocol.

use std::rc::Rc;
use std::time::Duration;

use fanwire_protocol::centrifuge::Encoding;
use jsonwebtoken::EncodingKey;
use serde::Serialize;

use crate::client::Lost;
use crate::dialect::commands::{self, Answer};
use crate::dialect::{Audience, Dialect, Framing, Progress, Say, Units, websocket_request};

/// Longer than any run, so that no client has to refresh its token.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The offer of clients when compression is measured.
const DEFLATE_OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
const PROTOBUF_OFFER: &str = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n";

/// The cookie that says who a client is, and the bytes of a client's `Cookie` header.
pub(crate) const USER_COOKIE: &str = "user=";
const COOKIE_BYTES: usize = 200;

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
    /// Subscriptions have a filter.
    pub(crate) filter: bool,
    /// Clients have a cookie in place of a token.
    pub(crate) hook: bool,
}

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
        if self.hook {
            headers += &cookie(client);
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
        let token = if self.hook { String::new() } else { self.tokens.connection(client)? };
        self.say(&commands::connect(self.encoding, token), say);
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
        let answer = Answer::read(self.encoding, message)?;
        let progress = answer.count(step, topics).ok_or_else(|| Lost::refused(message))?;
        match answer {
            // Both are empty messages.
            Answer::Ping => self.say(if self.encoding == Encoding::Json { b"{}" } else { &[0] }, say),
            Answer::Connected => {
                for (place, topic) in self.audience.topic_names_of(client).enumerate() {
                    self.say(&commands::subscribe(self.encoding, place, topic, self.filter), say);
                }
            }
            Answer::Subscribed | Answer::Other => {}
        }
        Ok(progress)
    }
}

/// Returns the header by which the application's backend knows a client.
fn cookie(client: usize) -> String {
    let user = format!("{USER_COOKIE}user-{client}; session=");
    format!("Cookie: {user:x<COOKIE_BYTES$}\r\n")
}

impl Centrifuge {
    fn say(&self, command: &[u8], say: &mut Say<'_>) {
        match self.encoding {
            Encoding::Json => say.text(command),
            Encoding::Protobuf => say.binary(command),
        }
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
            filter: false,
            hook: false,
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
    fn a_client_of_a_hook_has_a_cookie_and_no_token() {
        let mut dialect = dialect(Encoding::Json, 1);
        dialect.hook = true;
        let (mut hello, mut connect) = (Vec::new(), Vec::new());
        dialect.hello(7, &mut hello).unwrap();
        let hello = String::from_utf8(hello).unwrap();
        let cookie = hello.lines().find_map(|line| line.strip_prefix("Cookie: ")).unwrap();
        assert!(cookie.len() == COOKIE_BYTES && cookie.starts_with("user=user-7; session=x"), "{cookie}");
        dialect.opened(7, b"", &mut Say::new(&mut connect)).unwrap();
        assert!(connect.len() < 100, "{connect:?}");
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
