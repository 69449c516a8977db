//! Permissions: every combination of the `allow_*` options with every kind of client, against the rule as
//! the protocol's description words it.

use fanwire_hub::{HistoryBounds, Namespace};

use super::harness::Outcome::{self, Asks, Close, Error};
use super::harness::TestShard;
use super::harness::tokens::to;

/// The namespace's three options for one operation.
#[derive(Clone, Copy, Debug)]
struct Allow {
    client: bool,
    subscriber: bool,
    anonymous: bool,
}

const BOTH: [bool; 2] = [false, true];

fn every_allow() -> impl Iterator<Item = Allow> {
    (0..8).map(|bits| Allow { client: bits & 1 > 0, subscriber: bits & 2 > 0, anonymous: bits & 4 > 0 })
}

/// Tries a command as every kind of client under every combination of the options that `set` sets.
fn check_operation(command: &str, set: fn(&mut Namespace, Allow)) {
    let ttl = std::time::Duration::from_secs(60);
    for allow in every_allow() {
        for (token, subscribed, insecure) in [
            ("42", false, false),
            ("42", true, false),
            ("nobody", false, false),
            ("nobody", true, false),
            ("nobody", false, true),
        ] {
            let mut namespace = Namespace {
                allow_subscribe_for_client: true,
                allow_subscribe_for_anonymous: true,
                presence: true,
                history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
                ..Namespace::default()
            };
            set(&mut namespace, allow);
            let mut shard = TestShard::new(namespace, []);
            shard.settings.insecure = insecure;
            let client = shard.connect(token);
            if subscribed {
                shard.say(client, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
                shard.started(client, "news", Default::default());
            }
            // Somebody else's subscription counts for nobody else.
            let somebody = shard.connect("43");
            shard.subscribe(somebody, "news");

            let may = insecure
                || ((allow.client || (allow.subscriber && subscribed)) && (token == "42" || allow.anonymous));
            let expected = if may { Asks } else { Error(103) };
            let outcome = shard.outcome(client, command);
            assert_eq!(outcome, expected, "{command} {token} {subscribed} {insecure} {allow:?}");
        }
    }
}

#[test]
fn publish() {
    check_operation(r#""publish":{"channel":"news","data":1}"#, |namespace, allow| {
        namespace.allow_publish_for_client = allow.client;
        namespace.allow_publish_for_subscriber = allow.subscriber;
        namespace.allow_publish_for_anonymous = allow.anonymous;
    });
}

#[test]
fn presence() {
    for command in [r#""presence":{"channel":"news"}"#, r#""presence_stats":{"channel":"news"}"#] {
        check_operation(command, |namespace, allow| {
            namespace.allow_presence_for_client = allow.client;
            namespace.allow_presence_for_subscriber = allow.subscriber;
            namespace.allow_presence_for_anonymous = allow.anonymous;
        });
    }
}

#[test]
fn history() {
    check_operation(r#""history":{"channel":"news"}"#, |namespace, allow| {
        namespace.allow_history_for_client = allow.client;
        namespace.allow_history_for_subscriber = allow.subscriber;
        namespace.allow_history_for_anonymous = allow.anonymous;
    });
}

/// Everything that a client can do in a topic without being subscribed to it.
const OPERATIONS: [&str; 4] = ["publish", "presence", "presence_stats", "history"];

fn operation(name: &str, topic: &str) -> String {
    format!(r#""{name}":{{"channel":"{topic}","data":1}}"#)
}

/// Allows every client everything but to subscribe.
fn all_for_client(allow_user_limited_topics: bool) -> Namespace {
    let ttl = std::time::Duration::from_secs(60);
    Namespace {
        presence: true,
        history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        allow_presence_for_client: true,
        allow_presence_for_anonymous: true,
        allow_history_for_client: true,
        allow_history_for_anonymous: true,
        allow_user_limited_topics,
        ..Namespace::default()
    }
}

#[test]
fn what_all_clients_may_do_they_may_do_in_topics_that_are_open_to_them() {
    for limited in BOTH {
        for (topic, token, may) in [
            ("news", "42", true),
            ("news", "nobody", true),
            ("dialog#42,43", "42", limited),
            ("dialog#42,43", "nobody", false),
            ("#43", "42", false),
            ("#43,421", "42", false),
            ("a#42#43", "42", false),
            ("#", "nobody", false),
            ("$news", "42", false),
            ("$dialog#42", "42", false),
        ] {
            for name in OPERATIONS {
                let mut shard = TestShard::new(all_for_client(limited), []);
                let client = shard.connect(token);
                let expected = if may { Asks } else { Error(103) };
                let outcome = shard.outcome(client, &operation(name, topic));
                assert_eq!(outcome, expected, "{name} {topic} {token} {limited}");
                shard.settings.insecure = true;
                assert_eq!(shard.outcome(client, &operation(name, topic)), Asks, "{name} {topic} {token}");
            }
        }
    }
}

#[test]
fn a_subscription_opens_a_topic_whoever_it_names() {
    for topic in ["#43", "$news"] {
        for name in OPERATIONS {
            let mut shard = TestShard::new(all_for_client(true), []);
            shard.tokens.add_subscription("token", to(topic));
            let client = shard.connect("42");
            let subscribe = format!(r#""subscribe":{{"channel":"{topic}","token":"token"}}"#);
            assert_eq!(shard.outcome(client, &subscribe), Asks);
            shard.started(client, topic, Default::default());
            assert_eq!(shard.outcome(client, &operation(name, topic)), Asks, "{name} {topic}");
        }
    }
}

/// Returns the outcome when `token` subscribes to `topic` without a subscription token.
fn subscribing(topic: &str, token: &str, namespace: &Namespace, insecure: bool) -> Outcome {
    let mut shard = TestShard::new(namespace.clone(), []);
    shard.settings.insecure = insecure;
    let client = shard.connect(token);
    shard.outcome(client, &format!(r#""subscribe":{{"channel":"{topic}"}}"#))
}

#[test]
fn subscribe_to_a_plain_topic() {
    for (for_client, for_anonymous) in BOTH.map(|c| BOTH.map(|a| (c, a))).concat() {
        let namespace = Namespace {
            allow_subscribe_for_client: for_client,
            allow_subscribe_for_anonymous: for_anonymous,
            ..Namespace::default()
        };
        for (token, insecure) in [("42", false), ("nobody", false), ("nobody", true)] {
            let may = insecure || (for_client && (token == "42" || for_anonymous));
            let expected = if may { Asks } else { Error(103) };
            let outcome = subscribing("news", token, &namespace, insecure);
            assert_eq!(outcome, expected, "{token} {insecure} {namespace:?}");
        }
    }
}

#[test]
fn subscribe_to_a_user_limited_topic() {
    let closed = Namespace { allow_user_limited_topics: true, ..Namespace::default() };
    let open =
        Namespace { allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true, ..closed.clone() };
    for namespace in [&closed, &open] {
        for (topic, token, insecure, expected) in [
            ("dialog#42", "42", false, Asks),
            ("dialog#12,42", "42", false, Asks),
            ("dialog#42,43", "43", false, Asks),
            ("#42", "42", false, Asks),
            ("a#b#42", "42", false, Asks),
            // Others may not, even where the namespace is open.
            ("dialog#42", "43", false, Error(103)),
            ("dialog#142,423", "42", false, Error(103)),
            ("a#42#b", "42", false, Error(103)),
            ("dialog#42", "nobody", false, Error(103)),
            // The anonymous user is on no list.
            ("dialog#", "nobody", false, Error(103)),
            ("dialog#42,", "nobody", false, Error(103)),
            ("dialog#42", "43", true, Asks),
        ] {
            let outcome = subscribing(topic, token, namespace, insecure);
            assert_eq!(outcome, expected, "{topic} {token} {insecure}");
        }
    }
}

#[test]
fn a_name_that_lists_users_is_open_to_nobody_where_the_list_does_not_count() {
    // Stricter than upstream, where such a name is then like any other: a user's personal topic would be open
    // to all.
    let namespace = Namespace {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        ..Namespace::default()
    };
    assert_eq!(subscribing("dialog#42", "42", &namespace, false), Error(103));
    assert_eq!(subscribing("dialog#42", "43", &namespace, false), Error(103));
    assert_eq!(subscribing("dialog#42", "43", &namespace, true), Asks);
}

#[test]
fn a_private_topic_takes_a_token() {
    let namespace = Namespace {
        allow_subscribe_for_client: true,
        allow_user_limited_topics: true,
        ..Namespace::default()
    };
    for topic in ["$news", "$dialog#42", "$"] {
        for insecure in BOTH {
            let outcome = subscribing(topic, "42", &namespace, insecure);
            assert_eq!(outcome, Error(103), "{topic} {insecure}");
        }
    }
}

#[test]
fn a_token_opens_what_the_namespace_does_not() {
    for namespace in
        [Namespace::default(), Namespace { allow_user_limited_topics: true, ..Namespace::default() }]
    {
        for (topic, expected) in
            [("news", Asks), ("dialog#43", Asks), ("$news", Asks), ("other", Close(3500))]
        {
            let mut shard = TestShard::new(namespace.clone(), []);
            let opens = if topic == "other" { "news" } else { topic };
            shard.tokens.add_subscription("token", super::harness::tokens::to(opens));
            let client = shard.connect("42");
            let command = format!(r#""subscribe":{{"channel":"{topic}","token":"token"}}"#);
            assert_eq!(shard.outcome(client, &command), expected, "{topic}");
        }
    }
}
