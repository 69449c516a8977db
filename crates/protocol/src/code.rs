//! Every number the protocol uses to say that something went wrong, with its text and what the client does next.

use std::borrow::Cow;
use std::fmt::Display;

/// Why a command was refused: the `error` of a reply. Numbers up to 399 are the protocol's; applications use 400 to 1999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode {
    pub code: u32,
    pub message: &'static str,
    /// The same command may succeed later without any change.
    pub temporary: bool,
}

impl ErrorCode {
    const fn lasting(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: false }
    }

    const fn temporary(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: true }
    }

    pub const INTERNAL: Self = Self::temporary(100, "internal server error");
    pub const UNAUTHORIZED: Self = Self::lasting(101, "unauthorized");
    pub const UNKNOWN_TOPIC: Self = Self::lasting(102, "unknown channel");
    pub const PERMISSION_DENIED: Self = Self::lasting(103, "permission denied");
    pub const METHOD_NOT_FOUND: Self = Self::lasting(104, "method not found");
    pub const ALREADY_SUBSCRIBED: Self = Self::lasting(105, "already subscribed");
    pub const LIMIT_EXCEEDED: Self = Self::lasting(106, "limit exceeded");
    pub const BAD_REQUEST: Self = Self::lasting(107, "bad request");
    pub const NOT_AVAILABLE: Self = Self::lasting(108, "not available");
    pub const TOKEN_EXPIRED: Self = Self::lasting(109, "token expired");
    pub const EXPIRED: Self = Self::lasting(110, "expired");
    pub const TOO_MANY_REQUESTS: Self = Self::temporary(111, "too many requests");
    pub const UNRECOVERABLE_POSITION: Self = Self::lasting(112, "unrecoverable position");

    /// Every code, for tables and metrics.
    pub const ALL: [Self; 13] = [
        Self::INTERNAL,
        Self::UNAUTHORIZED,
        Self::UNKNOWN_TOPIC,
        Self::PERMISSION_DENIED,
        Self::METHOD_NOT_FOUND,
        Self::ALREADY_SUBSCRIBED,
        Self::LIMIT_EXCEEDED,
        Self::BAD_REQUEST,
        Self::NOT_AVAILABLE,
        Self::TOKEN_EXPIRED,
        Self::EXPIRED,
        Self::TOO_MANY_REQUESTS,
        Self::UNRECOVERABLE_POSITION,
    ];
}

/// Why the server ends a connection: a WebSocket close code, or the disconnect message of other transports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disconnect {
    pub code: u16,
    /// At most 123 bytes, what a WebSocket close frame holds beside the code (RFC 6455 section 5.5).
    pub reason: Cow<'static, str>,
}

impl Disconnect {
    /// The longest reason a close frame can carry: 125 bytes less the code (RFC 6455 section 5.5).
    pub const REASON_BYTES_MAX: usize = 123;

    const fn fixed(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    pub const CONNECTION_CLOSED: Self = Self::fixed(3000, "connection closed");
    pub const SHUTDOWN: Self = Self::fixed(3001, "shutdown");
    pub const SERVER_ERROR: Self = Self::fixed(3004, "internal server error");
    pub const EXPIRED: Self = Self::fixed(3005, "connection expired");
    pub const SUBSCRIPTION_EXPIRED: Self = Self::fixed(3006, "subscription expired");
    pub const SLOW: Self = Self::fixed(3008, "slow");
    pub const WRITE_ERROR: Self = Self::fixed(3009, "write error");
    pub const INSUFFICIENT_STATE: Self = Self::fixed(3010, "insufficient state");
    pub const FORCE_RECONNECT: Self = Self::fixed(3011, "force reconnect");
    pub const NO_PONG: Self = Self::fixed(3012, "no pong");
    pub const TOO_MANY_REQUESTS: Self = Self::fixed(3013, "too many requests");
    /// The limit of a user's connections, as far as the nodes that hold them did not confirm them. They may be gone.
    pub const CONNECTION_LIMIT_UNCONFIRMED: Self = Self::fixed(3013, "connection limit, not confirmed");
    pub const STATE_INVALIDATED: Self = Self::fixed(3014, "state invalidated");
    pub const INVALID_TOKEN: Self = Self::fixed(3500, "invalid token");
    pub const BAD_REQUEST: Self = Self::fixed(3501, "bad request");
    pub const STALE: Self = Self::fixed(3502, "stale");
    pub const FORCE_DISCONNECT: Self = Self::fixed(3503, "force disconnect");
    pub const CONNECTION_LIMIT: Self = Self::fixed(3504, "connection limit");
    pub const TOPIC_LIMIT: Self = Self::fixed(3505, "channel limit");
    pub const PERMISSION_DENIED: Self = Self::fixed(3507, "permission denied");
    pub const NOT_AVAILABLE: Self = Self::fixed(3508, "not available");
    pub const TOO_MANY_ERRORS: Self = Self::fixed(3509, "too many errors");

    /// Every code that the server itself uses, for tables and metrics.
    pub const ALL: [Self; 20] = [
        Self::CONNECTION_CLOSED,
        Self::SHUTDOWN,
        Self::SERVER_ERROR,
        Self::EXPIRED,
        Self::SUBSCRIPTION_EXPIRED,
        Self::SLOW,
        Self::WRITE_ERROR,
        Self::INSUFFICIENT_STATE,
        Self::FORCE_RECONNECT,
        Self::NO_PONG,
        Self::TOO_MANY_REQUESTS,
        Self::STATE_INVALIDATED,
        Self::INVALID_TOKEN,
        Self::BAD_REQUEST,
        Self::STALE,
        Self::FORCE_DISCONNECT,
        Self::CONNECTION_LIMIT,
        Self::TOPIC_LIMIT,
        Self::PERMISSION_DENIED,
        Self::NOT_AVAILABLE,
    ];

    /// A bad request, with what is wrong and what to do. There is room for 110 bytes.
    pub fn bad_request(why: impl Display) -> Self {
        let Self { code, reason } = Self::BAD_REQUEST;
        Self { code, reason: format!("{reason}: {why}").into() }
    }

    /// Client libraries give up only on these ranges; every other close makes them come back.
    pub fn is_terminal(&self) -> bool {
        matches!(self.code, 3500..=3999 | 4500..=4999)
    }
}

/// Why the server ends one subscription. Below 2500 it is final; from 2500 on the client subscribes again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unsubscribed {
    pub code: u32,
    pub reason: &'static str,
}

impl Unsubscribed {
    pub const SERVER: Self = Self { code: 2000, reason: "server unsubscribe" };
    pub const INSUFFICIENT_STATE: Self = Self { code: 2500, reason: "insufficient state" };
    pub const EXPIRED: Self = Self { code: 2501, reason: "subscription expired" };
    pub const STATE_INVALIDATED: Self = Self { code: 2502, reason: "state invalidated" };

    /// Every code, for tables and metrics.
    pub const ALL: [Self; 4] =
        [Self::SERVER, Self::INSUFFICIENT_STATE, Self::EXPIRED, Self::STATE_INVALIDATED];
}
