//! Bursts: what is written together, in pieces or late is still every message, whole and in order.

use std::hash::{DefaultHasher, Hasher};

use fanwire_protocol::centrifuge::{Command, ConnectRequest, PublishRequest, ReplyMessage, SubscribeRequest};
use prost::Message;
use serde_json::{Value, json};

use crate::common::{
    BINARY, Client, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, eventually, frame, settings,
};

const PUBLICATIONS: u32 = 10_000;
/// In small pieces, so that the server's writes are short.
const RECEIVE_BYTES: u32 = 32 * 1024;

fn protobuf(command: Command) -> Vec<u8> {
    frame(BINARY, command.encode_length_delimited_to_vec())
}

async fn connect_protobuf(mut socket: RawSocket) -> RawSocket {
    let request =
        WEBSOCKET_HANDSHAKE.replacen("\r\n", "\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n", 1);
    let head = socket.upgrade(&request).await;
    assert!(head.contains("sec-websocket-protocol: centrifuge-protobuf\r\n"), "{head}");
    socket
        .send(protobuf(Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() }))
        .await;
    assert_eq!(replies(&socket.frame().await.unwrap().payload)[0].id, 1);
    socket
}

fn replies(mut bytes: &[u8]) -> Vec<ReplyMessage> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        replies.push(ReplyMessage::decode_length_delimited(&mut bytes).unwrap());
    }
    replies
}

/// Publishes bytes of any kind.
pub(crate) async fn publish_protobuf(gateway: &TestGateway, topic: &str, data: Vec<u8>) {
    let reply = try_to_publish_protobuf(gateway, topic, data).await;
    assert!(reply.publish.is_some(), "{reply:?}");
}

pub(crate) async fn try_to_publish_protobuf(
    gateway: &TestGateway,
    topic: &str,
    data: Vec<u8>,
) -> ReplyMessage {
    let mut socket = connect_protobuf(RawSocket::open(gateway.address).await).await;
    let publish = PublishRequest { channel: topic.into(), data: data.into(), ..PublishRequest::default() };
    socket.send(protobuf(Command { id: 2, publish: Some(publish), ..Command::default() })).await;
    replies(&socket.frame().await.unwrap().payload).remove(0)
}

/// Sends everything before it looks at a reply.
async fn burst(publisher: &mut Client, publications: impl Iterator<Item = (String, u32)>) {
    const IN_ONE_FRAME: usize = 500;
    let publications: Vec<_> = publications.collect();
    let mut ids = Vec::new();
    for some in publications.chunks(IN_ONE_FRAME) {
        let commands =
            some.iter().map(|(topic, number)| ("publish", json!({"channel": topic, "data": number})));
        ids.extend(publisher.commands(commands).await);
    }
    let mut open: std::collections::HashSet<u32> = ids.into_iter().collect();
    while !open.is_empty() {
        let reply = publisher.next().await;
        assert!(reply.get("publish").is_some(), "{reply}");
        assert!(open.remove(&(reply["id"].as_u64().unwrap() as u32)));
    }
}

/// Reads the whole burst as frames, each of which has to be the right one, and tells what the bytes were.
async fn read_frames(mut socket: RawSocket, number: fn(&[u8]) -> u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    for expected in 0..PUBLICATIONS {
        let frame = socket.frame().await.unwrap();
        // Every message is hashed, and some are understood, which takes its time.
        hasher.write(&frame.payload);
        if expected % 100 == 0 {
            assert_eq!(number(&frame.payload), expected);
        }
    }
    hasher.finish()
}

async fn read_events(mut socket: RawSocket) -> u64 {
    assert!(socket.until("\n\n").await.starts_with("event: subscribed\n"));
    let mut hasher = DefaultHasher::new();
    for expected in 0..PUBLICATIONS {
        let event = socket.until("\n\n").await;
        hasher.write(event.as_bytes());
        if expected % 100 == 0 {
            let data: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["data"], expected);
        }
    }
    hasher.finish()
}

fn json_number(payload: &[u8]) -> u32 {
    let push: Value = serde_json::from_slice(payload).unwrap();
    push["push"]["pub"]["data"].as_u64().unwrap() as u32
}

fn protobuf_number(payload: &[u8]) -> u32 {
    let reply = replies(payload).remove(0);
    let publication = reply.push.unwrap().publication.unwrap();
    std::str::from_utf8(&publication.data).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_great_burst_reaches_everybody_byte_by_byte() {
    const EACH: usize = 20;
    let mut settings = settings(3);
    // Nobody here is slow; some only take small bites. The kernel would give up a stream of events whose reader
    // had a closed window for this long, as happens where the readers share one busy thread.
    settings.client.queue_bytes_max = 16 << 20;
    settings.client.pong_timeout = None;
    settings.client.ping_interval = None;
    // A stream of events begins before its subscription is made: presence tells when all are there.
    settings.namespaces.default.presence = true;
    let gateway = TestGateway::start(settings).await;
    let small = || RawSocket::open_small(gateway.address, RECEIVE_BYTES);
    let mut frames = Vec::new();
    let mut messages = Vec::new();
    let mut events = Vec::new();
    for _ in 0..8 * EACH {
        let mut client = Client::over(small().await).await;
        client.request("connect", json!({})).await.unwrap();
        client.subscribe("burst").await;
        frames.push(tokio::spawn(read_frames(client.socket, json_number)));
    }
    for _ in 0..EACH {
        let mut socket = connect_protobuf(small().await).await;
        let subscribe = SubscribeRequest { channel: "burst".into(), ..SubscribeRequest::default() };
        socket.send(protobuf(Command { id: 2, subscribe: Some(subscribe), ..Command::default() })).await;
        assert!(replies(&socket.frame().await.unwrap().payload)[0].subscribe.is_some());
        messages.push(tokio::spawn(read_frames(socket, protobuf_number)));

        let mut socket = small().await;
        socket.send("GET /subscribe?topic=burst&as=sse HTTP/1.1\r\nHost: test\r\n\r\n").await;
        socket.head().await;
        socket.until("\n\n").await;
        events.push(tokio::spawn(read_events(socket)));
    }
    let mut publisher = gateway.client().await;
    eventually("all listen", async || publisher.present("burst").await == 10 * EACH as u64).await;

    burst(&mut publisher, (0..PUBLICATIONS).map(|number| ("burst".to_owned(), number))).await;
    for group in [frames, messages, events] {
        let mut hashes = Vec::new();
        for subscriber in group {
            hashes.push(subscriber.await.unwrap());
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "all of one kind get the same bytes");
    }
}

#[tokio::test]
async fn bursts_into_many_topics_keep_the_order_of_each() {
    const TOPICS: [&str; 5] = ["a", "history:b", "c", "history:d", "cache:e"];
    const NUMBERS: u32 = 400;
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut subscribers = Vec::new();
        for subscriber in 0..8 {
            // Each in a different set of topics, none in none of them.
            let topics: Vec<_> = TOPICS
                .iter()
                .enumerate()
                .filter(|(n, _)| (subscriber + n) % 4 != 0)
                .map(|(_, t)| *t)
                .collect();
            let mut client = gateway.client().await;
            for topic in &topics {
                client.subscribe(topic).await;
            }
            subscribers.push((client, topics));
        }
        let mut publisher = gateway.client().await;
        let all = (0..NUMBERS).flat_map(|number| TOPICS.map(|topic| (topic.to_owned(), number)));
        burst(&mut publisher, all).await;
        for (mut client, topics) in subscribers {
            let mut next = std::collections::HashMap::<String, u32>::new();
            let mut missing = topics.len() * NUMBERS as usize;
            while missing > 0 {
                let (topic, publication) = client.publication().await;
                let next = next.entry(topic).or_default();
                assert_eq!(publication["data"], *next);
                *next += 1;
                missing -= 1;
            }
            client.nothing_more().await;
        }
    }
}
