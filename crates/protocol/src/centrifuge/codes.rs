//! The numbers and texts of reasons, in one table: for replies and close frames, the API, Server-Sent Events and metrics.

use std::borrow::Cow;

use crate::reason::{Close, CloseReason, Detail, Left, Mistake, RequestError, Unserved, Unsubscribed};

/// An error as replies have it. Numbers up to 399 are the protocol's; applications use 400 to 1999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    pub number: u32,
    pub text: &'static str,
    /// The same request may succeed later without any change.
    pub temporary: bool,
}

/// The numbers of all errors.
pub const ERROR_NUMBERS: [u32; 13] = [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112];

/// The numbers with which the server closes, and three of the protocol that it does not use: 3000, 3009 and 3014.
pub const CLOSE_NUMBERS: [u16; 20] = [
    3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3500, 3501, 3502, 3503, 3504,
    3505, 3507, 3508,
];

/// The numbers with which the server ends subscriptions, and one of the protocol that it does not use: 2502.
pub const UNSUBSCRIBE_NUMBERS: [u32; 4] = [2000, 2500, 2501, 2502];

/// Returns the number and the text of an error.
pub const fn error(error: RequestError) -> Code {
    let (number, text) = match error {
        RequestError::Internal => (100, "internal server error"),
        RequestError::Unauthorized => (101, "unauthorized"),
        RequestError::UnknownTopic => (102, "unknown channel"),
        RequestError::PermissionDenied => (103, "permission denied"),
        RequestError::MethodNotFound => (104, "method not found"),
        RequestError::AlreadySubscribed => (105, "already subscribed"),
        RequestError::LimitExceeded => (106, "limit exceeded"),
        RequestError::BadRequest => (107, "bad request"),
        RequestError::NotAvailable => (108, "not available"),
        RequestError::TokenExpired => (109, "token expired"),
        RequestError::Expired => (110, "expired"),
        RequestError::TooManyRequests => (111, "too many requests"),
        RequestError::UnrecoverablePosition => (112, "unrecoverable position"),
        RequestError::ByApplication(number) => (number, ""),
    };
    Code { number, text, temporary: error.is_temporary() }
}

/// Returns the number and the text of a close. The application's words may be longer than a close frame holds.
pub fn close(close: &Close) -> (u16, Cow<'_, str>) {
    let (number, text) = close_code(close.reason);
    match close.detail.as_deref() {
        None => (number, text),
        Some(Detail::Words(words)) => (number, words.into()),
        Some(Detail::Mistake(detail)) => (number, format!("{text}: {}", mistake(detail)).into()),
    }
}

/// Returns the number of a close.
pub fn close_number(reason: CloseReason) -> u16 {
    close_code(reason).0
}

fn close_code(reason: CloseReason) -> (u16, Cow<'static, str>) {
    let (number, text) = match reason {
        CloseReason::Shutdown => (3001, "shutdown"),
        CloseReason::ServerError => (3004, "internal server error"),
        CloseReason::Expired => (3005, "connection expired"),
        CloseReason::SubscriptionExpired => (3006, "subscription expired"),
        CloseReason::Slow => (3008, "slow"),
        CloseReason::InsufficientState => (3010, "insufficient state"),
        CloseReason::ForceReconnect => (3011, "force reconnect"),
        CloseReason::NoPong => (3012, "no pong"),
        CloseReason::TooManyRequests => (3013, "too many requests"),
        CloseReason::ConnectionLimitUnconfirmed => (3013, "connection limit, not confirmed"),
        CloseReason::InvalidToken => (3500, "invalid token"),
        CloseReason::BadRequest => (3501, "bad request"),
        CloseReason::Stale => (3502, "stale"),
        CloseReason::ForceDisconnect => (3503, "force disconnect"),
        CloseReason::ConnectionLimit => (3504, "connection limit"),
        CloseReason::TopicLimit => (3505, "channel limit"),
        CloseReason::PermissionDenied => (3507, "permission denied"),
        CloseReason::NotAvailable => (3508, "not available"),
        CloseReason::Framing(violation) => return (violation.close_code(), violation.to_string().into()),
        CloseReason::ByApplication(number) => (number, ""),
    };
    (number, text.into())
}

/// Returns the number and the text of the end of a subscription. Below 2500 it is final; from 2500 on the client
/// subscribes again.
pub const fn unsubscribed(reason: Unsubscribed) -> (u32, &'static str) {
    match reason {
        Unsubscribed::ByServer => (2000, "server unsubscribe"),
        Unsubscribed::InsufficientState => (2500, "insufficient state"),
        Unsubscribed::Expired => (2501, "subscription expired"),
    }
}

/// Returns the number and the text of the reason for which a client left. Numbers below 1000 are of events alone; the
/// others are those that clients see, and 3000, which a client library gives its own close.
pub fn left(left: &Left) -> (u32, Cow<'_, str>) {
    let (number, text) = match left {
        Left::Closed(why) => {
            let (number, text) = close(why);
            return (number.into(), text);
        }
        Left::ByServer(reason) => unsubscribed(*reason),
        Left::Gone => (3000, "connection closed"),
        Left::Unsubscribed => (0, "client unsubscribed"),
        Left::NodeDied => (1, "node died"),
        Left::Refused => (2, "request refused"),
        Left::Unknown => (3, "not known"),
    };
    (number, text.into())
}

/// Returns the sentence for a mistake: the field and the remedy. In a close frame there is room for 110 bytes.
pub fn mistake(mistake: &Mistake) -> Cow<'_, str> {
    match mistake {
        Mistake::NoTopic => "channel is empty; send the name of a topic".into(),
        Mistake::NoPublishTopic => "name the topic to publish to: ?publish=TOPIC".into(),
        Mistake::TopicName(why) => format!("channel: {why}").into(),
        Mistake::TokenTopicName(why) => format!("channels or subs of the token: {why}").into(),
        Mistake::TokenUserName(why) => format!("sub of the token, for its own topic: {why}").into(),
        Mistake::NoPersonalTopic(why) | Mistake::Token(why) | Mistake::Malformed(why) => (&**why).into(),
        Mistake::UnknownNamespace => {
            "subs has a topic whose namespace is not configured; leave it out".into()
        }
        Mistake::NoToken => "no token, and client.allow_anonymous_connect_without_token is off".into(),
        Mistake::TooManyHeaders => "headers are longer than client.hooks.kept_bytes_max; send fewer".into(),
        Mistake::RefreshByServer => "the server prolongs connections by itself; send no refresh".into(),
        Mistake::EmptyConnectionToken => "token is empty; send a new connection token".into(),
        Mistake::EmptySubscriptionToken => "token is empty; send a new subscription token".into(),
        Mistake::Data(why) => format!("data {why}").into(),
        Mistake::Unserved(Unserved::Delta) => r#"delta is unknown; send "fossil" or leave it out"#.into(),
        Mistake::Unserved(Unserved::Kind) => "type is not 0; leave it out".into(),
        Mistake::Unserved(Unserved::TagFilter) => {
            "tf is off in this namespace (allow_tags_filter); leave it out".into()
        }
        Mistake::Filter(error) => format!("tf: {error}").into(),
        Mistake::ReverseFromStart => {
            "since.offset is 0, and nothing comes before it; leave out reverse".into()
        }
        Mistake::NoConnect => "the first command is not connect; send connect first".into(),
        Mistake::SecondConnect => "connect was sent before; send it once in each connection".into(),
        Mistake::AfterRefusal => "connect was refused; open a new connection".into(),
        Mistake::PongUnasked => {
            "an empty command, which is a pong, without a ping; send one for each ping".into()
        }
        Mistake::PingUnserved => "ping is not served; answer the server's pings instead".into(),
        Mistake::NoRequest => "the command has no known request; send one, such as subscribe".into(),
        Mistake::NoId => "id is 0 or missing; number commands from 1".into(),
    }
}
