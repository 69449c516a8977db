//! Requests: the things a client asks of the server, in the words of no wire.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::filter::{Filter, FilterError};
use crate::reason::{Mistake, Unserved};
use crate::{Position, Tags};

/// One request of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Comes back in the reply; 0 where none is wanted.
    pub id: u32,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The answer to a ping of the server.
    Pong,
    Ping,
    /// A request that is understood, and cannot be. It ends the connection.
    Wrong(Mistake),
    /// The same where an answer is enough.
    Refused(Mistake),
    Connect(Connect),
    Subscribe(Subscribe),
    Unsubscribe {
        topic: String,
    },
    Publish(Publish),
    Presence {
        topic: String,
    },
    PresenceStats {
        topic: String,
    },
    History(History),
    Call {
        method: String,
        data: Bytes,
    },
    /// A message for the application, which is not answered.
    Send {
        method: Option<String>,
        data: Bytes,
    },
    Refresh {
        token: String,
    },
    SubRefresh(SubRefresh),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connect {
    /// Empty: none.
    pub token: String,
    /// Topics to be subscribed to before the reply, each once, with the positions to recover from.
    pub topics: Vec<(String, Option<StreamPosition>)>,
    /// The client only looks what there is: others are not told of it in the topics that the server subscribes it to.
    pub unseen: bool,
    /// The client's name, by its own word; empty: not told.
    pub name: String,
    pub extras: Option<Box<ConnectExtras>>,
}

/// What few clients say when they connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectExtras {
    /// The client keeps its places in a cursor, which is this one; empty at first. It goes on from there in topics that the
    /// server subscribes it to.
    pub cursor: Option<Box<Cursor>>,
    /// For the application; empty: none.
    pub data: Bytes,
    /// The client's version, by its own word; empty: not told.
    pub version: String,
    /// Headers for the application, by the client's own word: for clients that cannot send any with an HTTP request.
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribe {
    pub topic: String,
    /// Empty: none.
    pub token: String,
    pub positioned: bool,
    pub recoverable: bool,
    pub join_leave: bool,
    /// Without recovery, there is to be no subscription at all.
    pub or_refuse: bool,
    /// The client only looks what there is: it is in no presence, and others are not told of it.
    pub unseen: bool,
    /// The first that matters to the session.
    pub unserved: Option<Unserved>,
    pub extras: Option<Box<SubscribeExtras>>,
}

/// What few clients say when they subscribe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeExtras {
    /// The position to recover from.
    pub since: Option<StreamPosition>,
    /// For the application; empty: none.
    pub data: Bytes,
    /// The publications that it wants; all without one.
    pub filter: Option<Result<Arc<Filter>, FilterError>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish {
    pub topic: String,
    pub data: Bytes,
    /// `None` without tags.
    pub tags: Option<Arc<Tags>>,
    /// The topic is meant to be another kind than a stream.
    pub is_unserved: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubRefresh {
    pub topic: String,
    pub token: String,
    /// Something other than a new token is meant.
    pub is_unserved: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub topic: String,
    /// Publications at most; `None`: as many as are allowed.
    pub limit: Option<usize>,
    pub since: Option<StreamPosition>,
    pub reverse: bool,
}

/// A message of a client, or a request in it, that cannot be understood. The client is closed with "bad request".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    /// Takes a few words of our own: nothing that the peer sent is repeated to it.
    pub fn because(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }

    /// Returns these words.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl From<Malformed> for Mistake {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// A place in a stream as a client knows it. Its epoch is any text; empty matches every epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamPosition {
    pub offset: u64,
    pub epoch: String,
}

impl From<Position> for StreamPosition {
    fn from(Position { epoch, offset }: Position) -> Self {
        Self { offset, epoch: epoch.to_string() }
    }
}

// Requests are moved by value, a few times each: what few clients send lies elsewhere.
const _: () = assert!(size_of::<Request>() <= 96);

impl ConnectExtras {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.data.len() + self.version.len() + headers.sum::<usize>()
    }
}

impl SubscribeExtras {
    fn bytes(&self) -> usize {
        let filter = self.filter.iter().flatten().map(|filter| filter.bytes());
        since_bytes(&self.since) + self.data.len() + filter.sum::<usize>()
    }
}

fn since_bytes(since: &Option<StreamPosition>) -> usize {
    since.as_ref().map_or(0, |since| since.epoch.len())
}

impl Request {
    /// Returns the memory that the texts and the data take.
    pub fn bytes(&self) -> usize {
        match &self.ask {
            Ask::Pong | Ask::Ping | Ask::Wrong(_) | Ask::Refused(_) => 0,
            Ask::Connect(connect) => {
                let topics =
                    connect.topics.iter().map(|(topic, position)| topic.len() + since_bytes(position));
                let extras = connect.extras.as_ref().map_or(0, |extras| extras.bytes());
                connect.token.len() + connect.name.len() + topics.sum::<usize>() + extras
            }
            Ask::Subscribe(subscribe) => {
                let extras = subscribe.extras.as_ref().map_or(0, |extras| extras.bytes());
                subscribe.topic.len() + subscribe.token.len() + extras
            }
            Ask::Unsubscribe { topic } | Ask::Presence { topic } | Ask::PresenceStats { topic } => {
                topic.len()
            }
            Ask::Publish(publish) => publish.topic.len() + publish.data.len(),
            Ask::History(history) => history.topic.len() + since_bytes(&history.since),
            Ask::Call { method, data } => method.len() + data.len(),
            Ask::Send { method, data } => method.as_ref().map_or(0, String::len) + data.len(),
            Ask::Refresh { token } => token.len(),
            Ask::SubRefresh(refresh) => refresh.topic.len() + refresh.token.len(),
        }
    }

    /// Returns the topic whose order the request has to keep.
    pub fn topic(&self) -> Option<&str> {
        match &self.ask {
            Ask::Subscribe(subscribe) => Some(&subscribe.topic),
            Ask::Publish(publish) => Some(&publish.topic),
            Ask::Unsubscribe { topic } | Ask::Presence { topic } | Ask::PresenceStats { topic } => {
                Some(topic)
            }
            Ask::History(history) => Some(&history.topic),
            Ask::SubRefresh(refresh) => Some(&refresh.topic),
            Ask::Pong
            | Ask::Ping
            | Ask::Wrong(_)
            | Ask::Refused(_)
            | Ask::Connect(_)
            | Ask::Call { .. }
            | Ask::Send { .. }
            | Ask::Refresh { .. } => None,
        }
    }
}
