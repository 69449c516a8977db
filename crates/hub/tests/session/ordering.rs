//! Commands for a topic whose subscription is on its way wait for it; unsubscribing; leaving at any moment.

use fanwire_hub::effect::{Answer, SubscriptionStart};
use fanwire_hub::session::Control;
use fanwire_hub::{NameRules, Namespace, Namespaces};
use fanwire_protocol::reason::{RequestError, Unsubscribed};

use super::harness::{TestShard, topic};

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"news"}}"#;

fn unsubscribe_by_server() -> Control {
    Control::Unsubscribe { topic: topic("news"), reason: Unsubscribed::ByServer }
}

const SERVER_UNSUBSCRIBE: &str =
    r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;

#[test]
fn unsubscribe_gives_the_subscription_back() {
    let mut shard = TestShard::default();
    shard.topics.default.presence = true;
    shard.topics.default.join_leave = true;
    let client = shard.connect("42");
    shard.check(client, SUBSCRIBE, &["news: subscribe 42 +presence +join_leave"]);
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()), [r#"{"id":2,"subscribe":{}}"#]);
    shard.check(
        client,
        r#"{"id":3,"unsubscribe":{"channel":"news"}}"#,
        &["news: unsubscribe 42 +presence +join_leave", r#"{"id":3,"unsubscribe":{}}"#],
    );
    assert_eq!(shard.registry.topics().count(), 0);
    // Once is enough.
    shard.check(client, r#"{"id":4,"unsubscribe":{"channel":"news"}}"#, &[r#"{"id":4,"unsubscribe":{}}"#]);
    assert_eq!(shard.end(client), ["unregister 42"]);
}

#[test]
fn unsubscribing_from_what_somebody_else_has_leaves_it_alone() {
    let mut shard = TestShard::default();
    let (client, somebody) = (shard.connect("42"), shard.connect("43"));
    shard.subscribe(somebody, "news");
    shard.check(client, r#"{"id":3,"unsubscribe":{"channel":"news"}}"#, &[r#"{"id":3,"unsubscribe":{}}"#]);
    assert_eq!(shard.session(somebody).subscriptions_count(), 1);
    assert_eq!(shard.registry.subscriptions_count(), 1);
}

#[test]
fn a_burst_is_done_in_order() {
    let mut shard = TestShard::default();
    shard.topics.default.allow_publish_for_subscriber = true;
    let client = shard.connect("42");
    let burst = r#"{"id":2,"subscribe":{"channel":"news"}}
                   {"id":3,"unsubscribe":{"channel":"news"}}
                   {"id":4,"subscribe":{"channel":"news"}}
                   {"id":5,"publish":{"channel":"news","data":1}}
                   {"id":6,"unsubscribe":{"channel":"news"}}
                   {"id":7,"publish":{"channel":"news","data":1}}"#;
    shard.check(client, burst, &["news: subscribe 42"]);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [
            r#"{"id":2,"subscribe":{}}"#,
            "news: unsubscribe 42",
            r#"{"id":3,"unsubscribe":{}}"#,
            "news: subscribe 42",
        ]
    );
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [
            r#"{"id":4,"subscribe":{}}"#,
            "news: publish #5 1 by 42",
            "news: unsubscribe 42",
            r#"{"id":6,"unsubscribe":{}}"#,
            r#"{"id":7,"error":{"code":103,"message":"permission denied"}}"#,
        ]
    );
}

#[test]
fn a_second_subscribe_is_refused_unless_something_between_ends_the_first() {
    let already = |id| format!(r#"{{"id":{id},"error":{{"code":105,"message":"already subscribed"}}}}"#);
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.check(client, SUBSCRIBE, &["news: subscribe 42"]);
    shard.check(client, r#"{"id":3,"subscribe":{"channel":"news"}}"#, &[&already(3)]);
    // A publish between does not end it, but keeps its place.
    shard.check(client, r#"{"id":4,"publish":{"channel":"news","data":1}}"#, &[]);
    shard.check(client, r#"{"id":5,"subscribe":{"channel":"news"}}"#, &[]);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [
            r#"{"id":2,"subscribe":{}}"#.to_owned(),
            r#"{"id":4,"error":{"code":103,"message":"permission denied"}}"#.to_owned(),
            already(5),
        ]
    );
}

#[test]
fn what_waited_goes_on_after_a_refused_subscribe() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let burst = r#"{"id":3,"unsubscribe":{"channel":"news"}}{"id":4,"subscribe":{"channel":"news"}}"#;
    shard.check(client, SUBSCRIBE, &["news: subscribe 42"]);
    shard.check(client, burst, &[]);
    assert_eq!(
        shard.subscribed(client, "news", Err(RequestError::Internal)),
        [
            r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
            r#"{"id":3,"unsubscribe":{}}"#,
            "news: subscribe 42",
        ]
    );
}

#[test]
fn other_topics_do_not_wait() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.check(client, SUBSCRIBE, &["news: subscribe 42"]);
    shard.check(client, r#"{"id":3,"subscribe":{"channel":"other"}}"#, &["other: subscribe 42"]);
    assert_eq!(shard.started(client, "other", SubscriptionStart::default()), [r#"{"id":3,"subscribe":{}}"#]);
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()), [r#"{"id":2,"subscribe":{}}"#]);
}

#[test]
fn what_waited_stops_when_the_session_closes() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let burst = r#"{"id":3,"sub_refresh":{"channel":"news","token":"invalid"}}
                   {"id":4,"unsubscribe":{"channel":"news"}}"#;
    shard.check(client, SUBSCRIBE, &["news: subscribe 42"]);
    shard.check(client, burst, &[]);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [r#"{"id":2,"subscribe":{}}"#, "news: unsubscribe 42", "unregister 42", "close 3500 invalid token"]
    );
}

#[test]
fn a_client_that_leaves_gives_everything_back() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.subscribe(client, "a");
    shard.subscribe(client, "b");
    shard.check(client, SUBSCRIBE, &["news: subscribe 42"]);
    assert_eq!(shard.end(client), ["a: unsubscribe 42", "b: unsubscribe 42", "unregister 42"]);
    assert_eq!(shard.registry.topics().count(), 0);
    // What is made after it has gone is given back as well; what is refused needs not be.
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()), ["news: unsubscribe 42"]);
    let other = shard.connect("43");
    shard.check(other, SUBSCRIBE, &["news: subscribe 43"]);
    assert_eq!(shard.end(other), ["unregister 43"]);
    assert_eq!(shard.subscribed(other, "news", Err(RequestError::Internal)), [""; 0]);
    assert_eq!(shard.answer(other, Answer::Published { id: 2, result: Ok(()) }), [""; 0]);
}

#[test]
fn the_server_unsubscribes() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    shard.subscribe(client, "news");
    let lines = shard.control(client, &unsubscribe_by_server());
    assert_eq!(lines, ["news: unsubscribe 42", SERVER_UNSUBSCRIBE]);
    // It is said even to a client that is not subscribed.
    assert_eq!(shard.control(client, &unsubscribe_by_server()), [SERVER_UNSUBSCRIBE]);
    let reason = Unsubscribed::Expired;
    let lines = shard.control(client, &Control::Unsubscribe { topic: topic("other"), reason });
    let expired =
        r#"{"push":{"channel":"other","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;
    assert_eq!(lines, [expired]);
}

#[test]
fn the_server_unsubscribes_what_is_on_its_way() {
    let on_its_way = || {
        let mut shard = TestShard::default();
        let client = shard.connect("42");
        shard.check(client, SUBSCRIBE, &["news: subscribe 42"]);
        assert_eq!(shard.control(client, &unsubscribe_by_server()), [""; 0]);
        (shard, client)
    };
    let (mut shard, client) = on_its_way();
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [r#"{"id":2,"subscribe":{}}"#, "news: unsubscribe 42", SERVER_UNSUBSCRIBE]
    );
    let (mut shard, client) = on_its_way();
    assert_eq!(
        shard.subscribed(client, "news", Err(RequestError::Internal)),
        [
            r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
            SERVER_UNSUBSCRIBE
        ]
    );
}

#[test]
fn places_that_move_are_followed() {
    let mut shard = TestShard::new(Namespace::default(), []);
    shard.topics = Namespaces::new(
        NameRules::default(),
        Namespace { allow_subscribe_for_client: true, ..Namespace::default() },
        [],
    );
    let clients: Vec<u32> = (0..5).map(|_| shard.connect("42")).collect();
    for &client in &clients {
        shard.subscribe(client, "news");
    }
    // Each leaves in turn, and each time those that are left are exactly the others.
    for (left, order) in [0, 4, 1, 3, 2].into_iter().enumerate() {
        shard.end(clients[order]);
        let news = shard.registry.find(&topic("news"));
        let there = news.map_or(Vec::new(), |news| {
            shard.registry.topic(news).subscribers.iter().map(|s| s.connection).collect()
        });
        assert_eq!(there.len(), 4 - left);
        assert!(!there.contains(&clients[order]));
    }
}
