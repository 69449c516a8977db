//! The times at which things are due: pings and missing pongs, stale and expired connections, expired subscriptions.

use std::time::Duration;

use fanwire_hub::effect::SubscriptionStart;
use fanwire_hub::session::{Control, ServerSubscribe};
use fanwire_hub::{Expiry, GrantOptions, SubscriptionClaims};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};

use super::harness::tokens::to;
use super::harness::{START, TestShard, topic};

const UNASKED: &str =
    "close 3501 bad request: an empty command, which is a pong, without a ping; send one for each ping";
const NO_PONG: &[&str] = &["unregister 42", "close 3012 no pong"];

/// A connected client that was just pinged.
fn pinged() -> (TestShard, u32) {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    assert_eq!(shard.next(client), ["ping"]);
    (shard, client)
}

#[test]
fn the_first_ping_comes_at_random_in_the_second_half_of_the_interval() {
    let mut shard = TestShard::default();
    let mut delays = Vec::new();
    for _ in 0..200 {
        let client = shard.connect("42");
        delays.push(shard.session(client).deadline() - shard.now.millis);
    }
    assert!(delays.iter().all(|delay| (12_500..=25_000).contains(delay)), "{delays:?}");
    // Spread over the whole half: one in ten at either end is far less than chance gives.
    assert!(delays.iter().any(|&delay| delay < 14_000) && delays.iter().any(|&delay| delay > 23_500));
}

#[test]
fn the_first_ping_follows_from_the_client_s_id() {
    // One shard after another gives the same ids.
    let delay = || {
        let mut shard = TestShard::default();
        let client = shard.connect("42");
        shard.session(client).deadline() - shard.now.millis
    };
    assert_eq!(delay(), delay());

    let mut shard = TestShard::default();
    let mut tenths = [0; 10];
    for _ in 0..1000 {
        let client = shard.connect("42");
        let delay = shard.session(client).deadline() - shard.now.millis;
        tenths[(delay - 12_500) as usize * 10 / 12_501] += 1;
    }
    assert!(tenths.iter().all(|count| (70..=130).contains(count)), "{tenths:?}");
}

#[test]
fn pings_come_once_an_interval_while_they_are_answered() {
    let (mut shard, client) = pinged();
    for _ in 0..5 {
        let before = shard.now.millis;
        shard.wait(Duration::from_secs(3));
        shard.check(client, "{}", &[]);
        assert_eq!(shard.next(client), ["ping"]);
        assert_eq!(shard.now.millis - before, 25_000);
    }
}

#[test]
fn no_pong_ends_the_connection() {
    let (mut shard, client) = pinged();
    shard.wait(Duration::from_millis(7_999));
    assert_eq!(shard.tick(client), [""; 0]);
    shard.wait(Duration::from_millis(1));
    assert_eq!(shard.tick(client), NO_PONG);
}

#[test]
fn a_client_that_is_still_reading_has_more_time() {
    let (mut shard, client) = pinged();
    // Meanwhile it is not pinged again: it would answer twice.
    for _ in 0..5 {
        shard.wait(Duration::from_millis(7_000));
        assert_eq!(shard.tick(client), [""; 0]);
        assert_eq!(shard.with(client, |session, context| session.extend_pong(context)), [""; 0]);
    }
    shard.wait(Duration::from_millis(7_999));
    assert_eq!(shard.tick(client), [""; 0]);
    shard.wait(Duration::from_millis(1));
    assert_eq!(shard.tick(client), NO_PONG);
    // Without a ping there is nothing to extend, and an unasked pong is still a mistake.
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.with(client, |session, context| session.extend_pong(context));
    assert_eq!(shard.say(client, "{}"), ["unregister 42", UNASKED]);
}

#[test]
fn only_a_pong_is_a_pong() {
    let (mut shard, client) = pinged();
    shard.check(client, r#"{"id":2,"unsubscribe":{"channel":"a"}}"#, &[r#"{"id":2,"unsubscribe":{}}"#]);
    // Neither is a pong of the transport, which was not pinged.
    shard.session_mut(client).transport_pong();
    assert_eq!(shard.next(client), NO_PONG);

    let (mut shard, client) = pinged();
    shard.session_mut(client).transport_pong();
    shard.check(client, "{}", &[]);
    assert_eq!(shard.next(client), ["ping"]);
}

#[test]
fn a_pong_answers_a_ping() {
    let unasked: &[&str] = &["unregister 42", UNASKED];
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.check(client, "{}", unasked);

    let (mut shard, client) = pinged();
    shard.check(client, "{}", &[]);
    shard.check(client, "{}", unasked);
}

#[test]
fn without_a_pong_timeout_pongs_are_welcome_but_not_waited_for() {
    let mut shard = TestShard::default();
    shard.settings.pong_timeout = None;
    let client = shard.connect("42");
    assert_eq!(shard.next(client), ["ping"]);
    assert_eq!(shard.next(client), ["ping"]);
    shard.check(client, "{}", &[]);
    shard.check(client, "{}", &["unregister 42", UNASKED]);
}

#[test]
fn without_pings_nothing_is_ever_due() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    assert_eq!(shard.session(client).deadline(), u64::MAX);
}

#[test]
fn frames_are_answered_by_the_transport() {
    let mut shard = TestShard::default();
    let client = shard.open_as(TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Frames });
    shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    assert_eq!(shard.registered(client, Ok(())).len(), 1);
    assert_eq!(shard.next(client), ["ping"]);
    shard.session_mut(client).transport_pong();
    // It may also come unasked.
    shard.session_mut(client).transport_pong();
    assert_eq!(shard.next(client), ["ping"]);
    assert_eq!(shard.next(client), NO_PONG);
}

#[test]
fn a_transport_that_cannot_answer_is_not_waited_for() {
    for (wire, pings) in [(Wire::Events, Pings::Keepalive), (Wire::UniLines, Pings::Unanswered)] {
        let mut shard = TestShard::default();
        let client = shard.open_as(TransportMode { wire, pings });
        shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
        assert_eq!(shard.registered(client, Ok(())).len(), 1);
        for _ in 0..3 {
            assert_eq!(shard.next(client), ["ping"]);
        }
    }
}

#[test]
fn a_connection_without_a_successful_connect_is_stale() {
    let mut shard = TestShard::default();
    let silent = shard.open();
    let connecting = shard.open();
    shard.check(connecting, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    shard.wait(Duration::from_millis(9_999));
    assert_eq!(shard.tick(silent), [""; 0]);
    shard.wait(Duration::from_millis(1));
    assert_eq!(shard.tick(silent), ["close 3502 stale"]);
    assert_eq!(shard.tick(connecting), ["unregister 42", "close 3502 stale"]);
}

#[test]
fn a_connection_that_does_not_connect_is_never_stale() {
    let mut shard = TestShard::default();
    let client = shard.open_as(TransportMode { wire: Wire::Echo, pings: Pings::Frames });
    assert_eq!(shard.session(client).deadline(), u64::MAX);
    assert_eq!(shard.end(client), [""; 0]);
}

#[test]
fn an_expired_connection_is_closed_after_the_delay() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42 for a minute");
    shard.wait(Duration::from_millis(84_999));
    assert_eq!(shard.tick(client), [""; 0]);
    shard.wait(Duration::from_millis(1));
    assert_eq!(shard.tick(client), ["unregister 42", "close 3005 connection expired"]);
}

#[test]
fn an_expired_subscription_is_ended_after_the_delay() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    shard.subscribe(client, "stays");
    let later = SubscriptionClaims { expiry: Expiry::At(START + 61), ..to("later") };
    shard.tokens.add_subscription("later", later);
    shard.check(
        client,
        r#"{"id":3,"subscribe":{"channel":"later","token":"later"}}"#,
        &["later: subscribe 42"],
    );
    assert_eq!(shard.started(client, "later", SubscriptionStart::default()).len(), 1);
    let command = r#"{"id":3,"subscribe":{"channel":"news","token":"news for a minute"}}"#;
    shard.check(client, command, &["news: subscribe 42"]);
    let lines = shard.started(client, "news", SubscriptionStart::default());
    assert_eq!(lines, [r#"{"id":3,"subscribe":{"expires":true,"ttl":60}}"#]);
    shard.wait(Duration::from_millis(84_999));
    assert_eq!(shard.tick(client), [""; 0]);
    shard.wait(Duration::from_millis(1));
    assert_eq!(
        shard.tick(client),
        [
            "news: unsubscribe 42",
            r#"{"push":{"channel":"news","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#,
        ]
    );
    // The others are left alone until their own time comes.
    shard.wait(Duration::from_millis(999));
    assert_eq!(shard.tick(client), [""; 0]);
    shard.wait(Duration::from_millis(1));
    assert_eq!(shard.tick(client).len(), 2);
    assert_eq!(shard.session(client).subscriptions_count(), 1);
    assert_eq!(shard.session(client).deadline(), u64::MAX);
}

#[test]
fn an_expired_subscription_of_the_server_ends_the_connection() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    let subscribe = ServerSubscribe {
        topic: topic("news"),
        options: GrantOptions::default(),
        expiry: Expiry::At(START + 10),
        recover_since: None,
    };
    let control = Control::Subscribe(subscribe.into());
    assert_eq!(shard.control(client, &control), ["news: subscribe 42"]);
    let lines = shard.started(client, "news", SubscriptionStart::default());
    assert_eq!(lines, [r#"{"push":{"channel":"news","subscribe":{}}}"#]);
    let before = shard.now.millis;
    assert_eq!(
        shard.next(client),
        ["news: unsubscribe 42", "unregister 42", "close 3006 subscription expired"]
    );
    assert_eq!(shard.now.millis - before, 35_000);
}
