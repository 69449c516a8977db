//! The requests that a connection begins with: all are checked before anything follows from one.

use fanwire_hub::effect::SubscriptionStart;
use fanwire_hub::{ConnectionClaims, Namespace, PersonalTopic};
use fanwire_protocol::reason::{CloseReason, RequestError};

use super::harness::tokens::{grant, user};
use super::harness::{TestShard, open};

const CONNECT: &str = r#"{"id":1,"connect":{"token":"42"}}"#;
const NOTHING: [&str; 0] = [];

fn subscribe(id: u32, topic: &str) -> String {
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{topic}"}}}}"#)
}

/// Subscribes to topics, the first by request 2.
fn subscribes(topics: &[&str]) -> String {
    (2..).zip(topics).map(|(id, topic)| subscribe(id, topic)).collect::<Vec<_>>().join("\n")
}

/// Topics without a namespace and those in `open`, and a token with some of them and the user's own.
fn shard() -> TestShard {
    let mut shard = TestShard::new(open(), [Namespace { name: "open".into(), ..open() }]);
    shard.settings.personal_topic =
        Some(PersonalTopic { single_connection: true, ..PersonalTopic::default() });
    let topics = vec![grant("granted"), grant("open:granted")];
    shard.tokens.add_connection("42 with topics", ConnectionClaims { topics, ..user("42") });
    shard
}

#[test]
fn nothing_follows_before_the_last_was_checked() {
    let mut shard = shard();
    let client = shard.open();
    assert_eq!(shard.prepare(client, CONNECT), NOTHING);
    assert_eq!(shard.prepare(client, &subscribes(&["news", "open:a"])), NOTHING);
    assert_eq!(shard.session(client).user(), "");
    assert_eq!(shard.begin(client), ["register 42 alone"]);
    assert_eq!(shard.registered(client, Ok(())), ["#42: subscribe 42 +presence"]);
    let lines = shard.started(client, "#42", SubscriptionStart::default());
    assert!(lines[0].starts_with(r#"open {"id":1,"#), "{lines:?}");
    assert_eq!(lines[1..], ["news: subscribe 42 +presence", "open:a: subscribe 42 +presence"]);
    for (topic, id) in [("open:a", 3), ("news", 2)] {
        let lines = shard.started(client, topic, SubscriptionStart::default());
        assert_eq!(lines, [format!(r#"{{"id":{id},"subscribe":{{}}}}"#)]);
    }
    assert_eq!(shard.begin(client), NOTHING);
    shard.check(client, &subscribe(4, "b"), &["b: subscribe 42 +presence"]);
}

#[test]
fn a_refusal_has_nothing_to_undo() {
    const DENIED: &str = r#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#;
    const ANOTHERS: &str = r#"{"id":3,"subscribe":{"channel":"news","token":"news for 43"}}"#;
    let second = |topic| subscribe(3, topic);
    for (connect, last, expected) in [
        (r#"{"id":1,"connect":{}}"#, String::new(), "close 3501 bad request: no token"),
        (r#"{"id":1,"connect":{"token":"invalid"}}"#, String::new(), "close 3500 invalid token"),
        (
            r#"{"id":1,"connect":{"token":"expired"}}"#,
            String::new(),
            r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#,
        ),
        (CONNECT, second("$secret"), DENIED),
        (CONNECT, second("news#43"), DENIED),
        (CONNECT, second("nowhere:a"), r#"{"id":3,"error":{"code":102,"message":"unknown channel"}}"#),
        (CONNECT, ANOTHERS.into(), "close 3500 invalid token"),
        (CONNECT, r#"{"id":3,"connect":{}}"#.into(), "close 3501 bad request: connect was sent before"),
        (CONNECT, r#"{"id":3,"rpc":{"method":"ping"}}"#.into(), "close 3501 bad request: the first command"),
    ] {
        let mut shard = shard();
        let client = shard.open();
        let mut lines = shard.prepare(client, connect);
        if lines.is_empty() {
            assert_eq!(shard.prepare(client, &subscribe(2, "a")), NOTHING);
            lines = shard.prepare(client, &last);
        }
        assert!(lines.len() == 1 && lines[0].starts_with(expected), "{last} {lines:?}");
        assert!(shard.session(client).is_over());
        assert_eq!(shard.prepare(client, &subscribe(4, "news")), NOTHING);
        assert_eq!(shard.begin(client), NOTHING);
        assert_eq!(shard.end(client), NOTHING);
    }
    let mut shard = shard();
    let client = shard.open();
    let lines = shard.prepare(client, &subscribe(2, "news"));
    assert!(lines.len() == 1 && lines[0].starts_with("close 3501 "), "{lines:?}");
}

#[test]
fn the_user_to_be_is_the_one_who_asks() {
    let of_42 = r#"{"id":2,"subscribe":{"channel":"$news","token":"$news"}}"#;
    let for_clients = Namespace {
        allow_subscribe_for_client: true,
        allow_user_limited_topics: true,
        ..Namespace::default()
    };
    for (token, request, may) in [
        ("42", subscribe(2, "news"), true),
        ("nobody", subscribe(2, "news"), false),
        ("42", subscribe(2, "news#42"), true),
        ("42", subscribe(2, "news#41,42"), true),
        ("43", subscribe(2, "news#42"), false),
        ("nobody", subscribe(2, "news#42"), false),
        ("42", of_42.into(), true),
        ("43", of_42.into(), false),
        ("nobody", of_42.into(), false),
    ] {
        let mut shard = TestShard::new(for_clients.clone(), []);
        let client = shard.open();
        let connect = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
        assert_eq!(shard.prepare(client, &connect), NOTHING);
        assert_eq!(shard.prepare(client, &request).is_empty(), may, "{token} {request}");
    }
}

#[test]
fn replies_are_those_of_requests_that_come_one_after_the_other() {
    for topics in [&["news"][..], &["open:a", "granted", "news", "#42", "open:granted", "b"]] {
        let connect = r#"{"id":1,"connect":{"token":"42 with topics"}}"#;
        let follow = |shard: &mut TestShard, client| {
            let mut lines = shard.registered(client, Ok(()));
            for topic in ["granted", "open:granted", "#42"] {
                lines.extend(shard.started(client, topic, SubscriptionStart::default()));
            }
            // Its list of topics has no order.
            let open = lines.iter_mut().find(|line| line.starts_with("open {"));
            open.expect("connect is answered").truncate(4);
            lines
        };
        let mut shard = shard();
        let prepared = shard.open();
        assert_eq!(shard.prepare(prepared, connect), NOTHING);
        assert_eq!(shard.prepare(prepared, &subscribes(topics)), NOTHING);
        assert_eq!(shard.begin(prepared), ["register 42 alone"]);
        let lines = follow(&mut shard, prepared);

        let other = shard.open();
        shard.check(other, connect, &["register 42 alone"]);
        let mut expected = follow(&mut shard, other);
        expected.extend(shard.say(other, &subscribes(topics)));
        assert_eq!(lines, expected, "{topics:?}");
    }
}

#[test]
fn what_the_server_subscribes_counts_towards_the_limit() {
    for (max, topics, granted) in [
        (5, &["a", "b"][..], true),
        (4, &["a", "b"], false),
        (4, &["granted", "a"], true),
        (4, &["granted", "#42", "open:granted", "a"], true),
        (3, &["granted", "#42", "open:granted"], true),
        (3, &["a"], false),
        // However often a topic is asked for, no more is kept.
        (4, &["a", "a", "a", "a"], true),
        (4, &["a", "a", "a", "a", "a"], false),
    ] {
        let mut shard = shard();
        shard.settings.subscriptions_max = max;
        let client = shard.open();
        assert_eq!(shard.prepare(client, r#"{"id":1,"connect":{"token":"42 with topics"}}"#), NOTHING);
        let lines = shard.prepare(client, &subscribes(topics));
        let refused =
            format!(r#"{{"id":{},"error":{{"code":106,"message":"limit exceeded"}}}}"#, topics.len() + 1);
        assert_eq!(lines, if granted { vec![] } else { vec![refused] }, "{max} {topics:?}");
    }
}

#[test]
fn requests_are_counted_as_ever() {
    const TOO_MANY: &str = r#""error":{"code":111,"message":"too many requests","temporary":true}}"#;
    let mut shard = shard();
    (shard.settings.commands_per_second_max, shard.settings.commands_burst_max) = (1, 2);
    let client = shard.open();
    assert_eq!(shard.prepare(client, CONNECT), NOTHING);
    assert_eq!(shard.prepare(client, &subscribes(&["a", "b", "c"])), [format!(r#"{{"id":4,{TOO_MANY}"#)]);

    let mut shard = self::shard();
    (shard.settings.user_commands_per_second_max, shard.settings.commands_burst_max) = (1, 2);
    let [first, second] = [(); 2].map(|()| {
        let client = shard.open();
        assert_eq!(shard.prepare(client, CONNECT), NOTHING);
        client
    });
    assert_eq!(shard.prepare(first, &subscribes(&["a", "b"])), NOTHING);
    assert_eq!(shard.prepare(second, &subscribes(&["a"])), [format!(r#"{{"id":2,{TOO_MANY}"#)]);
}

#[test]
fn what_was_prepared_goes_with_the_connection() {
    let prepared = || {
        let mut shard = shard();
        let client = shard.open();
        assert_eq!(shard.prepare(client, CONNECT), NOTHING);
        assert_eq!(shard.prepare(client, &subscribes(&["news"])), NOTHING);
        (shard, client)
    };
    let (mut shard, client) = prepared();
    assert_eq!(shard.end(client), NOTHING);
    assert_eq!(shard.begin(client), NOTHING);

    let (mut shard, client) = prepared();
    assert_eq!(shard.next(client), ["close 3502 stale"]);
    assert_eq!(shard.begin(client), NOTHING);

    // Nothing is to be prepared and asked in another way.
    let (mut shard, client) = prepared();
    let lines = shard.say(client, CONNECT);
    assert!(lines.len() == 1 && lines[0].starts_with("close 3501 "), "{lines:?}");

    let (mut shard, client) = prepared();
    assert_eq!(shard.begin(client), ["register 42 alone"]);
    let lines = shard.registered(client, Err(CloseReason::ConnectionLimit));
    assert_eq!(lines, ["close 3504 connection limit"]);

    let (mut shard, client) = prepared();
    assert_eq!(shard.begin(client), ["register 42 alone"]);
    assert_eq!(shard.registered(client, Ok(())), ["#42: subscribe 42 +presence"]);
    assert_eq!(
        shard.subscribed(client, "#42", Err(RequestError::Internal)),
        [
            r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
            "unregister 42"
        ]
    );
}
