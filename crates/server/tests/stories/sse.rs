//! `GET /subscribe`: topics as Server-Sent Events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fanwire_hub::PersonalTopic;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

use crate::common::{PING, PONG, RawSocket, TestGateway, eventually, frame, settings, signing_key, token};
use crate::strange::{ROOM, any};

/// A stream that was granted, read up to its first event.
async fn listen(gateway: &TestGateway, query: &str) -> RawSocket {
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(format!("GET /subscribe?{query}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    let head = socket.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let retry = socket.until("\n\n").await;
    let wait: u64 = retry.strip_prefix("retry: ").unwrap().trim_end().parse().unwrap();
    assert!((1000..=5000).contains(&wait));
    socket
}

/// The next event's name and data; comments and the event of the beginning are passed over.
pub(crate) async fn event(socket: &mut RawSocket) -> (String, Value) {
    loop {
        let text = socket.until("\n\n").await;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let name = field("event: ").unwrap_or_default();
        match field("data: ") {
            Some(_) if name == "subscribed" => {}
            Some(data) => return (name, serde_json::from_str(&data).unwrap()),
            None => assert_eq!(text, ":\n\n"),
        }
    }
}

/// Waits until the topic has so many listeners.
async fn has_listeners(gateway: &TestGateway, topic: &str, count: u64) {
    let mut observer = gateway.client().await;
    eventually("the listeners are there", async || observer.present(topic).await == count).await;
}

#[tokio::test]
async fn several_topics_come_in_one_stream() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut listener = listen(&gateway, "topic=room:a&topic=history:b&topic=room:z").await;
        for room in ["room:a", "room:z"] {
            has_listeners(&gateway, room, 1).await;
        }
        let mut publisher = gateway.client_with(&json!({"sub": "ann"})).await;
        publisher.publish("room:a", json!({"text": "line\nbreak"})).await;
        let (name, data) = event(&mut listener).await;
        assert_eq!(name, "");
        assert_eq!((&data["topic"], &data["data"]), (&json!("room:a"), &json!({"text": "line\nbreak"})));
        assert_eq!(data["info"]["user"], "ann");
        publisher.publish("room:z", json!(1)).await;
        assert_eq!(event(&mut listener).await.1["topic"], "room:z");
        eventually("the third topic is subscribed", async || {
            publisher.publish("history:b", json!("again")).await;
            let waited = tokio::time::timeout(Duration::from_millis(200), event(&mut listener)).await;
            waited.is_ok_and(|(_, data)| data["topic"] == "history:b" && data["offset"].as_u64() > Some(0))
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_before_the_stream_begins() {
    let mut settings = settings(1);
    settings.client.subscriptions_max = 3;
    settings.client.allow_anonymous_connect_without_token = false;
    let gateway = TestGateway::start(settings).await;
    let ann = token(&json!({"sub": "ann"}));
    let for_bob = token(&json!({"sub": "bob", "channel": "$secret"}));
    let unfit = token(&json!({"sub": "ann", "channel": "$secret", "b64info": "/w=="}));
    let cases = [
        (format!("token={ann}"), 400, 107, "topic"),
        (format!("token={ann}&topic="), 400, 107, ""),
        (format!("token={ann}&topic=a&topic=b&topic=c&topic=d"), 400, 106, "client.subscriptions_max"),
        (format!("token={ann}&topic=nobody:a"), 404, 102, "nobody:a"),
        (format!("token={ann}&topic=$secret"), 403, 103, "$secret"),
        (format!("token={ann}&topic=$secret&subscription_token={for_bob}"), 401, 101, "$secret"),
        ("topic=a".into(), 401, 101, "client.allow_anonymous_connect_without_token"),
        ("topic=a&token=forged".into(), 401, 101, ""),
        (format!("topic=a&token={}", token(&json!({"sub": "ann", "exp": 1}))), 401, 109, ""),
        (
            format!("topic=a&token={}", token(&json!({"sub": "ann", "b64info": "/w=="}))),
            401,
            101,
            "info is not JSON",
        ),
        (
            format!("topic=a&token={}", token(&json!({"sub": "ann", "subs": {"b": {"b64data": "/w=="}}}))),
            401,
            101,
            "data in subs is not JSON",
        ),
        (format!("token={ann}&topic=$secret&subscription_token={unfit}"), 400, 107, "info is not JSON"),
    ];
    for (query, status, code, message) in cases {
        let request = format!("GET /subscribe?{query}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = RawSocket::ask(gateway.address, &request).await;
        assert_eq!(response.status, status, "{query}");
        assert!(response.header("date").is_some_and(|date| date.ends_with(" GMT")), "{response:?}");
        let body: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(body["error"]["code"], code, "{query} {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(message), "{query} {body}");
    }
    let for_ann = token(&json!({"sub": "ann", "channel": "$secret"}));
    listen(&gateway, &format!("token={ann}&topic=$secret&subscription_token={for_ann}")).await;
    let mut bearer = RawSocket::open(gateway.address).await;
    bearer
        .send(format!(
            "GET /subscribe?topic=a&as=sse HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ann}\r\n\r\n"
        ))
        .await;
    assert!(bearer.head().await.starts_with("HTTP/1.1 200 "));
}

/// The response comes once all topics are subscribed, and what they bring meanwhile comes behind it.
#[tokio::test]
async fn nothing_is_missed_from_the_head_on() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut backend = gateway.backend().await;
        let topics: Vec<String> = (0..16).map(|number| format!("history:{number}")).collect();
        let query: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
        let query = query.join("&");
        for round in 1..=5 {
            let mut publish = async || {
                for topic in &topics {
                    backend.publish_all(topic, 1..2).await;
                }
            };
            let (mut listener, ()) = tokio::join!(listen(&gateway, &query), publish());
            publish().await;
            let mut newest = HashMap::new();
            while newest.len() < topics.len() || newest.values().any(|newest| *newest < 2 * round) {
                let (_, data) = event(&mut listener).await;
                let (topic, offset) = (data["topic"].as_str().unwrap(), data["offset"].as_u64().unwrap());
                let before = newest.insert(topic.to_owned(), offset);
                assert!(before.is_none_or(|before| offset == before + 1), "{topic} {before:?} {offset}");
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_ends_the_connection_and_pages_may_read_it() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://a.example".into()];
    let gateway = TestGateway::start(settings).await;
    let mut socket = RawSocket::open(gateway.address).await;
    let origin = "Origin: https://a.example\r\n";
    socket
        .send(format!("GET /subscribe?topic=room:a&topic=$b&as=sse HTTP/1.1\r\nHost: test\r\n{origin}\r\n"))
        .await;
    let response = socket.response().await;
    let refused = Instant::now();
    assert_eq!((response.status, response.header("connection")), (403, Some("close")), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(response.header("vary"), Some("Origin"));
    socket.ended().await;
    // It was told a status, and does not keep its place for as long as a client that was.
    gateway.deserted().await;
    assert!(refused.elapsed() < Duration::from_secs(3), "{:?}", refused.elapsed());
    assert_eq!(gateway.metric_of("fanwire_connections_closed_total", r#"code="403""#).await, 1.0);
    drop(socket);
}

/// A page of a stranger may send such a request, with what its visitors have, any number of times.
#[tokio::test]
async fn nothing_follows_from_a_request_that_is_refused() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.client.personal_topic =
            Some(PersonalTopic { single_connection: true, ..PersonalTopic::default() });
        let gateway = TestGateway::start(settings).await;
        let ann = json!({"sub": "ann"});
        let mut current = gateway.client_with(&ann).await;
        let mut watcher = gateway.client().await;
        watcher.subscribe("room:a").await;
        watcher.push().await;
        for (topic, status) in [("nowhere:b", 404), ("$b", 403)] {
            let query = format!("topic=room:a&topic={topic}&token={}", token(&ann));
            let request = format!("GET /subscribe?{query}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n");
            let response = RawSocket::ask(gateway.address, &request).await;
            assert_eq!(response.status, status, "{response:?}");
            // A join, and the leave that follows it, would come first.
            watcher.publish("room:a", json!(status)).await;
            assert_eq!(watcher.publication().await.1["data"], status);
            assert_eq!(watcher.present("room:a").await, 1);
        }
        current.subscribe("room:a").await;
        watcher.publish("room:a", json!("still there")).await;
        while current.push().await.get("pub").is_none() {}
        current.nothing_more().await;
    }
}

#[tokio::test]
async fn the_tokens_of_a_request_are_verified_a_few_at_a_time() {
    let mut settings = settings(1);
    let topics = settings.client.subscriptions_max;
    let key = signing_key(&mut settings);
    let gateway = TestGateway::start(settings).await;
    let mut other = gateway.client().await;
    let token = |topic| {
        let claims = json!({"sub": "", "channel": topic});
        jsonwebtoken::encode(&Header::new(Algorithm::ES384), &claims, &key).unwrap()
    };
    let query: Vec<String> = (0..topics)
        .map(|number| format!("topic=${number}&subscription_token={}", token(format!("${number}"))))
        .collect();
    let received = async || gateway.metric("fanwire_commands_received_total").await as usize;
    let before = received().await;
    let mut listener = RawSocket::open(gateway.address).await;
    listener.send(format!("GET /subscribe?{}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n", query.join("&"))).await;
    let mut answered_meanwhile = 0;
    loop {
        other.socket.send(frame(PING, "heard?")).await;
        assert_eq!(other.socket.frame().await.unwrap().opcode, PONG);
        // Connect, and a subscribe for each topic.
        match received().await - before {
            0 => {}
            verified if verified > topics => break,
            _ => answered_meanwhile += 1,
        }
    }
    // Without turns between, one would be answered before all of them, and the next behind.
    assert!(answered_meanwhile > 2, "{answered_meanwhile}");
    let head = listener.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn topics_of_the_token_may_be_asked_for_too() {
    let gateway = TestGateway::start(settings(3)).await;
    let token = token(&json!({"sub": "ann", "channels": ["$granted", "room:a"]}));
    let mut listener =
        listen(&gateway, &format!("token={token}&topic=room:a&topic=$granted&topic=room:b")).await;
    let mut backend = gateway.backend().await;
    for topic in ["$granted", "room:a", "room:b"] {
        backend.publish_all(topic, 1..2).await;
        assert_eq!(event(&mut listener).await.1["topic"], topic);
    }
}

#[tokio::test]
async fn a_user_with_enough_connections_gets_a_status() {
    let mut settings = settings(3);
    settings.client.user_connections_max = 1;
    let gateway = TestGateway::start(settings).await;
    let query = format!("topic=room:a&token={}", token(&json!({"sub": "ann"})));
    let first = listen(&gateway, &query).await;
    let request = format!("GET /subscribe?{query}&as=sse HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = RawSocket::ask(gateway.address, &request).await;
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.body.contains("client.user_connections_max"), "{}", response.body);
    drop(first);
    gateway.deserted().await;
    listen(&gateway, &query).await;
}

/// `EventSource` comes back after a stream that ends, and not after a status.
#[tokio::test]
async fn what_may_succeed_later_ends_a_stream_that_began() {
    let mut settings = settings(1);
    (settings.client.commands_per_second_max, settings.client.commands_burst_max) = (1, 2);
    let gateway = TestGateway::start(settings).await;
    let mut listener = listen(&gateway, "topic=a&topic=b&topic=c").await;
    let (name, data) = event(&mut listener).await;
    assert_eq!(name, "disconnect");
    assert_eq!(data, json!({"code": 3013, "reason": "too many requests", "reconnect": true}));
    listener.ended().await;
    drop(listener);
    gateway.deserted().await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_its_end_is_noticed() {
    let mut settings = settings(3);
    settings.client.ping_interval = Some(Duration::from_millis(200));
    settings.client.pong_timeout = Some(Duration::from_millis(100));
    let gateway = TestGateway::start(settings).await;
    let mut one = listen(&gateway, "topic=room:quiet").await;
    let mut two = listen(&gateway, "topic=room:quiet").await;
    has_listeners(&gateway, "room:quiet", 2).await;
    assert!(one.until("\n\n").await.starts_with("event: subscribed\n"));
    for _ in 0..3 {
        assert_eq!(one.until("\n\n").await, ":\n\n");
    }
    one.vanish();
    has_listeners(&gateway, "room:quiet", 1).await;
    two.finish().await;
    has_listeners(&gateway, "room:quiet", 0).await;
    gateway.deserted().await;
}

/// It has no pong to miss: the kernel tells that nothing arrives there.
#[tokio::test]
async fn a_listener_that_is_cut_off_is_noticed() {
    let mut settings = settings(2);
    settings.client.ping_interval = Some(Duration::from_millis(200));
    settings.client.pong_timeout = Some(Duration::from_millis(100));
    let gateway = TestGateway::start(settings).await;
    for format in ["sse", "ndjson"] {
        let mut socket = RawSocket::open(gateway.address).await;
        socket
            .send(format!("GET /subscribe?topic=room:cut&as={format} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
        assert!(socket.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        has_listeners(&gateway, "room:cut", 1).await;
        socket.cut_off();
        has_listeners(&gateway, "room:cut", 0).await;
    }
}

#[tokio::test]
async fn old_http_is_served_too() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send("GET /subscribe?topic=room:old&as=sse HTTP/1.0\r\n\r\n").await;
    let head = socket.head().await;
    // Neither chunks nor a kept connection, which HTTP/1.0 does not know.
    assert!(!head.contains("transfer-encoding") && head.contains("connection: close"), "{head}");
    socket.until("\n\n").await;
    has_listeners(&gateway, "room:old", 1).await;
    gateway.client().await.publish("room:old", json!(1)).await;
    assert_eq!(event(&mut socket).await.1["data"], 1);
}

#[tokio::test]
async fn a_stream_says_why_it_ends() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut listeners = Vec::new();
    for _ in 0..5 {
        listeners.push(listen(&gateway, "topic=room:a").await);
    }
    has_listeners(&gateway, "room:a", 5).await;
    let ends = async {
        for mut listener in listeners {
            let (name, data) = event(&mut listener).await;
            assert_eq!(name, "disconnect");
            assert_eq!(data, json!({"code": 3001, "reason": "shutdown", "reconnect": true}));
            listener.ended().await;
        }
    };
    tokio::join!(gateway.shutdown(), ends);
}

#[tokio::test]
async fn a_publication_that_is_no_json_comes_in_base64() {
    let gateway = TestGateway::start(any(1)).await;
    let mut listener = listen(&gateway, "topic=any:room").await;
    has_listeners(&gateway, ROOM, 1).await;
    crate::bursts::publish_protobuf(&gateway, ROOM, b"not JSON".to_vec()).await;
    let (name, data) = event(&mut listener).await;
    assert_eq!(name, "");
    assert_eq!((&data["data"], &data["b64data"]), (&Value::Null, &json!("bm90IEpTT04=")));
    gateway.client().await.publish(ROOM, json!(1)).await;
    assert_eq!(event(&mut listener).await.1["data"], 1);
}

/// As for any client, what an API subscribe recovers comes first.
#[tokio::test]
async fn a_listener_receives_what_an_api_subscribe_recovers() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut backend = gateway.backend().await;
    backend.publish_all("history:b", 1..4).await;
    let epoch = backend.call("history", json!({"channel": "history:b"})).await["epoch"].take();
    let token = token(&json!({"sub": "ann"}));
    let mut listener = listen(&gateway, &format!("topic=room:a&token={token}")).await;
    has_listeners(&gateway, "room:a", 1).await;
    let since = json!({"offset": 1, "epoch": epoch});
    backend.call("subscribe", json!({"user": "ann", "channel": "history:b", "recover_since": since})).await;
    for offset in [2, 3] {
        let (_, data) = event(&mut listener).await;
        assert_eq!((&data["topic"], &data["offset"]), (&json!("history:b"), &json!(offset)));
    }
}
