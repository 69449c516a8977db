//! The connect command: who is let in, what the reply says, and how a refused client is seen off.

use std::time::Duration;

use bytes::Bytes;
use fanwire_hub::effect::Answer;
use fanwire_hub::{ConnectionClaims, Expiry, GrantOptions, Namespace, PublicationFormat, TopicGrant, Unfit};
use fanwire_protocol::EventMask;
use fanwire_protocol::reason::CloseReason;
use fanwire_protocol::websocket::REASON_BYTES_MAX;
use fanwire_protocol::wire::{Pings, TransportMode, Wire};

use super::harness::{Outcome, START, TestShard, tokens::user};

fn connect(token: &str) -> String {
    format!(r#""connect":{{"token":"{token}"}}"#)
}

#[test]
fn a_token_decides_who_is_let_in() {
    use Outcome::{Asks, Close, Error};
    for (token, expected) in [
        // To register a user is the only thing that has to be asked.
        ("42", Asks),
        ("expired", Error(109)),
        ("invalid", Close(3500)),
        ("unavailable", Error(100)),
        ("42 is over", Error(110)),
        ("", Close(3501)),
    ] {
        let mut shard = TestShard::default();
        let client = shard.open();
        assert_eq!(shard.outcome(client, &connect(token)), expected, "{token}");
    }
}

#[test]
fn who_has_no_token_is_told_what_to_set() {
    let mut shard = TestShard::default();
    let client = shard.open();
    let lines = shard.say(client, r#"{"id":1,"connect":{}}"#);
    assert_eq!(
        lines,
        ["close 3501 bad request: no token, and client.allow_anonymous_connect_without_token is off"]
    );
    assert!(lines[0].len() - "close 3501 ".len() <= REASON_BYTES_MAX);
}

#[test]
fn anonymous_clients_are_registered_for_their_events_alone() {
    let mut shard = TestShard::default();
    shard.settings.allow_anonymous_connect_without_token = true;
    shard.settings.events = EventMask::LEAVE;
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{}}"#, &["register "]);
    let open = r#"open {"id":1,"connect":{"client":"client-1","version":"test","ping":25,"pong":true}}"#;
    assert_eq!(shard.registered(client, Ok(())), [open]);
    assert_eq!(shard.end(client), ["unregister "]);
}

#[test]
fn anonymous_clients_are_let_in_where_a_setting_says_so() {
    let open = r#"open {"id":1,"connect":{"client":"client-1","version":"test","ping":25,"pong":true}}"#;
    let without_token = r#"{"id":1,"connect":{}}"#;
    let with_token = r#"{"id":1,"connect":{"token":"nobody"}}"#;

    let mut shard = TestShard::default();
    shard.settings.allow_anonymous_connect_without_token = true;
    let client = shard.open();
    shard.check(client, without_token, &[open]);
    assert_eq!(shard.end(client), [""; 0], "an anonymous client is no user's");

    let mut shard = TestShard::default();
    let client = shard.open();
    shard.check(client, with_token, &[open]);

    let mut shard = TestShard::default();
    shard.settings.disallow_anonymous_connection_tokens = true;
    let client = shard.open();
    shard.check(client, with_token, &["close 3507 permission denied"]);
    // Users with a name are let in.
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
}

#[test]
fn insecure_lets_everybody_in_but_looks_at_tokens() {
    use Outcome::{Close, Error};
    let insecure = || {
        let mut shard = TestShard::default();
        shard.settings.insecure = true;
        shard.settings.disallow_anonymous_connection_tokens = true;
        let client = shard.open();
        (shard, client)
    };
    for (token, expected) in [("expired", Error(109)), ("invalid", Close(3500))] {
        let (mut shard, client) = insecure();
        assert_eq!(shard.outcome(client, &connect(token)), expected, "{token}");
    }
    for token in ["", "nobody"] {
        let (mut shard, client) = insecure();
        assert!(shard.say(client, &format!(r#"{{"id":1,{}}}"#, connect(token)))[0].starts_with("open"));
    }
    for token in ["42 is over", "42 for a minute"] {
        // Its expiry is ignored.
        let (mut shard, client) = insecure();
        shard.check(client, &format!(r#"{{"id":1,{}}}"#, connect(token)), &["register 42"]);
        let open = shard.registered(client, Ok(()));
        assert_eq!(
            open,
            [r#"open {"id":1,"connect":{"client":"client-1","version":"test","ping":25,"pong":true}}"#]
        );
    }
}

#[test]
fn the_reply_says_what_the_client_has_to_know() {
    let reply = |manner: TransportMode, token: &str, set: fn(&mut TestShard)| {
        let mut shard = TestShard::default();
        set(&mut shard);
        let client = shard.open_as(manner);
        shard.check(client, &format!(r#"{{"id":1,{}}}"#, connect(token)), &["register 42"]);
        let lines = shard.registered(client, Ok(()));
        let text = lines[0].strip_prefix(r#"open {"id":1,"connect":{"client":"client-1","version":"test""#);
        text.and_then(|text| text.strip_suffix("}}")).expect("it begins with id and version").to_owned()
    };
    let messages = TransportMode { wire: Wire::CentrifugeProtobuf, pings: Pings::Messages };
    let frames = TransportMode { wire: Wire::CentrifugeJson, pings: Pings::Frames };
    let keepalive = TransportMode { wire: Wire::Events, pings: Pings::Keepalive };
    let unanswered = TransportMode { wire: Wire::UniLines, pings: Pings::Unanswered };

    assert_eq!(reply(messages, "42", |_| {}), r#","ping":25,"pong":true"#);
    assert_eq!(reply(messages, "42", |shard| shard.settings.pong_timeout = None), r#","ping":25"#);
    assert_eq!(reply(messages, "42", |shard| shard.settings.ping_interval = None), "");
    let short = |shard: &mut TestShard| shard.settings.ping_interval = Some(Duration::from_millis(300));
    assert_eq!(reply(messages, "42", short), r#","ping":1,"pong":true"#);
    assert_eq!(reply(unanswered, "42", |_| {}), r#","ping":25"#);
    // Whoever is pinged by other means is not told of pings.
    assert_eq!(reply(frames, "42", |_| {}), "");
    assert_eq!(reply(keepalive, "42", |_| {}), "");

    assert_eq!(reply(frames, "42 for a minute", |_| {}), r#","expires":true,"ttl":60"#);
    assert_eq!(reply(frames, "42 for two years", |_| {}), r#","expires":true,"ttl":31536000"#);
    let include_time = |shard: &mut TestShard| shard.settings.include_server_time = true;
    assert_eq!(reply(frames, "42", include_time), r#","time":1700000000000"#);
}

#[test]
fn a_user_with_too_many_connections_is_closed() {
    let mut shard = TestShard::default();
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    // It was not counted, so there is nothing to give back.
    let lines = shard.registered(client, Err(CloseReason::ConnectionLimit));
    assert_eq!(lines, ["close 3504 connection limit"]);
}

#[test]
fn connections_of_an_address_are_counted_first_and_without_a_user_too() {
    let mut shard = TestShard::default();
    shard.settings.address_connections_max = 1;
    for (token, then) in [("42", "register 42"), ("nobody", r#"open {"id":1,"connect":{"client":"#)] {
        let client = shard.open();
        let connect = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
        shard.check(client, &connect, &["register address"]);
        let lines = shard.answer(client, Answer::AddressRegistered(Ok(())));
        assert!(lines.len() == 1 && lines[0].starts_with(then), "{lines:?}");
        let client = shard.open();
        shard.check(client, &connect, &["register address"]);
        let lines = shard.answer(client, Answer::AddressRegistered(Err(CloseReason::ConnectionLimit)));
        assert_eq!(lines, ["close 3504 connection limit"]);
    }
}

#[test]
fn a_client_that_leaves_while_it_connects_gives_its_place_back() {
    let mut shard = TestShard::default();
    let client = shard.open();
    shard.check(client, r#"{"id":1,"connect":{"token":"42"}}"#, &["register 42"]);
    assert_eq!(shard.end(client), ["unregister 42"]);
    assert_eq!(shard.registered(client, Ok(())), [""; 0]);
}

#[test]
fn after_an_error_the_client_has_five_seconds_to_go() {
    let refused = || {
        let mut shard = TestShard::default();
        let client = shard.open();
        let frame = r#"{"id":1,"connect":{"token":"expired"}}{"id":2,"subscribe":{"channel":"news"}}"#;
        // What follows in the same frame is dropped.
        shard.check(client, frame, &[r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#]);
        assert!(shard.session(client).is_over());
        (shard, client)
    };
    for command in
        [r#"{"id":2,"subscribe":{"channel":"news"}}"#, r#"{"id":2,"connect":{"token":"42"}}"#, "{}"]
    {
        let (mut shard, client) = refused();
        shard.check(client, command, &["close 3501 bad request: connect was refused; open a new connection"]);
    }
    let (mut shard, client) = refused();
    let before = shard.now.millis;
    assert_eq!(shard.next(client), ["close 3502 stale"]);
    assert_eq!(shard.now.millis - before, 5000);
    let (mut shard, client) = refused();
    assert_eq!(shard.end(client), [""; 0]);
}

#[test]
fn a_token_that_ends_within_the_second_is_over() {
    let mut shard = TestShard::default();
    shard.tokens.add_connection("soon", ConnectionClaims { expiry: Expiry::At(START + 1), ..user("42") });
    shard.wait(Duration::from_millis(999));
    let client = shard.open();
    assert_eq!(shard.outcome(client, &connect("soon")), Outcome::Asks);
    assert!(shard.registered(client, Ok(()))[0].contains(r#""expires":true,"ttl":1,"#));
    shard.wait(Duration::from_millis(1));
    let client = shard.open();
    assert_eq!(shard.outcome(client, &connect("soon")), Outcome::Error(110));
}

#[test]
fn what_a_token_says_of_its_client_has_to_be_json_unless_a_setting_says_otherwise() {
    let deep = || Bytes::from("[".repeat(129) + &"]".repeat(129));
    let in_subs = |options| ConnectionClaims {
        topics: vec![TopicGrant { topic: "news".into(), options }],
        ..user("42")
    };
    let bytes = || Bytes::from_static(b"\xff");
    for (claims, field, why) in [
        (ConnectionClaims { info: bytes(), ..user("42") }, "info", Unfit::NotJson),
        (ConnectionClaims { info: deep(), ..user("42") }, "info", Unfit::TooDeep),
        (in_subs(GrantOptions { info: deep(), ..Default::default() }), "info in subs", Unfit::TooDeep),
        (in_subs(GrantOptions { data: deep(), ..Default::default() }), "data in subs", Unfit::TooDeep),
        (in_subs(GrantOptions { data: bytes(), ..Default::default() }), "data in subs", Unfit::NotJson),
    ] {
        let reason = format!("invalid token: {field} {why}");
        assert!(reason.len() <= REASON_BYTES_MAX, "{reason}");
        let mut shard = TestShard::default();
        shard.tokens.add_connection("unfit", claims.clone());
        let client = shard.open();
        shard.check(
            client,
            &format!(r#"{{"id":1,{}}}"#, connect("unfit")),
            &[&format!("close 3500 {reason}")],
        );

        for format in [PublicationFormat::NotEmpty, PublicationFormat::Binary] {
            let open = Namespace { publication_format: format, ..Namespace::default() };
            let mut shard = TestShard::new(open, []);
            shard.settings.info_format = format;
            shard.tokens.add_connection("unfit", claims.clone());
            let client = shard.open();
            shard.check(client, &format!(r#"{{"id":1,{}}}"#, connect("unfit")), &["register 42"]);
        }
    }
}
