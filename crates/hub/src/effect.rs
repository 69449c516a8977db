//! The effects that a session asks for, and the answers that it gets. Nothing here acts: the shard does.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::{Close, CloseReason, Left, RequestError};
use fanwire_protocol::reply::{Push, Reply};
use fanwire_protocol::request::StreamPosition;
use fanwire_protocol::{ClientInfo, Position, Publication, Tags, TopicName};

use crate::hook::{HookAnswer, HookQuestion, PublishOptions};
use crate::hook_settings::HookSlot;
use crate::registry::Moved;
use crate::{KeyFetch, TokenPrint};

/// Names a connection on a shard. The generation keeps an answer from reaching a later connection that was
/// given the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    pub slot: u32,
    pub generation: u32,
}

/// An effect that a session asks for.
#[derive(Debug)]
pub enum Effect {
    Reply(Reply),
    Push(Push),
    /// The reply to connect: goes out before anything that its subscriptions received meanwhile.
    Open(Reply),
    Ping,
    /// Nothing follows. The session has given its subscriptions back already.
    Close(Close),
    /// Tell when these keys are there, or cannot be had; answered by [`Answer::KeysFetched`].
    AwaitKeys {
        number: u32,
        keys: KeyFetch,
    },
    /// Close the connection when this token is revoked, instead of any before it.
    Token(TokenPrint),
    /// Count the connection as one of its address's, until the session is over; answered by [`Answer::AddressRegistered`].
    RegisterAddress,
    /// Count the connection as one of its user's; answered by [`Answer::Registered`].
    Register {
        /// Empty for an anonymous client, which only has events.
        user: Box<str>,
        /// Close the user's other connections.
        single: bool,
    },
    Unregister {
        user: Box<str>,
        left: Left,
    },
    /// To whoever owns the topic.
    Topic(TopicName, TopicRequest),
    /// Another subscription has a new place in its topic.
    Moved(Moved),
    /// To a hook; answered by [`Answer::Hooked`]. The drop of an `Arc` is out of line, so that of other effects is short.
    Hook(Arc<HookQuestion>),
    /// The answer of a hook cannot be used: the words say why, for the operator's log.
    UnfitAnswer(HookSlot, Box<str>),
}

// Effects and answers are moved by value, a few times each.
const _: () = assert!(size_of::<Effect>() <= 112);
const _: () = assert!(size_of::<Answer>() <= 88);

impl Effect {
    /// Gives a subscription back to the topic's owner.
    pub fn unsubscribe(topic: TopicName, membership: Membership, left: Left) -> Self {
        Self::Topic(topic, TopicRequest::Unsubscribe { membership, left })
    }
}

/// A client's part in a topic, as the topic's owner has to know it.
#[derive(Clone, Debug)]
pub struct Membership {
    pub info: Arc<ClientInfo>,
    /// It is a member: listed in the topic's presence, or kept for its events.
    pub presence: bool,
    /// Its coming and going is told.
    pub join_leave: bool,
}

/// The part of the stream that a new subscription asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryRequest {
    Nothing,
    /// The stream's position.
    Position,
    /// The publications after the known position. If they cannot all be told, `or_refuse` refuses the subscription.
    Since {
        known: StreamPosition,
        or_refuse: bool,
    },
    /// The newest publication, unless it is at the known position.
    Newest(StreamPosition),
}

impl RecoveryRequest {
    /// From where the stream is to be recovered.
    pub fn known(&self) -> Option<&StreamPosition> {
        match self {
            Self::Nothing | Self::Position => None,
            Self::Since { known, .. } | Self::Newest(known) => Some(known),
        }
    }
}

/// A request of a session to a topic's owner. `id` is the request's, and comes back in the answer.
#[derive(Debug)]
pub enum TopicRequest {
    Subscribe {
        membership: Membership,
        wanted: RecoveryRequest,
    },
    Unsubscribe {
        membership: Membership,
        left: Left,
    },
    /// The client is present already; others are to see this of it from now on.
    UpdatePresence {
        info: Arc<ClientInfo>,
        join_leave: bool,
    },
    Publish {
        id: u32,
        data: Bytes,
        tags: Option<Arc<Tags>>,
        info: Arc<ClientInfo>,
        /// `None`: as its namespace has it.
        options: Option<Box<PublishOptions>>,
    },
    Presence {
        id: u32,
    },
    PresenceStats {
        id: u32,
    },
    History {
        id: u32,
        limit: usize,
        since: Option<StreamPosition>,
        reverse: bool,
    },
}

impl TopicRequest {
    /// Its answer is read from what the topic keeps, and may be long.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Subscribe { wanted, .. } => wanted.known().is_some(),
            Self::Presence { .. } | Self::History { .. } => true,
            Self::Unsubscribe { .. }
            | Self::UpdatePresence { .. }
            | Self::Publish { .. }
            | Self::PresenceStats { .. } => false,
        }
    }
}

/// The answer to an effect that has one.
#[derive(Debug)]
pub enum Answer {
    AddressRegistered(Result<(), CloseReason>),
    Registered(Result<(), CloseReason>),
    Subscribed {
        topic: TopicName,
        /// Given back, so that a subscription whose connection has gone can be undone.
        membership: Membership,
        result: Result<SubscriptionStart, RequestError>,
    },
    Published {
        id: u32,
        result: Result<(), RequestError>,
    },
    Presence {
        id: u32,
        result: Result<Vec<Arc<ClientInfo>>, RequestError>,
    },
    PresenceStats {
        id: u32,
        result: Result<(usize, usize), RequestError>,
    },
    History {
        id: u32,
        result: Result<(Position, Vec<Arc<Publication>>), RequestError>,
        /// The client is told the time of each.
        shows_time: bool,
    },
    Hooked(Box<HookAnswer>),
    KeysFetched {
        number: u32,
    },
}

impl Answer {
    /// It is what a publish, presence or history request waits for.
    pub fn is_to_request(&self) -> bool {
        !matches!(
            self,
            Self::AddressRegistered(_)
                | Self::Registered(_)
                | Self::Subscribed { .. }
                | Self::Hooked(_)
                | Self::KeysFetched { .. }
        )
    }
}

/// A subscription as the topic's owner made it: everything after `position` will be delivered.
#[derive(Debug, Default)]
pub struct SubscriptionStart {
    /// Known whenever more than nothing was wanted.
    pub position: Option<Position>,
    /// The publications that the client missed; `None` when they cannot be told.
    pub recovered: Option<Vec<Arc<Publication>>>,
    /// It is not recovered, as that takes more bytes than it may.
    pub is_too_long: bool,
}

/// Tells the caller of an API request how its part went: called on a failure, dropped when all is done.
#[derive(Clone)]
pub struct Completion(pub Arc<dyn Fn(RequestError) + Send + Sync>);

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}
