//! Something that goes to every subscriber of a topic, encoded at most once for each wire form, and compressed at most
//! once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fanwire_protocol::centrifuge::{self, Encoding, ReplyMessage};
use fanwire_protocol::plain::sse;
use fanwire_protocol::websocket::{self, Deflater, Opcode};
use fanwire_protocol::{ClientInfo, Epoch, Publication, TopicName};

/// How a connection wants its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Centrifuge JSON in WebSocket text frames.
    JsonFrames,
    /// Centrifuge Protobuf in WebSocket binary frames.
    ProtobufFrames,
    /// Server-Sent Events.
    Events,
}

impl Wire {
    pub const COUNT: usize = 3;

    /// A reply as this wire carries it, framed. `None` where the wire has no form for it.
    pub fn reply(self, reply: &ReplyMessage) -> Option<Bytes> {
        let framed =
            |opcode, encoding| websocket::framed(opcode, |to| centrifuge::encode(encoding, reply, to));
        match self {
            Self::JsonFrames => framed(Opcode::Text, Encoding::Json).into(),
            Self::ProtobufFrames => framed(Opcode::Binary, Encoding::Protobuf).into(),
            Self::Events => None,
        }
    }
}

/// A publication, a join or a leave on its way to the subscribers of one topic.
#[derive(Debug)]
pub struct Delivery {
    pub topic: TopicName,
    pub message: Message,
    encoded: [OnceLock<Bytes>; Wire::COUNT],
    /// `None` where it would not be shorter.
    deflated: [OnceLock<Option<Bytes>>; Wire::COUNT],
}

#[derive(Clone, Debug)]
pub enum Message {
    /// The epoch goes along with the first publication of a stream.
    Publication(Arc<Publication>, Option<Epoch>),
    Join(Arc<ClientInfo>),
    Leave(Arc<ClientInfo>),
}

impl Message {
    /// Joins and leaves go only to subscribers that are told of them.
    pub fn is_join_or_leave(&self) -> bool {
        !matches!(self, Self::Publication(..))
    }
}

impl Delivery {
    pub fn new(topic: TopicName, message: Message) -> Self {
        Self { topic, message, encoded: Default::default(), deflated: Default::default() }
    }

    /// Bytes of what was published.
    pub fn data_bytes(&self) -> usize {
        match &self.message {
            Message::Publication(publication, _) => publication.data.len(),
            Message::Join(_) | Message::Leave(_) => 0,
        }
    }

    /// The framed bytes for a wire. The first shard that asks encodes, all share.
    pub fn bytes(&self, wire: Wire) -> &Bytes {
        self.encoded[wire as usize].get_or_init(|| self.encode(wire))
    }

    /// The same for connections that are compressed. What is too short for it they get as all others do.
    pub fn deflated(&self, wire: Wire, deflater: &mut Deflater) -> &Bytes {
        let plain = self.bytes(wire);
        let deflated = self.deflated[wire as usize].get_or_init(|| match wire {
            Wire::Events => None,
            Wire::JsonFrames | Wire::ProtobufFrames => deflater.frame(plain),
        });
        deflated.as_ref().unwrap_or(plain)
    }

    fn encode(&self, wire: Wire) -> Bytes {
        let reply = match (&self.message, wire) {
            (Message::Publication(publication, _), Wire::Events) => {
                let mut text = Vec::with_capacity(publication.data.len() + 64);
                sse::publication(&self.topic, publication, &mut text);
                return text.into();
            }
            (Message::Publication(publication, epoch), _) => {
                ReplyMessage::push_publication(&self.topic, publication, *epoch)
            }
            (Message::Join(info), _) => ReplyMessage::push_join(&self.topic, info),
            (Message::Leave(info), _) => ReplyMessage::push_leave(&self.topic, info),
        };
        wire.reply(&reply).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRES: [Wire; Wire::COUNT] = [Wire::JsonFrames, Wire::ProtobufFrames, Wire::Events];

    fn publication(data: &'static [u8], offset: u64) -> Message {
        let publication = Publication { data: Bytes::from_static(data), info: None, tags: None, offset };
        let first = (offset == 1).then(|| Epoch::parse(b"abcdefgh").unwrap());
        Message::Publication(Arc::new(publication), first)
    }

    fn delivery(message: Message) -> Delivery {
        Delivery::new(TopicName::new("news").unwrap(), message)
    }

    fn info() -> Arc<ClientInfo> {
        let client = fanwire_protocol::ClientId::parse("00000000-0000-4000-8000-000000000001").unwrap();
        Arc::new(ClientInfo {
            user: "42".into(),
            client,
            connection: Bytes::new(),
            subscription: Bytes::new(),
        })
    }

    fn json_frame(text: &str) -> Bytes {
        assert!(text.len() < 126);
        [&[0x81, text.len() as u8], text.as_bytes()].concat().into()
    }

    #[test]
    fn each_wire_has_its_form_and_shares_it() {
        for (message, json) in [
            (publication(b"1", 2), r#"{"push":{"channel":"news","pub":{"data":1,"offset":2}}}"#),
            // The first publication of a stream says which stream it is.
            (
                publication(b"1", 1),
                r#"{"push":{"channel":"news","pub":{"data":1,"offset":1,"epoch":"abcdefgh"}}}"#,
            ),
        ] {
            let delivery = delivery(message);
            assert_eq!(delivery.bytes(Wire::JsonFrames), &json_frame(json));
            for wire in WIRES {
                let bytes = delivery.bytes(wire);
                assert!(!bytes.is_empty());
                assert_eq!(bytes.as_ptr(), delivery.bytes(wire).as_ptr());
            }
        }
    }

    #[test]
    fn joins_and_leaves_have_no_form_as_events() {
        for (message, is) in [(Message::Join(info()), "join"), (Message::Leave(info()), "leave")] {
            assert!(message.is_join_or_leave());
            let delivery = delivery(message);
            let client = r#"{"user":"42","client":"00000000-0000-4000-8000-000000000001"}"#;
            let json = format!(r#"{{"push":{{"channel":"news","{is}":{{"info":{client}}}}}}}"#);
            assert_eq!(delivery.bytes(Wire::JsonFrames), &json_frame(&json));
            assert!(!delivery.bytes(Wire::ProtobufFrames).is_empty());
            assert_eq!(delivery.bytes(Wire::Events), &Bytes::new());
        }
    }

    #[test]
    fn it_is_compressed_once_and_left_as_it_is_when_that_gains_nothing() {
        let delivery = self::delivery(publication(br#"{"a":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"#, 2));
        let (mut one, mut other) = (Deflater::new(1, 1), Deflater::new(9, 1));
        for wire in [Wire::JsonFrames, Wire::ProtobufFrames] {
            let plain = delivery.bytes(wire);
            let deflated = delivery.deflated(wire, &mut one);
            assert!(deflated.len() < plain.len());
            assert_eq!(deflated[0], plain[0] | 0x40);
            assert_eq!(deflated.as_ptr(), delivery.deflated(wire, &mut other).as_ptr());
        }
        assert_eq!(other.bytes(), (0, 0));
        assert_eq!(delivery.deflated(Wire::Events, &mut one), delivery.bytes(Wire::Events));

        let short = self::delivery(publication(b"1", 2));
        let mut picky = Deflater::new(1, 1000);
        let plain = short.bytes(Wire::JsonFrames).as_ptr();
        assert_eq!(short.deflated(Wire::JsonFrames, &mut picky).as_ptr(), plain);
    }

    #[test]
    fn bytes_that_are_not_json_go_to_json_clients_in_base64() {
        let delivery = delivery(publication(b"\xff", 7));
        let json = r#"{"push":{"channel":"news","pub":{"data":null,"b64data":"/w==","offset":7}}}"#;
        assert_eq!(delivery.bytes(Wire::JsonFrames), &json_frame(json));
        let event = "data: {\"topic\":\"news\",\"data\":null,\"b64data\":\"/w==\",\"offset\":7}\n\n";
        assert_eq!(delivery.bytes(Wire::Events), event);
        assert!(delivery.bytes(Wire::ProtobufFrames).contains(&0xFF));
    }
}
