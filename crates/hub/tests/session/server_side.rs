//! Subscriptions that the server makes: from a token, a user's own topic, the connect command, and the API.

use std::sync::{Arc, Mutex};

use fanwire_hub::effect::{Answer, Completion, SubscriptionStart};
use fanwire_hub::session::{Control, ServerSubscribe};
use fanwire_hub::{
    ConnectionClaims, Expiry, GrantOptions, HistoryBounds, Namespace, Overrides, PersonalTopic, TopicGrant,
};
use fanwire_protocol::reason::{CloseReason, RequestError};
use fanwire_protocol::request::StreamPosition;

use super::harness::Outcome::{Close, Error};
use super::harness::tokens::{grant, user};
use super::harness::{START, TestShard, at, recovered, topic};

const CONNECTED: &str = r#""connect":{"client":"client-1","version":"test""#;

/// Says connect as user 42 and gives the lines that follow the registration.
fn connect(shard: &mut TestShard, request: &str) -> (u32, Vec<String>) {
    let client = shard.open();
    let command = format!(r#"{{"id":1,"connect":{{{request}}}}}"#);
    let lines = shard.say(client, &command);
    if lines == ["register 42"] { (client, shard.registered(client, Ok(()))) } else { (client, lines) }
}

fn recoverable() -> Namespace {
    let ttl = std::time::Duration::from_secs(60);
    Namespace {
        history: Some(HistoryBounds { size: 10, ttl, meta_ttl: ttl }),
        force_recovery: true,
        allow_subscribe_for_client: true,
        ..Namespace::default()
    }
}

#[test]
fn a_token_subscribes() {
    // Whatever clients may do by themselves.
    let mut shard =
        TestShard::new(Namespace::default(), [Namespace { name: "chat".into(), ..recoverable() }]);
    let options = GrantOptions {
        info: "7".into(),
        data: r#"{"hello":1}"#.into(),
        overrides: Overrides { presence: Some(true), join_leave: Some(true), ..Overrides::default() },
    };
    let topics = vec![grant("$secret#43"), TopicGrant { topic: "chat:a".into(), options }];
    shard.tokens.add_connection("token", ConnectionClaims { topics, ..user("42") });
    let (client, lines) = connect(&mut shard, r#""token":"token""#);
    assert_eq!(
        lines,
        ["$secret#43: subscribe 42", "chat:a: subscribe 42 here 7 +presence +join_leave, wants the position"]
    );
    // The reply waits for both, and nothing the client says is done before it.
    assert_eq!(shard.started(client, "chat:a", at(3)), [""; 0]);
    assert!(!shard.session(client).is_open());
    shard.check(client, r#"{"id":2,"subscribe":{"channel":"chat:a"}}"#, &[]);
    let lines = shard.started(client, "$secret#43", SubscriptionStart::default());
    assert_eq!(lines.len(), 2);
    let reply = &lines[0];
    assert!(reply.starts_with(&format!(r#"open {{"id":1,{CONNECTED},"subs":{{"#)), "{reply}");
    assert!(reply.contains(r#""$secret#43":{}"#), "{reply}");
    let chat =
        r#""chat:a":{"recoverable":true,"epoch":"abcdefgh","offset":3,"positioned":true,"data":{"hello":1}}"#;
    assert!(reply.contains(chat), "{reply}");
    assert_eq!(lines[1], r#"{"id":2,"error":{"code":105,"message":"already subscribed"}}"#);
    assert_eq!(
        shard.end(client),
        [
            "chat:a: unsubscribe 42 here 7 +presence +join_leave",
            "$secret#43: unsubscribe 42",
            "unregister 42"
        ]
    );
}

#[test]
fn a_token_with_a_topic_that_cannot_be_is_refused() {
    for (name, expected) in [("nowhere:a", Error(102)), ("ü", Error(107)), ("", Error(107))] {
        let mut shard = TestShard::default();
        shard.tokens.add_connection("token", ConnectionClaims { topics: vec![grant(name)], ..user("42") });
        let client = shard.open();
        assert_eq!(shard.outcome(client, r#""connect":{"token":"token"}"#), expected, "{name}");
    }
}

#[test]
fn a_subscription_that_fails_fails_the_connect() {
    let mut shard = TestShard::default();
    shard
        .tokens
        .add_connection("token", ConnectionClaims { topics: vec![grant("a"), grant("b")], ..user("42") });
    let (client, lines) = connect(&mut shard, r#""token":"token""#);
    assert_eq!(lines, ["a: subscribe 42", "b: subscribe 42"]);
    assert_eq!(shard.subscribed(client, "a", Err(RequestError::Internal)), [""; 0]);
    assert_eq!(
        shard.started(client, "b", SubscriptionStart::default()),
        [
            r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
            "b: unsubscribe 42",
            "unregister 42",
        ]
    );
    assert_eq!(shard.registry.topics().count(), 0);
    assert!(shard.session(client).is_over());
    assert_eq!(shard.next(client), ["close 3502 stale"]);
}

#[test]
fn a_client_that_leaves_meanwhile_keeps_nothing() {
    let mut shard = TestShard::default();
    shard
        .tokens
        .add_connection("token", ConnectionClaims { topics: vec![grant("a"), grant("b")], ..user("42") });
    let (client, _) = connect(&mut shard, r#""token":"token""#);
    assert_eq!(shard.started(client, "a", SubscriptionStart::default()), [""; 0]);
    assert_eq!(shard.end(client), ["a: unsubscribe 42", "unregister 42"]);
    assert_eq!(shard.started(client, "b", SubscriptionStart::default()), ["b: unsubscribe 42"]);
    assert_eq!(shard.registry.topics().count(), 0);
}

#[test]
fn more_topics_than_allowed_are_too_many() {
    for (granted, asked, expected) in [
        (&["a", "b"] as &[_], "", None),
        (&["a", "b", "c"], "", Some(Close(3505))),
        (&["a", "b"], r#","subs":{"c":{}}"#, Some(Close(3505))),
        // One that was granted already, or is not permitted, is not one more.
        (&["a", "b"], r#","subs":{"a":{},"$c":{}}"#, None),
    ] {
        let mut shard = TestShard::default();
        shard.settings.subscriptions_max = 2;
        let topics = granted.iter().map(|topic| grant(topic)).collect();
        shard.tokens.add_connection("token", ConnectionClaims { topics, ..user("42") });
        let client = shard.open();
        let command = format!(r#""connect":{{"token":"token"{asked}}}"#);
        match expected {
            Some(expected) => assert_eq!(shard.outcome(client, &command), expected, "{granted:?} {asked}"),
            None => {
                assert_eq!(shard.say(client, &format!(r#"{{"id":1,{command}}}"#)), ["register 42"]);
                assert_eq!(shard.registered(client, Ok(())), ["a: subscribe 42", "b: subscribe 42"]);
            }
        }
    }
}

#[test]
fn connect_asks_for_topics_that_the_client_could_have_without_a_token() {
    let closed = Namespace { name: "closed".into(), ..Namespace::default() };
    let limited =
        Namespace { name: "limited".into(), allow_user_limited_topics: true, ..Namespace::default() };
    for (asked, expected) in [
        ("news", Some("news: subscribe 42")),
        ("limited:a#42", Some("limited:a#42: subscribe 42")),
        // What is not permitted is left out.
        ("$news", None),
        ("closed:a", None),
        ("limited:a#43", None),
        ("ü", None),
        ("", None),
    ] {
        let mut shard = TestShard::default();
        let open = shard.topics.default.clone();
        shard.topics =
            fanwire_hub::Namespaces::new(Default::default(), open, [closed.clone(), limited.clone()]);
        let (_, lines) = connect(&mut shard, &format!(r#""token":"42","subs":{{"{asked}":{{}}}}"#));
        match expected {
            Some(expected) => assert_eq!(lines, [expected]),
            None => assert_eq!(
                lines,
                [format!(r#"open {{"id":1,{CONNECTED},"ping":25,"pong":true}}}}"#)],
                "{asked}"
            ),
        }
    }
    let mut shard = TestShard::default();
    let client = shard.open();
    let command = r#""connect":{"token":"42","subs":{"nowhere:a":{}}}"#;
    assert_eq!(shard.outcome(client, command), Close(3501));
}

#[test]
fn an_insecure_server_grants_what_is_asked_but_private_topics() {
    let mut shard = TestShard::new(Namespace::default(), []);
    shard.settings.insecure = true;
    let (_, lines) = connect(&mut shard, r#""subs":{"a":{}}"#);
    assert_eq!(lines, ["a: subscribe nobody"]);
    let (_, lines) = connect(&mut shard, r#""subs":{"$a":{}}"#);
    assert!(lines[0].starts_with("open"));
}

#[test]
fn connect_recovers_what_was_granted() {
    let mut shard = TestShard::new(recoverable(), []);
    shard.tokens.add_connection("token", ConnectionClaims { topics: vec![grant("a")], ..user("42") });
    let known = r#""recover":true,"offset":5,"epoch":"abcdefgh","delta":"fossil""#;
    let (client, lines) = connect(&mut shard, &format!(r#""token":"token","subs":{{"a":{{{known}}}}}"#));
    assert_eq!(lines, ["a: subscribe 42, wants what came after 5@abcdefgh"]);
    let lines = shard.started(client, "a", recovered(6, &[6]));
    let subs = concat!(
        r#""subs":{"a":{"recoverable":true,"epoch":"abcdefgh","publications":[{"data":60,"offset":6}],"#,
        r#""recovered":true,"offset":5,"positioned":true,"was_recovering":true}}"#
    );
    assert_eq!(lines, [format!(r#"open {{"id":1,{CONNECTED},{subs},"ping":25,"pong":true}}}}"#)]);
    // Without `recover` a position means nothing, and it may be asked for what was not granted, too.
    let (_, lines) = connect(&mut shard, r#""token":"42","subs":{"b":{"offset":5,"epoch":"abcdefgh"}}"#);
    assert_eq!(lines, ["b: subscribe 42, wants the position"]);
    let (_, lines) = connect(&mut shard, r#""token":"42","subs":{"b":{"recover":true}}"#);
    assert_eq!(lines, ["b: subscribe 42, wants what came after 0@"]);
}

#[test]
fn a_user_has_a_topic_of_its_own() {
    let me = Namespace { name: "me".into(), presence: true, ..Namespace::default() };
    for (namespace, single, register, subscribed) in [
        ("", false, "register 42", "#42: subscribe 42"),
        ("me", false, "register 42", "me:#42: subscribe 42 +presence"),
        ("", true, "register 42 alone", "#42: subscribe 42"),
    ] {
        let mut shard = TestShard::new(Namespace::default(), [me.clone()]);
        shard.settings.personal_topic =
            Some(PersonalTopic { namespace: namespace.into(), single_connection: single });
        let client = shard.open();
        shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &[register]);
        assert_eq!(shard.registered(client, Ok(())), [subscribed]);
        // The anonymous user has none.
        let nobody = shard.open();
        assert!(shard.say(nobody, r#"{"id":1,"connect":{"token":"nobody"}}"#)[0].starts_with("open"));
    }
    let mut shard = TestShard::default();
    shard.settings.personal_topic =
        Some(PersonalTopic { namespace: "nowhere".into(), single_connection: false });
    let client = shard.open();
    assert_eq!(shard.outcome(client, r#""connect":{"token":"42"}"#), Error(102));
}

#[test]
fn a_name_that_would_make_another_topic_has_no_topic_of_its_own() {
    let me = Namespace { name: "me".into(), ..Namespace::default() };
    for (namespace, name, may) in [
        ("", "1,2", false),
        ("", ",", false),
        ("", "1#2", false),
        ("", "#2", false),
        ("", "2#", false),
        ("", "me:1", false),
        ("me", "1,2", false),
        ("me", "1#2", false),
        ("me", "me:1", true),
        ("", "$1", true),
        ("", "!1", true),
    ] {
        let mut shard = TestShard::new(Namespace::default(), [me.clone()]);
        shard.settings.personal_topic =
            Some(PersonalTopic { namespace: namespace.into(), single_connection: false });
        shard.tokens.add_connection("token", user(name));
        let client = shard.open();
        let lines = shard.say(client, r#"{"id":1,"connect":{"token":"token"}}"#);
        let expected = if may { format!("register {name}") } else { REFUSED.to_owned() };
        assert_eq!(lines, [expected], "{namespace} {name}");
        // Without topics of users' own, names are names.
        shard.settings.personal_topic = None;
        let client = shard.open();
        shard.check(client, r#"{"id":1,"connect":{"token":"token"}}"#, &[&format!("register {name}")]);
    }
}

const REFUSED: &str = "close 3501 bad request: the user's name has a separator of [topics] in it, such as \",\" or \"#\", so it has no personal topic";

#[test]
fn a_topic_of_its_own_recovers_and_is_subscribed_once() {
    let mut shard = TestShard::new(recoverable(), []);
    shard.settings.personal_topic = Some(PersonalTopic::default());
    shard.tokens.add_connection("token", ConnectionClaims { topics: vec![grant("#42")], ..user("42") });
    let known = r##""subs":{"#42":{"recover":true,"offset":5,"epoch":"abcdefgh"}}"##;
    for token in ["42", "token"] {
        let (_, lines) = connect(&mut shard, &format!(r#""token":"{token}",{known}"#));
        assert_eq!(lines, ["#42: subscribe 42, wants what came after 5@abcdefgh"]);
    }
}

#[test]
fn an_older_connection_gives_way() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let lines = shard.control(client, &Control::Disconnect(CloseReason::ConnectionLimit.into()));
    assert_eq!(lines, ["unregister 42", "close 3504 connection limit"]);
}

#[test]
fn a_lost_position_of_the_server_s_ends_the_connection() {
    let mut shard = TestShard::new(recoverable(), []);
    let (client, _) = connect(&mut shard, r#""token":"42","subs":{"a":{}}"#);
    assert_eq!(shard.started(client, "a", at(1)).len(), 1);
    let a = shard.registry.find(&topic("a")).expect("somebody is subscribed");
    assert_eq!(
        shard.with(client, |session, context| session.lose_position(context, a)),
        ["a: unsubscribe 42", "unregister 42", "close 3010 insufficient state"]
    );
}

fn api(name: &str) -> ServerSubscribe {
    ServerSubscribe {
        topic: topic(name),
        options: GrantOptions::default(),
        expiry: Expiry::Never,
        recover_since: None,
    }
}

fn api_subscribe(shard: &mut TestShard, client: u32, subscribe: ServerSubscribe) -> Vec<String> {
    shard.control(client, &Control::Subscribe(Arc::new(subscribe)))
}

#[test]
fn the_api_subscribes() {
    let mut shard = TestShard::new(recoverable(), []);
    let client = shard.connect("42");
    let options = GrantOptions { data: "1".into(), ..GrantOptions::default() };
    let lines = api_subscribe(&mut shard, client, ServerSubscribe { options, ..api("news") });
    assert_eq!(lines, ["news: subscribe 42, wants the position"]);
    // Neither one on its way nor one that is there is made twice.
    assert_eq!(api_subscribe(&mut shard, client, api("news")), [""; 0]);
    assert_eq!(shard.outcome(client, r#""subscribe":{"channel":"news"}"#), Error(105));
    let push = r#"{"recoverable":true,"epoch":"abcdefgh","offset":7,"positioned":true,"data":1}"#;
    assert_eq!(
        shard.started(client, "news", at(7)),
        [format!(r#"{{"push":{{"channel":"news","subscribe":{push}}}}}"#)]
    );
    assert_eq!(api_subscribe(&mut shard, client, api("news")), [""; 0]);
    assert_eq!(shard.outcome(client, r#""subscribe":{"channel":"news"}"#), Error(105));
}

#[test]
fn the_api_subscribes_with_what_was_missed() {
    let mut shard = TestShard::new(recoverable(), []);
    let client = shard.connect("42");
    let since = StreamPosition { offset: 5, epoch: "abcdefgh".into() };
    let lines =
        api_subscribe(&mut shard, client, ServerSubscribe { recover_since: Some(since), ..api("news") });
    assert_eq!(lines, ["news: subscribe 42, wants what came after 5@abcdefgh"]);
    assert_eq!(
        shard.started(client, "news", recovered(7, &[6, 7])),
        [
            r#"{"push":{"channel":"news","subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":5,"positioned":true}}}"#,
            r#"{"push":{"channel":"news","pub":{"data":60,"offset":6}}}"#,
            r#"{"push":{"channel":"news","pub":{"data":70,"offset":7}}}"#,
        ]
    );
}

#[test]
fn the_api_keeps_to_the_limit() {
    let mut shard = TestShard::default();
    shard.settings.subscriptions_max = 2;
    let client = shard.connect("42");
    shard.subscribe(client, "a");
    assert_eq!(api_subscribe(&mut shard, client, api("b")), ["b: subscribe 42"]);
    assert_eq!(api_subscribe(&mut shard, client, api("a")), [""; 0]);
    assert_eq!(
        api_subscribe(&mut shard, client, api("c")),
        ["a: unsubscribe 42", "unregister 42", "close 3505 channel limit"]
    );
}

#[test]
fn the_api_hears_of_a_subscription_that_fails() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (tell, done) = (heard.clone(), Arc::new(()));
    let held = done.clone();
    let completion = Completion(Arc::new(move |error: RequestError| {
        let _ = &held;
        tell.lock().expect("nobody panicked").push(error);
    }));
    let control = Control::Subscribe(Arc::new(api("news")));
    assert_eq!(shard.control_with(client, &control, completion), ["news: subscribe 42"]);
    // The order is not carried out before the owner has answered.
    assert_eq!(Arc::strong_count(&done), 2);
    assert_eq!(shard.subscribed(client, "news", Err(RequestError::Internal)), [""; 0]);
    assert_eq!(*heard.lock().expect("nobody panicked"), [RequestError::Internal]);
    assert_eq!(Arc::strong_count(&done), 1);
}

#[test]
fn an_order_for_what_is_over_does_nothing() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    let over = ServerSubscribe { expiry: Expiry::At(START), ..api("news") };
    assert_eq!(api_subscribe(&mut shard, client, over), [""; 0]);
}

#[test]
fn the_api_unsubscribes_what_it_subscribed() {
    let mut shard = TestShard::default();
    let client = shard.connect("42");
    assert_eq!(api_subscribe(&mut shard, client, api("news")), ["news: subscribe 42"]);
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()).len(), 1);
    let reason = fanwire_protocol::reason::Unsubscribed::ByServer;
    assert_eq!(
        shard.control(client, &Control::Unsubscribe { topic: topic("news"), reason }),
        [
            "news: unsubscribe 42",
            r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#,
        ]
    );
}

#[test]
fn the_api_refreshes() {
    let mut shard = TestShard::default();
    shard.settings.ping_interval = None;
    shard.topics.default.allow_publish_for_client = true;
    let client = shard.connect("42");
    let refresh =
        |expiry, info: Option<&'static str>| Control::Refresh { expiry, info: info.map(Into::into) };
    assert_eq!(
        shard.control(client, &refresh(Expiry::At(START + 60), Some("7"))),
        [r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#]
    );
    assert_eq!(shard.session(client).deadline(), 5_000 + 60_000 + 25_000);
    let publish = r#"{"id":2,"publish":{"channel":"news","data":1}}"#;
    shard.check(client, publish, &["news: publish #2 1 by 42 7"]);
    assert_eq!(shard.control(client, &refresh(Expiry::Never, None)), [r#"{"push":{"refresh":{}}}"#]);
    assert_eq!(shard.session(client).deadline(), u64::MAX);
    shard.check(client, publish, &["news: publish #2 1 by 42 7"]);
    assert_eq!(
        shard.control(client, &refresh(Expiry::At(START), None)),
        ["unregister 42", "close 3005 connection expired"]
    );
}

#[test]
fn the_api_disconnects_at_any_time_and_does_the_rest_to_connected_clients() {
    let disconnect = Control::Disconnect(CloseReason::ForceDisconnect.into());
    let rest = [
        Control::Subscribe(Arc::new(api("news"))),
        Control::Unsubscribe {
            topic: topic("news"),
            reason: fanwire_protocol::reason::Unsubscribed::ByServer,
        },
        Control::Refresh { expiry: Expiry::At(START), info: None },
    ];
    let mut shard = TestShard::default();
    let fresh = shard.open();
    let connecting = shard.open();
    shard.check(connecting, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    let connected = shard.connect("42");
    for (client, expected) in [
        (fresh, &["close 3503 force disconnect"] as &[_]),
        (connecting, &["unregister 42", "close 3503 force disconnect"]),
        (connected, &["unregister 42", "close 3503 force disconnect"]),
    ] {
        if client != connected {
            for control in &rest {
                assert_eq!(shard.control(client, control), [""; 0]);
            }
        }
        assert_eq!(shard.control(client, &disconnect), expected);
        for control in rest.iter().chain([&disconnect]) {
            assert_eq!(shard.control(client, control), [""; 0]);
        }
    }
    assert_eq!(shard.answer(connecting, Answer::Registered(Ok(()))), [""; 0]);
}
