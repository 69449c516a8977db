//! Bare WebSockets of `GET /subscribe`: data in, data out.

use std::time::Duration;

use fanwire_hub::{NameRules, Namespace, Namespaces};
use fanwire_server::settings::{DeflateSettings, Subprotocols};
use serde_json::{Value, json};

use crate::common::{
    BINARY, Backend, CLOSE, PING, PONG, RawSocket, Response, TEXT, TestGateway, eventually, frame, open,
    settings, token, upgrade,
};
use crate::strange::{ROOM, any};

async fn connect(gateway: &TestGateway, query: &str) -> RawSocket {
    let mut socket = RawSocket::open(gateway.address).await;
    socket.upgrade(&upgrade(query, "")).await;
    socket
}

async fn refused(gateway: &TestGateway, request: &str) -> Response {
    RawSocket::ask(gateway.address, request).await
}

/// The next message, which has to be a text.
async fn text(socket: &mut RawSocket) -> String {
    socket.frame().await.expect("a message").text().to_owned()
}

/// Checks that nothing came before the answer to a heartbeat.
async fn nothing_more(socket: &mut RawSocket) {
    socket.send(frame(TEXT, "ping")).await;
    assert_eq!(text(socket).await, "pong");
}

/// The code of the next message, which tells of a refused one.
async fn error(socket: &mut RawSocket) -> (u64, String) {
    let message: Value = serde_json::from_str(&text(socket).await).unwrap();
    let error = &message["error"];
    (error["code"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
}

/// Messages bring no cursor, but one of a stream is as good here.
#[tokio::test]
async fn a_cursor_of_another_format_goes_on_here() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut stream = RawSocket::open(gateway.address).await;
    stream.send("GET /subscribe?topic=history:a&as=ndjson HTTP/1.1\r\nHost: test\r\n\r\n").await;
    stream.head().await;
    let first: Value = serde_json::from_str(&stream.until("\n").await).unwrap();
    let cursor = first["cursor"].as_str().unwrap();
    gateway.backend().await.publish_all("history:a", 1..4).await;
    let mut bare = connect(&gateway, &format!("topic=history:a&cursor={cursor}")).await;
    for number in 1..4 {
        assert_eq!(text(&mut bare).await, number.to_string());
    }
    nothing_more(&mut bare).await;
    // Where something may be missing, it is said first.
    let mut bare = connect(&gateway, &format!("topic=history:a&topic=room:b&cursor={cursor}")).await;
    let told: Value = serde_json::from_str(&text(&mut bare).await).unwrap();
    let recovered = |name: &str| {
        let topics = told["subscribed"].as_array().unwrap().iter();
        topics
            .filter(|topic| topic["topic"] == name)
            .map(|topic| topic["recovered"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!((recovered("history:a"), recovered("room:b")), (vec![json!(true)], vec![json!(false)]));
    assert_eq!(text(&mut bare).await, "1");
}

#[tokio::test]
async fn data_of_publications_are_messages() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut bare = connect(&gateway, "topic=history:a&channel=room:b").await;
        let mut backend = gateway.backend().await;
        for (topic, data) in
            [("history:a", json!({"a": [1, "ä"]})), ("room:b", json!("text")), ("history:a", json!(null))]
        {
            backend.call("publish", json!({"channel": topic, "data": data})).await;
            assert_eq!(serde_json::from_str::<Value>(&text(&mut bare).await).unwrap(), data);
        }
        nothing_more(&mut bare).await;
        assert_eq!(backend.call("presence_stats", json!({"channel": "room:b"})).await["num_clients"], 1);
        bare.send(frame(CLOSE, 1000_u16.to_be_bytes())).await;
        assert_eq!(bare.closed().await.0, 1000);
        drop((bare, backend));
        gateway.deserted().await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_json_come_as_bytes() {
    let gateway = TestGateway::start(any(1)).await;
    let mut bare = connect(&gateway, &format!("topic={ROOM}")).await;
    let mut backend = gateway.backend().await;
    backend.call("publish", json!({"channel": ROOM, "b64data": "/wA="})).await;
    let message = bare.frame().await.unwrap();
    assert_eq!((message.opcode, &*message.payload), (BINARY, &b"\xFF\x00"[..]));
    // And the other way.
    bare.send(frame(BINARY, b"\x00\xFF")).await;
    let message = bare.frame().await.unwrap();
    assert_eq!((message.opcode, &*message.payload), (BINARY, &b"\x00\xFF"[..]));
    nothing_more(&mut bare).await;
}

#[tokio::test]
async fn texts_are_published_and_come_back_as_they_were() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut watcher = gateway.client().await;
        watcher.subscribe("history:a").await;
        let ann = token(&json!({"sub": "ann", "info": {"name": "Ann"}}));
        let mut bare = connect(&gateway, &format!("topic=history:a&token={ann}")).await;
        let texts =
            ["hello", r#"{"a": 1}"#, "", "1", " \u{1}\n\"", r#""quoted""#, "Ping", "null", r#"{"error":"#];
        for text_sent in texts {
            bare.send(frame(TEXT, text_sent)).await;
            assert_eq!(text(&mut bare).await, text_sent);
            let (_, publication) = watcher.publication().await;
            let is_json = serde_json::from_str::<Value>(text_sent).ok();
            assert_eq!(publication["data"], is_json.clone().unwrap_or_else(|| json!(text_sent)));
            let tags = if is_json.is_some() { None } else { Some(&json!({"text": "true"})) };
            assert_eq!(publication.get("tags"), tags.map(|tags| tags as &Value));
            let info = &publication["info"];
            assert_eq!((&info["user"], &info["conn_info"]), (&json!("ann"), &json!({"name": "Ann"})));
        }
        // What others send as JSON strings is JSON.
        watcher.publish("history:a", json!("hello")).await;
        assert_eq!(text(&mut bare).await, r#""hello""#);
    }
}

#[tokio::test]
async fn heartbeats_are_answered_and_published_nowhere() {
    let mut settings = settings(1);
    settings.client.ping_interval = Some(Duration::from_millis(500));
    // Before the fourth ping, and long enough for a busy machine.
    settings.client.pong_timeout = Some(Duration::from_millis(1200));
    let gateway = TestGateway::start(settings).await;
    let mut bare = connect(&gateway, "topic=room:a&topic=room:b").await;
    let mut backend = gateway.backend().await;
    let present = async |backend: &mut Backend| {
        backend.call("presence_stats", json!({"channel": "room:a"})).await["num_clients"].as_u64()
    };
    assert_eq!(present(&mut backend).await, Some(1));
    // Pings by frames are not answered here: the heartbeats count as signs of life.
    let mut pings = 0;
    while pings < 4 {
        let message = bare.frame().await.expect("it stays open");
        if message.opcode == PING {
            pings += 1;
            bare.send(frame(TEXT, "ping")).await;
            let answer = bare.frame().await.unwrap();
            assert_eq!(answer.text(), "pong");
        }
    }
    bare.send(frame(PING, "data")).await;
    let pong = loop {
        let message = bare.frame().await.unwrap();
        if message.opcode == PONG {
            break message;
        }
    };
    assert_eq!(pong.payload, b"data");
    // Without either it ends.
    let (code, reason) = bare.closed().await;
    assert_eq!((code, &*reason), (3012, "no pong"));
    eventually("its presence ends", async || present(&mut backend).await == Some(0)).await;
}

#[tokio::test]
async fn a_message_that_is_refused_says_why_and_closes_nothing() {
    let mut settings = settings(1);
    let closed =
        Namespace { name: "closed".into(), allow_subscribe_for_client: true, ..Namespace::default() };
    let subscribers = Namespace {
        name: "subscribers".into(),
        allow_subscribe_for_client: true,
        allow_publish_for_subscriber: true,
        ..Namespace::default()
    };
    settings.namespaces = Namespaces::new(NameRules::default(), open(), [closed, subscribers]);
    let gateway = TestGateway::start(settings).await;
    let ann = token(&json!({"sub": "ann"}));
    let mut bare = connect(&gateway, &format!("topic=closed:a&token={ann}")).await;
    bare.send(frame(TEXT, "hello")).await;
    let (code, sentence) = error(&mut bare).await;
    assert_eq!(code, 103);
    assert!(sentence.contains("allow_publish_for_subscriber"), "{sentence}");
    bare.send(frame(BINARY, b"\xFF")).await;
    let (code, sentence) = error(&mut bare).await;
    assert_eq!(code, 107);
    assert!(sentence.contains("publication_format"), "{sentence}");

    // With several topics, one has to be named.
    let mut several = connect(&gateway, &format!("topic=a&topic=subscribers:a&token={ann}")).await;
    for _ in 0..2 {
        several.send(frame(TEXT, "hello")).await;
        let (code, sentence) = error(&mut several).await;
        assert_eq!((code, &*sentence), (107, "name the topic to publish to: ?publish=TOPIC"));
    }
    let query = format!("topic=a&topic=subscribers:a&publish=subscribers:a&token={ann}");
    let mut named = connect(&gateway, &query).await;
    named.send(frame(TEXT, "hello")).await;
    assert_eq!(text(&mut named).await, "hello");
    assert_eq!(text(&mut several).await, "hello");
    for socket in [&mut bare, &mut several, &mut named] {
        nothing_more(socket).await;
    }
}

#[tokio::test]
async fn too_many_messages_are_refused_and_the_rest_is_published() {
    let mut settings = settings(1);
    (settings.client.commands_per_second_max, settings.client.commands_burst_max) = (1, 3);
    let gateway = TestGateway::start(settings).await;
    let mut bare = connect(&gateway, "topic=a").await;
    let many: Vec<u8> = (0..20).flat_map(|number: u32| frame(TEXT, number.to_string())).collect();
    bare.send(many).await;
    let mut published = 0;
    for _ in 0..20 {
        let message: Value = serde_json::from_str(&text(&mut bare).await).unwrap();
        if message.is_number() {
            published += 1;
        } else {
            assert_eq!(message["error"]["code"], 111, "{message}");
        }
    }
    assert!((1..20).contains(&published), "{published}");
    nothing_more(&mut bare).await;
}

#[tokio::test]
async fn sub_protocols_are_confirmed_as_configured() {
    let asks = |name: &str| upgrade("topic=a", &format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let confirmed = async |gateway: &TestGateway, name: &str| {
        let mut socket = RawSocket::open(gateway.address).await;
        let head = socket.upgrade(&asks(name)).await;
        let line = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        line.map(str::to_owned)
    };
    let mut settings = settings(1);
    let gateway = TestGateway::start(settings.clone()).await;
    assert_eq!(confirmed(&gateway, "chat").await.as_deref(), Some("chat"));
    assert_eq!(confirmed(&gateway, "other, chat").await.as_deref(), Some("chat"));
    assert_eq!(confirmed(&gateway, "other").await, None);
    assert_eq!(confirmed(&gateway, "").await, None);
    settings.subscribe.subprotocols = Subprotocols::All;
    let gateway = TestGateway::start(settings).await;
    assert_eq!(confirmed(&gateway, "v1.json, chat").await.as_deref(), Some("v1.json"));
    for name in ["centrifuge-json", "chat, centrifuge-protobuf"] {
        let response = refused(&gateway, &asks(name)).await;
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.body.contains("/connection/websocket"), "{response:?}");
    }
}

/// The handshake fails with the status and the words of any other transport.
#[tokio::test]
async fn what_is_refused_is_refused_before_the_handshake_is_done() {
    let mut settings = settings(1);
    settings.client.subscriptions_max = 3;
    settings.client.allow_anonymous_connect_without_token = false;
    settings.origins.allowed = vec!["https://a.example".into()];
    let gateway = TestGateway::start(settings).await;
    let ann = token(&json!({"sub": "ann"}));
    let cases = [
        (upgrade(&format!("token={ann}"), ""), 400, Some(107)),
        (upgrade(&format!("token={ann}&topic=a&publish="), ""), 400, Some(107)),
        (upgrade(&format!("token={ann}&topic=a&publish={}", "a".repeat(300)), ""), 400, Some(107)),
        (upgrade(&format!("token={ann}&topic=a&publish=!node:a"), ""), 400, Some(107)),
        (upgrade(&format!("token={ann}&topic=a&publish=nobody:a"), ""), 404, Some(102)),
        (upgrade(&format!("token={ann}&topic=a&topic=b&topic=c&topic=d"), ""), 400, Some(106)),
        (upgrade(&format!("token={ann}&topic=nobody:a"), ""), 404, Some(102)),
        (upgrade(&format!("token={ann}&topic=$secret"), ""), 403, Some(103)),
        (upgrade("topic=a", ""), 401, Some(101)),
        (upgrade("topic=a&token=forged", ""), 401, Some(101)),
        (upgrade(&format!("token={ann}&topic=a"), "Origin: https://b.example\r\n"), 403, None),
        (upgrade("topic=a", "").replace("Sec-WebSocket-Key: ", "X-Key: "), 400, None),
        (upgrade("topic=a", "").replace("Connection: Upgrade", "Connection: close"), 426, None),
        (upgrade("topic=a", "").replace("GET", "POST"), 405, None),
    ];
    for (request, status, code) in cases {
        let response = refused(&gateway, &request).await;
        assert_eq!(response.status, status, "{request} {response:?}");
        if let Some(code) = code {
            let body: Value = serde_json::from_str(&response.body).unwrap();
            assert_eq!(body["error"]["code"], code, "{request} {body}");
        }
    }
    let mut page = RawSocket::open(gateway.address).await;
    page.upgrade(&upgrade(&format!("token={ann}&topic=a"), "Origin: https://a.example\r\n")).await;
    nothing_more(&mut page).await;
    drop(page);
    gateway.deserted().await;
}

/// What came before the handshake was answered is not for the opening.
#[tokio::test]
async fn messages_before_the_response_wait_for_it() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let topics: Vec<String> = (0..20).map(|number| format!("topic=room:{number}")).collect();
        let query = format!("{}&publish=room:7", topics.join("&"));
        let mut early = RawSocket::open(gateway.address).await;
        let request = upgrade(&query, "");
        let messages = [frame(TEXT, "one"), frame(TEXT, "ping"), frame(TEXT, "two")].concat();
        early.send([request.as_bytes(), &messages].concat()).await;
        assert!(early.head().await.starts_with("HTTP/1.1 101 "));
        let mut received = Vec::new();
        for _ in 0..3 {
            received.push(text(&mut early).await);
        }
        received.sort();
        assert_eq!(received, ["one", "pong", "two"]);
        nothing_more(&mut early).await;

        // Those of a client that is refused are for nobody.
        let mut refused = RawSocket::open(gateway.address).await;
        let request = upgrade("topic=$secret", "");
        refused.send([request.as_bytes(), &messages].concat()).await;
        assert_eq!(refused.response().await.status, 403);
        refused.ended().await;
    }
}

#[tokio::test]
async fn messages_are_compressed_where_both_sides_want_it() {
    let mut settings = settings(1);
    settings.websocket.deflate = Some(DeflateSettings { level: 6, payload_bytes_min: 10 });
    let gateway = TestGateway::start(settings).await;
    let mut socket = RawSocket::open(gateway.address).await;
    let head = socket.upgrade(&upgrade("topic=a", "Sec-WebSocket-Extensions: permessage-deflate\r\n")).await;
    assert!(head.contains("sec-websocket-extensions: permessage-deflate"), "{head}");
    let mut backend = gateway.backend().await;
    backend.call("publish", json!({"channel": "a", "data": "a".repeat(1000)})).await;
    let first = socket.bytes(2).await;
    assert_eq!(first[0], 0xC1, "a compressed text");
    assert!(first[1] < 100, "shorter than the data");
}

#[tokio::test]
async fn it_says_why_it_ends() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut bare = connect(&gateway, &format!("topic=a&token={}", token(&json!({"sub": "ann"})))).await;
    let mut backend: Backend = gateway.backend().await;
    backend.call("unsubscribe", json!({"user": "ann", "channel": "a"})).await;
    assert_eq!(bare.closed().await.0, 3503);
    let mut large = connect(&gateway, "topic=a").await;
    large.send(frame(TEXT, "a".repeat(64 * 1024 + 1))).await;
    assert_eq!(large.closed().await.0, 1009);
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(connect(&gateway, "topic=a").await);
    }
    let ends = async {
        for mut other in others {
            assert_eq!(other.closed().await, (3001, "shutdown".to_owned()));
        }
    };
    tokio::join!(gateway.shutdown(), ends);
}

/// A client that reads nothing, whatever it sends, costs only itself.
#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 64 * 1024;
    let gateway = TestGateway::start(settings).await;
    let mut bystander = connect(&gateway, "topic=b").await;
    for message in ["ping", "hello"] {
        let mut socket = RawSocket::open_small(gateway.address, 4096).await;
        socket.upgrade(&upgrade("topic=a&topic=c", "")).await;
        let many: Vec<u8> = (0..2000).flat_map(|_| frame(TEXT, message)).collect();
        let flood = async {
            for _ in 0..500 {
                socket.try_send(&many).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), flood).await;
        bystander.send(frame(TEXT, "hello")).await;
        assert_eq!(text(&mut bystander).await, "hello");
        socket.vanish();
    }
    drop(bystander);
    gateway.deserted().await;
}
