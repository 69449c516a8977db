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
    /// The most dead letters, about; the oldest are dropped.
    pub dead_letters_max: usize,
    /// The time for which dead letters are kept.
    pub dead_letters_ttl: Duration,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            offline_delay: Duration::from_secs(5),
            retention: Duration::from_secs(24 * 60 * 60),
            length_max: 10_000,
            bytes_max: 16 << 20,
            dead_letters_max: 10_000,
            dead_letters_ttl: Duration::from_secs(7 * 24 * 60 * 60),
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

/// An event that the application refused, kept aside so that it holds up no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: LetterId,
    pub event: StoredEvent,
    pub refusal: Refusal,
}

/// The identity of a dead letter. It grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// When the event was refused: milliseconds since 1970.
    pub millis: u64,
    pub sequence: u64,
}

impl LetterId {
    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (millis, sequence) = text.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// The application's last word on an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of its answer; 0 for none.
    pub status: u16,
    /// The number of attempts in all.
    pub attempts: u32,
}

/// Some of the dead letters, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letters {
    All,
    These(Vec<LetterId>),
}

/// The contents of outboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub events: u64,
    /// The number of events that were dropped since they were last counted: they were too old or too many.
    pub dropped: u64,
    /// The time of the oldest event: milliseconds since 1970.
    pub oldest: Option<u64>,
    pub dead_letters: u64,
    /// When the oldest dead letter was refused: milliseconds since 1970.
    pub oldest_dead_letter: Option<u64>,
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
