//! What an engine delivers to the owner of a subscribed topic, in the topic's one order.

use std::sync::Arc;

use fanwire_protocol::{ClientInfo, Epoch, Publication, TopicName};

/// Something that happened in a subscribed topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody published.
    Publication {
        /// Where.
        topic: TopicName,
        /// What, as everybody who receives it shares it.
        publication: Arc<Publication>,
        /// The stream that its offset belongs to; `None` exactly when the offset is 0.
        epoch: Option<Epoch>,
    },
    /// A client subscribed.
    Join {
        /// Where.
        topic: TopicName,
        /// Who.
        info: Arc<ClientInfo>,
    },
    /// A client unsubscribed or went away.
    Leave {
        /// Where.
        topic: TopicName,
        /// Who.
        info: Arc<ClientInfo>,
    },
    /// Events may have been missed: the connection to the engine was lost for a while, or the stream changed in a
    /// way that no single event can tell. Compare the topic's position with [`crate::Engine::recover`]. An engine
    /// that cannot miss anything never says so.
    Interrupted {
        /// Where.
        topic: TopicName,
    },
}

impl Event {
    /// Where it happened.
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Publication { topic, .. }
            | Self::Join { topic, .. }
            | Self::Leave { topic, .. }
            | Self::Interrupted { topic } => topic,
        }
    }
}
