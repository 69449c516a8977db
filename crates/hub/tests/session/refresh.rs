//! New tokens for old: every case of `refresh` and `sub_refresh`, and what they change.

use std::time::Duration;

use fanwire_hub::effect::SubscriptionStart;
use fanwire_hub::{ClaimExtras, ConnectionClaims, Expiry, TokenPrint};

use super::harness::tokens::{grant, user};
use super::harness::{Outcome, START, TestShard};

#[test]
fn refresh_refuses() {
    use Outcome::{Close, Error};
    for (token, expected) in [
        ("", Close(3501)),
        ("expired", Close(3005)),
        ("invalid", Close(3500)),
        ("43", Close(3500)),
        ("nobody", Close(3500)),
        ("42 is over", Error(110)),
        ("unavailable", Error(100)),
        ("42 with another topic", Close(3010)),
        ("42 with bytes", Close(3500)),
    ] {
        let mut shard = TestShard::default();
        shard.tokens.add_connection(
            "42 with bytes",
            ConnectionClaims { info: b"\xff".as_slice().into(), ..user("42") },
        );
        shard.tokens.add_connection(
            "42 with another topic",
            ConnectionClaims { topics: vec![grant("other")], ..user("42") },
        );
        let client = shard.connect("42 for a minute");
        assert_eq!(
            shard.outcome(client, &format!(r#""refresh":{{"token":"{token}"}}"#)),
            expected,
            "{token}"
        );
    }
}

#[test]
fn refresh_moves_the_end_of_the_connection() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42 for a minute");
    shard.wait(Duration::from_secs(60));
    shard.check(
        client,
        r#"{"id":2,"refresh":{"token":"42 for two minutes"}}"#,
        &[r#"{"id":2,"refresh":{"expires":true,"ttl":60}}"#],
    );
    let before = shard.now.millis;
    assert_eq!(shard.next(client), ["unregister 42", "close 3005 connection expired"]);
    assert_eq!(shard.now.millis - before, 85_000);
}

#[test]
fn the_shard_knows_the_token_by_which_a_client_is_connected() {
    let mut shard = TestShard::default();
    for number in [1, 2] {
        let extras = Some(ClaimExtras { print: Some(TokenPrint(number)), ..ClaimExtras::default() }.into());
        shard.tokens.add_connection(&number.to_string(), ConnectionClaims { extras, ..user("42") });
    }
    let connect = r#"{"id":1,"connect":{"token":"1"}}"#;
    let client = shard.open();
    shard.check(client, connect, &["token 1", "register 42"]);
    shard.registered(client, Ok(()));
    shard.check(client, r#"{"id":2,"refresh":{"token":"2"}}"#, &["token 2", r#"{"id":2,"refresh":{}}"#]);
    let client = shard.open();
    assert_eq!(shard.prepare(client, connect), ["token 1"]);
}

#[test]
fn a_token_without_expiry_lifts_it() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42 for a minute");
    shard.check(client, r#"{"id":2,"refresh":{"token":"42"}}"#, &[r#"{"id":2,"refresh":{}}"#]);
    assert_eq!(shard.session(client).deadline(), u64::MAX);
}

#[test]
fn an_insecure_server_ignores_the_expiry_of_new_tokens_too() {
    let mut shard = TestShard::default();
    shard.settings.insecure = true;
    shard.settings.ping_interval = None;
    let client = shard.connect("42 for a minute");
    shard.check(client, r#"{"id":2,"refresh":{"token":"42 is over"}}"#, &[r#"{"id":2,"refresh":{}}"#]);
    shard.subscribe(client, "news");
    let refresh = r#"{"id":3,"sub_refresh":{"channel":"news","token":"news for a minute"}}"#;
    shard.check(client, refresh, &[r#"{"id":3,"sub_refresh":{}}"#]);
    assert_eq!(shard.session(client).deadline(), u64::MAX);
}

#[test]
fn refresh_updates_what_others_see() {
    let mut shard = TestShard::default();
    shard.topics.default.allow_publish_for_client = true;
    let client = shard.connect("42");
    shard.check(client, r#"{"id":2,"refresh":{"token":"42 with info"}}"#, &[r#"{"id":2,"refresh":{}}"#]);
    shard.check(
        client,
        r#"{"id":3,"publish":{"channel":"news","data":1}}"#,
        &[r#"news: publish #3 1 by 42 {"name":"Ada"}"#],
    );
    // A later token without info takes nothing back.
    shard.check(client, r#"{"id":4,"refresh":{"token":"42"}}"#, &[r#"{"id":4,"refresh":{}}"#]);
    shard.check(
        client,
        r#"{"id":5,"publish":{"channel":"news","data":1}}"#,
        &[r#"news: publish #5 1 by 42 {"name":"Ada"}"#],
    );
}

#[test]
fn refresh_updates_the_presence_of_topics_the_client_is_in() {
    let mut shard = TestShard::default();
    shard.topics.default.presence = true;
    shard.topics.default.allow_subscribe_for_client = true;
    let client = shard.connect("42");
    shard.say(client, r#"{"id":8,"subscribe":{"channel":"news"}}"#);
    shard.started(client, "news", SubscriptionStart::default());
    shard.check(
        client,
        r#"{"id":9,"refresh":{"token":"42 with info"}}"#,
        &[r#"news: update_presence of 42 {"name":"Ada"}"#, r#"{"id":9,"refresh":{}}"#],
    );
    // What has not changed is not told again.
    shard.check(client, r#"{"id":10,"refresh":{"token":"42 with info"}}"#, &[r#"{"id":10,"refresh":{}}"#]);
}

#[test]
fn the_topics_of_a_new_token_are_those_of_the_old_in_any_order() {
    let mut shard = TestShard::default();
    for (token, topics) in
        [("a b", &["a", "b"] as &[_]), ("b a", &["b", "a"]), ("a", &["a"]), ("a b c", &["a", "b", "c"])]
    {
        let topics = topics.iter().map(|topic| grant(topic)).collect();
        shard.tokens.add_connection(token, ConnectionClaims { topics, ..user("42") });
    }
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{"token":"a b"}}"#, &["register 42"]);
    assert_eq!(shard.registered(client, Ok(())), ["a: subscribe 42", "b: subscribe 42"]);
    assert_eq!(shard.started(client, "b", SubscriptionStart::default()), [""; 0]);
    assert_eq!(shard.started(client, "a", SubscriptionStart::default()).len(), 1);
    shard.check(client, r#"{"id":2,"refresh":{"token":"b a"}}"#, &[r#"{"id":2,"refresh":{}}"#]);
    let lines = shard.say(client, r#"{"id":3,"refresh":{"token":"a b c"}}"#);
    assert_eq!(lines.last().map(String::as_str), Some("close 3010 insufficient state"));
    assert_eq!(lines.len(), 4);
}

#[test]
fn sub_refresh_refuses() {
    use Outcome::{Close, Error};
    for (topic, token, expected) in [
        ("", "news", Close(3501)),
        ("other", "other", Error(103)),
        ("news", "", Error(107)),
        // Upstream takes it and forgets the expiry.
        ("news", "expired", Error(110)),
        ("news", "news is over", Error(110)),
        ("news", "invalid", Close(3500)),
        ("news", "other", Close(3500)),
        ("news", "news for 43", Close(3500)),
        ("news", "news for nobody", Close(3500)),
        ("news", "news for client-2", Close(3500)),
        ("news", "unavailable", Error(100)),
    ] {
        let mut shard = TestShard::default();
        let client = shard.connect("42");
        shard.subscribe(client, "news");
        // Somebody else's subscription is not this client's.
        let somebody = shard.connect("43");
        shard.subscribe(somebody, "other");
        let command = format!(r#""sub_refresh":{{"channel":"{topic}","token":"{token}"}}"#);
        assert_eq!(shard.outcome(client, &command), expected, "{command}");
    }
}

#[test]
fn sub_refresh_does_not_track_keys() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.subscribe(client, "news");
    for kind in [1, 2] {
        let command = format!(r#""sub_refresh":{{"channel":"news","token":"news","type":{kind}}}"#);
        assert_eq!(shard.outcome(client, &command), Outcome::Error(107));
    }
}

#[test]
fn sub_refresh_moves_the_end_of_the_subscription() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    let command = r#"{"id":2,"subscribe":{"channel":"news","token":"news for a minute"}}"#;
    shard.check(client, command, &["news: subscribe 42"]);
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()).len(), 1);
    shard.wait(Duration::from_secs(60));
    shard.check(
        client,
        r#"{"id":3,"sub_refresh":{"channel":"news","token":"news for two minutes"}}"#,
        &[r#"{"id":3,"sub_refresh":{"expires":true,"ttl":60}}"#],
    );
    assert_eq!(shard.session(client).deadline(), 5_000 + 120_000 + 25_000);
    shard.check(
        client,
        r#"{"id":4,"sub_refresh":{"channel":"news","token":"news for client-1"}}"#,
        &[r#"{"id":4,"sub_refresh":{}}"#],
    );
    assert_eq!(shard.session(client).deadline(), u64::MAX);
}

#[test]
fn sub_refresh_waits_for_the_subscription() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.check(client, r#"{"id":2,"subscribe":{"channel":"news"}}"#, &["news: subscribe 42"]);
    shard.check(client, r#"{"id":3,"sub_refresh":{"channel":"news","token":"news"}}"#, &[]);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [r#"{"id":2,"subscribe":{}}"#, r#"{"id":3,"sub_refresh":{}}"#]
    );
}

#[test]
fn the_earliest_of_several_ends_is_kept() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    let client = shard.connect("42");
    for (topic, seconds) in [("a", 300), ("b", 100), ("c", 200)] {
        let claims = fanwire_hub::SubscriptionClaims {
            expiry: Expiry::At(START + seconds),
            ..super::harness::tokens::to(topic)
        };
        shard.tokens.add_subscription(topic, claims);
        let command = format!(r#"{{"id":2,"subscribe":{{"channel":"{topic}","token":"{topic}"}}}}"#);
        assert_eq!(shard.say(client, &command).len(), 1);
        assert_eq!(shard.started(client, topic, SubscriptionStart::default()).len(), 1);
    }
    let ends = |shard: &TestShard| (shard.session(client).deadline() - 5_000) / 1000 - 25;
    assert_eq!(ends(&shard), 100);
    shard.check(
        client,
        r#"{"id":3,"unsubscribe":{"channel":"b"}}"#,
        &["b: unsubscribe 42", r#"{"id":3,"unsubscribe":{}}"#],
    );
    assert_eq!(ends(&shard), 200);
}
