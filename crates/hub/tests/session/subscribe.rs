//! The subscribe command: every refusal, and which one wins when two apply.

use fanwire_hub::effect::SubscriptionStart;
use fanwire_hub::{ConnectionClaims, Expiry, GrantOptions, Namespace, PublicationFormat, SubscriptionClaims};
use fanwire_protocol::reason::RequestError;
use regex::Regex;

use super::harness::Outcome::{self, Asks, Close, Error};
use super::harness::tokens::{to, user};
use super::harness::{START, TestShard};

/// Open topics, and the namespaces `closed` (nobody may subscribe) and `lower` (lower-case names).
fn shard() -> TestShard {
    let open = Namespace { allow_subscribe_for_client: true, ..Namespace::default() };
    let closed = Namespace { name: "closed".into(), ..Namespace::default() };
    let lower = Namespace {
        name: "lower".into(),
        topic_regex: Some(Regex::new("^[a-zä]+$").expect("the expression is well formed")),
        ..open.clone()
    };
    let tagged = Namespace { name: "tagged".into(), allow_tags_filter: true, ..open.clone() };
    TestShard::new(open, [closed, lower, tagged])
}

/// Checks a subscribe command of user 42, who is subscribed to `there` and on the way to `soon`.
#[track_caller]
fn check(request: &str, expected: Outcome) {
    let mut shard = shard();
    let client = prepared(&mut shard);
    assert_eq!(shard.outcome(client, &format!(r#""subscribe":{{{request}}}"#)), expected, "{request}");
}

fn prepared(shard: &mut TestShard) -> u32 {
    let expiry = Expiry::At(START);
    shard.tokens.add_subscription("closed:x", to("closed:x"));
    shard.tokens.add_subscription("soon", to("soon"));
    shard
        .tokens
        .add_subscription("over for 43", SubscriptionClaims { user: "43".into(), expiry, ..to("news") });
    let client = shard.connect("42");
    shard.subscribe(client, "there");
    shard.check(client, r#"{"id":3,"subscribe":{"channel":"soon"}}"#, &["soon: subscribe 42"]);
    client
}

#[test]
fn each_check_refuses() {
    let long = |length| format!(r#""channel":"{}""#, "n".repeat(length));
    // 1 and 3: mistakes.
    check(r#""channel":"""#, Close(3501));
    check(r#""channel":"news","delta":"xdelta""#, Close(3501));
    // 4: length.
    check(&long(255), Asks);
    check(&long(256), Error(107));
    // 5: there already, or on the way.
    check(r#""channel":"there""#, Error(105));
    check(r#""channel":"soon""#, Error(105));
    // 7 and 8: the name.
    check(r#""channel":"nowhere:news""#, Error(102));
    check(r#""channel":"neuigkeiten-für-alle""#, Error(107));
    check(r#""channel":"lower:ABC""#, Error(107));
    check(r#""channel":"lower:spät""#, Asks);
    // 2 and 9: only streams are served.
    for kind in [1, 2, 3, 4, -1, 99] {
        check(&format!(r#""channel":"news","type":{kind}"#), Error(103));
    }
    // 10: private topics.
    check(r#""channel":"$news""#, Error(103));
    check(r#""channel":"$news","token":"$news""#, Asks);
    // 11: tokens.
    check(r#""channel":"news","token":"expired""#, Error(109));
    check(r#""channel":"news","token":"invalid""#, Error(103));
    check(r#""channel":"news","token":"unavailable""#, Error(100));
    check(r#""channel":"news","token":"other""#, Close(3500));
    check(r#""channel":"news","token":"$news""#, Close(3500));
    check(r#""channel":"news","token":"news for 43""#, Close(3500));
    check(r#""channel":"news","token":"news for nobody""#, Close(3500));
    check(r#""channel":"news","token":"news for client-2""#, Close(3500));
    check(r#""channel":"news","token":"news for client-1""#, Asks);
    check(r#""channel":"news","token":"news""#, Asks);
    check(r#""channel":"closed:x","token":"closed:x""#, Asks);
    // 17: nothing allows it.
    check(r#""channel":"closed:x""#, Error(103));
    // 18: filters, where they are off and where they are on.
    let good = r#""tf":{"key":"k","cmp":"eq","val":"v"}"#;
    check(&format!(r#""channel":"news",{good}"#), Error(107));
    check(&format!(r#""channel":"tagged:news",{good}"#), Asks);
    check(r#""channel":"tagged:news","tf":{}"#, Error(107));
    // 19: what was granted is over.
    check(r#""channel":"news","token":"news is over""#, Error(110));
    // None of them.
    check(r#""channel":"news""#, Asks);
}

#[test]
fn the_earlier_check_wins() {
    let long = format!("nowhere:{}", "n".repeat(250));
    for (request, expected) in [
        (format!(r#""channel":"{long}","delta":"xdelta""#), Close(3501)),
        (r#""channel":"there","delta":"xdelta""#.into(), Close(3501)),
        (r#""channel":"soon","delta":"xdelta""#.into(), Close(3501)),
        (format!(r#""channel":"{long}""#), Error(107)),
        (format!(r#""channel":"{long}","token":"expired""#), Error(107)),
        (r#""channel":"there","type":1"#.into(), Error(105)),
        (r#""channel":"soon","token":"expired""#.into(), Error(105)),
        (r#""channel":"there","token":"other""#.into(), Error(105)),
        (r#""channel":"nowhere:ü""#.into(), Error(102)),
        (r#""channel":"nowhere:x","token":"other""#.into(), Error(102)),
        (r#""channel":"ü","type":1"#.into(), Error(107)),
        (r#""channel":"ü","token":"other""#.into(), Error(107)),
        (r#""channel":"news","type":1,"token":"expired""#.into(), Error(103)),
        (r#""channel":"news","type":1,"token":"other""#.into(), Error(103)),
        (r#""channel":"$news","tf":{}"#.into(), Error(103)),
        (r#""channel":"news","token":"expired","tf":{}"#.into(), Error(109)),
        (r#""channel":"news","token":"other","tf":{}"#.into(), Close(3500)),
        (r#""channel":"news","token":"over for 43""#.into(), Close(3500)),
        (r#""channel":"closed:x","tf":{}"#.into(), Error(103)),
        (r#""channel":"news","token":"news is over","tf":{}"#.into(), Error(107)),
    ] {
        check(&request, expected);
    }
}

#[test]
fn subscriptions_are_bounded_those_on_their_way_included() {
    for (request, expected) in [
        (r#""channel":"there""#, Error(105)),
        (r#""channel":"soon""#, Error(105)),
        (r#""channel":"news""#, Error(106)),
        (r#""channel":"nowhere:x""#, Error(106)),
        (r#""channel":"news","token":"other""#, Error(106)),
    ] {
        let mut shard = shard();
        shard.settings.subscriptions_max = 2;
        let client = prepared(&mut shard);
        let command = format!(r#""subscribe":{{{request}}}"#);
        assert_eq!(shard.outcome(client, &command), expected, "{request}");
    }
    // A refused one makes room again.
    let mut shard = shard();
    shard.settings.subscriptions_max = 2;
    let client = prepared(&mut shard);
    assert_eq!(
        shard.subscribed(client, "soon", Err(RequestError::Internal)),
        [r#"{"id":3,"error":{"code":100,"message":"internal server error","temporary":true}}"#]
    );
    assert_eq!(shard.outcome(client, r#""subscribe":{"channel":"news"}"#), Asks);
}

#[test]
fn a_subscription_of_the_server_counts_as_one() {
    let mut shard = shard();
    let claims = ConnectionClaims { topics: vec![super::harness::tokens::grant("news")], ..user("42") };
    shard.tokens.add_connection("42 in news", claims);
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{"token":"42 in news"}}"#, &["register 42"]);
    assert_eq!(shard.registered(client, Ok(())), ["news: subscribe 42"]);
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()).len(), 1);
    assert_eq!(shard.outcome(client, r#""subscribe":{"channel":"news"}"#), Error(105));
}

#[test]
fn delta_is_answered_without() {
    let mut shard = shard();
    let client = shard.connect("42");
    let command = r#"{"id":2,"subscribe":{"channel":"news","delta":"fossil","flag":1}}"#;
    shard.check(client, command, &["news: subscribe 42"]);
    assert_eq!(shard.started(client, "news", SubscriptionStart::default()), [r#"{"id":2,"subscribe":{}}"#]);
}

#[test]
fn a_token_says_what_the_client_and_others_are_told() {
    let mut shard = shard();
    let options = GrantOptions {
        info: r#"{"seat":7}"#.into(),
        data: r#"{"hello":1}"#.into(),
        ..GrantOptions::default()
    };
    let claims = SubscriptionClaims { expiry: Expiry::At(START + 60), options, ..to("news") };
    shard.tokens.add_subscription("all", claims);
    let client = shard.connect("42 with info");
    shard.check(
        client,
        r#"{"id":2,"subscribe":{"channel":"news","token":"all"}}"#,
        &[r#"news: subscribe 42 {"name":"Ada"} here {"seat":7}"#],
    );
    assert_eq!(
        shard.started(client, "news", SubscriptionStart::default()),
        [r#"{"id":2,"subscribe":{"expires":true,"ttl":60,"data":{"hello":1}}}"#]
    );
    // Its own publications speak of it in the same words, and so does its departure.
    shard.topics.default.allow_publish_for_client = true;
    shard.check(
        client,
        r#"{"id":3,"publish":{"channel":"news","data":1}}{"id":4,"publish":{"channel":"other","data":1}}"#,
        &[
            r#"news: publish #3 1 by 42 {"name":"Ada"} here {"seat":7}"#,
            r#"other: publish #4 1 by 42 {"name":"Ada"}"#,
        ],
    );
    assert_eq!(
        shard.end(client),
        [r#"news: unsubscribe 42 {"name":"Ada"} here {"seat":7}"#, "unregister 42"]
    );
}

#[test]
fn a_token_s_info_and_data_are_json_unless_the_namespace_says_otherwise() {
    for (info, data, field) in [(&b"\xff"[..], &b""[..], "info"), (b"", b"{", "data")] {
        let options = GrantOptions { info: info.into(), data: data.into(), ..GrantOptions::default() };
        let mut shard = shard();
        shard.tokens.add_subscription("unfit", SubscriptionClaims { options, ..to("news") });
        let client = shard.connect("42");
        let subscribe = r#"{"id":2,"subscribe":{"channel":"news","token":"unfit"}}"#;
        let why = r#"is not JSON in UTF-8; send JSON, or set publication_format to \"not_empty\""#;
        let refused = format!(r#"{{"id":2,"error":{{"code":107,"message":"bad request: {field} {why}"}}}}"#);
        shard.check(client, subscribe, &[&refused]);
        shard.topics.default.publication_format = PublicationFormat::NotEmpty;
        assert_eq!(shard.say(client, subscribe).len(), 1);
        assert!(
            shard.started(client, "news", SubscriptionStart::default())[0]
                .starts_with(r#"{"id":2,"subscribe":{"#)
        );
    }
}

#[test]
fn an_insecure_server_forgets_the_expiry_of_a_subscription() {
    let mut shard = shard();
    shard.settings.insecure = true;
    let client = shard.connect("42");
    for token in ["news for a minute", "news is over"] {
        let command = format!(r#"{{"id":2,"subscribe":{{"channel":"news","token":"{token}"}}}}"#);
        shard.check(client, &command, &["news: subscribe 42"]);
        assert_eq!(
            shard.started(client, "news", SubscriptionStart::default()),
            [r#"{"id":2,"subscribe":{}}"#]
        );
        shard.check(
            client,
            r#"{"id":3,"unsubscribe":{"channel":"news"}}"#,
            &["news: unsubscribe 42", r#"{"id":3,"unsubscribe":{}}"#],
        );
    }
}

#[test]
fn the_owner_may_refuse() {
    for (error, text) in [
        (RequestError::Internal, r#""code":100,"message":"internal server error","temporary":true"#),
        (RequestError::UnrecoverablePosition, r#""code":112,"message":"unrecoverable position""#),
    ] {
        let mut shard = shard();
        let client = shard.connect("42");
        shard.check(client, r#"{"id":2,"subscribe":{"channel":"news"}}"#, &["news: subscribe 42"]);
        let lines = shard.subscribed(client, "news", Err(error));
        assert_eq!(lines, [format!(r#"{{"id":2,"error":{{{text}}}}}"#)]);
        assert_eq!(shard.registry.subscriptions_count(), 0);
        // It may try again, and there is nothing to give back when it goes.
        shard.check(client, r#"{"id":3,"subscribe":{"channel":"news"}}"#, &["news: subscribe 42"]);
        assert_eq!(shard.end(client), ["unregister 42"]);
    }
}
