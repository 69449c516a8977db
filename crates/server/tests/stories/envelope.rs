//! Bare WebSockets with `?envelope=json`: each message says its topic, and brings the cursor to come back with.

use fanwire_server::settings::DeflateSettings;
use serde_json::{Value, json};

use crate::common::{BINARY, CLOSE, RawSocket, TEXT, TestGateway, frame, settings, upgrade};
use crate::strange::{ROOM, any};

async fn connect(gateway: &TestGateway, query: &str) -> RawSocket {
    let mut socket = RawSocket::open(gateway.address).await;
    socket.upgrade(&upgrade(&format!("{query}&envelope=json"), "")).await;
    socket
}

/// The next message, which has to be a text in an envelope.
async fn envelope(socket: &mut RawSocket) -> Value {
    serde_json::from_str(socket.frame().await.expect("a message").text()).unwrap()
}

/// Checks that nothing came before the answer to a heartbeat, which has no envelope.
async fn nothing_more(socket: &mut RawSocket) {
    socket.send(frame(TEXT, "ping")).await;
    assert_eq!(socket.frame().await.unwrap().text(), "pong");
}

#[tokio::test]
async fn envelopes_name_topic_and_cursor() {
    let gateway = TestGateway::start(settings(2)).await;
    let query = "topic=history:a&topic=room:b&publish=room:b";
    let mut bare = connect(&gateway, query).await;
    let first = envelope(&mut bare).await;
    let mut topics: Vec<_> =
        first["subscribed"].as_array().unwrap().iter().map(|topic| &topic["topic"]).collect();
    topics.sort_by_key(|topic| topic.as_str());
    assert_eq!(topics, ["history:a", "room:b"]);
    let start = first["cursor"].as_str().unwrap().to_owned();
    // What the client sends has no envelope.
    bare.send(frame(TEXT, "hello")).await;
    let expected = json!({"topic": "room:b", "data": "hello", "tags": {"text": "true"}});
    let mut received = envelope(&mut bare).await;
    let sender = received["info"].take();
    assert!(sender["client"].is_string(), "{sender}");
    received.as_object_mut().unwrap().remove("info");
    assert_eq!(received, expected);
    gateway.backend().await.publish_all("history:a", 1..4).await;
    let mut cursors = vec![start];
    for number in 1..4 {
        let message = envelope(&mut bare).await;
        assert_eq!((&message["topic"], &message["data"]), (&json!("history:a"), &json!(number)));
        cursors.push(message["cursor"].as_str().unwrap().to_owned());
    }
    nothing_more(&mut bare).await;
    for (missed, cursor) in (0..=3).rev().zip(cursors) {
        let mut back = connect(&gateway, &format!("topic=history:a&cursor={cursor}")).await;
        assert_eq!(
            envelope(&mut back).await["subscribed"],
            json!([{"topic": "history:a", "recovered": true}])
        );
        for number in 4 - missed..4 {
            assert_eq!(envelope(&mut back).await["data"], number);
        }
        nothing_more(&mut back).await;
    }
    bare.send(frame(CLOSE, 1000_u16.to_be_bytes())).await;
    assert_eq!(bare.closed().await.0, 1000);
}

#[tokio::test]
async fn envelopes_hold_any_data() {
    let gateway = TestGateway::start(any(1)).await;
    let mut bare = connect(&gateway, &format!("topic={ROOM}")).await;
    envelope(&mut bare).await;
    let mut backend = gateway.backend().await;
    backend.call("publish", json!({"channel": ROOM, "b64data": "/wA="})).await;
    let message = envelope(&mut bare).await;
    assert_eq!((&message["data"], &message["b64data"]), (&Value::Null, &json!("/wA=")));
    bare.send(frame(BINARY, b"\x00\xFF")).await;
    assert_eq!(envelope(&mut bare).await["b64data"], "AP8=");
    bare.send(frame(TEXT, "")).await;
    assert_eq!(envelope(&mut bare).await["data"], "");
    nothing_more(&mut bare).await;
}

#[tokio::test]
async fn what_is_refused_says_so_without_an_envelope() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut several = connect(&gateway, "topic=a&topic=b").await;
    envelope(&mut several).await;
    several.send(frame(TEXT, "hello")).await;
    let expected = json!({"error": {"code": 107, "message": "name the topic to publish to: ?publish=TOPIC"}});
    assert_eq!(envelope(&mut several).await, expected);
    nothing_more(&mut several).await;
    for (query, why) in [
        ("topic=a&envelope=xml", "envelope: say json"),
        ("topic=a&envelope=", "envelope: say json"),
        ("topic=a&envelope=json&cursor=AQ", "cursor: "),
    ] {
        let response = RawSocket::ask(gateway.address, &upgrade(query, "")).await;
        assert_eq!(response.status, 400, "{query}");
        assert!(response.body.contains(why), "{}", response.body);
    }
}

/// A cursor holds sixteen topics, and those of a listener to several are its own.
#[tokio::test]
async fn envelopes_of_many_topics_are_bounded() {
    let gateway = TestGateway::start(settings(2)).await;
    let query = |topics: usize| {
        let topics: Vec<String> = (0..topics).map(|number| format!("topic=history:{number}")).collect();
        topics.join("&")
    };
    let mut bare = connect(&gateway, &query(16)).await;
    assert_eq!(envelope(&mut bare).await["subscribed"].as_array().unwrap().len(), 16);
    let data = "x".repeat(60_000);
    let mut backend = gateway.backend().await;
    for _ in 0..3 {
        backend.call("publish", json!({"channel": "history:7", "data": data})).await;
        let message = envelope(&mut bare).await;
        assert_eq!((&message["topic"], message["data"].as_str()), (&json!("history:7"), Some(&*data)));
        assert!(message["cursor"].as_str().unwrap().len() > 300);
    }
    let response = RawSocket::ask(gateway.address, &upgrade(&(query(17) + "&envelope=json"), "")).await;
    assert_eq!(response.status, 400);
    assert!(response.body.contains("at most 16 topics with history in one stream"), "{}", response.body);
}

/// A cursor of the client's own is not compressed: the message is made as it is written.
#[tokio::test]
async fn envelopes_of_one_topic_are_compressed_where_both_sides_want_it() {
    let mut settings = settings(1);
    settings.websocket.deflate = Some(DeflateSettings { level: 6, payload_bytes_min: 10 });
    let gateway = TestGateway::start(settings).await;
    let mut backend = gateway.backend().await;
    for (query, first_byte) in [("topic=history:a", 0xC1), ("topic=history:a&topic=history:b", 0x81)] {
        let mut socket = RawSocket::open(gateway.address).await;
        let request = upgrade(
            &format!("{query}&envelope=json"),
            "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n",
        );
        let head = socket.upgrade(&request).await;
        assert!(head.contains("sec-websocket-extensions: permessage-deflate"), "{head}");
        assert!(envelope(&mut socket).await["subscribed"].is_array());
        backend.call("publish", json!({"channel": "history:a", "data": "a".repeat(1000)})).await;
        assert_eq!(socket.bytes(2).await[0], first_byte, "{query}");
    }
}
