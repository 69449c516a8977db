//! Subscribing by a hook.

use fanwire_hub::effect::SubscriptionStart;
use fanwire_hub::session::Control;
use fanwire_hub::{HistoryBounds, Overrides};
use fanwire_protocol::reason::Unsubscribed;

use super::super::harness::{Outcome, at, topic};
use super::*;

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"news","data":{"a":1}}}"#;

const ASKED: &str = r#"hook 1: subscribe news {"a":1} by 42"#;

/// A client that waits for the hook of its subscribe.
fn asking(shard: &mut TestShard) -> u32 {
    let client = shard.connect("42");
    shard.check(client, SUBSCRIBE, &[ASKED]);
    client
}

#[test]
fn the_hook_grants_with_its_own_options() {
    let mut shard = hooked();
    let client = asking(&mut shard);
    let overrides = Overrides { presence: Some(true), ..Overrides::default() };
    let options = GrantOptions { info: "7".into(), data: "8".into(), overrides };
    assert_eq!(shard.hooked(client, 1, grant(options, ends(60))), ["news: subscribe 42 here 7 +presence"]);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [r#"{"id":2,"subscribe":{"expires":true,"ttl":60,"data":8}}"#]
    );
}

/// What the client wishes is for the application to grant; the place from which it goes on is its own.
#[test]
fn wishes_count_for_nothing_but_the_place_does() {
    let mut shard = hooked();
    let ttl = std::time::Duration::from_secs(60);
    shard.topics.default.history = Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl });
    shard.topics.default.allow_recovery = true;
    shard.topics.default.allow_positioning = true;
    let wishes = r#"{"id":2,"subscribe":{"channel":"news","positioned":true,"recoverable":true,"join_leave":true,
        "recover":true,"offset":5,"epoch":"abcdefgh"}}"#;
    for (force_recovery, expected) in
        [(None, "news: subscribe 42"), (Some(true), "news: subscribe 42, wants what came after 5@abcdefgh")]
    {
        let client = shard.connect("42");
        shard.check(client, wishes, &["hook 1: subscribe news by 42"]);
        let overrides = Overrides { force_recovery, ..Overrides::default() };
        let options = GrantOptions { overrides, ..GrantOptions::default() };
        assert_eq!(shard.hooked(client, 1, grant(options, Expiry::Never)), [expected]);
        shard.started(client, "news", if force_recovery.is_some() { at(5) } else { Default::default() });
        shard.end(client);
    }
}

#[test]
fn every_answer_has_its_consequence() {
    let info = GrantOptions { info: "{".into(), ..GrantOptions::default() };
    let unfit = "unfit info is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\"";
    let table: [(Hooked, Vec<String>); 7] = [
        (granted(), vec!["news: subscribe 42".into()]),
        (refused(), vec![refusal(2)]),
        (failed(), vec![failure(2)]),
        (unchanged(), vec![failure(2)]),
        (sent_away(), vec!["unregister 42".into(), "close 4001 go".into()]),
        (
            grant(GrantOptions::default(), ends(0)),
            vec![r#"{"id":2,"error":{"code":110,"message":"expired"}}"#.into()],
        ),
        (grant(info, Expiry::Never), vec![unfit.into(), failure(2)]),
    ];
    for (answer, expected) in table {
        let mut shard = hooked();
        let client = asking(&mut shard);
        let of = format!("{answer:?}");
        assert_eq!(shard.hooked(client, 1, answer), expected, "{of}");
        assert_eq!(shard.hooked(client, 1, granted()), [""; 0], "{of}: an answer counts once");
    }
}

#[test]
fn names_and_tokens_come_before_the_hook() {
    let mut shard = hooked();
    shard.topics.default.allow_user_limited_topics = true;
    shard.settings.insecure = true;
    let client = shard.connect("42");
    for (subscribe, outcome) in [
        (r#""channel":"other:news""#, Outcome::Error(102)),
        (r#""channel":"!news""#, Outcome::Error(107)),
        (r#""channel":"$news""#, Outcome::Error(103)),
        (r#""channel":"news","type":1"#, Outcome::Error(103)),
        (r#""channel":"news","tf":{}"#, Outcome::Error(107)),
        (r#""channel":"news","token":"expired""#, Outcome::Error(109)),
        (r#""channel":"news","token":"invalid""#, Outcome::Error(103)),
    ] {
        assert_eq!(shard.outcome(client, &format!(r#""subscribe":{{{subscribe}}}"#)), outcome, "{subscribe}");
    }
    for (subscribe, asked) in [
        (r#""channel":"chat#42""#, "chat#42: subscribe 42"),
        (r#""channel":"other","token":"other""#, "other: subscribe 42"),
        (r#""channel":"$news","token":"$news""#, "$news: subscribe 42"),
        (r#""channel":"news""#, "hook 1: subscribe news by 42"),
    ] {
        shard.check(client, &format!(r#"{{"id":3,"subscribe":{{{subscribe}}}}}"#), &[asked]);
    }
    shard.settings.insecure = false;
    let client = shard.connect("42");
    let other = r#""subscribe":{"channel":"chat#43"}"#;
    assert_eq!(shard.outcome(client, other), Outcome::Error(103), "no hook opens another's topic");
}

#[test]
fn a_subscription_that_is_asked_about_counts() {
    let mut shard = hooked();
    shard.settings.subscriptions_max = 1;
    let client = asking(&mut shard);
    let error = |id: u32, code: u32, message: &str| {
        format!(r#"{{"id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
    };
    let again = r#"{"id":3,"subscribe":{"channel":"news"}}"#;
    shard.check(client, again, &[&error(3, 105, "already subscribed")]);
    let other = r#"{"id":4,"subscribe":{"channel":"other"}}"#;
    shard.check(client, other, &[&error(4, 106, "limit exceeded")]);
    shard.hooked(client, 1, refused());
    shard.check(client, other, &["hook 1: subscribe other by 42"]);
}

#[test]
fn later_requests_wait_for_the_hook_and_then_for_the_owner() {
    let mut shard = hooked();
    shard.topics.default.hooks.publish = None;
    shard.topics.default.allow_publish_for_subscriber = true;
    let client = asking(&mut shard);
    let burst = r#"{"id":3,"publish":{"channel":"news","data":1}}
                   {"id":4,"unsubscribe":{"channel":"news"}}
                   {"id":5,"subscribe":{"channel":"news"}}
                   {"id":6,"publish":{"channel":"news","data":2}}"#;
    shard.check(client, burst, &[]);
    assert_eq!(shard.hooked(client, 1, granted()), ["news: subscribe 42"]);
    assert!(shard.session(client).waiting_bytes() > 0);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [
            r#"{"id":2,"subscribe":{}}"#,
            "news: publish #3 1 by 42",
            "news: unsubscribe 42",
            r#"{"id":4,"unsubscribe":{}}"#,
            "hook 2: subscribe news by 42",
        ]
    );
    let denied = r#"{"id":6,"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(shard.hooked(client, 2, refused()), [refusal(5), denied.to_owned()]);
    assert_eq!(shard.session(client).waiting_bytes(), 0);
}

#[test]
fn the_server_ends_what_is_only_asked_about() {
    let ended = r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    let unsubscribe = || Control::Unsubscribe { topic: topic("news"), reason: Unsubscribed::ByServer };
    let mut shard = hooked();
    let client = asking(&mut shard);
    assert_eq!(shard.control(client, &unsubscribe()), [""; 0]);
    assert_eq!(shard.hooked(client, 1, granted()), ["news: subscribe 42"]);
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [r#"{"id":2,"subscribe":{}}"#, "news: unsubscribe 42", ended]
    );
    let client = shard.connect("42");
    shard.check(client, SUBSCRIBE, &[ASKED]);
    assert_eq!(shard.control(client, &unsubscribe()), [""; 0]);
    assert_eq!(shard.hooked(client, 1, refused()), [refusal(2), ended.to_owned()]);
}

#[test]
fn a_client_that_left_is_not_subscribed() {
    let mut shard = hooked();
    let client = asking(&mut shard);
    assert_eq!(shard.end(client), ["unregister 42"]);
    assert_eq!(shard.hooked(client, 1, granted()), [""; 0]);
}
