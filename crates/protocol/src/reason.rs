//! Reasons: why a request is refused, why a connection or a subscription ends. They say what happened; the numbers and
//! the sentences that a client reads are its wire's, see [`crate::centrifuge::codes`].

use std::borrow::Cow;
use std::fmt::Display;

use crate::filter::FilterError;
use crate::websocket::{REASON_BYTES_MAX, Violation, beginning};

/// The application's words about a refused request.
const WORDS_BYTES_MAX: usize = 1024;

/// The reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestError {
    Internal,
    Unauthorized,
    UnknownTopic,
    PermissionDenied,
    MethodNotFound,
    AlreadySubscribed,
    LimitExceeded,
    BadRequest,
    NotAvailable,
    /// The token's own time is over.
    TokenExpired,
    /// The token's grant has ended.
    Expired,
    TooManyRequests,
    UnrecoverablePosition,
    /// The application's backend gave this number; the words are its own.
    ByApplication(u32),
}

impl RequestError {
    /// Those of the protocol itself.
    pub const ALL: [Self; 13] = [
        Self::Internal,
        Self::Unauthorized,
        Self::UnknownTopic,
        Self::PermissionDenied,
        Self::MethodNotFound,
        Self::AlreadySubscribed,
        Self::LimitExceeded,
        Self::BadRequest,
        Self::NotAvailable,
        Self::TokenExpired,
        Self::Expired,
        Self::TooManyRequests,
        Self::UnrecoverablePosition,
    ];

    /// Returns true if the same request may succeed later without any change.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: RequestError,
    pub detail: Option<Box<RefusalDetail>>,
}

/// More about a refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalDetail {
    /// Goes with [`RequestError::BadRequest`].
    Mistake(Mistake),
    /// The application's own words, and its word on whether the same request may succeed later.
    Words { text: String, is_temporary: bool },
}

impl Refused {
    /// A refusal that the application wants, by a number and words of its own, which end after 1,024 bytes.
    pub fn by_application(number: u32, mut text: String, is_temporary: bool) -> Self {
        text.truncate(beginning(&text, WORDS_BYTES_MAX).len());
        let detail = RefusalDetail::Words { text, is_temporary };
        Self { error: RequestError::ByApplication(number), detail: Some(detail.into()) }
    }

    /// Returns true if the same request may succeed later without any change.
    pub fn is_temporary(&self) -> bool {
        match self.detail.as_deref() {
            Some(RefusalDetail::Words { is_temporary, .. }) => *is_temporary,
            Some(RefusalDetail::Mistake(_)) | None => self.error.is_temporary(),
        }
    }
}

impl From<RequestError> for Refused {
    fn from(error: RequestError) -> Self {
        Self { error, detail: None }
    }
}

impl From<Mistake> for Refused {
    fn from(mistake: Mistake) -> Self {
        let detail = RefusalDetail::Mistake(mistake);
        Self { error: RequestError::BadRequest, detail: Some(detail.into()) }
    }
}

/// A mistake in a request or in a token. A wire says it with the names of its own fields; a text says what is wrong and
/// what to do, without the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    NoTopic,
    /// A message to publish, and no topic for it.
    NoPublishTopic,
    /// The topic of a request cannot be.
    TopicName(Cow<'static, str>),
    /// A topic that the connection token grants cannot be.
    TokenTopicName(Cow<'static, str>),
    /// The personal topic of the token's user cannot be.
    TokenUserName(Cow<'static, str>),
    /// The user of the token cannot have a personal topic.
    NoPersonalTopic(Cow<'static, str>),
    /// Connect asks for a topic whose namespace is not configured.
    UnknownNamespace,
    NoToken,
    /// The headers that come with connect are too long.
    TooManyHeaders,
    EmptyConnectionToken,
    /// The server prolongs connections by itself.
    RefreshByServer,
    EmptySubscriptionToken,
    /// The data of a publication does not fit.
    Data(Cow<'static, str>),
    /// Something in a token does not fit, by the token's own names.
    Token(Cow<'static, str>),
    Unserved(Unserved),
    /// A filter that cannot be.
    Filter(FilterError),
    /// History in reverse from the position before the first publication.
    ReverseFromStart,
    /// The first request is not connect.
    NoConnect,
    SecondConnect,
    /// A request after connect was refused.
    AfterRefusal,
    PongUnasked,
    PingUnserved,
    NoRequest,
    NoId,
    Malformed(Cow<'static, str>),
}

/// Something that a client may ask for by the protocol, and that is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unserved {
    /// An unknown format of deltas.
    Delta,
    /// A topic that is not a stream.
    Kind,
    TagFilter,
}

/// The reason for which the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    Shutdown,
    ServerError,
    Expired,
    SubscriptionExpired,
    Slow,
    InsufficientState,
    ForceReconnect,
    NoPong,
    TooManyRequests,
    /// The limit of a user's connections, as far as the nodes that hold them did not confirm them. They may be gone.
    ConnectionLimitUnconfirmed,
    InvalidToken,
    BadRequest,
    Stale,
    ForceDisconnect,
    ConnectionLimit,
    TopicLimit,
    PermissionDenied,
    NotAvailable,
    /// The peer broke the framing.
    Framing(Violation),
    /// The application's API gave this number; the words are its own.
    ByApplication(u16),
}

impl CloseReason {
    /// Returns true if nothing that waits for the client is worth sending.
    pub fn discards_queue(self) -> bool {
        self == Self::Slow
    }

    /// Returns true if the client may come back by itself. An application says it by its number: client libraries give up
    /// on two ranges.
    pub fn reconnects(self) -> bool {
        match self {
            Self::InvalidToken
            | Self::BadRequest
            | Self::Stale
            | Self::ForceDisconnect
            | Self::ConnectionLimit
            | Self::TopicLimit
            | Self::PermissionDenied
            | Self::NotAvailable => false,
            Self::ByApplication(number) => !matches!(number, 3500..=3999 | 4500..=4999),
            Self::Shutdown
            | Self::ServerError
            | Self::Expired
            | Self::SubscriptionExpired
            | Self::Slow
            | Self::InsufficientState
            | Self::ForceReconnect
            | Self::NoPong
            | Self::TooManyRequests
            | Self::ConnectionLimitUnconfirmed
            | Self::Framing(_) => true,
        }
    }
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub reason: CloseReason,
    pub detail: Option<Box<Detail>>,
}

/// More about the end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    Mistake(Mistake),
    /// The application's own words.
    Words(String),
}

impl Close {
    /// A bad request.
    pub fn mistake(mistake: Mistake) -> Self {
        Self { reason: CloseReason::BadRequest, detail: Some(Detail::Mistake(mistake).into()) }
    }

    /// A token that is good, but holds something that cannot be shown to clients.
    pub fn unfit_token(why: impl Display) -> Self {
        let mistake = Mistake::Token(why.to_string().into());
        Self { reason: CloseReason::InvalidToken, detail: Some(Detail::Mistake(mistake).into()) }
    }

    /// An end that the application wants, by a number and words of its own, which end where those of a close frame do:
    /// all clients are told the same.
    pub fn by_application(number: u16, mut words: String) -> Self {
        words.truncate(beginning(&words, REASON_BYTES_MAX).len());
        Self { reason: CloseReason::ByApplication(number), detail: Some(Detail::Words(words).into()) }
    }
}

impl From<CloseReason> for Close {
    fn from(reason: CloseReason) -> Self {
        Self { reason, detail: None }
    }
}

/// The reason for which the server ends one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsubscribed {
    ByServer,
    InsufficientState,
    Expired,
}

impl Unsubscribed {
    /// Returns true if the client is to subscribe again.
    pub fn resubscribes(self) -> bool {
        match self {
            Self::ByServer => false,
            Self::InsufficientState | Self::Expired => true,
        }
    }
}

/// The reason for which a client left a topic, or ended its connection. Events tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// The client unsubscribed.
    Unsubscribed,
    /// The server ended the subscription.
    ByServer(Unsubscribed),
    /// The client closed its connection, or was lost.
    Gone,
    /// The server closed the connection.
    Closed(Close),
    /// The request was refused after the client had become a member.
    Refused,
    /// Its node died, or was fenced.
    NodeDied,
    /// A repair found that it had left.
    Unknown,
}
