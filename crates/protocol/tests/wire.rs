//! Requests, replies and pushes on every wire: from words to bytes and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_protocol::filter::FilterError;
use fanwire_protocol::reason::{Close, CloseReason, Mistake, Refused, RequestError, Unserved, Unsubscribed};
use fanwire_protocol::reply::{Connected, Outcome, Push, Reply, SessionNames, Subscribed};
use fanwire_protocol::request::{
    Ask, Connect, ConnectExtras, History, Publish, Request, StreamPosition, SubRefresh, Subscribe,
    SubscribeExtras,
};
use fanwire_protocol::wire::{ClientMessage, Form, Framing, Pings, Wire};
use fanwire_protocol::{ClientId, ClientInfo, Epoch, Position, Publication, TopicName};

fn news() -> TopicName {
    TopicName::new("news").expect("the name is not empty")
}

fn client() -> ClientId {
    ClientId::parse("00000000-0000-0000-0000-000000000007").expect("it is a UUID")
}

fn info() -> Arc<ClientInfo> {
    let (connection, subscription) = (Bytes::new(), Bytes::new());
    Arc::new(ClientInfo { user: "42".into(), client: client(), connection, subscription })
}

fn position(offset: u64) -> Position {
    Position { epoch: Epoch::parse(b"abcdefgh").expect("eight letters"), offset }
}

fn publication(offset: u64) -> Arc<Publication> {
    Arc::new(Publication { data: Bytes::from_static(b"1"), offset, ..Publication::default() })
}

/// The one request in a JSON message.
#[track_caller]
fn check(json: &str, id: u32, ask: Ask) {
    let mut requests = Wire::CentrifugeJson.requests(ClientMessage::Text(json), 0);
    assert_eq!(requests.next(), Some(Ok(Request { id, ask })), "{json}");
    assert_eq!(requests.taken(), json.len());
    assert_eq!(requests.next(), None);
}

#[test]
fn commands_are_requests() {
    check("{}", 0, Ask::Pong);
    check(r#"{"id":1,"ping":{}}"#, 1, Ask::Ping);
    check(r#"{"id":1,"unsubscribe":{"channel":"a"}}"#, 1, Ask::Unsubscribe { topic: "a".into() });
    check(r#"{"id":1,"presence":{"channel":"a"}}"#, 1, Ask::Presence { topic: "a".into() });
    check(r#"{"id":1,"presence_stats":{"channel":"a"}}"#, 1, Ask::PresenceStats { topic: "a".into() });
    check(r#"{"id":1,"refresh":{"token":"t"}}"#, 1, Ask::Refresh { token: "t".into() });
    check(
        r#"{"id":1,"rpc":{"method":"m","data":[]}}"#,
        1,
        Ask::Call { method: "m".into(), data: "[]".into() },
    );
    for id in [0, 1] {
        check(
            &format!(r#"{{"id":{id},"send":{{"data":1}}}}"#),
            id,
            Ask::Send { method: None, data: "1".into() },
        );
    }
}

#[test]
fn commands_that_cannot_be_are_mistakes() {
    check(r#"{"id":1}"#, 1, Ask::Wrong(Mistake::NoRequest));
    for request in ["connect", "ping", "subscribe", "publish", "refresh"] {
        check(&format!(r#"{{"{request}":{{}}}}"#), 0, Ask::Wrong(Mistake::NoId));
    }
}

#[test]
fn connects() {
    let topic = |name: &str, since| (name.to_owned(), since);
    let since = Some(StreamPosition { offset: 5, epoch: "e".into() });
    let subs = r#"{"a":{"recover":true,"offset":5,"epoch":"e"}}"#;
    let expected = Connect { token: "t".into(), topics: vec![topic("a", since)], ..Connect::default() };
    check(&format!(r#"{{"id":1,"connect":{{"token":"t","subs":{subs}}}}}"#), 1, Ask::Connect(expected));
    let expected = Connect { topics: vec![topic("a", None)], ..Connect::default() };
    check(r#"{"id":1,"connect":{"subs":{"a":{"offset":5}}}}"#, 1, Ask::Connect(expected));
    let expected = Connect {
        name: "js".into(),
        extras: Some(Box::new(ConnectExtras {
            data: r#"{"a": 1}"#.into(),
            version: "v".into(),
            headers: vec![("h".into(), "x".into())],
            ..ConnectExtras::default()
        })),
        ..Connect::default()
    };
    let about = r#""data":{"a": 1},"name":"js","version":"v","headers":{"h":"x"}"#;
    check(&format!(r#"{{"id":1,"connect":{{{about}}}}}"#), 1, Ask::Connect(expected));
}

#[test]
fn subscribes() {
    let plain = || Subscribe { topic: "a".into(), ..Subscribe::default() };
    let check = |fields: &str, expected| {
        let json = format!(r#"{{"id":2,"subscribe":{{"channel":"a"{fields}}}}}"#);
        check(&json, 2, Ask::Subscribe(expected));
    };
    let with = |extras| Subscribe { extras: Some(Box::new(extras)), ..plain() };
    let no_filter = || SubscribeExtras { filter: Some(Err(FilterError::Comparison)), ..Default::default() };
    check("", plain());
    check(r#","token":"t","delta":"fossil""#, Subscribe { token: "t".into(), ..plain() });
    check(r#","data":[1]"#, with(SubscribeExtras { data: "[1]".into(), ..Default::default() }));
    check(
        r#","positioned":true,"recoverable":true,"join_leave":true,"flag":3"#,
        Subscribe { positioned: true, recoverable: true, join_leave: true, or_refuse: true, ..plain() },
    );
    check(
        r#","recover":true,"epoch":"e","offset":5"#,
        with(SubscribeExtras {
            since: Some(StreamPosition { offset: 5, epoch: "e".into() }),
            ..Default::default()
        }),
    );
    // The first in the order of the protocol's checks.
    for (fields, unserved) in
        [(r#","delta":"other","type":1,"tf":{}"#, Unserved::Delta), (r#","type":1,"tf":{}"#, Unserved::Kind)]
    {
        check(fields, Subscribe { unserved: Some(unserved), ..with(no_filter()) });
    }
    check(r#","tf":{}"#, with(no_filter()));
}

#[test]
fn publishes_and_refreshes() {
    for (kind, is_unserved) in [(0, false), (1, true)] {
        check(
            &format!(r#"{{"id":3,"publish":{{"channel":"a","data":{{"x": 1}},"type":{kind}}}}}"#),
            3,
            Ask::Publish(Publish { topic: "a".into(), data: r#"{"x": 1}"#.into(), tags: None, is_unserved }),
        );
        check(
            &format!(r#"{{"id":3,"sub_refresh":{{"channel":"a","token":"t","type":{kind}}}}}"#),
            3,
            Ask::SubRefresh(SubRefresh { topic: "a".into(), token: "t".into(), is_unserved }),
        );
    }
}

#[test]
fn histories() {
    for (limit, expected) in [(0, Some(0)), (7, Some(7)), (-1, None)] {
        let json = format!(r#"{{"id":4,"history":{{"channel":"a","limit":{limit}}}}}"#);
        let history = History { topic: "a".into(), limit: expected, ..History::default() };
        check(&json, 4, Ask::History(history));
    }
    let json = r#"{"id":4,"history":{"channel":"a","since":{},"reverse":true}}"#;
    let since = Some(StreamPosition::default());
    check(json, 4, Ask::History(History { topic: "a".into(), limit: Some(0), since, reverse: true }));
}

/// The payload of a short text frame.
fn text(form: Form) -> String {
    let Form::Bytes(frame) = form else { panic!("{form:?} are no bytes") };
    assert_eq!(frame[0], 0x81);
    let begin = if frame[1] < 126 { 2 } else { 4 };
    String::from_utf8(frame[begin..].to_vec()).expect("JSON is UTF-8")
}

fn json(result: impl Into<Outcome>) -> String {
    text(Wire::CentrifugeJson.reply(&Reply { id: 2, result: Ok(result.into()) }))
}

#[test]
fn replies() {
    for (outcome, expected) in [
        (Outcome::Published, r#"{"id":2,"publish":{}}"#),
        (Outcome::Unsubscribed, r#"{"id":2,"unsubscribe":{}}"#),
        (Outcome::Called(Bytes::new()), r#"{"id":2,"rpc":{}}"#),
        (Outcome::Refreshed { ttl: Some(5) }, r#"{"id":2,"refresh":{"expires":true,"ttl":5}}"#),
        (Outcome::Refreshed { ttl: None }, r#"{"id":2,"refresh":{}}"#),
        (Outcome::SubRefreshed { ttl: Some(5) }, r#"{"id":2,"sub_refresh":{"expires":true,"ttl":5}}"#),
        (
            Outcome::PresenceStats { clients: 3, users: 2 },
            r#"{"id":2,"presence_stats":{"num_clients":3,"num_users":2}}"#,
        ),
        (
            Outcome::Presence(vec![info()]),
            r#"{"id":2,"presence":{"presence":{"00000000-0000-0000-0000-000000000007":{"user":"42","client":"00000000-0000-0000-0000-000000000007"}}}}"#,
        ),
        (
            Outcome::History { top: position(9), publications: vec![publication(9)], shows_time: false },
            r#"{"id":2,"history":{"publications":[{"data":1,"offset":9}],"epoch":"abcdefgh","offset":9}}"#,
        ),
    ] {
        assert_eq!(json(outcome), expected);
    }
}

#[test]
fn refusals() {
    let json = |refused| text(Wire::CentrifugeJson.reply(&Reply { id: 2, result: Err(refused) }));
    assert_eq!(
        json(Refused::by_application(1000, "the room is full".into(), false)),
        r#"{"id":2,"error":{"code":1000,"message":"the room is full"}}"#
    );
    assert_eq!(
        json(Refused::by_application(1001, String::new(), true)),
        r#"{"id":2,"error":{"code":1001,"message":"","temporary":true}}"#
    );
    assert_eq!(
        json(RequestError::Internal.into()),
        r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    assert_eq!(
        json(Mistake::Data("is empty; send data".into()).into()),
        r#"{"id":2,"error":{"code":107,"message":"bad request: data is empty; send data"}}"#
    );
}

#[test]
fn connect_results() {
    let connected = || Connected {
        client: client(),
        version: "1.0",
        ttl: None,
        data: Box::default(),
        ping_interval: None,
        pong: false,
        time_millis: None,
        topics: Vec::new(),
        session: None,
    };
    let json = |connected| json(Outcome::Connected(Box::new(connected)));
    let start = r#"{"id":2,"connect":{"client":"00000000-0000-0000-0000-000000000007","version":"1.0""#;
    assert_eq!(json(connected()), format!("{start}}}}}"));
    // A ping of 0 seconds would say that there are none.
    for (millis, seconds) in [(25_900, 25), (200, 1)] {
        let interval = Some(Duration::from_millis(millis));
        assert_eq!(
            json(Connected { ping_interval: interval, pong: true, ..connected() }),
            format!(r#"{start},"ping":{seconds},"pong":true}}}}"#)
        );
    }
    let topics =
        vec![(news(), Subscribed { positioned: true, top: Some(position(7)), ..Default::default() })];
    assert_eq!(
        json(Connected { ttl: Some(60), time_millis: Some(5), topics, ..connected() }),
        format!(
            r#"{start},"expires":true,"ttl":60,"subs":{{"news":{{"epoch":"abcdefgh","offset":7,"positioned":true}}}},"time":5}}}}"#
        )
    );
    let names = |node: Option<&str>| {
        Some(Box::new(SessionNames { session: "s".to_owned(), node: node.map(str::to_owned) }))
    };
    assert_eq!(
        json(Connected { session: names(Some("n")), time_millis: Some(5), ..connected() }),
        format!(r#"{start},"session":"s","node":"n","time":5}}}}"#)
    );
    assert_eq!(
        json(Connected { data: (*br#"{"a":1}"#).into(), ..connected() }),
        format!(r#"{start},"data":{{"a":1}}}}}}"#)
    );
    assert_eq!(
        json(Connected { session: names(None), ..connected() }),
        format!(r#"{start},"session":"s"}}}}"#)
    );
}

#[test]
fn subscriptions() {
    let at = |offset| Subscribed { positioned: true, top: Some(position(offset)), ..Subscribed::default() };
    let json = |subscribed| json(Outcome::Subscribed(subscribed));
    assert_eq!(json(Subscribed::default()), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(
        json(Subscribed { ttl: Some(60), data: "[1]".into(), ..at(7) }),
        r#"{"id":2,"subscribe":{"expires":true,"ttl":60,"epoch":"abcdefgh","offset":7,"positioned":true,"data":[1]}}"#
    );
    // What was missed is above the offset.
    let recovered = Some(vec![publication(6), publication(7)]);
    assert_eq!(
        json(Subscribed { recoverable: true, was_recovering: true, recovered, ..at(7) }),
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","publications":[{"data":1,"offset":6},{"data":1,"offset":7}],"recovered":true,"offset":5,"positioned":true,"was_recovering":true}}"#
    );
    assert_eq!(
        json(Subscribed { recovered: Some(Vec::new()), was_recovering: true, ..at(7) }),
        r#"{"id":2,"subscribe":{"epoch":"abcdefgh","recovered":true,"offset":7,"positioned":true,"was_recovering":true}}"#
    );
    // A client that recovers nothing gets the newest of some topics all the same.
    assert_eq!(
        json(Subscribed { recovered: Some(vec![publication(0)]), ..Subscribed::default() }),
        r#"{"id":2,"subscribe":{"publications":[{"data":1}]}}"#
    );
}

fn pushes() -> [(Push, &'static str); 7] {
    let topic = news();
    [
        (
            Push::Publication {
                topic: topic.clone(),
                publication: publication(1),
                epoch: Some(position(1).epoch),
                shows_time: false,
            },
            r#"{"push":{"channel":"news","pub":{"data":1,"offset":1,"epoch":"abcdefgh"}}}"#,
        ),
        (
            Push::Join { topic: topic.clone(), info: info() },
            r#"{"push":{"channel":"news","join":{"info":{"user":"42","client":"00000000-0000-0000-0000-000000000007"}}}}"#,
        ),
        (
            Push::Leave { topic: topic.clone(), info: info() },
            r#"{"push":{"channel":"news","leave":{"info":{"user":"42","client":"00000000-0000-0000-0000-000000000007"}}}}"#,
        ),
        (
            Push::Subscribed {
                topic: topic.clone(),
                subscription: Subscribed {
                    recoverable: true,
                    positioned: true,
                    top: Some(position(7)),
                    recovered: Some(vec![publication(6)]),
                    data: "[]".into(),
                    ..Subscribed::default()
                },
            },
            r#"{"push":{"channel":"news","subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":5,"positioned":true,"data":[]}}}"#,
        ),
        (
            Push::Unsubscribed { topic: topic.clone(), reason: Unsubscribed::InsufficientState },
            r#"{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        ),
        (
            Push::Unsubscribed { topic, reason: Unsubscribed::ByServer },
            r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#,
        ),
        (Push::Refreshed { ttl: Some(60) }, r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#),
    ]
}

#[test]
fn pushes_have_a_form_on_both_encodings() {
    for (push, expected) in pushes() {
        assert_eq!(text(Wire::CentrifugeJson.push(&push)), expected);
        let Form::Bytes(frame) = Wire::CentrifugeProtobuf.push(&push) else { panic!("{push:?}") };
        assert_eq!(frame[0], 0x82);
        // A length, then a message whose only field is the push.
        let message = usize::from(frame[1]);
        assert_eq!((frame.len(), usize::from(frame[2]), frame[3]), (message + 2, message - 1, 0x22));
    }
}

#[test]
fn server_sent_events_have_a_form_for_publications_alone() {
    let event = "id: Ad5bO5MmZTqgultJ5drtU73tiwE\ndata: {\"topic\":\"news\",\"data\":1,\"offset\":1}\n\n";
    let expected = [
        Form::Bytes(event.into()),
        Form::Nothing,
        Form::Nothing,
        Form::Nothing,
        Form::Close(CloseReason::ForceReconnect),
        Form::Close(CloseReason::ForceDisconnect),
        Form::Nothing,
    ];
    assert_eq!(pushes().map(|(push, _)| Wire::Events.push(&push)), expected);
    let reply = |result| Wire::Events.reply(&Reply { id: 2, result });
    assert_eq!(reply(Ok(Outcome::Subscribed(Subscribed::default()))), Form::Nothing);
    assert_eq!(reply(Err(RequestError::PermissionDenied.into())), Form::Nothing);
}

#[test]
fn pings_and_goodbyes() {
    for (wire, pings, expected) in [
        (Wire::CentrifugeJson, Pings::Messages, &b"\x81\x02{}"[..]),
        (Wire::CentrifugeProtobuf, Pings::Messages, b"\x82\x01\x00"),
        (Wire::CentrifugeJson, Pings::Frames, b"\x89\x00"),
        (Wire::CentrifugeProtobuf, Pings::Frames, b"\x89\x00"),
        (Wire::Events, Pings::Keepalive, b":\n\n"),
    ] {
        assert_eq!(wire.ping(pings), expected);
    }
    let close = Close::from(CloseReason::Shutdown);
    for wire in [Wire::CentrifugeJson, Wire::CentrifugeProtobuf, Wire::Echo] {
        assert_eq!(wire.goodbye(&close), &b"\x88\x0a\x0b\xb9shutdown"[..]);
    }
    let event = "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}\n\n";
    assert_eq!(Wire::Events.goodbye(&close), event);
}

#[test]
fn every_wire_says_what_it_reads() {
    let (emulated, one_way) = ((true, false), (false, true));
    for (wire, framing, connects, (is_emulated, is_one_way)) in [
        (Wire::CentrifugeJson, Framing::WebSocket, true, (false, false)),
        (Wire::CentrifugeProtobuf, Framing::WebSocket, true, (false, false)),
        (Wire::CentrifugeLines, Framing::Ignored, true, emulated),
        (Wire::CentrifugeStream, Framing::Ignored, true, emulated),
        (Wire::CentrifugeEvents, Framing::Ignored, true, emulated),
        (Wire::UniWebSocket, Framing::WebSocket, true, one_way),
        (Wire::UniLines, Framing::Ignored, true, one_way),
        (Wire::UniEvents, Framing::Ignored, true, one_way),
        (Wire::Events, Framing::Ignored, true, (false, false)),
        (Wire::Poll, Framing::Ignored, true, (false, false)),
        (Wire::Bare, Framing::WebSocket, true, (false, false)),
        (Wire::BareJson, Framing::WebSocket, true, (false, false)),
        (Wire::Echo, Framing::WebSocket, false, (false, false)),
    ] {
        assert_eq!((wire.framing(), wire.connects()), (framing, connects), "{wire:?}");
        assert_eq!((wire.is_emulated(), wire.is_one_way()), (is_emulated, is_one_way), "{wire:?}");
        let is_websocket = framing == Framing::WebSocket;
        assert_eq!((wire.reads(), wire.is_compressible()), (is_websocket, is_websocket), "{wire:?}");
    }
}

#[test]
fn text_and_binary_reach_the_wire_as_they_are() {
    let (text, binary) = (ClientMessage::Text("{}"), ClientMessage::Binary(b"{}"));
    for message in [text, binary] {
        let requests: Vec<_> = Wire::CentrifugeJson.requests(message, 0).collect();
        assert_eq!(requests, [Ok(Request { id: 0, ask: Ask::Pong })], "{message:?}");
        for wire in [Wire::Events, Wire::Echo] {
            assert_eq!(wire.requests(message, 0).next(), None);
        }
        for wire in [Wire::CentrifugeJson, Wire::CentrifugeProtobuf, Wire::Events] {
            assert_eq!(wire.answer(message, &[]), None);
        }
    }
    assert_eq!(Wire::Echo.answer(text, &[]).as_deref(), Some(&b"\x81\x02{}"[..]));
    assert_eq!(Wire::Echo.answer(binary, &[]).as_deref(), Some(&b"\x82\x02{}"[..]));
}

#[test]
fn requests_know_their_topic_and_their_size() {
    let request = |ask| Request { id: 1, ask };
    let publish = request(Ask::Publish(Publish {
        topic: "abc".into(),
        data: "12".into(),
        tags: None,
        is_unserved: false,
    }));
    assert_eq!((publish.topic(), publish.bytes()), (Some("abc"), 5));
    let history = request(Ask::History(History {
        topic: "abc".into(),
        since: Some(StreamPosition { offset: 1, epoch: "epoch".into() }),
        ..History::default()
    }));
    assert_eq!((history.topic(), history.bytes()), (Some("abc"), 8));
    let send = request(Ask::Send { method: None, data: "1234".into() });
    assert_eq!((send.topic(), send.bytes()), (None, 4));
    let connect = Connect {
        token: "1".into(),
        name: "123".into(),
        extras: Some(Box::new(ConnectExtras {
            data: "12".into(),
            version: "1234".into(),
            headers: vec![("12345".into(), "123456".into())],
            ..ConnectExtras::default()
        })),
        ..Connect::default()
    };
    assert_eq!(request(Ask::Connect(connect)).bytes(), 21);
    let extras = SubscribeExtras { data: "12".into(), ..Default::default() };
    let extras = Some(Box::new(extras));
    let subscribe = Subscribe { topic: "1".into(), extras, ..Subscribe::default() };
    assert_eq!(request(Ask::Subscribe(subscribe)).bytes(), 3);
    assert_eq!(request(Ask::Pong).bytes(), 0);
}
