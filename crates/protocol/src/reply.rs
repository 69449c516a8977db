//! Replies and pushes: the things the server tells a client, in the words of no wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::reason::{Refused, Unsubscribed};
use crate::{ClientId, ClientInfo, Epoch, Position, Publication, TopicName};

/// The answer to the request of the same id.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub id: u32,
    pub result: Result<Outcome, Refused>,
}

/// The outcome of a request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Connected(Box<Connected>),
    Subscribed(Subscribed),
    Unsubscribed,
    Published,
    Presence(Vec<Arc<ClientInfo>>),
    PresenceStats {
        clients: usize,
        users: usize,
    },
    History {
        top: Position,
        publications: Vec<Arc<Publication>>,
        /// The client is told the time of each.
        shows_time: bool,
    },
    /// The result of a method; empty: none.
    Called(Bytes),
    /// Seconds until the connection expires; `None`: never.
    Refreshed {
        ttl: Option<u32>,
    },
    /// The same for a subscription.
    SubRefreshed {
        ttl: Option<u32>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    pub client: ClientId,
    /// The server's version.
    pub version: &'static str,
    /// Seconds until the connection expires; `None`: never.
    pub ttl: Option<u32>,
    /// Between the server's own pings; `None`: it sends none that the client sees.
    pub ping_interval: Option<Duration>,
    /// The client has to answer pings.
    pub pong: bool,
    /// From its credentials; empty: none.
    pub data: Box<[u8]>,
    /// The server's clock, in milliseconds since 1970.
    pub time_millis: Option<i64>,
    /// Subscriptions that the server made.
    pub topics: Vec<(TopicName, Subscribed)>,
    /// On wires whose clients need it.
    pub session: Option<Box<SessionNames>>,
}

/// The names by which other requests mean this connection.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionNames {
    /// A secret of the client.
    pub session: String,
    /// The node that has the session, where the client sends its commands by other requests.
    pub node: Option<String>,
}

/// A subscription as its client is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribed {
    /// Seconds until it expires; `None`: never.
    pub ttl: Option<u32>,
    pub positioned: bool,
    pub recoverable: bool,
    pub was_recovering: bool,
    /// The stream's end; known if it is positioned.
    pub top: Option<Position>,
    /// The publications since the client's position; `None`: it is not recovered.
    pub recovered: Option<Vec<Arc<Publication>>>,
    /// The client is told the time of each publication.
    pub shows_time: bool,
    /// From its credentials; empty: none.
    pub data: Bytes,
}

/// Something that a client is told without having asked for it just now.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// `epoch` names the stream that it is kept in.
    Publication {
        topic: TopicName,
        publication: Arc<Publication>,
        epoch: Option<Epoch>,
        /// The client is told its time.
        shows_time: bool,
    },
    Join {
        topic: TopicName,
        info: Arc<ClientInfo>,
    },
    Leave {
        topic: TopicName,
        info: Arc<ClientInfo>,
    },
    /// The server subscribed the client. Recovered publications follow, each as a push.
    Subscribed {
        topic: TopicName,
        subscription: Subscribed,
    },
    Unsubscribed {
        topic: TopicName,
        reason: Unsubscribed,
    },
    /// The server moved the end of the connection's credentials; `None`: to never.
    Refreshed {
        ttl: Option<u32>,
    },
}

impl Push {
    /// Returns the topic whose subscribers it is for, if it is for one topic's.
    pub fn topic(&self) -> Option<&TopicName> {
        match self {
            Self::Publication { topic, .. }
            | Self::Join { topic, .. }
            | Self::Leave { topic, .. }
            | Self::Subscribed { topic, .. }
            | Self::Unsubscribed { topic, .. } => Some(topic),
            Self::Refreshed { .. } => None,
        }
    }

    /// Returns the place in its topic's stream at which it leaves those who get it.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Publication { publication, epoch, .. } => {
                epoch.map(|epoch| Position { epoch, offset: publication.offset })
            }
            _ => None,
        }
    }

    /// Returns the client that does not get it, though it is a subscriber.
    pub fn exclude(&self) -> Option<ClientId> {
        match self {
            Self::Publication { publication, .. } => publication.exclude,
            _ => None,
        }
    }

    /// Returns true if it goes only to subscribers that are told of joins and leaves.
    pub fn is_join_or_leave(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Leave { .. })
    }
}
