//! Clients whose requests wait for the application's backend, on every way to a session.

use std::time::Duration;

use fanwire_hub::kept::KeptRules;
use fanwire_server::Settings;
use serde_json::{Value, json};

use crate::common::{
    Answer, Application, Call, Client, RawSocket, TestGateway, eventually, post, settings, token, upgrade,
};

const NOW: Duration = Duration::ZERO;

/// Long enough to be overtaken by whatever does not wait.
const LATER: Duration = Duration::from_millis(30);

fn granted(result: Value) -> Answer {
    (NOW, 200, json!({ "result": result }))
}

fn refused() -> Answer {
    (NOW, 200, json!({"error": {"code": 1000, "message": "the room is full"}}))
}

fn sent_away() -> Answer {
    (NOW, 200, json!({"disconnect": {"code": 4501, "reason": "go"}}))
}

/// A node with hooks for connect, and for topics without a namespace.
async fn hooked(
    shards: usize,
    change: impl FnOnce(&mut Settings),
    rule: impl Fn(&Call) -> Answer + Send + Sync + 'static,
) -> (TestGateway, Application) {
    let application = Application::start(rule).await;
    let mut settings = settings(shards);
    change(&mut settings);
    let hook = |settings: &mut Settings, event| Some(application.hook(settings, event));
    settings.client.hooks.connect = hook(&mut settings, "connect");
    settings.client.hooks.send = hook(&mut settings, "send");
    settings.client.hooks.rpc.default = hook(&mut settings, "rpc");
    settings.namespaces.default.hooks.subscribe = hook(&mut settings, "subscribe");
    settings.namespaces.default.hooks.publish = hook(&mut settings, "publish");
    (TestGateway::start(settings).await, application)
}

/// A backend that knows everybody as "ann" and allows everything, and numbers what is published.
fn kind(call: &Call) -> Answer {
    match &*call.event {
        "connect" => granted(json!({"user": "ann", "data": {"hello": call.body["data"]}})),
        "publish" => granted(json!({"data": {"seen": call.body["data"]}})),
        "rpc" => granted(json!({"data": call.body["method"]})),
        _ => granted(json!({})),
    }
}

#[tokio::test]
async fn a_client_is_who_the_application_says_and_may_what_it_allows() {
    for shards in [1, 3] {
        let (gateway, application) = hooked(shards, |_| {}, kind).await;
        let request = json!({"data": {"ticket": 7}, "name": "test", "version": "1"});
        let mut ann = Client::connect(gateway.address, request).await;
        assert_eq!(ann.connected["data"], json!({"hello": {"ticket": 7}}));
        assert_eq!(ann.connected.get("expires"), None);
        ann.subscribe("news").await;
        ann.publish("news", json!(1)).await;
        let (topic, publication) = ann.publication().await;
        assert_eq!((&*topic, &publication["data"]), ("news", &json!({"seen": 1})));
        assert_eq!(publication["info"]["user"], "ann");
        let called = ann.request("rpc", json!({"method": "m", "data": [1]})).await;
        assert_eq!(called, Ok(json!({"data": "m"})));
        ann.command("send", json!({"data": 2})).await;
        eventually("the message came", async || application.calls_of("send").len() == 1).await;

        let [connect] = &application.calls_of("connect")[..] else { panic!("{:?}", application.calls()) };
        let id = json!(ann.id());
        let expected = json!({
            "client": id, "transport": "websocket", "protocol": "json", "encoding": "json",
            "data": {"ticket": 7}, "name": "test", "version": "1",
        });
        assert_eq!(connect.body, expected);
        for (event, field, value) in [
            ("subscribe", "channel", json!("news")),
            ("publish", "data", json!(1)),
            ("rpc", "data", json!([1])),
            ("send", "data", json!(2)),
        ] {
            let [call] = &application.calls_of(event)[..] else { panic!("{event}") };
            assert_eq!((&call.body["user"], &call.body["client"]), (&json!("ann"), &id), "{event}");
            assert_eq!(call.body[field], value, "{event}");
        }
        // Who has a token is not asked about.
        gateway.client_with(&json!({"sub": "bob"})).await;
        assert_eq!(application.calls_of("connect").len(), 1);
    }
}

#[tokio::test]
async fn refusals_are_the_applications_own() {
    let rule = |call: &Call| match (call.body["channel"].as_str(), call.body["data"].as_str()) {
        (Some("full"), _) => refused(),
        (Some("gone"), _) | (_, Some("gone")) => sent_away(),
        (Some("broken"), _) | (_, Some("broken")) => (NOW, 500, json!({})),
        (_, Some("full")) => refused(),
        _ => kind(call),
    };
    let (gateway, _application) = hooked(1, |_| {}, rule).await;
    let full = json!({"code": 1000, "message": "the room is full"});
    let broken = json!({"code": 100, "message": "internal server error", "temporary": true});
    let mut ann = gateway.client().await;
    for (topic, error) in [("full", &full), ("broken", &broken)] {
        assert_eq!(ann.request("subscribe", json!({"channel": topic})).await.as_ref(), Err(error));
        let publish = json!({"channel": topic, "data": 1});
        assert_eq!(ann.request("publish", publish).await.as_ref(), Err(error));
    }
    ann.command("subscribe", json!({"channel": "gone"})).await;
    assert_eq!(ann.closed().await, (4501, "go".to_owned()));
    for (data, error) in [("full", &full), ("broken", &broken)] {
        let mut client = Client::over(RawSocket::open(gateway.address).await).await;
        assert_eq!(client.request("connect", json!({"data": data})).await.as_ref(), Err(error));
    }
    let mut client = Client::over(RawSocket::open(gateway.address).await).await;
    client.command("connect", json!({"data": "gone"})).await;
    assert_eq!(client.closed().await, (4501, "go".to_owned()));
}

/// One at a time in a topic, and topics side by side.
#[tokio::test]
async fn publications_keep_their_order_under_a_slow_backend() {
    const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
    const EACH: usize = 10;
    let rule = |call: &Call| {
        let (_, status, body) = kind(call);
        let delay = if call.event == "publish" { LATER } else { NOW };
        (delay, status, body)
    };
    let (gateway, application) = hooked(1, |_| {}, rule).await;
    let mut reader = gateway.client().await;
    let mut writer = gateway.client().await;
    for topic in TOPICS {
        reader.subscribe(topic).await;
    }
    let publishes = (0..EACH * TOPICS.len())
        .map(|number| ("publish", json!({"channel": TOPICS[number % TOPICS.len()], "data": number})));
    for id in writer.commands(publishes).await {
        writer.reply(id).await.unwrap();
    }
    let under_way_max = application.under_way_max();
    assert!((2..=TOPICS.len()).contains(&under_way_max), "{under_way_max} at once");
    let mut last = [None; TOPICS.len()];
    for _ in 0..EACH * TOPICS.len() {
        let (topic, publication) = reader.publication().await;
        let place = TOPICS.iter().position(|name| *name == topic).unwrap();
        let number = publication["data"]["seen"].as_u64();
        assert!(number > last[place], "{topic}: {number:?} after {:?}", last[place]);
        last[place] = number;
    }
    let calls = application.calls_of("publish").into_iter();
    let calls: Vec<_> =
        calls.filter(|call| call.body["channel"] == "c").map(|call| call.body["data"].clone()).collect();
    let expected: Vec<Value> = (0..EACH).map(|number| json!(number * TOPICS.len() + 2)).collect();
    assert_eq!(calls, expected);
}

async fn get(gateway: &TestGateway, query: &str, headers: &str) -> RawSocket {
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(format!("GET /subscribe?{query} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
    socket
}

/// A backend that takes its time, and refuses some topics.
fn slow(call: &Call) -> Answer {
    let (_, status, body) = match call.body["channel"].as_str() {
        Some("full") => refused(),
        Some("gone") => sent_away(),
        Some("broken") => (NOW, 500, json!({})),
        _ => kind(call),
    };
    (LATER, status, body)
}

#[tokio::test]
async fn a_stream_of_topics_begins_once_the_application_has_granted_all() {
    for shards in [1, 3] {
        let (gateway, application) = hooked(shards, |_| {}, slow).await;
        for (format, begins) in [("sse", "event: subscribed"), ("ndjson", "\"subscribed\"")] {
            let mut stream = get(&gateway, &format!("topic=news&topic=more&as={format}"), "").await;
            let head = stream.head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let mut text = String::new();
            while !text.contains(begins) {
                text += &stream.until("\n").await;
            }
            gateway.client().await.publish("more", json!("hello")).await;
            while !text.contains(r#"{"seen":"hello"}"#) {
                text += &stream.until("\n").await;
            }
        }
        let mut socket = RawSocket::open(gateway.address).await;
        socket.upgrade(&upgrade("topic=news", "")).await;
        gateway.client().await.publish("news", json!("hello")).await;
        assert_eq!(socket.frame().await.unwrap().text(), r#"{"seen":"hello"}"#);
        let events: Vec<_> = application.calls().into_iter().map(|call| call.event).collect();
        assert_eq!(events[..3], ["connect", "subscribe", "subscribe"], "one after the other");
        let [_, first, second, ..] = &application.calls()[..] else { panic!("{events:?}") };
        assert_eq!((&first.body["channel"], &second.body["channel"]), (&json!("news"), &json!("more")));
        assert_eq!(first.body["user"], "ann");
    }
}

#[tokio::test]
async fn a_stream_that_the_application_refuses_has_its_code_and_words() {
    let (gateway, application) = hooked(1, |_| {}, slow).await;
    for headers in ["", "Accept: application/x-ndjson\r\n"] {
        let mut stream = get(&gateway, "topic=news&topic=full&topic=more", headers).await;
        let response = stream.response().await;
        assert_eq!(response.status, 403, "{response:?}");
        let body: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(body, json!({"error": {"code": 1000, "message": "the room is full: full"}}));
    }
    let asked = application.calls_of("subscribe");
    assert!(asked.iter().all(|call| call.body["channel"] != "more"), "nothing follows a refusal");

    let mut stream = get(&gateway, "topic=gone&as=sse", "").await;
    let response = stream.response().await;
    assert_eq!((response.status, response.body.contains("\"go\"")), (403, true), "{response:?}");

    // What may pass ends a stream that began, so that its client comes back.
    let mut stream = get(&gateway, "topic=broken&as=sse", "").await;
    let head = stream.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let goodbye = stream.until("\"reconnect\":true}\n\n").await;
    assert!(goodbye.contains("event: disconnect"), "{goodbye}");
    gateway.deserted().await;
}

#[tokio::test]
async fn polls_and_listeners_wait_for_the_application_too() {
    let rule = |call: &Call| match &*call.event {
        "connect" => (LATER, 200, json!({"result": {"user": "ann", "channels": ["history:lobby"]}})),
        _ => slow(call),
    };
    let (gateway, application) = hooked(1, |_| {}, rule).await;
    let mut poll = get(&gateway, "topic=news&wait=1&as=poll", "").await;
    let response = poll.response().await;
    assert_eq!(response.status, 200, "{response:?}");
    let mut poll = get(&gateway, "topic=full&wait=1&as=poll", "").await;
    assert_eq!(poll.response().await.status, 403);

    // Clients of the Centrifuge protocol that poll: the first answer has the application's word on the client.
    let poll = async |query: &str, commands: &str| {
        let request = post(&format!("/connection/http_stream?{query}"), commands);
        let response = RawSocket::ask(gateway.address, &request).await;
        let lines = response.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        (response.status, lines.collect::<Vec<_>>(), response.header("fanwire-session").map(str::to_owned))
    };
    let (status, lines, session) = poll("wait=10", r#"{"id":1,"connect":{"data":7}}"#).await;
    assert_eq!((status, lines.len()), (200, 1), "{lines:?}");
    assert!(lines[0]["connect"]["subs"]["history:lobby"].is_object(), "{lines:?}");
    let more = [("news", json!({})), ("full", json!({"code": 1000, "message": "the room is full"}))];
    let mut session = session.unwrap();
    for (index, (topic, answer)) in more.into_iter().enumerate() {
        let id = index + 2;
        let subscribe = json!({"id": id, "subscribe": {"channel": topic}}).to_string();
        let (status, lines, next) = poll(&format!("wait=10&session={session}"), &subscribe).await;
        let part = if topic == "full" { "error" } else { "subscribe" };
        assert_eq!((status, &lines[..]), (200, &[json!({"id": id, part: answer})][..]), "{topic}");
        session = next.unwrap();
    }

    let body = r#"{"data":1,"name":"listener"}"#;
    for path in ["uni_http_stream", "uni_sse"] {
        let mut socket = RawSocket::open(gateway.address).await;
        let length = body.len();
        let head =
            format!("POST /connection/{path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        socket.send(head + body).await;
        socket.head().await;
        let mut connected = socket.until("\n").await;
        while !connected.contains("connect") {
            connected = socket.until("\n").await;
        }
        assert!(connected.contains(r#""history:lobby""#), "{connected}");
    }
    for (path, first) in [("http_stream", ""), ("sse", "data: ")] {
        let mut socket = RawSocket::open(gateway.address).await;
        let body =
            r#"{"id":1,"connect":{}}"#.to_owned() + "\n" + r#"{"id":2,"subscribe":{"channel":"news"}}"#;
        let length = body.len();
        let head =
            format!("POST /connection/{path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        socket.send(head + &body).await;
        socket.head().await;
        let mut connected = socket.until("\n").await;
        while connected.trim_end().is_empty() {
            connected = socket.until("\n").await;
        }
        assert!(connected.starts_with(&format!("{first}{{\"id\":1,\"connect\":")), "{connected}");
        let mut subscribed = socket.until("\n").await;
        while subscribed == "\n" {
            subscribed = socket.until("\n").await;
        }
        assert_eq!(subscribed.trim_end(), format!("{first}{{\"id\":2,\"subscribe\":{{}}}}"));
    }
    let transports: Vec<_> =
        application.calls_of("connect").iter().map(|call| call.body["transport"].clone()).collect();
    let expected =
        ["subscribe", "subscribe", "http_stream", "uni_http_stream", "uni_sse", "http_stream", "sse"];
    assert_eq!(transports, expected);
}

#[tokio::test]
async fn headers_reach_the_application_within_their_bound() {
    let keep = |outlasts_connect: bool| {
        move |settings: &mut Settings| {
            settings.client.hooks.kept = KeptRules {
                headers: ["cookie".into(), "x-real-name".into()].into(),
                emulated: ["x-room".into()].into(),
                cookies: None,
                outlasts_connect,
                has_meta: false,
                bytes_max: 64,
            };
        }
    };
    let (gateway, application) = hooked(1, keep(true), kind).await;
    let handshake = |headers: &str| {
        format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    };
    let mut socket = RawSocket::open(gateway.address).await;
    socket.upgrade(&handshake("Cookie: sid=1\r\nX-Real-Name: a\r\nX-Real-Name: b\r\nX-Other: c\r\n")).await;
    let connect = r#"{"id":1,"connect":{"headers":{"X-Room":"7","X-Other":"8"}}}"#;
    socket.send(crate::common::frame(crate::common::TEXT, connect)).await;
    socket.frame().await.unwrap();
    let subscribe = r#"{"id":2,"subscribe":{"channel":"news"}}"#;
    socket.send(crate::common::frame(crate::common::TEXT, subscribe)).await;
    socket.frame().await.unwrap();
    for event in ["connect", "subscribe"] {
        let [call] = &application.calls_of(event)[..] else { panic!("{event}") };
        let headers = ["cookie", "x-real-name", "x-room", "x-other"].map(|name| call.header(name));
        assert_eq!(headers, [Some("sid=1"), Some("a, b"), Some("7"), None], "{event}");
    }
    let long = format!("Cookie: {}\r\n", "c".repeat(65));
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(handshake(&long)).await;
    let response = socket.response().await;
    assert_eq!(response.status, 431, "{response:?}");
    assert!(response.body.contains("client.hooks.kept_bytes_max"), "{response:?}");
    let mut stream = get(&gateway, "topic=news", &long).await;
    assert_eq!(stream.response().await.status, 431);
}

#[tokio::test]
async fn credentials_that_end_are_prolonged_by_the_application() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let rule = move |call: &Call| match &*call.event {
        "refresh" => granted(json!({"expire_at": now() + 1})),
        "sub_refresh" => granted(json!({"expired": true})),
        "subscribe" => granted(json!({"expire_at": now() + 1})),
        _ => kind(call),
    };
    let application = Application::start(rule).await;
    let mut settings = settings(1);
    settings.client.hooks.refresh = Some(application.hook(&mut settings, "refresh"));
    let topics = &mut settings.namespaces.default.hooks;
    topics.subscribe = None;
    let (subscribe, sub_refresh) =
        (application.hook(&mut settings, "subscribe"), application.hook(&mut settings, "sub_refresh"));
    settings.namespaces.default.hooks.subscribe = Some(subscribe);
    settings.namespaces.default.hooks.sub_refresh = Some(sub_refresh);
    let gateway = TestGateway::start(settings).await;
    let claims = json!({"sub": "ann", "exp": now() + 1});
    let mut ann = Client::connect(gateway.address, json!({"token": token(&claims)})).await;
    assert_eq!(ann.connected.get("expires"), None);
    assert_eq!(ann.subscribe("news").await, json!({}));
    let push = ann.push().await;
    assert_eq!((&push["channel"], &push["unsubscribe"]["code"]), (&json!("news"), &json!(2501)));
    eventually("the connection lives on", async || application.calls_of("refresh").len() >= 3).await;
    assert_eq!(application.calls_of("sub_refresh").len(), 1);
    ann.nothing_more().await;
}

/// A client without a connection publishes by the application's word, too.
#[tokio::test]
async fn one_request_publishes_by_the_applications_word() {
    let rule = |call: &Call| match call.body["data"].as_str() {
        Some("full") => refused(),
        Some("later") => (NOW, 200, json!({"error": {"code": 1001, "message": "later", "temporary": true}})),
        Some("gone") => sent_away(),
        Some("broken") => (NOW, 500, json!({})),
        Some("unfit") => granted(json!({"b64data": "ew=="})),
        _ => kind(call),
    };
    let metadata = |settings: &mut Settings| {
        (settings.client.hooks.kept.has_meta, settings.client.hooks.kept.bytes_max) = (true, 20);
    };
    let (gateway, application) = hooked(1, metadata, rule).await;
    let mut reader = gateway.client().await;
    reader.subscribe("news").await;
    let ann = token(&json!({"sub": "ann", "meta": {"plan": "free"}}));
    let post = async |data: &str| {
        let mut socket = RawSocket::open(gateway.address).await;
        let body = json!(data).to_string();
        socket
            .send(format!(
                "POST /publish?topic=news&token={ann} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        socket.response().await
    };
    for (data, status, code, words) in [
        ("full", 403, 1000, "the room is full"),
        ("later", 503, 1001, "later"),
        ("gone", 403, 103, "go"),
        ("broken", 503, 100, "internal server error"),
        ("unfit", 503, 100, "internal server error"),
    ] {
        let response = post(data).await;
        let body: Value = serde_json::from_str(&response.body).unwrap();
        let expected = json!({"error": {"code": code, "message": words}});
        assert_eq!((response.status, body), (status, expected), "{data}");
    }
    assert_eq!(post("hello").await.status, 200);
    let (_, publication) = reader.publication().await;
    assert_eq!(
        (&publication["data"], &publication["info"]["user"]),
        (&json!({"seen": "hello"}), &json!("ann"))
    );
    let calls = application.calls_of("publish");
    let body = &calls[calls.len() - 1].body;
    assert_eq!((&body["transport"], &body["channel"]), (&json!("publish"), &json!("news")));
    assert_eq!((&body["user"], &body["data"]), (&json!("ann"), &json!("hello")));
    assert_eq!(body["meta"], json!({"plan": "free"}));
}
