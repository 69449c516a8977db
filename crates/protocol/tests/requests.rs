//! Every command in both encodings, to the byte, and everything that is not a command.

use std::collections::HashMap;

use bytes::Bytes;
use fanwire_protocol::centrifuge::*;
use fanwire_protocol::json::JSON_DEPTH_MAX;
use fanwire_protocol::reason::Mistake;
use fanwire_protocol::request::{self, Ask, Malformed};
use proptest::prelude::*;
use prost::Message;

fn all(encoding: Encoding, frame: &[u8]) -> Vec<Result<Command, Malformed>> {
    commands(encoding, frame).collect()
}

/// The same by an iterator for each command, which goes on where the one before it stopped.
fn all_one_by_one(encoding: Encoding, frame: &[u8]) -> Vec<Result<Command, Malformed>> {
    let mut all = Vec::new();
    let mut taken = 0;
    loop {
        let mut commands = commands_from(encoding, frame, taken);
        assert_eq!(commands.taken(), taken);
        let Some(command) = commands.next() else {
            assert_eq!(taken, frame.len());
            return all;
        };
        all.push(command);
        assert!(commands.taken() > taken || frame.is_empty());
        taken = commands.taken();
        if taken == frame.len() {
            assert_eq!(commands.next(), None);
            return all;
        }
    }
}

/// The request of a command, with all of its fields.
#[derive(Clone, Debug, PartialEq)]
enum Request {
    Connect(ConnectRequest),
    Ping,
    Subscribe(SubscribeRequest),
    Unsubscribe(UnsubscribeRequest),
    Publish(PublishRequest),
    Presence(PresenceRequest),
    PresenceStats(PresenceStatsRequest),
    History(HistoryRequest),
    Rpc(RpcRequest),
    Send(SendRequest),
    Refresh(RefreshRequest),
    SubRefresh(SubRefreshRequest),
}

fn into_request(command: Command) -> (u32, Option<Request>) {
    let request = command
        .connect
        .map(Request::Connect)
        .or(command.ping.map(|Empty {}| Request::Ping))
        .or(command.subscribe.map(Request::Subscribe))
        .or(command.unsubscribe.map(Request::Unsubscribe))
        .or(command.publish.map(Request::Publish))
        .or(command.presence.map(Request::Presence))
        .or(command.presence_stats.map(Request::PresenceStats))
        .or(command.history.map(Request::History))
        .or(command.rpc.map(Request::Rpc))
        .or(command.send.map(Request::Send))
        .or(command.refresh.map(Request::Refresh))
        .or(command.sub_refresh.map(Request::SubRefresh));
    (command.id, request)
}

fn request(encoding: Encoding, frame: &[u8]) -> (u32, Option<Request>) {
    let mut commands = all(encoding, frame);
    assert_eq!(commands.len(), 1, "{commands:?}");
    into_request(commands.remove(0).expect("the command is well formed"))
}

/// One command, as a line of JSON and as the Protobuf message without its length.
#[track_caller]
fn check(json: &str, protobuf: &[u8], id: u32, expected: Option<Request>) {
    let expected = (id, expected);
    assert_eq!(request(Encoding::Json, json.as_bytes()), expected);
    let length = u8::try_from(protobuf.len()).expect("the message is short");
    assert_eq!(request(Encoding::Protobuf, &[&[length], protobuf].concat()), expected);
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn pong() {
    check("{}", b"", 0, None);
    check(r#"{"id":0}"#, b"\x08\x00", 0, None);
    check(r#"{"id":7}"#, b"\x08\x07", 7, None);
    check(r#"{"id":4294967295}"#, b"\x08\xff\xff\xff\xff\x0f", u32::MAX, None);
}

#[test]
fn connect() {
    check(
        r#"{"id":1,"connect":{}}"#,
        b"\x08\x01\x22\x00",
        1,
        Some(Request::Connect(ConnectRequest::default())),
    );
    check(
        concat!(
            r#"{"id":1,"connect":{"token":"t","data":{"a": 1},"#,
            r#""subs":{"n":{"recover":true,"epoch":"e","offset":300}},"#,
            r#""name":"js","version":"v","headers":{"h":"x"},"flag":1,"dict":"","profile":"p"}}"#
        ),
        &[
            b"\x08\x01\x22\x30\x0a\x01t\x12\x08{\"a\": 1}".as_slice(),
            b"\x1a\x0d\x0a\x01n\x12\x08\x18\x01\x32\x01e\x38\xac\x02",
            b"\x22\x02js\x2a\x01v\x32\x06\x0a\x01h\x12\x01x",
            b"\x38\x01\x4a\x01p",
        ]
        .concat(),
        1,
        Some(Request::Connect(ConnectRequest {
            token: "t".to_owned(),
            data: text(r#"{"a": 1}"#),
            subs: HashMap::from([(
                "n".to_owned(),
                SubscribeRequest { recover: true, epoch: "e".to_owned(), offset: 300, ..Default::default() },
            )]),
            name: "js".to_owned(),
            version: "v".to_owned(),
            headers: HashMap::from([("h".to_owned(), "x".to_owned())]),
        })),
    );
}

#[test]
fn subscribe() {
    let test = FilterNode {
        key: "k".to_owned(),
        cmp: "eq".to_owned(),
        val: "v".to_owned(),
        ..FilterNode::default()
    };
    check(
        concat!(
            r#"{"id":2,"subscribe":{"channel":"news","token":"t","recover":true,"epoch":"e","offset":7,"data":[1],"#,
            r#""positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil","#,
            r#""tf":{"op":"and","nodes":[{"key":"k","cmp":"eq","val":"v"}]},"flag":3,"type":1,"phase":2,"cursor":"c"}}"#
        ),
        &[
            b"\x08\x02\x2a\x3d\x0a\x04news\x12\x01t\x18\x01\x32\x01e\x38\x07\x42\x03[1]".as_slice(),
            b"\x48\x01\x50\x01\x58\x01\x62\x06fossil\x6a\x11\x0a\x03and\x32\x0a\x12\x01k\x1a\x02eq\x22\x01v",
            b"\x70\x03\x78\x01\x80\x01\x02",
        ]
        .concat(),
        2,
        Some(Request::Subscribe(SubscribeRequest {
            channel: "news".to_owned(),
            token: "t".to_owned(),
            recover: true,
            epoch: "e".to_owned(),
            offset: 7,
            data: text("[1]"),
            positioned: true,
            recoverable: true,
            join_leave: true,
            delta: "fossil".to_owned(),
            tf: Some(Box::new(FilterNode {
                op: "and".to_owned(),
                nodes: vec![test],
                ..FilterNode::default()
            })),
            flag: 3,
            kind: 1,
        })),
    );
}

#[test]
fn operations() {
    let channel = || "c".to_owned();
    check(
        r#"{"id":3,"unsubscribe":{"channel":"c"}}"#,
        b"\x08\x03\x32\x03\x0a\x01c",
        3,
        Some(Request::Unsubscribe(UnsubscribeRequest { channel: channel() })),
    );
    check(
        r#"{"id":3,"publish":{"channel":"c","data":"hi","type":1}}"#,
        b"\x08\x03\x3a\x0b\x0a\x01c\x12\x04\"hi\"\x18\x01",
        3,
        Some(Request::Publish(PublishRequest { channel: channel(), data: text(r#""hi""#), kind: 1 })),
    );
    check(
        r#"{"id":3,"presence":{"channel":"c"}}"#,
        b"\x08\x03\x42\x03\x0a\x01c",
        3,
        Some(Request::Presence(PresenceRequest { channel: channel() })),
    );
    check(
        r#"{"id":3,"presence_stats":{"channel":"c"}}"#,
        b"\x08\x03\x4a\x03\x0a\x01c",
        3,
        Some(Request::PresenceStats(PresenceStatsRequest { channel: channel() })),
    );
    check(
        r#"{"id":3,"history":{"channel":"c","limit":-1,"since":{"offset":5,"epoch":"e"},"reverse":true}}"#,
        b"\x08\x03\x52\x17\x0a\x01c\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x42\x05\x08\x05\x12\x01e\x48\x01",
        3,
        Some(Request::History(HistoryRequest {
            channel: channel(),
            limit: -1,
            since: Some(StreamPositionMessage { offset: 5, epoch: "e".to_owned() }),
            reverse: true,
        })),
    );
    check(r#"{"id":3,"ping":{}}"#, b"\x08\x03\x5a\x00", 3, Some(Request::Ping));
    check(
        r#"{"send":{"data":{}}}"#,
        b"\x62\x04\x0a\x02{}",
        0,
        Some(Request::Send(SendRequest { data: text("{}") })),
    );
    check(
        r#"{"id":3,"rpc":{"data":1,"method":"m"}}"#,
        b"\x08\x03\x6a\x06\x0a\x011\x12\x01m",
        3,
        Some(Request::Rpc(RpcRequest { data: text("1"), method: "m".to_owned() })),
    );
    check(
        r#"{"id":3,"refresh":{"token":"t"}}"#,
        b"\x08\x03\x72\x03\x0a\x01t",
        3,
        Some(Request::Refresh(RefreshRequest { token: "t".to_owned() })),
    );
    check(
        r#"{"id":3,"sub_refresh":{"channel":"c","token":"t","type":2}}"#,
        b"\x08\x03\x7a\x08\x0a\x01c\x12\x01t\x18\x02",
        3,
        Some(Request::SubRefresh(SubRefreshRequest { channel: channel(), token: "t".to_owned(), kind: 2 })),
    );
}

#[test]
fn the_first_of_several_requests_counts() {
    let every = Command {
        id: 1,
        connect: Some(Default::default()),
        ping: Some(Empty {}),
        subscribe: Some(Default::default()),
        unsubscribe: Some(Default::default()),
        publish: Some(Default::default()),
        presence: Some(Default::default()),
        presence_stats: Some(Default::default()),
        history: Some(Default::default()),
        rpc: Some(Default::default()),
        send: Some(Default::default()),
        refresh: Some(Default::default()),
        sub_refresh: Some(Default::default()),
    };
    type Take = (fn(&mut Command), fn(&Ask) -> bool);
    let order: [Take; 12] = [
        (|c| c.connect = None, |r| matches!(r, Ask::Connect(_))),
        (|c| c.ping = None, |r| matches!(r, Ask::Ping)),
        (|c| c.subscribe = None, |r| matches!(r, Ask::Subscribe(_))),
        (|c| c.unsubscribe = None, |r| matches!(r, Ask::Unsubscribe { .. })),
        (|c| c.publish = None, |r| matches!(r, Ask::Publish(_))),
        (|c| c.presence = None, |r| matches!(r, Ask::Presence { .. })),
        (|c| c.presence_stats = None, |r| matches!(r, Ask::PresenceStats { .. })),
        (|c| c.history = None, |r| matches!(r, Ask::History(_))),
        (|c| c.rpc = None, |r| matches!(r, Ask::Call { .. })),
        (|c| c.send = None, |r| matches!(r, Ask::Send { .. })),
        (|c| c.refresh = None, |r| matches!(r, Ask::Refresh { .. })),
        (|c| c.sub_refresh = None, |r| matches!(r, Ask::SubRefresh(_))),
    ];
    let mut left = every;
    for (index, (take, is_expected)) in order.into_iter().enumerate() {
        let ask = request::Request::from(left.clone()).ask;
        assert!(is_expected(&ask), "place {index}: {ask:?}");
        take(&mut left);
    }
    let nothing = Ask::Wrong(Mistake::NoRequest);
    assert_eq!(request::Request::from(left), request::Request { id: 1, ask: nothing });
}

#[test]
fn json_is_read_as_leniently_as_clients_need() {
    let publish = |data: &str| {
        Some(Request::Publish(PublishRequest { channel: "c".to_owned(), data: text(data), kind: 0 }))
    };
    for (line, id, expected) in [
        (r#"{"id":null,"connect":null,"publish":null}"#, 0, None),
        (r#" { "id" : 3 , "ping" : { } } "#, 3, Some(Request::Ping)),
        (r#"{"id":3,"ping":{"unknown":[1,{"x":null}]},"unknown":"x"}"#, 3, Some(Request::Ping)),
        (r#"{"id":3,"connect":null,"ping":{}}"#, 3, Some(Request::Ping)),
        (
            r#"{"id":3,"publish":{"channel":"c","data":  {"b":1, "a":2.50} ,"type":null}}"#,
            3,
            publish(r#"{"b":1, "a":2.50}"#),
        ),
        (r#"{"id":3,"publish":{"data":"\ud83d\ude00","channel":"\u0063"}}"#, 3, publish(r#""\ud83d\ude00""#)),
        (r#"{"id":3,"publish":{"channel":"c","data":null}}"#, 3, publish("null")),
        (r#"{"id":3,"publish":{"channel":"c"}}"#, 3, publish("")),
        (
            r#"{"id":1,"connect":{"token":null,"subs":null,"headers":null,"name":null,"version":null}}"#,
            1,
            Some(Request::Connect(ConnectRequest::default())),
        ),
        (
            r#"{"id":1,"connect":{"subs":{"a":null}}}"#,
            1,
            Some(Request::Connect(ConnectRequest {
                subs: HashMap::from([("a".to_owned(), SubscribeRequest::default())]),
                ..Default::default()
            })),
        ),
        (
            r#"{"id":1,"subscribe":{"channel":null,"recover":null,"offset":null,"tf":null}}"#,
            1,
            Some(Request::Subscribe(SubscribeRequest::default())),
        ),
        (
            r#"{"id":1,"history":{"limit":null,"since":null,"reverse":null}}"#,
            1,
            Some(Request::History(HistoryRequest::default())),
        ),
        (
            r#"{"id":1,"history":{"since":{"offset":null,"epoch":null}}}"#,
            1,
            Some(Request::History(HistoryRequest {
                since: Some(StreamPositionMessage::default()),
                ..Default::default()
            })),
        ),
    ] {
        assert_eq!(request(Encoding::Json, line.as_bytes()), (id, expected), "{line}");
    }
}

#[test]
fn a_frame_holds_many_commands() {
    let ids = |encoding, frame: &[u8]| {
        all(encoding, frame).into_iter().map(|command| command.map(|command| command.id)).collect::<Vec<_>>()
    };
    assert_eq!(ids(Encoding::Json, b"{\"id\":1}\n{\"id\":2}\n{}"), [Ok(1), Ok(2), Ok(0)]);
    assert_eq!(ids(Encoding::Json, b"\n {\"id\":1}\r\n\n{\"id\":2}\n"), [Ok(1), Ok(2)]);
    assert_eq!(ids(Encoding::Protobuf, b"\x02\x08\x01\x00\x02\x08\x02"), [Ok(1), Ok(0), Ok(2)]);

    let thousand = "{\"id\":5}\n".repeat(1000);
    assert_eq!(ids(Encoding::Json, thousand.as_bytes()), vec![Ok(5); 1000]);
    assert_eq!(ids(Encoding::Protobuf, &[0; 1000]), vec![Ok(0); 1000]);
}

/// `well_formed` commands come, then the frame is refused and nothing follows.
#[track_caller]
fn check_malformed(encoding: Encoding, frame: &[u8], well_formed: usize, reason: &str) {
    let commands = all(encoding, frame);
    let shown = String::from_utf8_lossy(&frame[..frame.len().min(100)]);
    assert_eq!(commands.len(), well_formed + 1, "{shown}: {commands:?}");
    let (last, before) = commands.split_last().expect("there is at least the error");
    assert!(before.iter().all(Result::is_ok), "{shown}");
    let malformed = last.as_ref().expect_err("the last is the error");
    assert!(malformed.reason().starts_with(reason), "{shown}: {malformed}");
    assert!(malformed.reason().len() <= 150, "{malformed}");
}

#[test]
fn malformed_json() {
    for frame in ["", " ", "\n", "\r\n\n"] {
        check_malformed(Encoding::Json, frame.as_bytes(), 0, "no command");
    }
    for frame in ["[]", "[1]", "null", "1", "\"{}\"", "true", "ping", "\u{feff}{}", ",{}"] {
        check_malformed(Encoding::Json, frame.as_bytes(), 0, "not a JSON object");
    }
    for frame in ["{", "{\"id\":1", "{\"id\":}", "{id:1}", "{\"id\":1,}", "{\"id\":01}", "{\"id\":1]"] {
        check_malformed(Encoding::Json, frame.as_bytes(), 0, "not JSON at line 1 column");
    }
    check_malformed(Encoding::Json, b"{\"id\":1}\n{\"id\":2}]\n{\"id\":3}", 2, "not a JSON object");
    check_malformed(Encoding::Json, b"{\"id\":1}\n{\"id\":2\n{\"id\":3}", 1, "not JSON at line 3");
    check_malformed(Encoding::Json, b"{\"id\":1,\"rpc\":{\"method\":\"\xff\"}}", 0, "not JSON");
    check_malformed(Encoding::Json, b"{\"id\":1,\"rpc\":{\"data\":\"\xff\"}}", 0, "not JSON");
    check_malformed(Encoding::Json, b"{\"id\":1,\"rpc\":{\"method\":\"a\nb\"}}", 0, "not JSON");
}

#[test]
fn json_of_a_wrong_type() {
    for frame in [
        r#"{"id":"1"}"#,
        r#"{"id":-1}"#,
        r#"{"id":1.5}"#,
        r#"{"id":4294967296}"#,
        r#"{"id":[1]}"#,
        r#"{"id":1,"connect":[]}"#,
        r#"{"id":1,"connect":["token"]}"#,
        r#"{"id":1,"connect":"token"}"#,
        r#"{"id":1,"connect":{"token":1}}"#,
        r#"{"id":1,"connect":{"subs":[]}}"#,
        r#"{"id":1,"connect":{"subs":{"a":[]}}}"#,
        r#"{"id":1,"connect":{"subs":{"a":"b"}}}"#,
        r#"{"id":1,"connect":{"headers":{"a":1}}}"#,
        r#"{"id":1,"ping":[]}"#,
        r#"{"id":1,"ping":true}"#,
        r#"{"id":1,"subscribe":["c"]}"#,
        r#"{"id":1,"subscribe":{"recover":1}}"#,
        r#"{"id":1,"subscribe":{"offset":"1"}}"#,
        r#"{"id":1,"subscribe":{"offset":18446744073709551616}}"#,
        r#"{"id":1,"subscribe":{"type":2147483648}}"#,
        r#"{"id":1,"subscribe":{"tf":[]}}"#,
        r#"{"id":1,"unsubscribe":0}"#,
        r#"{"id":1,"publish":["c",1]}"#,
        r#"{"id":1,"presence":["c"]}"#,
        r#"{"id":1,"presence_stats":["c"]}"#,
        r#"{"id":1,"history":["c"]}"#,
        r#"{"id":1,"history":{"since":[1,"e"]}}"#,
        r#"{"id":1,"send":[1]}"#,
        r#"{"id":1,"rpc":[1,"m"]}"#,
        r#"{"id":1,"refresh":["t"]}"#,
        r#"{"id":1,"sub_refresh":["c","t"]}"#,
        r#"{"id":1,"id":2}"#,
    ] {
        check_malformed(Encoding::Json, frame.as_bytes(), 0, "field of a wrong type at line 1 column");
    }
}

#[test]
fn malformed_json_is_not_repeated_in_the_reason() {
    let long = format!(r#"{{"id":"{}"}}"#, "secret".repeat(1000));
    let Some(Err(malformed)) = commands(Encoding::Json, long.as_bytes()).next() else {
        panic!("not refused")
    };
    assert_eq!(malformed.reason(), "field of a wrong type at line 1 column 6008");
}

#[test]
fn a_frame_is_taken_command_by_command() {
    let frame = b" {\"id\":1}\n \n{\"id\":2}{\"id\":3}  {\"id\":4,\"ping\":[]}\n{\"id\":5}";
    let mut from_the_begin = commands(Encoding::Json, frame);
    assert_eq!(from_the_begin.taken(), 0);
    from_the_begin.next();
    assert!(frame[from_the_begin.taken()..].starts_with(b"{\"id\":2}"));
    let one_by_one = all_one_by_one(Encoding::Json, frame);
    assert_eq!(one_by_one, all(Encoding::Json, frame));
    let Some(Err(malformed)) = one_by_one.last() else { panic!("{one_by_one:?}") };
    assert!(malformed.reason().contains("at line 3 column 33"), "{malformed}");

    let mut nothing_follows = commands(Encoding::Json, b"{} \n ");
    nothing_follows.next();
    assert_eq!(nothing_follows.taken(), 5);
}

/// It would take the square of the frame's length if that were done again for each command.
#[test]
fn a_frame_is_judged_as_a_whole_once() {
    let too_deep = [b"{}\n{}\n".to_vec(), b"[".repeat(JSON_DEPTH_MAX + 1)].concat();
    check_malformed(Encoding::Json, &too_deep, 0, "JSON nested too deep");
    let mut from_the_second = commands_from(Encoding::Json, &too_deep, 3);
    assert_eq!(from_the_second.next(), Some(Ok(Command::default())));
    assert!(from_the_second.next().is_some_and(|command| command.is_err()));
}

#[test]
fn json_depth() {
    let frame = |depth: usize| {
        format!(r#"{{"id":1,"publish":{{"data":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes()
    };
    assert!(all(Encoding::Json, &frame(JSON_DEPTH_MAX - 2))[0].is_ok());
    check_malformed(Encoding::Json, &frame(JSON_DEPTH_MAX - 1), 0, "JSON nested too deep");
    check_malformed(Encoding::Json, &frame(1_000_000), 0, "JSON nested too deep");
    check_malformed(Encoding::Json, "[".repeat(1_000_000).as_bytes(), 0, "JSON nested too deep");
    check_malformed(Encoding::Json, "{\"a\":".repeat(1_000_000).as_bytes(), 0, "JSON nested too deep");
}

#[test]
fn malformed_protobuf() {
    check_malformed(Encoding::Protobuf, b"", 0, "no command");
    check_malformed(Encoding::Protobuf, b"\x80", 0, "length is not a varint");
    check_malformed(Encoding::Protobuf, &[0xFF; 20], 0, "length is not a varint");
    check_malformed(Encoding::Protobuf, b"\x05\x08\x01", 0, "length reaches beyond the frame");
    check_malformed(
        Encoding::Protobuf,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        0,
        "length reaches beyond",
    );
    check_malformed(Encoding::Protobuf, b"\x02\x08\x01\x05\x08\x01", 1, "length reaches beyond the frame");
    for message in [
        &b"\x08"[..],                                // id without a value
        b"\x0a\x00",                                 // id as bytes
        b"\x22\x05\x0a\x01t",                        // connect longer than the message
        b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\x7f", // connect of absurd length
        b"\x22\x03\x0a\x01\xff",                     // token not in UTF-8
        b"\x3a\x07\x12\xff\xff\xff\xff\xff\x01",     // data of absurd length
        b"\x00\x00",                                 // field number 0
        b"\x0f",                                     // wire type 7
        b"\x0c",                                     // end of a group that never began
    ] {
        let length = u8::try_from(message.len()).expect("the message is short");
        check_malformed(
            Encoding::Protobuf,
            &[&[length], message].concat(),
            0,
            "failed to decode Protobuf message",
        );
    }
    // Groups nest without limit in the encoding, but not here.
    let groups = [0xA3, 0x06].repeat(100_000);
    let mut frame = Vec::new();
    prost::encode_length_delimiter(groups.len(), &mut frame).expect("a vector has room");
    frame.extend(groups);
    check_malformed(Encoding::Protobuf, &frame, 0, "failed to decode Protobuf message");
}

fn any_command() -> impl Strategy<Value = Command> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        Just(Command::default()),
        (any::<u32>(), any::<String>(), bytes(), any::<i32>()).prop_map(|(id, channel, data, kind)| {
            Command { id, publish: Some(PublishRequest { channel, data, kind }), ..Default::default() }
        }),
        (any::<u32>(), any::<String>(), any::<u64>(), any::<bool>()).prop_map(|(id, text, offset, flag)| {
            Command {
                id,
                subscribe: Some(SubscribeRequest {
                    channel: text.clone(),
                    epoch: text,
                    offset,
                    recover: flag,
                    ..Default::default()
                }),
                ..Default::default()
            }
        }),
        (any::<u32>(), prop::collection::hash_map(any::<String>(), any::<String>(), 0..4)).prop_map(
            |(id, headers)| Command {
                id,
                connect: Some(ConnectRequest {
                    subs: headers.keys().map(|name| (name.clone(), SubscribeRequest::default())).collect(),
                    headers,
                    ..Default::default()
                }),
                ..Default::default()
            }
        ),
    ]
}

proptest! {
    #[test]
    fn protobuf_commands_come_back(sent in prop::collection::vec(any_command(), 1..6)) {
        let frame = sent.iter().flat_map(Command::encode_length_delimited_to_vec).collect::<Vec<u8>>();
        let got = commands(Encoding::Protobuf, &frame).collect::<Result<Vec<_>, _>>();
        prop_assert_eq!(all_one_by_one(Encoding::Protobuf, &frame).into_iter().collect::<Result<Vec<_>, _>>(), got.clone());
        prop_assert_eq!(got, Ok(sent));
    }

    #[test]
    fn json_commands_come_back(
        sent in prop::collection::vec((any::<u32>(), any::<String>(), any::<String>(), any::<i32>()), 1..6),
    ) {
        let lines = sent.iter().map(|(id, channel, data, kind)| {
            serde_json::json!({"id": id, "publish": {"channel": channel, "data": data, "type": kind}}).to_string()
        });
        let frame = lines.collect::<Vec<_>>().join("\n");
        let got = commands(Encoding::Json, frame.as_bytes())
            .map(|command| match command.map(into_request) {
                Ok((id, Some(Request::Publish(publish)))) => {
                    let data = serde_json::from_slice(&publish.data).expect("payloads come as JSON");
                    (id, publish.channel, data, publish.kind)
                }
                other => panic!("{other:?}"),
            })
            .collect::<Vec<(u32, String, String, i32)>>();
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn noise_ends(noise in prop::collection::vec(any::<u8>(), 0..300), texts in "[{}\\[\\]\":,a0\\\\ \n]{0,60}") {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            prop_assert!(commands(encoding, &noise).count() <= noise.len() + 1);
            prop_assert_eq!(all_one_by_one(encoding, &noise), all(encoding, &noise));
        }
        prop_assert!(commands(Encoding::Json, texts.as_bytes()).count() <= texts.len() + 1);
        prop_assert_eq!(all_one_by_one(Encoding::Json, texts.as_bytes()), all(Encoding::Json, texts.as_bytes()));
    }
}
