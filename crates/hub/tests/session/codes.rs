//! The protocol's numbers, with their texts and what a client does next.

use fanwire_protocol::{Disconnect, ErrorCode, Unsubscribed};

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
    assert_eq!(ErrorCode::ALL.map(|error| (error.code, error.message, error.temporary)), expected);
}

#[test]
fn closes() {
    let expected = [
        (3000, "connection closed"),
        (3001, "shutdown"),
        (3004, "internal server error"),
        (3005, "connection expired"),
        (3006, "subscription expired"),
        (3008, "slow"),
        (3009, "write error"),
        (3010, "insufficient state"),
        (3011, "force reconnect"),
        (3012, "no pong"),
        (3013, "too many requests"),
        (3014, "state invalidated"),
        (3500, "invalid token"),
        (3501, "bad request"),
        (3502, "stale"),
        (3503, "force disconnect"),
        (3504, "connection limit"),
        (3505, "channel limit"),
        (3507, "permission denied"),
        (3508, "not available"),
    ];
    for (close, (code, reason)) in Disconnect::ALL.iter().zip(expected) {
        assert_eq!((close.code, &*close.reason), (code, reason));
        assert_eq!(close.is_terminal(), code >= 3500, "{code}");
    }
    assert_eq!(
        (Disconnect::TOO_MANY_ERRORS.code, &*Disconnect::TOO_MANY_ERRORS.reason),
        (3509, "too many errors")
    );
}

#[test]
fn a_client_stays_away_only_for_these() {
    let terminal = |code| Disconnect { code, reason: "".into() }.is_terminal();
    for code in [1000, 1009, 2999, 3000, 3499, 4000, 4499, 5000, u16::MAX] {
        assert!(!terminal(code), "{code}");
    }
    for code in [3500, 3999, 4500, 4999] {
        assert!(terminal(code), "{code}");
    }
}

#[test]
fn ends_of_a_subscription() {
    for (end, code, reason) in [
        (Unsubscribed::SERVER, 2000, "server unsubscribe"),
        (Unsubscribed::INSUFFICIENT_STATE, 2500, "insufficient state"),
        (Unsubscribed::EXPIRED, 2501, "subscription expired"),
        (Unsubscribed::STATE_INVALIDATED, 2502, "state invalidated"),
    ] {
        assert_eq!((end.code, end.reason), (code, reason));
    }
}
