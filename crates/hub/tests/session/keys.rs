//! Requests whose token names a key that is being fetched: they wait for it once.

use fanwire_hub::KeyFetch;
use fanwire_hub::effect::{Answer, SubscriptionStart};

use super::harness::TestShard;

const NOTHING: [&str; 0] = [];
const INTERNAL: &str = r#""error":{"code":100,"message":"internal server error","temporary":true}}"#;

/// A shard where the keys of these tokens are being fetched, each by a fetch of its own.
fn fetching(tokens: &[&str]) -> TestShard {
    let mut shard = TestShard::default();
    shard.tokens.awaited =
        tokens.iter().zip(5..).map(|(token, number)| ((*token).to_owned(), KeyFetch(number))).collect();
    shard
}

/// A fetch has ended. The tokens of the table still say that they could wait: a request does that once.
fn fetched(shard: &mut TestShard, client: u32, number: u32) -> Vec<String> {
    shard.answer(client, Answer::KeysFetched { number })
}

fn connect(token: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)
}

#[test]
fn a_connect_waits_and_is_then_served_or_refused() {
    for (token, expected) in [
        ("42", "register 42".to_owned()),
        ("expired", r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#.to_owned()),
        ("invalid", "close 3500 invalid token".to_owned()),
        ("unavailable", format!(r#"{{"id":1,{INTERNAL}"#)),
    ] {
        let mut shard = fetching(&[token]);
        let client = shard.open();
        shard.check(client, &connect(token), &["await keys 5 1"]);
        assert!(shard.session(client).is_connecting());
        shard.check(client, r#"{"id":2,"subscribe":{"channel":"news"}}"#, &[]);
        assert!(shard.session(client).waiting_bytes() > 0);
        assert_eq!(fetched(&mut shard, client, 1), [expected], "{token}");
        assert_eq!(fetched(&mut shard, client, 1), NOTHING, "it is told once");
        if token == "42" {
            let lines = shard.registered(client, Ok(()));
            assert!(lines[0].starts_with("open "), "{lines:?}");
            assert_eq!(lines[1..], ["news: subscribe 42"]);
        }
    }
}

#[test]
fn a_second_connect_and_an_end_are_not_held_up() {
    let mut shard = fetching(&["42"]);
    let client = shard.open();
    shard.check(client, &connect("42"), &["await keys 5 1"]);
    let lines = shard.say(client, &connect("42"));
    assert!(lines[0].starts_with("close 3501 "), "{lines:?}");
    assert_eq!(fetched(&mut shard, client, 1), NOTHING);
    let client = shard.open();
    shard.check(client, &connect("42"), &["await keys 5 1"]);
    assert_eq!(shard.end(client), NOTHING);
    assert_eq!(fetched(&mut shard, client, 1), NOTHING);
    let client = shard.open();
    shard.check(client, &connect("42"), &["await keys 5 1"]);
    assert_eq!(shard.next(client), ["close 3502 stale"]);
}

#[test]
fn later_requests_for_the_topic_wait_and_others_do_not() {
    let mut shard = fetching(&["news", "other"]);
    let client = shard.connect("42");
    let by_token =
        |id, topic: &str| format!(r#"{{"id":{id},"subscribe":{{"channel":"{topic}","token":"{topic}"}}}}"#);
    shard.check(client, &by_token(2, "news"), &["await keys 5 1"]);
    shard.check(client, r#"{"id":3,"presence":{"channel":"news"}}"#, &[]);
    shard.check(client, &by_token(4, "news"), &[]);
    shard.check(client, &by_token(5, "other"), &["await keys 6 2"]);
    shard.check(client, r#"{"id":6,"subscribe":{"channel":"free"}}"#, &["free: subscribe 42"]);
    assert_eq!(fetched(&mut shard, client, 2), ["other: subscribe 42"]);
    assert_eq!(fetched(&mut shard, client, 1), ["news: subscribe 42"]);
    let lines = shard.started(client, "news", SubscriptionStart::default());
    assert_eq!(lines[0], r#"{"id":2,"subscribe":{}}"#);
    let refused = |id, code, words| format!(r#"{{"id":{id},"error":{{"code":{code},"message":"{words}"}}}}"#);
    assert_eq!(lines[1], refused(3, 108, "not available"));
    // It came when there was no subscription, and waits for keys as the first did.
    assert_eq!(lines[2], "await keys 5 3");
    assert_eq!(fetched(&mut shard, client, 3), [refused(4, 105, "already subscribed")]);
    assert_eq!(shard.session(client).waiting_bytes(), 0);
}

#[test]
fn new_tokens_wait_too() {
    let refresh = |token: &str| format!(r#"{{"id":3,"refresh":{{"token":"{token}"}}}}"#);
    let sub_refresh =
        |token: &str| format!(r#"{{"id":3,"sub_refresh":{{"channel":"news","token":"{token}"}}}}"#);
    let closed = |why: &str| vec!["news: unsubscribe 42".to_owned(), "unregister 42".into(), why.into()];
    for (token, request, expected) in [
        ("42 with info", refresh("42 with info"), vec![r#"{"id":3,"refresh":{}}"#.to_owned()]),
        ("invalid", refresh("invalid"), closed("close 3500 invalid token")),
        ("unavailable", refresh("unavailable"), vec![format!(r#"{{"id":3,{INTERNAL}"#)]),
        ("news", sub_refresh("news"), vec![r#"{"id":3,"sub_refresh":{}}"#.to_owned()]),
        ("unavailable", sub_refresh("unavailable"), vec![format!(r#"{{"id":3,{INTERNAL}"#)]),
    ] {
        let mut shard = fetching(&[token]);
        let client = shard.connect("42");
        shard.subscribe(client, "news");
        shard.check(client, &request, &["await keys 5 1"]);
        assert_eq!(fetched(&mut shard, client, 1), expected, "{request}");
    }
}

#[test]
fn a_beginning_waits_for_each_of_its_keys() {
    let mut shard = fetching(&["42", "news"]);
    let client = shard.open();
    assert_eq!(shard.prepare(client, &connect("42")), ["await keys 5 1"]);
    assert!(shard.session(client).is_preparing());
    assert_eq!(shard.begin(client), NOTHING);
    assert_eq!(fetched(&mut shard, client, 1), NOTHING);
    assert!(!shard.session(client).is_preparing());
    let subscribe = r#"{"id":2,"subscribe":{"channel":"news","token":"news"}}"#;
    assert_eq!(shard.prepare(client, subscribe), ["await keys 6 1"]);
    assert_eq!(fetched(&mut shard, client, 1), NOTHING);
    assert_eq!(shard.begin(client), ["register 42"]);
    assert_eq!(shard.registered(client, Ok(()))[1..], ["news: subscribe 42"]);

    let mut shard = fetching(&["invalid"]);
    let client = shard.open();
    assert_eq!(shard.prepare(client, &connect("invalid")), ["await keys 5 1"]);
    assert_eq!(fetched(&mut shard, client, 1), ["close 3500 invalid token"]);
    assert_eq!(shard.begin(client), NOTHING);
}
