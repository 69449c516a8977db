//! HTTP streams and Server-Sent Events of the Centrifuge protocol: how they open, what they say, and how they end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{RawSocket, TestGateway, emulate, eventually, get, in_query, post, settings, token};

const HTTP_STREAM: &str = "/connection/http_stream";
const SSE: &str = "/connection/sse";

/// A request for events, with the first commands in the query.
fn events(commands: &str) -> String {
    get(&format!("{SSE}?cf_connect={}", in_query(commands)))
}

/// A stream whose response has begun.
async fn open(gateway: &TestGateway, request: &str) -> RawSocket {
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(request).await;
    let head = socket.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in ["x-accel-buffering: no", "connection: close"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    socket
}

async fn line(socket: &mut RawSocket) -> Value {
    serde_json::from_str(&socket.until("\n").await).unwrap()
}

async fn event(socket: &mut RawSocket) -> Value {
    let text = socket.until("\n\n").await;
    serde_json::from_str(text.trim_start().strip_prefix("data: ").unwrap()).unwrap()
}

#[tokio::test]
async fn the_first_commands_come_with_the_request() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut publisher = gateway.client().await;
        let subscribe = json!({"id": 2, "subscribe": {"channel": "room:1"}});
        let commands = format!("{}\n{subscribe}", json!({"id": 1, "connect": {}}));

        let mut lines = open(&gateway, &post(HTTP_STREAM, &commands)).await;
        let connected = line(&mut lines).await;
        assert_eq!((&connected["id"], &connected["connect"]["pong"]), (&json!(1), &json!(true)));
        assert_eq!(line(&mut lines).await, json!({"id": 2, "subscribe": {}}));
        assert!(line(&mut lines).await["push"]["join"].is_object());

        let mut by_query = open(&gateway, &events(&commands)).await;
        let mut by_body = open(&gateway, &post(SSE, &commands)).await;
        for events in [&mut by_query, &mut by_body] {
            let connected = event(events).await;
            assert!(connected["connect"]["session"].is_string() && connected["connect"]["node"].is_string());
            assert_eq!(event(events).await, json!({"id": 2, "subscribe": {}}));
        }
        for (transport, count) in [("http_stream", 1.0), ("sse", 2.0)] {
            let label = format!("transport=\"{transport}\",protocol=\"json\"");
            assert_eq!(gateway.metric_of("fanwire_connections", &label).await, count);
        }
        eventually("all are there", async || publisher.present("room:1").await == 3).await;
        publisher.publish("room:1", json!({"text": "line\nbreak"})).await;
        loop {
            if let Some(data) = event(&mut by_query).await["push"]["pub"].get("data") {
                assert_eq!(*data, json!({"text": "line\nbreak"}));
                break;
            }
        }
        drop((lines, by_query, by_body));
        eventually("all have left", async || publisher.present("room:1").await == 0).await;
    }
}

#[tokio::test]
async fn what_is_no_connect_opens_nothing() {
    let gateway = TestGateway::start(settings(1)).await;
    for (commands, says) in [
        ("", "no command"),
        ("connect", "not"),
        ("{}", "connect"),
        (r#"{"id":1,"subscribe":{"channel":"a"}}"#, "connect"),
    ] {
        for request in [post(HTTP_STREAM, commands), post(SSE, commands), events(commands)] {
            let answer = RawSocket::ask(gateway.address, &request).await;
            assert_eq!(answer.status, 400, "{request}");
            assert!(
                answer.body.starts_with("Bad Request: ") && answer.body.contains(says),
                "{}",
                answer.body
            );
        }
    }
    let nothing = RawSocket::ask(gateway.address, &format!("GET {SSE} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert_eq!(nothing.status, 400);
    for (path, setting) in [(HTTP_STREAM, "http_stream.body_bytes_max"), (SSE, "sse.body_bytes_max")] {
        let answer = RawSocket::ask(gateway.address, &post(path, &"x".repeat((64 << 10) + 1))).await;
        assert_eq!(answer.status, 413);
        assert!(answer.body.contains(setting), "{}", answer.body);
    }
    for (method, path, allowed) in [("GET", HTTP_STREAM, "POST"), ("PUT", SSE, "GET, POST")] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = RawSocket::ask(gateway.address, &request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)));
    }
    assert_eq!(gateway.metric("fanwire_connections_opened_total").await, 0.0);
}

#[tokio::test]
async fn a_refused_connect_is_said_in_the_stream() {
    let mut settings = settings(1);
    settings.client.allow_anonymous_connect_without_token = false;
    let gateway = TestGateway::start(settings).await;
    let connect = |token: &str| json!({"id": 1, "connect": {"token": token}}).to_string();
    let expired = token(&json!({"sub": "ann", "exp": 1}));
    let mut lines = open(&gateway, &post(HTTP_STREAM, &connect(&expired))).await;
    assert_eq!(line(&mut lines).await["error"]["code"], 109);
    for (token, code) in [("", 3501), ("no token", 3500)] {
        let mut lines = open(&gateway, &post(HTTP_STREAM, &connect(token))).await;
        assert_eq!(line(&mut lines).await["push"]["disconnect"]["code"], code);
        lines.ended().await;
        let mut events = open(&gateway, &events(&connect(token))).await;
        assert_eq!(event(&mut events).await["push"]["disconnect"]["code"], code);
        events.ended().await;
    }
}

/// A mistake behind connect is the session's to answer.
#[tokio::test]
async fn a_mistake_behind_connect_ends_the_stream() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut lines = open(&gateway, &post(HTTP_STREAM, "{\"id\":1,\"connect\":{}}\nno JSON")).await;
    loop {
        let message = line(&mut lines).await;
        if let Some(code) = message["push"]["disconnect"]["code"].as_u64() {
            assert_eq!(code, 3501);
            break;
        }
    }
    lines.ended().await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_noticed_by_its_pong() {
    let mut settings = settings(1);
    settings.client.ping_interval = Some(Duration::from_millis(500));
    settings.client.pong_timeout = Some(Duration::from_millis(300));
    let gateway = TestGateway::start(settings).await;
    let mut events = open(&gateway, &events(r#"{"id":1,"connect":{}}"#)).await;
    let connected = event(&mut events).await["connect"].take();
    assert_eq!(event(&mut events).await, json!({}));
    assert_eq!(event(&mut events).await["push"]["disconnect"]["code"], 3012);
    events.ended().await;
    let body = json!({"session": connected["session"], "node": connected["node"], "data": "{}"}).to_string();
    assert_eq!(emulate(gateway.address, &body).await.status, 404);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_as_any_other() {
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 256 << 10;
    let gateway = TestGateway::start(settings).await;
    let mut socket = RawSocket::open_small(gateway.address, 32 * 1024).await;
    let commands = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}";
    socket.send(post(HTTP_STREAM, commands)).await;
    socket.until("\"id\":2").await;
    let mut publisher = gateway.client().await;
    let long = json!("x".repeat(30_000));
    eventually("it is closed", async || {
        publisher.publish("a", long.clone()).await;
        gateway.metric_of("fanwire_connections_closed_total", "code=\"3008\"").await == 1.0
    })
    .await;
}
