//! Wires that share an encoding: every push on each of them to the byte, and made of one another as if encoded alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::reason::{Close, CloseReason, RequestError, Unsubscribed};
use fanwire_protocol::reply::{Connected, Outcome, Push, Reply, Subscribed};
use fanwire_protocol::request::{Ask, Connect, Request, StreamPosition};
use fanwire_protocol::wire::{ClientMessage, Form, Pings, Wire};
use fanwire_protocol::{ClientId, ClientInfo, Epoch, Position, Publication, TopicName};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("the name is not empty")
}

fn client() -> ClientId {
    ClientId::parse("00000000-0000-0000-0000-000000000007").expect("it is a UUID")
}

fn epoch() -> Epoch {
    Epoch::parse(b"abcdefgh").expect("eight letters")
}

fn info(payload: &[u8]) -> Arc<ClientInfo> {
    let payload = Bytes::copy_from_slice(payload);
    let (connection, subscription) = (payload.clone(), payload);
    Arc::new(ClientInfo { user: "42".into(), client: client(), connection, subscription })
}

fn publication(data: &[u8]) -> Push {
    let data = Bytes::copy_from_slice(data);
    let publication = Arc::new(Publication { data, offset: 1, ..Publication::default() });
    Push::Publication { topic: topic("news"), publication, epoch: Some(epoch()), shows_time: false }
}

fn push_on(wire: Wire, push: &Push) -> String {
    let Form::Bytes(bytes) = wire.push(push) else { panic!("{push:?} has no form on {wire:?}") };
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_publication_on_every_wire() {
    let push = publication(b"1");
    let json = r#"{"push":{"channel":"news","pub":{"data":1,"offset":1,"epoch":"abcdefgh"}}}"#;
    let bare = r#"{"channel":"news","pub":{"data":1,"offset":1,"epoch":"abcdefgh"}}"#;
    assert_eq!(push_on(Wire::CentrifugeLines, &push), format!("{json}\n"));
    assert_eq!(push_on(Wire::CentrifugeEvents, &push), format!("data: {json}\n\n"));
    assert_eq!(push_on(Wire::UniLines, &push), format!("{bare}\n"));
    assert_eq!(push_on(Wire::UniEvents, &push), format!("data: {bare}\n\n"));
    let frame = |wire: Wire| wire.encode(&push, None).bytes;
    assert_eq!(frame(Wire::CentrifugeJson), [&[0x81, 74][..], json.as_bytes()].concat());
    assert_eq!(frame(Wire::UniWebSocket), [&[0x81, 65][..], bare.as_bytes()].concat());
    // The Protobuf frame without its header of two bytes.
    assert_eq!(frame(Wire::CentrifugeStream), frame(Wire::CentrifugeProtobuf).slice(2..));
}

#[test]
fn other_pushes_have_a_form_for_clients_that_only_listen() {
    let subscription = Subscribed {
        positioned: true,
        top: Some(Position { epoch: epoch(), offset: 7 }),
        ..Default::default()
    };
    for (push, expected) in [
        (
            Push::Subscribed { topic: topic("a"), subscription },
            r#"{"channel":"a","subscribe":{"epoch":"abcdefgh","offset":7,"positioned":true}}"#,
        ),
        (
            Push::Unsubscribed { topic: topic("a"), reason: Unsubscribed::ByServer },
            r#"{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}"#,
        ),
        (Push::Refreshed { ttl: Some(60) }, r#"{"refresh":{"expires":true,"ttl":60}}"#),
    ] {
        assert_eq!(push_on(Wire::UniLines, &push), format!("{expected}\n"));
        assert_eq!(push_on(Wire::UniEvents, &push), format!("data: {expected}\n\n"));
    }
}

#[test]
fn an_encoding_is_cut_out_of_another_without_a_copy() {
    let push = publication(&[b'1'; 1000]);
    let frame = Wire::CentrifugeProtobuf.encode(&push, None);
    let stream = Wire::CentrifugeStream.encode(&push, Some((Wire::CentrifugeProtobuf, &frame)));
    let within = frame.bytes.as_ptr_range();
    assert!(within.contains(&stream.bytes.as_ptr()), "it lies in the frame's memory");
}

fn pushes() -> impl Strategy<Value = Push> {
    let data = prop_oneof![
        8 => vec(any::<u8>(), 0..300),
        8 => "\\PC{0,200}".prop_map(|text| serde_json::to_vec(&text).expect("a string is JSON")),
        1 => (0_usize..70_000).prop_map(|length| vec![b'1'; length]),
    ];
    let tags = btree_map("\\PC{0,8}", "\\PC{0,8}", 0..3);
    let publication = (data, tags, any::<bool>(), any::<bool>(), any::<u64>(), "[a-z:\"\\\\é]{1,20}");
    prop_oneof![
        8 => publication.prop_map(|(data, tags, has_info, shows_time, offset, name)| {
            let tags: BTreeMap<String, String> = tags;
            let publication = Publication {
                info: has_info.then(|| info(&data)),
                data: data.into(),
                tags: (!tags.is_empty()).then(|| Arc::new(tags)),
                offset,
                time: 1_764_457_200_000,
                exclude: None,
            };
            let epoch = (offset % 2 == 0).then(epoch);
            Push::Publication { topic: topic(&name), publication: Arc::new(publication), epoch, shows_time }
        }),
        1 => vec(any::<u8>(), 0..50).prop_map(|data| Push::Join { topic: topic("a"), info: info(&data) }),
        1 => Just(Push::Refreshed { ttl: None }),
        1 => Just(Push::Unsubscribed { topic: topic("a"), reason: Unsubscribed::InsufficientState }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Also of a form that was itself made of another.
    #[test]
    fn a_form_is_the_same_however_it_is_made(push in pushes()) {
        let alone = Wire::ALL.map(|wire| (wire, wire.encode(&push, None)));
        for (from, encoded) in &alone {
            match from.push(&push) {
                Form::Bytes(bytes) => prop_assert_eq!(&encoded.bytes, &bytes),
                Form::Nothing | Form::Close(_) => prop_assert!(encoded.bytes.is_empty()),
            }
            for (to, expected) in &alone {
                let made = to.encode(&push, Some((*from, encoded)));
                prop_assert_eq!(&made, expected, "{:?} of {:?}", to, from);
                prop_assert_eq!(&from.encode(&push, Some((*to, &made))), encoded, "{:?} of {:?}", from, to);
            }
        }
    }
}

#[test]
fn the_answer_to_connect_is_the_only_one_that_a_listening_client_gets() {
    let connected = Connected {
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
    let reply = |wire: Wire, result| wire.reply(&Reply { id: 1, result });
    let connected = || Ok(Outcome::Connected(Box::new(connected.clone())));
    let expected = r#"{"connect":{"client":"00000000-0000-0000-0000-000000000007","version":"1.0"}}"#;
    assert_eq!(reply(Wire::UniLines, connected()), Form::Bytes(format!("{expected}\n").into()));
    assert_eq!(reply(Wire::UniEvents, connected()), Form::Bytes(format!("data: {expected}\n\n").into()));
    let expected = r#"{"id":1,"connect":{"client":"00000000-0000-0000-0000-000000000007","version":"1.0"}}"#;
    assert_eq!(reply(Wire::CentrifugeLines, connected()), Form::Bytes(format!("{expected}\n").into()));
    let refused = r#"{"id":1,"error":{"code":103,"message":"permission denied"}}"#;
    let denied = || Err(RequestError::PermissionDenied.into());
    assert_eq!(reply(Wire::CentrifugeEvents, denied()), Form::Bytes(format!("data: {refused}\n\n").into()));
    for (error, reason) in [
        (RequestError::TokenExpired, CloseReason::Expired),
        (RequestError::Expired, CloseReason::Expired),
        (RequestError::TooManyRequests, CloseReason::TooManyRequests),
        (RequestError::PermissionDenied, CloseReason::PermissionDenied),
        (RequestError::Internal, CloseReason::ServerError),
        (RequestError::UnknownTopic, CloseReason::ServerError),
    ] {
        for wire in [Wire::UniWebSocket, Wire::UniLines, Wire::UniEvents] {
            assert_eq!(reply(wire, Err(error.into())), Form::Close(reason), "{error:?}");
            assert_eq!(reply(wire, Ok(Outcome::Published)), Form::Nothing);
        }
    }
}

#[test]
fn pings_and_goodbyes_have_the_envelope_of_the_wire() {
    let shutdown = r#""disconnect":{"code":3001,"reason":"shutdown"}"#;
    let close_frame = b"\x88\x0a\x0b\xb9shutdown";
    for (wire, pings, ping, goodbye) in [
        (Wire::CentrifugeLines, Pings::Messages, "{}\n", format!("{{\"push\":{{{shutdown}}}}}\n")),
        (
            Wire::CentrifugeEvents,
            Pings::Messages,
            "data: {}\n\n",
            format!("data: {{\"push\":{{{shutdown}}}}}\n\n"),
        ),
        (Wire::UniLines, Pings::Unanswered, "{}\n", format!("{{{shutdown}}}\n")),
        (Wire::UniEvents, Pings::Unanswered, "data: {}\n\n", format!("data: {{{shutdown}}}\n\n")),
    ] {
        assert_eq!(wire.ping(pings), ping, "{wire:?}");
        assert_eq!(wire.goodbye(&CloseReason::Shutdown.into()), goodbye, "{wire:?}");
    }
    assert_eq!(Wire::CentrifugeStream.ping(Pings::Messages), &b"\x00"[..]);
    // A length; field 4, the push; its field 11, of which field 1 is the code and field 2 the reason.
    let goodbye = b"\x11\x22\x0f\x5a\x0d\x08\xb9\x17\x12\x08shutdown";
    assert_eq!(Wire::CentrifugeStream.goodbye(&CloseReason::Shutdown.into()), &goodbye[..]);
    assert_eq!(Wire::UniWebSocket.ping(Pings::Frames), &b"\x89\x00"[..]);
    let frame = [&[0x81, 48][..], format!("{{{shutdown}}}").as_bytes(), close_frame].concat();
    assert_eq!(Wire::UniWebSocket.goodbye(&CloseReason::Shutdown.into()), frame);

    let normal = Close::by_application(3000, "done".to_owned());
    for wire in [Wire::CentrifugeLines, Wire::CentrifugeStream, Wire::CentrifugeEvents] {
        assert_eq!(wire.goodbye(&normal), Bytes::new());
    }
    let told = "{\"disconnect\":{\"code\":3000,\"reason\":\"done\"}}\n";
    assert_eq!(Wire::UniLines.goodbye(&normal), told);
}

#[test]
fn a_listening_client_sends_a_connect_request_alone() {
    let requests = |text: &str| {
        let mut requests = Wire::UniWebSocket.requests(ClientMessage::Text(text), 0);
        let all: Vec<_> = requests.by_ref().collect();
        assert_eq!(requests.taken(), text.len());
        let [request] = &all[..] else { panic!("{all:?}") };
        request.clone().map_err(|malformed| malformed.reason().to_owned())
    };
    let connect = |connect| Ok(Request { id: 1, ask: Ask::Connect(connect) });
    for empty in ["", " ", "{}", " {\"unknown\":1}\n"] {
        assert_eq!(requests(empty), connect(Connect::default()), "{empty:?}");
    }
    assert_eq!(requests(r#"{"name":"js"}"#), connect(Connect { name: "js".into(), ..Connect::default() }));
    let since = Some(StreamPosition { offset: 5, epoch: "e".into() });
    assert_eq!(
        requests(r#"{"token":"t","subs":{"a":{"recover":true,"offset":5,"epoch":"e"}}}"#),
        connect(Connect { token: "t".into(), topics: vec![("a".into(), since)], ..Connect::default() })
    );
    for (wrong, why) in [
        ("[]", "not a JSON object"),
        ("t", "not a JSON object"),
        ("{} {}", "not JSON at line 1 column 4"),
        ("{\n\"token\":1}", "field of a wrong type at line 2 column 9"),
        (&format!(r#"{{"data":{}"#, "[".repeat(200)), "JSON nested too deep"),
    ] {
        assert_eq!(requests(wrong), Err(why.to_owned()), "{wrong}");
    }
    assert_eq!(Wire::UniLines.requests(ClientMessage::Text("{}"), 2).next(), None);
    // What stands around it elsewhere is no field of it.
    assert_eq!(requests(r#"{"id":1,"connect":{"token":"t"}}"#), connect(Connect::default()));
}
