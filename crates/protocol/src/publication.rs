//! Publications, and the clients that send and receive them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

/// Names one client, that is one connection, for as long as it lives. A version 4 UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub Uuid);

impl ClientId {
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A client as others may see it in presence, joins, leaves and publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The user it authenticated as; empty when anonymous.
    pub user: Box<str>,
    pub client: ClientId,
    /// Said about the connection by its credentials. Empty when nothing was said.
    pub connection: Bytes,
    /// Said about this subscription by its credentials. Empty when nothing was said.
    pub subscription: Bytes,
}

/// Labels of a publication, in a stable order so that equal publications encode to equal bytes.
pub type Tags = BTreeMap<String, String>;

/// One message in a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// The payload as its publisher gave it: JSON text, or any bytes when published in binary.
    pub data: Bytes,
    /// The publishing client; `None` when a backend published.
    pub info: Option<Arc<ClientInfo>>,
    /// `None` without tags.
    pub tags: Option<Arc<Tags>>,
    /// Its place in the topic's stream, from 1; 0 when it is not kept in history.
    pub offset: u64,
    /// The time at which it was published, in milliseconds since 1970; 0 if it is unknown.
    pub time: i64,
    /// The one client that does not get it.
    pub exclude: Option<ClientId>,
}

/// The bytes around a publication or a client in an answer, about.
pub const ANSWER_OVERHEAD_BYTES: usize = 64;

impl ClientInfo {
    /// Returns the bytes that a client counts for in an answer, which is bounded.
    pub fn answer_bytes(&self) -> usize {
        ANSWER_OVERHEAD_BYTES + self.user.len() + self.connection.len() + self.subscription.len()
    }
}

impl Publication {
    /// Returns true if the client does not get it.
    pub fn excludes(&self, client: ClientId) -> bool {
        self.exclude == Some(client)
    }

    /// Returns the bytes that a publication counts for in an answer, which is bounded.
    pub fn answer_bytes(&self) -> usize {
        let info = self.info.as_ref().map_or(0, |info| info.answer_bytes());
        let tag = |(name, value): (&String, &String)| name.len() + value.len();
        let tags = self.tags.as_ref().map_or(0, |tags| tags.iter().map(tag).sum());
        ANSWER_OVERHEAD_BYTES + self.data.len() + info + tags
    }
}
