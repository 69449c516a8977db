//! The messages to a shard: deliveries, answers and orders for its sessions, requests to the owners of topics and users.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::{
    EngineError, Event, HistoryPage, Member, NewPublication, PresenceStats, Published, ReadLimit,
};
use fanwire_hub::delivery::Delivery;
use fanwire_hub::effect::{Answer, Completion, ConnectionKey, TopicRequest};
use fanwire_hub::session::Control;
use fanwire_hub::{KeyFetch, TokenPrint};
use fanwire_protocol::reason::{CloseReason, Left, RequestError};
use fanwire_protocol::request::StreamPosition;
use fanwire_protocol::{ClientId, ClientInfo, TopicName};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::accept::admission::ClientNetwork;
use crate::allowance::ReadAllowance;
use crate::session_key::SessionKey;

/// The time after which the bucket of each name is full, if nobody takes anything more.
pub(crate) type Debts = Vec<(Box<str>, Duration)>;

/// The bytes that a waiting delivery counts for beside its data.
const DELIVERY_BYTES: usize = 256;

/// A connection anywhere on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub shard: u16,
    pub connection: ConnectionKey,
}

#[derive(Debug)]
pub(crate) enum ShardMessage {
    /// For every subscriber of the topic on this shard.
    Deliver(Arc<Delivery>),
    /// The topic's stream has a gap that cannot be filled: subscriptions with a position start over.
    Unrecoverable(TopicName),
    /// For one session.
    Answer(ConnectionKey, Answer),
    /// For one session: the answer to a request that reads.
    ReadAnswer(ConnectionKey, Answer, ReadAllowance),
    /// The answer would exceed its allowance; the session's shard may ask again.
    Larger(ConnectionKey, TopicName, TopicRequest, ReadAllowance),
    Control(SessionOrder),
    /// For one session, from its client: input, as what a socket brings.
    Session(Box<SessionCall>),
    /// For the topic's owner, from a session.
    Topic(TopicName, Address, TopicRequest),
    /// The same, where the answer is read from the topic.
    Read(TopicName, Address, TopicRequest, ReadAllowance),
    /// For the topic's owner, from the API.
    Call(TopicName, TopicCall),
    Publish(TopicName, Box<NewPublication>, PublishCaller),
    /// For the topic's owner, from an engine outside this process.
    Event(Event),
    /// The inbox has noted topics with gaps.
    GapsNoted,
    /// For the user's owner.
    User(UserMessage),
    /// What users have used up of their rates on all nodes.
    Debts(Debts),
    Survey(Survey),
    /// These keys were fetched, or could not be.
    KeysFetched(KeyFetch),
    /// Closes the connections of a revoked token; the answer is their number.
    Revoke(TokenPrint, mpsc::UnboundedSender<usize>),
    /// Counts a request without a session, unless it is one too many.
    Count(Requester, oneshot::Sender<Result<(), RateExceeded>>),
    /// The answer to a poll that waits on the shard.
    ParkedAnswer(ConnectionKey, Box<SessionAnswer>),
    /// A node has died for whose sessions polls wait on the shard.
    NodeGone(Uuid),
    /// Dropped when everything before it is done.
    Barrier(oneshot::Sender<()>),
    /// Closes every client with this reason.
    Close(CloseReason),
    /// Closes every client, evenly over this time.
    Drain(Duration),
}

// Inboxes hold thousands of them.
const _: () = assert!(size_of::<ShardMessage>() <= 120);

impl ShardMessage {
    /// Returns true if it follows from a request of a client.
    pub(crate) fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Topic(..)
                | Self::Read(..)
                | Self::Answer(..)
                | Self::ReadAnswer(..)
                | Self::Larger(..)
                | Self::Session(_)
                | Self::User(_)
                | Self::Count(..)
                | Self::ParkedAnswer(..)
        )
    }

    /// Returns true if it is for sessions of the shard. Those messages keep their order.
    pub(crate) fn is_for_sessions(&self) -> bool {
        match self {
            Self::Deliver(_)
            | Self::Unrecoverable(_)
            | Self::Answer(..)
            | Self::ReadAnswer(..)
            | Self::Larger(..)
            | Self::Control(_)
            | Self::Revoke(..)
            | Self::KeysFetched(_)
            | Self::Barrier(_)
            | Self::Close(_)
            | Self::Drain(_) => true,
            Self::Session(_)
            | Self::Debts(_)
            | Self::Topic(..)
            | Self::Read(..)
            | Self::Call(..)
            | Self::Publish(..)
            | Self::Event(_)
            | Self::GapsNoted
            | Self::User(_)
            | Self::Survey(_)
            | Self::ParkedAnswer(..)
            | Self::NodeGone(_)
            | Self::Count(..) => false,
        }
    }

    /// The bytes that it counts for, if it is part of the fan-out.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let data = match self {
            Self::Deliver(delivery) => delivery.data_bytes(),
            Self::Event(Event::Publication { publication, .. }) => publication.data.len(),
            Self::Event(_) => 0,
            _ => return None,
        };
        Some(data + DELIVERY_BYTES)
    }
}

/// An order of the API for the sessions of one shard.
#[derive(Clone, Debug)]
pub(crate) struct SessionOrder {
    pub to: Recipients,
    pub control: Control,
    pub completion: Completion,
}

#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    /// A session that its user's owner knows; with a client id, only if it is that client.
    Connection(ConnectionKey, Arc<Filter>),
    /// The session of this client, if it is on the shard.
    Client(ClientId),
    Session(Arc<KeyedSession>),
}

/// The session of a key, if it is the user's and the filter takes its client.
#[derive(Debug)]
pub(crate) struct KeyedSession {
    pub key: SessionKey,
    /// `None` for any user.
    pub user: Option<Box<str>>,
    pub filter: Filter,
}

/// The sessions of a user that an order is for.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub only: Option<ClientId>,
    pub except: FxHashSet<ClientId>,
}

impl Filter {
    pub(crate) fn takes(&self, client: ClientId) -> bool {
        self.only.is_none_or(|only| only == client) && !self.except.contains(&client)
    }
}

/// A call of a client to its session, by another way than the session's own connection.
#[derive(Debug)]
pub(crate) struct SessionCall {
    pub key: SessionKey,
    pub ask: SessionAsk,
    pub answer: AnswerTo,
}

#[derive(Debug)]
pub(crate) enum SessionAsk {
    /// Commands, as a message of the session's wire, and the first id in it.
    Commands { first: Option<u32>, data: Bytes },
    /// What there is for the client.
    Poll(PollAsk),
    /// The client whose poll waits at the place that asks has gone.
    Left,
    /// The client is done with its session.
    End,
}

/// A poll of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollAsk {
    /// The number of the last answer that the client has received.
    pub number: u32,
    /// The time to wait for something; 0 asks for an answer at once.
    pub wait_millis: u32,
    /// The fingerprint of the topics that the client asks for.
    pub topics: u64,
}

/// The way of a call to its session: the node that its client's request came to, and the network of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Via {
    pub node: Uuid,
    /// Nodes of older versions do not tell it.
    pub network: Option<ClientNetwork>,
}

/// The place that the answer to a session call is sent to.
#[derive(Debug)]
pub(crate) enum AnswerTo {
    /// The caller may have given up.
    Task(oneshot::Sender<SessionAnswer>),
    /// A node that forwarded the call, and its number for it.
    Node(Via, u64),
    /// A poll that waits for as long as it says.
    Parked(ParkedAt),
}

/// The place of a poll that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParkedAt {
    pub via: Via,
    pub address: Address,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionAnswer {
    /// The session has the commands, whose replies go out by its own connection; or has ended as it was asked to.
    Taken,
    /// There is nothing for a poll yet, or so much that a shard has to send it: the poll is to wait.
    Nothing,
    /// There is no session of this key.
    Gone,
    /// More waits than may; the session has ended for that.
    Full,
    /// The session's shard has too much before it to answer in time, or its node has sent the asking one enough. Commands are
    /// not taken, and what a poll would bring is kept for the next.
    Busy,
    /// What comes again does so more often than a client may ask.
    TooOften,
    /// The client's topics are not those of the session.
    OtherTopics,
    /// Another poll of the session has come after this one, which waited; or its client has ended it.
    Overtaken,
    /// Its node, or Redis, cannot be asked just now. No node says that of itself.
    Unreachable,
    Poll(PollAnswer),
}

/// The answer to a poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PollAnswer {
    /// The number of the last answer that brought something; the client sends it with its next poll.
    pub number: u32,
    pub body: Bytes,
    /// It brings messages, or says that some may be missing.
    pub has_news: bool,
    /// The cursor in it, where a cache may ask whether it is still the same.
    pub cursor: Option<String>,
}

/// The reasons for which a session call has no answer. Unless there is none, it may have reached
/// its session all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// There is none of this key: its node is not alive, or has not made it.
    NoSession,
    Late,
    /// The clients of its network have had too much forwarded. The session does not have it.
    TooMuch,
    /// Redis, over which nodes talk, does not answer.
    Redis,
}

/// A question to every shard.
#[derive(Debug)]
pub(crate) enum Survey {
    /// Topics with subscribers on the shard, and how many.
    Topics(mpsc::UnboundedSender<Vec<(TopicName, usize)>>),
    /// The number of subscribers of each topic on the shard, but for the excluded client.
    Subscribers {
        topics: Arc<[TopicName]>,
        exclude: Option<ClientId>,
        reply: mpsc::UnboundedSender<Vec<usize>>,
    },
}

/// A call of the API to a topic's owner. The caller may have left when the answer comes.
#[derive(Debug)]
pub(crate) enum TopicCall {
    Presence {
        bytes_max: usize,
        reply: oneshot::Sender<Result<Vec<Arc<ClientInfo>>, RequestError>>,
    },
    PresenceStats {
        reply: oneshot::Sender<Result<PresenceStats, RequestError>>,
    },
    History {
        query: HistoryCall,
        reply: oneshot::Sender<Result<HistoryPage, RequestError>>,
    },
    RemoveHistory {
        reply: oneshot::Sender<Result<(), RequestError>>,
    },
    /// Dropped when everything before it is done.
    Barrier(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(crate) struct HistoryCall {
    pub limit: ReadLimit,
    pub since: Option<StreamPosition>,
    pub reverse: bool,
}

/// The caller that gets the result of a publish.
#[derive(Debug)]
pub(crate) enum PublishCaller {
    Client(Address, u32),
    Backend(oneshot::Sender<Result<Published, RequestError>>),
}

/// One whose connections are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Holder {
    User(Box<str>),
    /// As [`ClientNetwork`] is shown.
    Network(Box<str>),
}

/// A connection of one whose connections are limited on all nodes together.
#[derive(Debug)]
pub(crate) struct HolderAdmission {
    pub holder: Holder,
    pub from: Address,
    pub member: Member,
    pub connections_max: usize,
}

#[derive(Debug)]
pub(crate) enum UserMessage {
    /// Admits a connection of the holder; the connection gets the answer.
    Register {
        /// A user without a name is an anonymous client: then the shard is the connection's own.
        holder: Holder,
        client: ClientId,
        from: Address,
        /// The user's other connections are to be closed.
        single: bool,
    },
    Unregister {
        holder: Holder,
        client: ClientId,
        from: Address,
        left: Left,
    },
    /// The engine has counted the holder's connections on all nodes. True if it has admitted this one.
    Counted {
        holder: Holder,
        client: ClientId,
        from: Address,
        result: Result<bool, EngineError>,
    },
    /// Asks for the number of the holder's admitted connections on this node, for another node.
    Held {
        holder: Holder,
        reply: oneshot::Sender<usize>,
    },
    /// The number of the holder's connections that other nodes have confirmed.
    Confirmed {
        holder: Holder,
        elsewhere: usize,
    },
    /// Makes a connection the user's only one on all nodes. `here` names it if it is on this node. These arrive in the
    /// same order on all nodes.
    Single {
        user: Box<str>,
        here: Option<ClientId>,
    },
    /// The other nodes could not be told of a single connection.
    Unsent {
        user: Box<str>,
        here: ClientId,
    },
    /// Messages about single connections may have been missed.
    AllHeard,
    /// An order of the API for the user's connections.
    Control {
        user: Box<str>,
        filter: Arc<Filter>,
        control: Control,
        completion: Completion,
    },
}

/// The client of a request without a session.
#[derive(Debug)]
pub(crate) struct Requester {
    /// Empty: anonymous.
    pub user: Box<str>,
    pub network: ClientNetwork,
}

impl Requester {
    /// Returns the name by which its requests are counted: the user, else the address.
    pub(crate) fn name(&self) -> String {
        match &*self.user {
            "" => format!("address {}", self.network),
            user => format!("user {user}"),
        }
    }
}

/// The limits on the rate of requests without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateExceeded {
    /// The user's, with what its sessions ask.
    User,
    /// That of such requests.
    Alone,
}

impl RateExceeded {
    /// Returns the setting with the limit.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::User => "client.user_commands_per_second_max",
            Self::Alone => "client.commands_per_second_max",
        }
    }
}
