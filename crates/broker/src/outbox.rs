//! Outboxes: the events of members, kept in order until the application has them.

use std::fmt;
use std::time::Duration;

use fanwire_protocol::{ClientId, TopicName};

/// The limits of outboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// The time for which a topic or user without members is not yet said to be vacant or offline. Who comes back within
    /// it is not told of at all.
    pub offline_delay: Duration,
    /// The time for which events are kept.
    pub retention: Duration,
    /// The most events of one outbox in Redis, about; the oldest are dropped.
    pub length_max: usize,
    /// The most bytes of a memory engine's outbox; the oldest events are dropped.
    pub bytes_max: usize,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            offline_delay: Duration::from_secs(5),
            retention: Duration::from_secs(24 * 60 * 60),
            length_max: 10_000,
            bytes_max: 16 << 20,
        }
    }
}

/// An event about members. Those of one topic and those of one user are in one outbox, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub id: EventId,
    pub kind: EventKind,
    /// Milliseconds since 1970.
    pub time: i64,
    /// `None` for events of users and their connections.
    pub topic: Option<TopicName>,
    /// The client's user, or the one who is online or offline; `None` for a topic that is occupied or vacated.
    pub user: Option<Box<str>>,
    /// The client that came or went.
    pub client: Option<ClientId>,
    /// Number and text of the reason for which it went.
    pub reason: Option<(u32, Box<str>)>,
}

/// The identity of an event. It stays when the event is read again, and grows within an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// The outbox.
    pub slot: u16,
    pub millis: u64,
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.slot, self.millis, self.sequence)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Connected,
    Disconnected,
    UserOnline,
    UserOffline,
    Subscribed,
    Unsubscribed,
    TopicOccupied,
    TopicVacated,
}

impl EventKind {
    pub const ALL: [Self; 8] = [
        Self::Connected,
        Self::Disconnected,
        Self::UserOnline,
        Self::UserOffline,
        Self::Subscribed,
        Self::Unsubscribed,
        Self::TopicOccupied,
        Self::TopicVacated,
    ];

    /// Returns the name that applications know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::UserOnline => "user_online",
            Self::UserOffline => "user_offline",
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
            Self::TopicOccupied => "topic_occupied",
            Self::TopicVacated => "topic_vacated",
        }
    }
}
