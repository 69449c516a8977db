//! The protocol's numbers and texts for every reason, and what a client does next.

use std::collections::BTreeSet;

use fanwire_protocol::centrifuge::codes;
use fanwire_protocol::filter::FilterError;
use fanwire_protocol::reason::{Close, CloseReason, Mistake, RequestError, Unserved, Unsubscribed};
use fanwire_protocol::websocket::{REASON_BYTES_MAX, Violation};

#[test]
fn errors() {
    let expected = [
        (100, "internal server error", true),
        (101, "unauthorized", false),
        (102, "unknown channel", false),
        (103, "permission denied", false),
        (104, "method not found", false),
        (105, "already subscribed", false),
        (106, "limit exceeded", false),
        (107, "bad request", false),
        (108, "not available", false),
        (109, "token expired", false),
        (110, "expired", false),
        (111, "too many requests", true),
        (112, "unrecoverable position", false),
    ];
    let codes = RequestError::ALL.map(codes::error);
    assert_eq!(codes.map(|code| (code.number, code.text, code.temporary)), expected);
    assert_eq!(codes.map(|code| code.number), codes::ERROR_NUMBERS);
}

#[test]
fn closes() {
    let expected = [
        (CloseReason::Shutdown, 3001, "shutdown"),
        (CloseReason::ServerError, 3004, "internal server error"),
        (CloseReason::Expired, 3005, "connection expired"),
        (CloseReason::SubscriptionExpired, 3006, "subscription expired"),
        (CloseReason::Slow, 3008, "slow"),
        (CloseReason::InsufficientState, 3010, "insufficient state"),
        (CloseReason::ForceReconnect, 3011, "force reconnect"),
        (CloseReason::NoPong, 3012, "no pong"),
        (CloseReason::TooManyRequests, 3013, "too many requests"),
        (CloseReason::ConnectionLimitUnconfirmed, 3013, "connection limit, not confirmed"),
        (CloseReason::InvalidToken, 3500, "invalid token"),
        (CloseReason::BadRequest, 3501, "bad request"),
        (CloseReason::Stale, 3502, "stale"),
        (CloseReason::ForceDisconnect, 3503, "force disconnect"),
        (CloseReason::ConnectionLimit, 3504, "connection limit"),
        (CloseReason::TopicLimit, 3505, "channel limit"),
        (CloseReason::PermissionDenied, 3507, "permission denied"),
        (CloseReason::NotAvailable, 3508, "not available"),
    ];
    for (reason, number, text) in expected {
        assert_eq!(codes::close(&reason.into()), (number, text.into()));
        assert_eq!(reason.reconnects(), number < 3500, "{number}");
        assert!(codes::CLOSE_NUMBERS.contains(&number), "{number} is counted");
    }
    let used: BTreeSet<u16> = expected.iter().map(|(_, number, _)| *number).collect();
    let unused: Vec<u16> = codes::CLOSE_NUMBERS.into_iter().filter(|number| !used.contains(number)).collect();
    assert_eq!(unused, [3000, 3009, 3014]);
}

#[test]
fn closes_with_more_to_say() {
    let close = Close::mistake(Mistake::NoTopic);
    assert_eq!(
        codes::close(&close),
        (3501, "bad request: channel is empty; send the name of a topic".into())
    );
    let close = Close::unfit_token("info is not JSON");
    assert_eq!(codes::close(&close), (3500, "invalid token: info is not JSON".into()));
    let close = Close::by_application(4001, "bye".to_owned());
    assert_eq!(codes::close(&close), (4001, "bye".into()));
    // Cut where a close frame would cut it, between two characters: 61 of two bytes are 122.
    let close = Close::by_application(4001, "ß".repeat(100));
    assert_eq!(codes::close(&close), (4001, "ß".repeat(61).into()));
    let close = CloseReason::Framing(Violation::NotUtf8).into();
    assert_eq!(codes::close(&close), (1007, "text is not UTF-8".into()));
}

#[test]
fn a_client_stays_away_only_for_these() {
    for number in [1000, 1009, 2999, 3000, 3499, 4000, 4499, 5000, u16::MAX] {
        assert!(CloseReason::ByApplication(number).reconnects(), "{number}");
    }
    for number in [3500, 3999, 4500, 4999] {
        assert!(!CloseReason::ByApplication(number).reconnects(), "{number}");
    }
}

#[test]
fn ends_of_a_subscription() {
    for (reason, number, text) in [
        (Unsubscribed::ByServer, 2000, "server unsubscribe"),
        (Unsubscribed::InsufficientState, 2500, "insufficient state"),
        (Unsubscribed::Expired, 2501, "subscription expired"),
    ] {
        assert_eq!(codes::unsubscribed(reason), (number, text));
        assert_eq!(reason.resubscribes(), number >= 2500);
        assert!(codes::UNSUBSCRIBE_NUMBERS.contains(&number));
    }
}

#[test]
fn mistakes_fit_into_a_close_frame() {
    let fixed = [
        Mistake::NoTopic,
        Mistake::NoPublishTopic,
        Mistake::UnknownNamespace,
        Mistake::NoToken,
        Mistake::EmptyConnectionToken,
        Mistake::EmptySubscriptionToken,
        Mistake::Unserved(Unserved::Delta),
        Mistake::Unserved(Unserved::Kind),
        Mistake::Unserved(Unserved::TagFilter),
        Mistake::ReverseFromStart,
        Mistake::NoConnect,
        Mistake::SecondConnect,
        Mistake::AfterRefusal,
        Mistake::PongUnasked,
        Mistake::PingUnserved,
        Mistake::NoRequest,
        Mistake::NoId,
        Mistake::Filter(FilterError::Operator),
        Mistake::Filter(FilterError::Comparison),
    ];
    for mistake in fixed {
        let close = Close::mistake(mistake);
        let (_, text) = codes::close(&close);
        assert!(text.len() <= REASON_BYTES_MAX, "{text}");
    }
}
