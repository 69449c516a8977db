//! Commands from bytes, replies and events to bytes.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_protocol::centrifuge::{
    Command, ConnectRequest, Encoding, PublishRequest, PushMessage, ReplyMessage, SubscribeRequest,
    SubscribeResult, encode,
};
use fanwire_protocol::plain::event;
use fanwire_protocol::reply::{Outcome, Push, Reply, Subscribed};
use fanwire_protocol::websocket::framed;
use fanwire_protocol::wire::{ClientMessage, Wire};
use fanwire_protocol::{ClientId, ClientInfo, Epoch, Position, Publication, Tags, TopicName};
use prost::Message;

use crate::harness::{Case, repeat};

pub(crate) const CASES: [Case; 17] = [
    Case {
        name: "encode: publication, JSON frame",
        rounds: 5_000,
        run: |rounds| encode_frames(rounds, Encoding::Json, &publication_reply(&plain())),
    },
    Case {
        name: "encode: publication, Protobuf frame",
        rounds: 10_000,
        run: |rounds| encode_frames(rounds, Encoding::Protobuf, &publication_reply(&plain())),
    },
    Case { name: "encode: publication, event", rounds: 5_000, run: |rounds| encode_events(rounds, &plain()) },
    Case { name: "encode: publication, line from frame", rounds: 20_000, run: lines_from_frames },
    Case {
        name: "encode: publication with info and tags, JSON frame",
        rounds: 3_000,
        run: |rounds| encode_frames(rounds, Encoding::Json, &publication_reply(&labelled())),
    },
    Case {
        name: "encode: publication with info and tags, Protobuf frame",
        rounds: 5_000,
        run: |rounds| encode_frames(rounds, Encoding::Protobuf, &publication_reply(&labelled())),
    },
    Case {
        name: "encode: publication with info and tags, event",
        rounds: 3_000,
        run: |rounds| encode_events(rounds, &labelled()),
    },
    Case {
        name: "encode: subscribe result, JSON frame",
        rounds: 10_000,
        run: |rounds| encode_frames(rounds, Encoding::Json, &subscribed()),
    },
    Case {
        name: "encode: subscribe result, Protobuf frame",
        rounds: 10_000,
        run: |rounds| encode_frames(rounds, Encoding::Protobuf, &subscribed()),
    },
    Case {
        name: "reply: subscribed, JSON",
        rounds: 5_000,
        run: |rounds| write_replies(rounds, Wire::CentrifugeJson),
    },
    Case {
        name: "reply: subscribed, Protobuf",
        rounds: 5_000,
        run: |rounds| write_replies(rounds, Wire::CentrifugeProtobuf),
    },
    Case {
        name: "decode: connect, JSON",
        rounds: 2_000,
        run: |rounds| {
            let command = format!(r#"{{"id":1,"connect":{{"token":"{}","name":"js"}}}}"#, token());
            decode(rounds, Wire::CentrifugeJson, command.as_bytes())
        },
    },
    Case {
        name: "decode: connect, Protobuf",
        rounds: 5_000,
        run: |rounds| {
            let connect = ConnectRequest { token: token(), name: "js".into(), ..Default::default() };
            let command = Command { id: 1, connect: Some(connect), ..Default::default() };
            decode(rounds, Wire::CentrifugeProtobuf, &command.encode_length_delimited_to_vec())
        },
    },
    Case {
        name: "decode: subscribe, JSON",
        rounds: 2_000,
        run: |rounds| {
            let command = format!(r#"{{"id":2,"subscribe":{{"channel":"{TOPIC}","recoverable":true}}}}"#);
            decode(rounds, Wire::CentrifugeJson, command.as_bytes())
        },
    },
    Case {
        name: "decode: subscribe, Protobuf",
        rounds: 5_000,
        run: |rounds| {
            let subscribe =
                SubscribeRequest { channel: TOPIC.into(), recoverable: true, ..Default::default() };
            let command = Command { id: 2, subscribe: Some(subscribe), ..Default::default() };
            decode(rounds, Wire::CentrifugeProtobuf, &command.encode_length_delimited_to_vec())
        },
    },
    Case {
        name: "decode: publish, JSON",
        rounds: 2_000,
        run: |rounds| {
            let payload = payload();
            let command =
                [format!(r#"{{"id":3,"publish":{{"channel":"{TOPIC}","data":"#).as_bytes(), &payload, b"}}"]
                    .concat();
            decode(rounds, Wire::CentrifugeJson, &command)
        },
    },
    Case {
        name: "decode: publish, Protobuf",
        rounds: 5_000,
        run: |rounds| {
            let publish = PublishRequest { channel: TOPIC.into(), data: payload(), ..Default::default() };
            let command = Command { id: 3, publish: Some(publish), ..Default::default() };
            decode(rounds, Wire::CentrifugeProtobuf, &command.encode_length_delimited_to_vec())
        },
    },
];

const TOPIC: &str = "chat:lobby";
const PAYLOAD_BYTES: usize = 128;
/// Of everyday length for a signed token.
const TOKEN_BYTES: usize = 180;

fn encode_frames(rounds: u64, encoding: Encoding, reply: &ReplyMessage) -> u64 {
    repeat(rounds, 1, || {
        let frame = framed(encoding.opcode(), |to| encode(encoding, black_box(reply), to));
        black_box(frame);
    })
}

/// From the outcome of a request to a frame.
fn write_replies(rounds: u64, wire: Wire) -> u64 {
    let top = Position { epoch: Epoch::parse(b"abcdefgh").expect("eight letters"), offset: 7 };
    let subscribed =
        Subscribed { recoverable: true, positioned: true, top: Some(top), ..Subscribed::default() };
    let reply = Reply { id: 2, result: Ok(Outcome::Subscribed(subscribed)) };
    repeat(rounds, 1, || {
        black_box(wire.reply(black_box(&reply)));
    })
}

/// The form of one wire, made of that of another.
fn lines_from_frames(rounds: u64) -> u64 {
    let push =
        Push::Publication { topic: topic(), publication: Arc::new(plain()), epoch: None, shows_time: false };
    let frame = Wire::CentrifugeJson.encode(&push, None);
    repeat(rounds, 1, || {
        let kin = Some((Wire::CentrifugeJson, black_box(&frame)));
        black_box(Wire::CentrifugeLines.encode(&push, kin));
    })
}

fn encode_events(rounds: u64, publication: &Publication) -> u64 {
    let topic = topic();
    repeat(rounds, 1, || {
        let mut text = Vec::with_capacity(publication.data.len() + 64);
        event::publication(&topic, black_box(publication), false, &mut text);
        black_box(text);
    })
}

fn decode(rounds: u64, wire: Wire, frame: &[u8]) -> u64 {
    repeat(rounds, 1, || {
        let mut requests = 0;
        for request in wire.requests(ClientMessage::Binary(black_box(frame)), 0) {
            black_box(request.expect("the frame is well formed"));
            requests += 1;
        }
        assert_eq!(requests, 1);
    })
}

fn publication_reply(publication: &Publication) -> ReplyMessage {
    let publication = Arc::new(publication.clone());
    PushMessage::from(&Push::Publication { topic: topic(), publication, epoch: None, shows_time: false })
        .into()
}

fn subscribed() -> ReplyMessage {
    let result = SubscribeResult {
        recoverable: true,
        positioned: true,
        offset: 7,
        epoch: "abcdefgh".into(),
        ..Default::default()
    };
    ReplyMessage { id: 2, subscribe: Some(result), ..Default::default() }
}

fn plain() -> Publication {
    Publication { data: payload(), offset: 7, ..Publication::default() }
}

fn labelled() -> Publication {
    let info = ClientInfo {
        user: "42".into(),
        client: ClientId::parse("00000000-0000-4000-8000-000000000001").expect("it is a UUID"),
        connection: Bytes::from_static(br#"{"name":"Ada"}"#),
        subscription: Bytes::new(),
    };
    let tags = Tags::from([("kind".into(), "greeting".into()), ("room".into(), "lobby".into())]);
    Publication { info: Some(Arc::new(info)), tags: Some(Arc::new(tags)), ..plain() }
}

/// JSON of exactly so many bytes.
fn payload() -> Bytes {
    let (before, after) = (r#"{"input":""#, r#""}"#);
    let text = "hello ".chars().cycle().take(PAYLOAD_BYTES - before.len() - after.len()).collect::<String>();
    format!("{before}{text}{after}").into()
}

fn token() -> String {
    "eyJhbGciOiJIUzI1NiJ9".chars().cycle().take(TOKEN_BYTES).collect()
}

fn topic() -> TopicName {
    TopicName::new(TOPIC).expect("the name is not empty")
}
