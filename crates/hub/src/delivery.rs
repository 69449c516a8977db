//! Something that goes to every subscriber of a topic, encoded at most once for each wire form.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fanwire_protocol::centrifuge::{self, Encoding, Reply, Unencodable};
use fanwire_protocol::websocket::{self, Opcode};
use fanwire_protocol::{ClientInfo, Epoch, Publication, TopicName, events};

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
    pub fn reply(self, reply: &Reply) -> Result<Option<Bytes>, Unencodable> {
        let framed = |opcode, encoding| websocket::framed(opcode, |to| centrifuge::encode(encoding, reply, to));
        match self {
            Self::JsonFrames => framed(Opcode::Text, Encoding::Json).map(Some),
            Self::ProtobufFrames => framed(Opcode::Binary, Encoding::Protobuf).map(Some),
            Self::Events => Ok(None),
        }
    }
}

/// A publication, a join or a leave on its way to the subscribers of one topic.
#[derive(Debug)]
pub struct Delivery {
    pub topic: TopicName,
    pub message: Message,
    encoded: [OnceLock<Result<Bytes, Unencodable>>; Wire::COUNT],
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
        Self { topic, message, encoded: Default::default() }
    }

    /// The framed bytes for a wire. The first shard that asks encodes, all share.
    pub fn bytes(&self, wire: Wire) -> &Result<Bytes, Unencodable> {
        self.encoded[wire as usize].get_or_init(|| self.encode(wire))
    }

    fn encode(&self, wire: Wire) -> Result<Bytes, Unencodable> {
        let reply = match (&self.message, wire) {
            (Message::Publication(publication, _), Wire::Events) => {
                let mut text = Vec::with_capacity(publication.data.len() + 64);
                events::publication(&self.topic, publication, &mut text)?;
                return Ok(text.into());
            }
            (Message::Publication(publication, epoch), _) => {
                Reply::push_publication(&self.topic, publication, *epoch)
            }
            (Message::Join(info), _) => Reply::push_join(&self.topic, info),
            (Message::Leave(info), _) => Reply::push_leave(&self.topic, info),
        };
        Ok(wire.reply(&reply)?.unwrap_or_default())
    }
}
