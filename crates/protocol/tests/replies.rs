//! Every reply in both encodings, to the byte: which fields are always there, and which only when they say something.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanwire_protocol::centrifuge::{
    ConnectResult, Empty, Encoding, ExpiryResult, HistoryResult, PresenceResult, PresenceStatsResult,
    PushMessage, ReplyMessage, RpcResult, SubRefreshResult, SubscribePush, SubscribeResult, encode,
};
use fanwire_protocol::reason::{RequestError, Unsubscribed};
use fanwire_protocol::reply::{Outcome, Push, Reply, Subscribed};
use fanwire_protocol::{ClientId, ClientInfo, Epoch, Position, Publication, TopicName, centrifuge, json};
use proptest::prelude::*;
use prost::Message;
use serde_json::value::RawValue;

const CLIENT: &str = "00000000-0000-0000-0000-000000000007";

fn encoded(encoding: Encoding, reply: &ReplyMessage) -> Vec<u8> {
    let mut to = Vec::new();
    encode(encoding, reply, &mut to);
    to
}

/// One reply, as a JSON object and as a Protobuf message without its length.
#[track_caller]
fn check(reply: &ReplyMessage, json: &str, protobuf: &[u8]) {
    assert_eq!(String::from_utf8_lossy(&encoded(Encoding::Json, reply)), json);
    let message = encoded(Encoding::Protobuf, reply);
    let (length, message) = message.split_first().expect("there is at least a length");
    assert_eq!((usize::from(*length), message), (protobuf.len(), protobuf));
}

fn refused(id: u32, error: RequestError) -> ReplyMessage {
    (&Reply { id, result: Err(error.into()) }).into()
}

fn push_publication(topic: &TopicName, publication: &Publication, epoch: Option<Epoch>) -> ReplyMessage {
    push_with_time(topic, publication, epoch, false)
}

fn push_with_time(
    topic: &TopicName,
    publication: &Publication,
    epoch: Option<Epoch>,
    shows_time: bool,
) -> ReplyMessage {
    let publication = Arc::new(publication.clone());
    PushMessage::from(&Push::Publication { topic: topic.clone(), publication, epoch, shows_time }).into()
}

fn push_join(topic: &TopicName, info: &ClientInfo) -> ReplyMessage {
    PushMessage::from(&Push::Join { topic: topic.clone(), info: Arc::new(info.clone()) }).into()
}

fn push_leave(topic: &TopicName, info: &ClientInfo) -> ReplyMessage {
    PushMessage::from(&Push::Leave { topic: topic.clone(), info: Arc::new(info.clone()) }).into()
}

fn push_unsubscribe(topic: &TopicName, reason: Unsubscribed) -> ReplyMessage {
    PushMessage::from(&Push::Unsubscribed { topic: topic.clone(), reason }).into()
}

fn push_subscribe(topic: &TopicName, subscribe: SubscribePush) -> ReplyMessage {
    let channel = topic.as_str().to_owned();
    let push = PushMessage { channel, subscribe: Some(subscribe), ..PushMessage::default() };
    ReplyMessage { push: Some(push), ..ReplyMessage::default() }
}

fn push_refresh(expires: bool, ttl: u32) -> ReplyMessage {
    PushMessage::from(&Push::Refreshed { ttl: expires.then_some(ttl) }).into()
}

fn news() -> TopicName {
    TopicName::new("news").expect("the name is not empty")
}

fn info() -> ClientInfo {
    ClientInfo {
        user: "42".into(),
        client: ClientId::parse(CLIENT).expect("this is a UUID"),
        connection: Bytes::from_static(b"{\"n\":1}"),
        subscription: Bytes::from_static(b"[]"),
    }
}

fn anonymous() -> ClientInfo {
    ClientInfo { user: "".into(), connection: Bytes::new(), subscription: Bytes::new(), ..info() }
}

fn epoch() -> Epoch {
    Epoch::parse(b"abcdEFGH").expect("eight letters")
}

fn publication(data: &'static [u8]) -> Publication {
    Publication { data: Bytes::from_static(data), ..Publication::default() }
}

#[test]
fn ping() {
    check(&ReplyMessage::default(), "{}", b"");
}

#[test]
fn errors() {
    check(
        &refused(3, RequestError::PermissionDenied),
        r#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#,
        b"\x08\x03\x12\x15\x08\x67\x12\x11permission denied",
    );
    check(
        &refused(3, RequestError::Internal),
        r#"{"id":3,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
        b"\x08\x03\x12\x1b\x08\x64\x12\x15internal server error\x18\x01",
    );
}

#[test]
fn empty_results_are_there() {
    let reply = || ReplyMessage { id: 4, ..ReplyMessage::default() };
    check(
        &ReplyMessage { publish: Some(Empty {}), ..reply() },
        r#"{"id":4,"publish":{}}"#,
        b"\x08\x04\x42\x00",
    );
    check(
        &ReplyMessage { unsubscribe: Some(Empty {}), ..reply() },
        r#"{"id":4,"unsubscribe":{}}"#,
        b"\x08\x04\x3a\x00",
    );
    check(&ReplyMessage { ping: Some(Empty {}), ..reply() }, r#"{"id":4,"ping":{}}"#, b"\x08\x04\x62\x00");
    check(
        &ReplyMessage { subscribe: Some(SubscribeResult::default()), ..reply() },
        r#"{"id":4,"subscribe":{}}"#,
        b"\x08\x04\x32\x00",
    );
    check(
        &ReplyMessage { rpc: Some(RpcResult::default()), ..reply() },
        r#"{"id":4,"rpc":{}}"#,
        b"\x08\x04\x6a\x00",
    );
    check(
        &ReplyMessage { refresh: Some(ExpiryResult::default()), ..reply() },
        r#"{"id":4,"refresh":{}}"#,
        b"\x08\x04\x72\x00",
    );
    check(
        &ReplyMessage { sub_refresh: Some(SubRefreshResult::default()), ..reply() },
        r#"{"id":4,"sub_refresh":{}}"#,
        b"\x08\x04\x7a\x00",
    );
    check(
        &ReplyMessage { presence: Some(PresenceResult::default()), ..reply() },
        r#"{"id":4,"presence":{"presence":{}}}"#,
        b"\x08\x04\x4a\x00",
    );
    check(
        &ReplyMessage { presence_stats: Some(PresenceStatsResult::default()), ..reply() },
        r#"{"id":4,"presence_stats":{"num_clients":0,"num_users":0}}"#,
        b"\x08\x04\x52\x00",
    );
    check(
        &ReplyMessage { history: Some(HistoryResult::default()), ..reply() },
        r#"{"id":4,"history":{"publications":[],"epoch":"","offset":0}}"#,
        b"\x08\x04\x5a\x00",
    );
}

#[test]
fn connect_result() {
    let subs = HashMap::from([(
        "n".to_owned(),
        SubscribeResult { recoverable: true, epoch: "e".to_owned(), positioned: true, ..Default::default() },
    )]);
    let result = ConnectResult {
        client: "c".to_owned(),
        version: "v".to_owned(),
        expires: true,
        ttl: 300,
        data: Bytes::from_static(b"{}"),
        subs,
        ping: 25,
        pong: true,
        session: String::new(),
        node: String::new(),
        time: 1,
    };
    check(
        &ReplyMessage { id: 1, connect: Some(result), ..ReplyMessage::default() },
        concat!(
            r#"{"id":1,"connect":{"client":"c","version":"v","expires":true,"ttl":300,"data":{},"#,
            r#""subs":{"n":{"recoverable":true,"epoch":"e","positioned":true}},"ping":25,"pong":true,"time":1}}"#
        ),
        &[
            b"\x08\x01\x2a\x23\x0a\x01c\x12\x01v\x18\x01\x20\xac\x02\x2a\x02{}".as_slice(),
            b"\x32\x0c\x0a\x01n\x12\x07\x18\x01\x32\x01e\x50\x01\x38\x19\x40\x01\x58\x01",
        ]
        .concat(),
    );
    check(
        &ReplyMessage { id: 1, connect: Some(ConnectResult::default()), ..ReplyMessage::default() },
        r#"{"id":1,"connect":{"client":"","version":""}}"#,
        b"\x08\x01\x2a\x00",
    );
    let emulated =
        ConnectResult { session: "s".to_owned(), node: "n".to_owned(), ..ConnectResult::default() };
    check(
        &ReplyMessage { id: 1, connect: Some(emulated), ..ReplyMessage::default() },
        r#"{"id":1,"connect":{"client":"","version":"","session":"s","node":"n"}}"#,
        b"\x08\x01\x2a\x06\x4a\x01s\x52\x01n",
    );
}

#[test]
fn subscribe_result() {
    let result = SubscribeResult {
        expires: true,
        ttl: 5,
        recoverable: true,
        epoch: "e".to_owned(),
        publications: vec![centrifuge::PublicationMessage::new(
            &Publication { offset: 2, ..publication(b"1") },
            false,
        )],
        recovered: true,
        offset: 1,
        positioned: true,
        data: Bytes::from_static(b"null"),
        was_recovering: true,
    };
    check(
        &ReplyMessage { id: 2, subscribe: Some(result), ..ReplyMessage::default() },
        concat!(
            r#"{"id":2,"subscribe":{"expires":true,"ttl":5,"recoverable":true,"epoch":"e","#,
            r#""publications":[{"data":1,"offset":2}],"recovered":true,"offset":1,"positioned":true,"#,
            r#""data":null,"was_recovering":true}}"#
        ),
        &[
            b"\x08\x02\x32\x1e\x08\x01\x10\x05\x18\x01\x32\x01e\x3a\x05\x22\x011\x30\x02".as_slice(),
            b"\x40\x01\x48\x01\x50\x01\x5a\x04null\x60\x01",
        ]
        .concat(),
    );
}

#[test]
fn other_results() {
    let reply = || ReplyMessage { id: 4, ..ReplyMessage::default() };
    let presence = HashMap::from([("x".to_owned(), centrifuge::ClientInfoMessage::from(&anonymous()))]);
    check(
        &ReplyMessage { presence: Some(PresenceResult { presence }), ..reply() },
        &format!(r#"{{"id":4,"presence":{{"presence":{{"x":{{"user":"","client":"{CLIENT}"}}}}}}}}"#),
        &[b"\x08\x04\x4a\x2d\x0a\x2b\x0a\x01x\x12\x26\x12\x24".as_slice(), CLIENT.as_bytes()].concat(),
    );
    check(
        &ReplyMessage {
            presence_stats: Some(PresenceStatsResult { num_clients: 3, num_users: 2 }),
            ..reply()
        },
        r#"{"id":4,"presence_stats":{"num_clients":3,"num_users":2}}"#,
        b"\x08\x04\x52\x04\x08\x03\x10\x02",
    );
    let publications =
        vec![centrifuge::PublicationMessage::new(&Publication { offset: 1, ..publication(b"{}") }, false)];
    check(
        &ReplyMessage {
            history: Some(HistoryResult { publications, epoch: "e".to_owned(), offset: 9 }),
            ..reply()
        },
        r#"{"id":4,"history":{"publications":[{"data":{},"offset":1}],"epoch":"e","offset":9}}"#,
        b"\x08\x04\x5a\x0d\x0a\x06\x22\x02{}\x30\x01\x12\x01e\x18\x09",
    );
    check(
        &ReplyMessage { rpc: Some(RpcResult { data: Bytes::from_static(b"[1]") }), ..reply() },
        r#"{"id":4,"rpc":{"data":[1]}}"#,
        b"\x08\x04\x6a\x05\x0a\x03[1]",
    );
    check(
        &ReplyMessage { refresh: Some(ExpiryResult { expires: true, ttl: 60 }), ..reply() },
        r#"{"id":4,"refresh":{"expires":true,"ttl":60}}"#,
        b"\x08\x04\x72\x04\x18\x01\x20\x3c",
    );
    check(
        &ReplyMessage { sub_refresh: Some(SubRefreshResult { expires: true, ttl: 60 }), ..reply() },
        r#"{"id":4,"sub_refresh":{"expires":true,"ttl":60}}"#,
        b"\x08\x04\x7a\x04\x08\x01\x10\x3c",
    );
}

#[test]
fn publications() {
    check(
        &push_publication(&news(), &publication(b"{\"a\":1}"), None),
        r#"{"push":{"channel":"news","pub":{"data":{"a":1}}}}"#,
        b"\x22\x11\x12\x04news\x22\x09\x22\x07{\"a\":1}",
    );
    check(
        &push_publication(&news(), &Publication { offset: 1, ..publication(b"1") }, Some(epoch())),
        r#"{"push":{"channel":"news","pub":{"data":1,"offset":1,"epoch":"abcdEFGH"}}}"#,
        b"\x22\x17\x12\x04news\x22\x0f\x22\x011\x30\x01\x72\x08abcdEFGH",
    );
    let tags = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\n".to_owned())]);
    let full = Publication {
        data: Bytes::from_static(b"[1,\n 2]"),
        info: Some(Arc::new(info())),
        tags: Some(Arc::new(tags)),
        offset: 300,
        ..Publication::default()
    };
    check(
        &push_publication(&news(), &full, None),
        &format!(
            concat!(
                r#"{{"push":{{"channel":"news","pub":{{"data":[1, 2],"#,
                r#""info":{{"user":"42","client":"{}","conn_info":{{"n":1}},"chan_info":[]}},"#,
                r#""offset":300,"tags":{{"a":"\n","b":"2"}}}}}}}}"#
            ),
            CLIENT
        ),
        &[
            b"\x22\x5d\x12\x04news\x22\x55\x22\x07[1,\n 2]\x2a\x37\x0a\x0242\x12\x24".as_slice(),
            CLIENT.as_bytes(),
            b"\x1a\x07{\"n\":1}\x22\x02[]\x30\xac\x02\x3a\x06\x0a\x01a\x12\x01\n\x3a\x06\x0a\x01b\x12\x012",
        ]
        .concat(),
    );
    check(
        &push_publication(&news(), &publication(b""), None),
        r#"{"push":{"channel":"news","pub":{}}}"#,
        b"\x22\x08\x12\x04news\x22\x00",
    );
}

#[test]
fn the_time_of_a_publication_is_told_where_it_is_shown() {
    let timed = Publication { offset: 2, time: 1_764_457_200_000, ..publication(b"1") };
    check(
        &push_with_time(&news(), &timed, None, true),
        r#"{"push":{"channel":"news","pub":{"data":1,"offset":2,"time":1764457200000}}}"#,
        b"\x22\x14\x12\x04news\x22\x0c\x22\x011\x30\x02\x48\x80\xf3\xe0\x8e\xad\x33",
    );
    check(
        &push_with_time(&news(), &timed, None, false),
        r#"{"push":{"channel":"news","pub":{"data":1,"offset":2}}}"#,
        b"\x22\x0d\x12\x04news\x22\x05\x22\x011\x30\x02",
    );
    let unknown = Publication { time: 0, ..timed.clone() };
    let untold = r#"{"push":{"channel":"news","pub":{"data":1,"offset":2}}}"#;
    check(
        &push_with_time(&news(), &unknown, None, true),
        untold,
        b"\x22\x0d\x12\x04news\x22\x05\x22\x011\x30\x02",
    );

    let told = |outcome| {
        let reply = ReplyMessage::from(&Reply { id: 1, result: Ok(outcome) });
        String::from_utf8(encoded(Encoding::Json, &reply))
            .expect("JSON is text")
            .contains(r#""time":1764457200000"#)
    };
    for shows_time in [true, false] {
        let (top, publications) = (Position { epoch: epoch(), offset: 2 }, vec![Arc::new(timed.clone())]);
        let recovered = Some(publications.clone());
        let subscribed = Subscribed { recovered, shows_time, ..Subscribed::default() };
        assert_eq!(told(Outcome::Subscribed(subscribed)), shows_time);
        assert_eq!(told(Outcome::History { top, publications, shows_time }), shows_time);
    }
}

#[test]
fn other_pushes() {
    check(
        &push_join(&news(), &anonymous()),
        &format!(r#"{{"push":{{"channel":"news","join":{{"info":{{"user":"","client":"{CLIENT}"}}}}}}}}"#),
        &[b"\x22\x30\x12\x04news\x2a\x28\x0a\x26\x12\x24".as_slice(), CLIENT.as_bytes()].concat(),
    );
    check(
        &push_leave(&news(), &anonymous()),
        &format!(r#"{{"push":{{"channel":"news","leave":{{"info":{{"user":"","client":"{CLIENT}"}}}}}}}}"#),
        &[b"\x22\x30\x12\x04news\x32\x28\x0a\x26\x12\x24".as_slice(), CLIENT.as_bytes()].concat(),
    );
    check(
        &push_unsubscribe(&news(), Unsubscribed::InsufficientState),
        r#"{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        b"\x22\x1f\x12\x04news\x3a\x17\x10\xc4\x13\x1a\x12insufficient state",
    );
    check(
        &push_subscribe(
            &news(),
            SubscribePush {
                recoverable: true,
                epoch: "e".to_owned(),
                offset: 7,
                positioned: true,
                data: Bytes::from_static(b"{}"),
            },
        ),
        concat!(
            r#"{"push":{"channel":"news","subscribe":"#,
            r#"{"recoverable":true,"epoch":"e","offset":7,"positioned":true,"data":{}}}}"#
        ),
        b"\x22\x15\x12\x04news\x4a\x0d\x08\x01\x22\x01e\x28\x07\x30\x01\x3a\x02{}",
    );
    check(
        &push_subscribe(&news(), SubscribePush::default()),
        r#"{"push":{"channel":"news","subscribe":{}}}"#,
        b"\x22\x08\x12\x04news\x4a\x00",
    );
    check(
        &push_refresh(true, 60),
        r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#,
        b"\x22\x06\x62\x04\x08\x01\x10\x3c",
    );
    check(&push_refresh(false, 0), r#"{"push":{"refresh":{}}}"#, b"\x22\x02\x62\x00");
}

#[test]
fn what_is_not_json_is_written_in_base64() {
    let json =
        |reply: &ReplyMessage| String::from_utf8(encoded(Encoding::Json, reply)).expect("JSON is UTF-8");
    let binary = publication(b"\xff\x00");
    assert_eq!(
        json(&push_publication(&news(), &Publication { offset: 7, ..binary.clone() }, None)),
        r#"{"push":{"channel":"news","pub":{"data":null,"b64data":"/wA=","offset":7}}}"#
    );
    let member = || ClientInfo {
        connection: Bytes::from_static(b"{"),
        subscription: Bytes::from_static(b"\xff"),
        ..info()
    };
    let info = format!(
        r#"{{"user":"42","client":"{CLIENT}","conn_info":null,"b64conn_info":"ew==","chan_info":null,"b64chan_info":"/w=="}}"#
    );
    assert_eq!(
        json(&push_join(&news(), &member())),
        format!(r#"{{"push":{{"channel":"news","join":{{"info":{info}}}}}}}"#)
    );
    assert_eq!(
        json(&push_leave(&news(), &member())),
        format!(r#"{{"push":{{"channel":"news","leave":{{"info":{info}}}}}}}"#)
    );
    let presence = HashMap::from([("a".to_owned(), (&member()).into())]);
    assert_eq!(
        json(&ReplyMessage { id: 2, presence: Some(PresenceResult { presence }), ..ReplyMessage::default() }),
        format!(r#"{{"id":2,"presence":{{"presence":{{"a":{info}}}}}}}"#)
    );
    let publications =
        || vec![centrifuge::PublicationMessage::new(&Publication { offset: 7, ..binary.clone() }, false)];
    let history = HistoryResult { publications: publications(), epoch: "e".into(), offset: 7 };
    assert_eq!(
        json(&ReplyMessage { id: 2, history: Some(history), ..ReplyMessage::default() }),
        r#"{"id":2,"history":{"publications":[{"data":null,"b64data":"/wA=","offset":7}],"epoch":"e","offset":7}}"#
    );
    let data = Bytes::from_static(b"1\n2");
    let result =
        SubscribeResult { publications: publications(), data: data.clone(), ..SubscribeResult::default() };
    assert_eq!(
        json(&ReplyMessage { id: 2, subscribe: Some(result), ..ReplyMessage::default() }),
        r#"{"id":2,"subscribe":{"publications":[{"data":null,"b64data":"/wA=","offset":7}],"data":null,"b64data":"MQoy"}}"#
    );
    assert_eq!(
        json(&push_subscribe(&news(), SubscribePush { data, ..SubscribePush::default() })),
        r#"{"push":{"channel":"news","subscribe":{"data":null,"b64data":"MQoy"}}}"#
    );
}

proptest! {
    #[test]
    fn publications_come_back(
        topic in ".+",
        text in any::<String>(),
        offset in prop_oneof![any::<u64>(), 0..3_u64],
        tags in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        user in any::<String>(),
    ) {
        let data = Bytes::from(serde_json::to_vec(&text).expect("text has a JSON form"));
        let info = Some(Arc::new(ClientInfo { user: user.clone().into(), ..info() }));
        let publication = Publication { data: data.clone(), info, tags: Some(Arc::new(tags.clone())), offset, ..Publication::default() };
        let topic = TopicName::new(&topic).expect("the name is not empty");
        let reply = push_publication(&topic, &publication, Some(epoch()));

        let protobuf = encoded(Encoding::Protobuf, &reply);
        prop_assert_eq!(ReplyMessage::decode_length_delimited(&protobuf[..]).expect("own messages decode"), reply.clone());

        let line = encoded(Encoding::Json, &reply);
        prop_assert!(!line.contains(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&line).expect("replies are JSON");
        let mut expected = serde_json::json!({"push": {"channel": topic.as_str(), "pub": {
            "data": text,
            "info": {"user": user, "client": CLIENT, "conn_info": {"n": 1}, "chan_info": []},
        }}});
        if offset > 0 {
            expected["push"]["pub"]["offset"] = offset.into();
        }
        if offset == 1 {
            expected["push"]["pub"]["epoch"] = "abcdEFGH".into();
        }
        if !tags.is_empty() {
            expected["push"]["pub"]["tags"] = serde_json::json!(tags);
        }
        prop_assert_eq!(value, expected);
    }

    /// Whatever the payload, a JSON reply is one line of JSON that holds it, as a value or in Base64.
    #[test]
    fn json_replies_are_one_line(
        data in prop_oneof![
            "[\\[\\]{},:\"0-9a \n\r\\\\]{0,12}".prop_map(String::into_bytes),
            any::<Vec<u8>>(),
            (0_usize..300).prop_map(|depth| ("[".repeat(depth) + &"]".repeat(depth)).into_bytes()),
        ],
    ) {
        let data = Bytes::from(data);
        let publication = Publication { data: data.clone(), offset: 1, ..Publication::default() };
        let line = encoded(Encoding::Json, &push_publication(&news(), &publication, None));
        prop_assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
        // Raw, since a parser that builds values would stop at some depth.
        let fields = |json| serde_json::from_str::<HashMap<String, &RawValue>>(json).expect("an object");
        let line = std::str::from_utf8(&line).expect("JSON is UTF-8");
        let sent = fields(fields(fields(line)["push"].get())["pub"].get());
        match sent.get("b64data") {
            Some(base64) => {
                prop_assert!(json::check(&data).is_err() && sent["data"].get() == "null");
                prop_assert_eq!(STANDARD.decode(base64.get().trim_matches('"')).expect("Base64"), &data[..]);
            }
            None if data.is_empty() => prop_assert!(!sent.contains_key("data")),
            None => {
                prop_assert_eq!(json::check(&data), Ok(()));
                let text = std::str::from_utf8(&data).expect("checked").trim_matches([' ', '\n', '\r', '\t']);
                prop_assert_eq!(sent["data"].get(), text.replace(['\n', '\r'], ""));
            }
        }
    }
}
