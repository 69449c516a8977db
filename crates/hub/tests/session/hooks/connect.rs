//! Connecting by a hook.

use std::time::Duration;

use fanwire_hub::hook::{HookClaims, HookResult};
use fanwire_hub::kept::{Kept, KeptRules};
use fanwire_hub::{ClaimExtras, ConnectionClaims, Namespace};
use fanwire_protocol::wire::{Pings, TransportMode, Wire};

use super::super::harness::tokens::{grant, user};
use super::super::harness::{MESSAGES, TestShard};
use super::*;
use fanwire_hub::effect::Effect;
use fanwire_hub::hook::HookEvent;
use fanwire_protocol::request::{Ask, Connect, ConnectExtras, Request};

const CONNECT: &str = r#"{"id":1,"connect":{"data":{"a":1},"name":"js","version":"5","subs":{"news":{}}}}"#;

/// A client that waits for the hook of connect.
fn asking(shard: &mut TestShard) -> u32 {
    let client = shard.open();
    let asked = r#"hook 1: connect {"a":1} js 5 news by nobody"#;
    shard.check(client, CONNECT, &[asked]);
    assert!(shard.session(client).is_connecting());
    client
}

#[test]
fn the_hook_says_who_a_client_without_a_token_is() {
    let mut shard = hooked();
    let client = asking(&mut shard);
    shard.check(client, r#"{"id":2,"rpc":{"method":"m"}} {"id":3,"send":{}}"#, &[]);
    assert!(shard.session(client).waiting_bytes() > 0);
    let claims = HookClaims { claims: user("42"), data: r#"{"b":2}"#.into(), meta: "{}".into() };
    let known = Ok(HookResult::Connect(Some(claims.into())));
    assert_eq!(shard.hooked(client, 1, known), ["register 42"]);
    assert_eq!(
        shard.registered(client, Ok(())),
        [
            r#"open {"id":1,"connect":{"client":"client-1","version":"test","data":{"b":2},"ping":25,"pong":true}}"#,
            "hook 2: rpc m by 42",
        ]
    );
    assert_eq!(shard.session(client).user(), "42");
    assert_eq!(shard.hooked(client, 2, refused()), [refusal(2), "hook 3: send by 42".to_owned()]);
    assert_eq!(shard.session(client).waiting_bytes(), 0);
}

#[test]
fn a_token_wins() {
    for token in ["42", "expired", "invalid"] {
        let mut shard = hooked();
        let client = shard.open();
        let lines = shard.say(client, &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        assert!(!lines.iter().any(|line| line.starts_with("hook")), "{lines:?}");
    }
}

#[test]
fn the_hook_is_asked_even_where_everything_is_allowed() {
    let mut shard = hooked();
    shard.settings.insecure = true;
    asking(&mut shard);
}

#[test]
fn every_answer_has_its_consequence() {
    let topics = |topic: &str| ConnectionClaims { topics: vec![grant(topic)], ..user("42") };
    let error =
        |code: u32, message: &str| format!(r#"{{"id":1,"error":{{"code":{code},"message":"{message}"}}}}"#);
    let no_token =
        "close 3501 bad request: no token, and client.allow_anonymous_connect_without_token is off";
    let unfit = |why: &str| vec![format!("unfit {why}"), failure(1)];
    let table: [(Hooked, Vec<String>); 12] = [
        (refused(), vec![refusal(1)]),
        (sent_away(), vec!["close 4001 go".into()]),
        (failed(), vec![failure(1)]),
        (granted(), vec![failure(1)]),
        (Ok(HookResult::Connect(None)), vec![no_token.into()]),
        (claims(ConnectionClaims { expiry: ends(0), ..user("42") }), vec![error(110, "expired")]),
        (claims(topics("other:news")), vec![error(102, "unknown channel")]),
        (
            claims(topics("!news")),
            unfit("channels or subs: names that begin with ! are the cluster's own; use another"),
        ),
        (
            claims(ConnectionClaims { info: "{".into(), ..user("42") }),
            unfit("info is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\""),
        ),
        (
            Ok(HookResult::Connect(Some(
                HookClaims { claims: user("42"), data: "{".into(), meta: "".into() }.into(),
            ))),
            unfit("data is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\""),
        ),
        (
            Ok(HookResult::Connect(Some(
                HookClaims { claims: user("42"), data: "".into(), meta: r#"{"key":"value"}"#.into() }.into(),
            ))),
            unfit("meta is longer than client.hooks.kept_bytes_max leaves room for"),
        ),
        (known("42"), vec!["register 42".into()]),
    ];
    for (answer, expected) in table {
        let mut shard = hooked();
        shard.settings.hooks.kept = KeptRules { has_meta: true, bytes_max: 10, ..KeptRules::default() };
        let client = asking(&mut shard);
        let of = format!("{answer:?}");
        let lines = shard.hooked(client, 1, answer);
        assert_eq!(lines, expected, "{of}");
        let is_over = lines != ["register 42"];
        assert_eq!(shard.session(client).is_over(), is_over, "{of}");
        assert_eq!(shard.hooked(client, 1, known("42")), [""; 0], "{of}: an answer counts once");
    }
}

#[test]
fn a_client_that_nobody_knows_may_be_anonymous() {
    let mut shard = hooked();
    shard.settings.allow_anonymous_connect_without_token = true;
    let client = asking(&mut shard);
    let lines = shard.hooked(client, 1, Ok(HookResult::Connect(None)));
    assert!(lines.len() == 1 && lines[0].starts_with("open"), "{lines:?}");
    assert_eq!(shard.session(client).user(), "");
}

#[test]
fn a_slow_hook_has_its_time() {
    let mut shard = hooked();
    shard.settings.hooks.patience = Duration::from_secs(30);
    let client = asking(&mut shard);
    shard.wait(Duration::from_secs(39));
    assert_eq!(shard.tick(client), [""; 0]);
    assert_eq!(shard.next(client), ["close 3502 stale"]);
    assert_eq!(shard.hooked(client, 1, known("42")), [""; 0]);
}

#[test]
fn a_client_that_left_is_nobody() {
    let mut shard = hooked();
    let client = asking(&mut shard);
    assert_eq!(shard.end(client), [""; 0]);
    assert_eq!(shard.hooked(client, 1, known("42")), [""; 0]);
    assert_eq!(shard.registry.topics().count(), 0);
}

/// A topic that a hook decides on is not for the asking, but one with the user in its name is.
#[test]
fn topics_of_a_subscribe_hook_are_left_out_of_connect() {
    let mut shard = hooked();
    shard.topics.default.allow_subscribe_for_client = true;
    shard.topics.default.allow_user_limited_topics = true;
    let client = shard.open();
    let lines = shard.say(client, r#"{"id":1,"connect":{"subs":{"news":{},"chat#42":{},"chat#43":{}}}}"#);
    assert!(lines[0].starts_with("hook 1: connect "), "{lines:?}");
    assert_eq!(shard.hooked(client, 1, known("42")), ["register 42"]);
    assert_eq!(shard.registered(client, Ok(())), ["chat#42: subscribe 42"]);
}

#[test]
fn a_question_says_who_asks_and_how() {
    let mut shard = hooked();
    let rules = KeptRules {
        headers: ["cookie".into()].into(),
        emulated: ["x-user".into()].into(),
        bytes_max: 100,
        outlasts_connect: true,
        ..KeptRules::default()
    };
    shard.settings.hooks.kept = rules.clone();
    let mode = TransportMode { wire: Wire::CentrifugeProtobuf, pings: Pings::Messages };
    for outlasts_connect in [true, false] {
        shard.settings.hooks.kept.outlasts_connect = outlasts_connect;
        let client = shard.open_as(mode);
        let kept = Kept::new(&rules, |_| Some("sid=1".to_owned())).expect("it is short");
        let effects = shard.effects(client, |session, context| {
            session.keep(kept);
            let headers = vec![("X-User".to_owned(), "42".to_owned()), ("other".to_owned(), "1".to_owned())];
            let extras = Some(Box::new(ConnectExtras { headers, ..ConnectExtras::default() }));
            let connect = Ask::Connect(Connect { extras, ..Connect::default() });
            session.request(context, Request { id: 1, ask: connect });
        });
        let [Effect::Hook(question)] = &effects[..] else { panic!("{effects:?}") };
        assert!(matches!(question.event, HookEvent::Connect { .. }));
        assert_eq!((question.slot, question.client), (HOOK, shard.session(client).client()));
        assert_eq!(question.wire, Some(Wire::CentrifugeProtobuf));
        let kept = question.kept.as_ref().expect("the hook is sent headers");
        assert_eq!(kept.headers(&rules).collect::<Vec<_>>(), [("cookie", "sid=1")]);
        assert_eq!(kept.emulated(&rules).collect::<Vec<_>>(), [("x-user", "42")]);

        shard.hooked(client, 1, known("42"));
        shard.registered(client, Ok(()));
        let send = || Request { id: 0, ask: Ask::Send { method: None, data: "1".into() } };
        let effects = shard.effects(client, |session, context| session.request(context, send()));
        let [Effect::Hook(question)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(question.kept.is_some(), outlasts_connect);
    }
}

#[test]
fn metadata_of_a_token_is_kept_for_later_hooks_within_the_bound() {
    let mut shard = hooked();
    for (outlasts_connect, has_meta) in [(true, true), (false, true), (true, false)] {
        let headers = ["cookie".into()].into();
        shard.settings.hooks.kept =
            KeptRules { headers, outlasts_connect, has_meta, bytes_max: 20, ..KeptRules::default() };
        let rules = shard.settings.hooks.kept.clone();
        for (token, meta) in
            [("short", r#"{"a":1}"#), ("other", r#"{"b":2}"#), ("long", r#"{"key":"12345678"}"#)]
        {
            let extras = Some(ClaimExtras { meta: meta.into(), print: None }.into());
            shard.tokens.add_connection(token, ConnectionClaims { extras, ..user("42") });
        }
        let client = shard.open();
        let kept = Kept::new(&rules, |_| Some("sid=1".to_owned())).expect("it is short");
        let _ = shard.effects(client, |session, _| session.keep(kept));
        shard.check(client, r#"{"id":1,"connect":{"token":"short"}}"#, &["register 42"]);
        shard.registered(client, Ok(()));
        let sent = |shard: &mut TestShard| {
            let send = Request { id: 0, ask: Ask::Send { method: None, data: "1".into() } };
            let effects = shard.effects(client, |session, context| session.request(context, send));
            let [Effect::Hook(question)] = &effects[..] else { panic!("{effects:?}") };
            let kept = question.kept.as_deref().cloned().unwrap_or_default();
            let number = question.number;
            shard.hooked(client, number, Ok(HookResult::Sent));
            (kept.headers(&rules).count(), kept.meta().clone())
        };
        let headers = usize::from(outlasts_connect);
        let meta = |text: &'static str| if has_meta { text } else { "" };
        assert_eq!(sent(&mut shard), (headers, meta(r#"{"a":1}"#).into()));
        // A token without metadata leaves what the one before had.
        for (token, kept) in [("42", r#"{"a":1}"#), ("other", r#"{"b":2}"#)] {
            let refresh = format!(r#"{{"id":2,"refresh":{{"token":"{token}"}}}}"#);
            shard.check(client, &refresh, &[r#"{"id":2,"refresh":{}}"#]);
            assert_eq!(sent(&mut shard), (headers, meta(kept).into()));
        }
        let why = "close 3500 invalid token: meta is longer than client.hooks.kept_bytes_max leaves room for";
        let is_long = has_meta && outlasts_connect;
        let lines = shard.say(client, r#"{"id":3,"refresh":{"token":"long"}}"#);
        assert_eq!(lines.last().is_some_and(|line| line == why), is_long, "{lines:?}");
        let client = shard.open();
        let kept = Kept::new(&rules, |_| Some("sid=1".to_owned())).expect("it is short");
        let _ = shard.effects(client, |session, _| session.keep(kept));
        let lines = shard.say(client, r#"{"id":1,"connect":{"token":"long"}}"#);
        assert_eq!(lines, [if is_long { why } else { "register 42" }]);
    }
}

#[test]
fn headers_of_a_client_have_a_bound() {
    let mut shard = hooked();
    let emulated = ["x-user".into()].into();
    shard.settings.hooks.kept = KeptRules { emulated, bytes_max: 3, ..KeptRules::default() };
    for (token, value, is_over) in [("", "123", false), ("", "1234", true), ("42", "1234", true)] {
        let client = shard.open_as(MESSAGES);
        let connect =
            format!(r#"{{"id":1,"connect":{{"token":"{token}","headers":{{"X-User":"{value}"}}}}}}"#);
        let lines = shard.say(client, &connect);
        assert_eq!(shard.session(client).is_over(), is_over, "{lines:?}");
        if is_over {
            let why =
                "close 3501 bad request: headers are longer than client.hooks.kept_bytes_max; send fewer";
            assert_eq!(lines, [why]);
        }
    }
}

/// A connection that begins with several requests: each may have a hook, and the next is given after its answer.
#[test]
fn a_beginning_waits_for_each_of_its_hooks() {
    let mut shard = hooked();
    shard.topics = fanwire_hub::Namespaces::new(
        fanwire_hub::NameRules::default(),
        shard.topics.default.clone(),
        [Namespace { name: "open".into(), allow_subscribe_for_client: true, ..Namespace::default() }],
    );
    let connect = r#"{"id":1,"connect":{}}"#;
    let [news, open, more] = ["news", "open:a", "more"].map(subscribe);
    let client = shard.open();
    assert_eq!(shard.prepare(client, connect), ["hook 1: connect by nobody"]);
    assert!(shard.session(client).is_preparing());
    assert_eq!(shard.begin(client), [""; 0], "a hook is yet to decide");
    assert_eq!(shard.hooked(client, 1, known("42")), [""; 0]);
    assert!(!shard.session(client).is_preparing());
    assert_eq!(shard.prepare(client, &news), ["hook 2: subscribe news by 42"]);
    assert_eq!(shard.hooked(client, 2, granted()), [""; 0]);
    assert_eq!(shard.prepare(client, &open), [""; 0]);
    assert_eq!(shard.prepare(client, &more), ["hook 3: subscribe more by 42"]);
    assert_eq!(shard.hooked(client, 3, granted()), [""; 0]);
    assert_eq!(shard.begin(client), ["register 42"]);
    let lines = shard.registered(client, Ok(()));
    assert!(lines[0].starts_with("open "), "{lines:?}");
    assert_eq!(lines[1..], ["news: subscribe 42", "open:a: subscribe 42", "more: subscribe 42"]);
}

#[test]
fn a_beginning_that_a_hook_refuses_begins_nothing() {
    for (answer, expected) in
        [(refused(), refusal(2)), (failed(), failure(2)), (sent_away(), "close 4001 go".to_owned())]
    {
        let mut shard = hooked();
        let client = shard.open();
        shard.prepare(client, r#"{"id":1,"connect":{"token":"42"}}"#);
        assert_eq!(shard.prepare(client, &subscribe("news")), ["hook 1: subscribe news by 42"]);
        assert_eq!(shard.hooked(client, 1, answer), [expected]);
        assert!(shard.session(client).is_over() && !shard.session(client).is_preparing());
        assert_eq!(shard.begin(client), [""; 0]);
    }
    let mut shard = hooked();
    let client = shard.open();
    shard.prepare(client, r#"{"id":1,"connect":{}}"#);
    assert_eq!(shard.hooked(client, 1, refused()), [refusal(1)]);
    assert_eq!((shard.session(client).is_over(), shard.begin(client)), (true, Vec::new()));
}

fn subscribe(topic: &str) -> String {
    format!(r#"{{"id":2,"subscribe":{{"channel":"{topic}"}}}}"#)
}
