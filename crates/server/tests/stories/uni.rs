//! One-way transports: clients that connect, and from then on only listen.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{
    CLOSE, PING, RawSocket, TEXT, TestGateway, eventually, frame, get, handshake, in_query, settings, token,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WebSocket,
    HttpStream,
    Sse,
}

const KINDS: [Kind; 3] = [Kind::WebSocket, Kind::HttpStream, Kind::Sse];

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::WebSocket => "/connection/uni_websocket",
            Self::HttpStream => "/connection/uni_http_stream",
            Self::Sse => "/connection/uni_sse",
        }
    }

    /// A request to open a connection, with the connect request where the kind has it.
    fn request(self, connect: &str) -> String {
        let target = format!("{}?cf_connect={}", self.path(), in_query(connect));
        match self {
            Self::WebSocket => handshake(&target, ""),
            Self::HttpStream => post(self.path(), connect),
            Self::Sse => get(&target),
        }
    }
}

/// A request with a body whose type is not said.
fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A connection that is open, whatever it says.
struct Listener {
    kind: Kind,
    socket: RawSocket,
}

impl Listener {
    async fn open(gateway: &TestGateway, kind: Kind, connect: &Value) -> Self {
        Self::over(RawSocket::open(gateway.address).await, kind, &kind.request(&connect.to_string())).await
    }

    async fn over(mut socket: RawSocket, kind: Kind, request: impl AsRef<[u8]>) -> Self {
        socket.send(request).await;
        let head = socket.head().await;
        let expected = match kind {
            Kind::WebSocket => ["HTTP/1.1 101 ", ""],
            Kind::HttpStream => ["HTTP/1.1 200 ", "content-type: application/x-ndjson\r\n"],
            Kind::Sse => ["HTTP/1.1 200 ", "content-type: text/event-stream; charset=utf-8\r\n"],
        };
        assert!(head.starts_with(expected[0]) && head.contains(expected[1]), "{head}");
        if kind != Kind::WebSocket {
            let lines = ["x-accel-buffering: no\r\n", "connection: close\r\n", "pragma: no-cache\r\n"];
            assert!(lines.iter().all(|line| head.contains(line)), "{head}");
            assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        }
        if kind == Kind::Sse {
            assert_eq!(socket.bytes(2).await, b"\r\n");
            let retry = socket.until("\n\n").await;
            let millis = retry.strip_prefix("retry: ").and_then(|millis| millis.trim_end().parse().ok());
            assert!(millis.is_some_and(|millis: u32| (1000..=5000).contains(&millis)), "{retry}");
        }
        Self { kind, socket }
    }

    /// One that is connected, with the result.
    async fn connect(gateway: &TestGateway, kind: Kind, connect: &Value) -> (Self, Value) {
        let mut listener = Self::open(gateway, kind, connect).await;
        let mut first = listener.next().await;
        assert!(first["connect"]["client"].is_string(), "{first}");
        (listener, first["connect"].take())
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        let text = match self.kind {
            Kind::WebSocket => loop {
                let frame = self.socket.frame().await.unwrap();
                if frame.opcode != PING {
                    break frame.text().to_owned();
                }
            },
            Kind::HttpStream => self.socket.until("\n").await,
            Kind::Sse => {
                self.socket.until("\n\n").await.strip_prefix("data: ").unwrap().trim_end().to_owned()
            }
        };
        serde_json::from_str(&text).unwrap()
    }

    /// The code and the reason of the last message, behind which there is nothing but a close frame.
    async fn closed(mut self) -> (u64, String) {
        let last = self.next().await;
        let disconnect = &last["disconnect"];
        let told = (disconnect["code"].as_u64().unwrap(), disconnect["reason"].as_str().unwrap().to_owned());
        if self.kind == Kind::WebSocket {
            let close = self.socket.frame().await.unwrap();
            assert_eq!(close.opcode, CLOSE);
            let (code, reason) = close.close();
            assert_eq!((u64::from(code), &reason), (told.0, &told.1));
            self.socket.send(frame(CLOSE, [])).await;
        }
        self.socket.ended().await;
        told
    }
}

#[tokio::test]
async fn a_listener_gets_its_topics_and_is_told_of_what_the_server_does() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut backend = gateway.backend().await;
        for kind in KINDS {
            let connect =
                json!({"token": token(&json!({"sub": "ann", "channels": ["$granted"]})), "name": "js"});
            let (mut listener, connected) = Listener::connect(&gateway, kind, &connect).await;
            assert!(connected["version"].is_string(), "{connected}");
            assert!(connected["subs"]["$granted"].is_object() && connected["pong"].is_null(), "{connected}");
            assert_eq!(connected["ping"].is_null(), kind == Kind::WebSocket, "{connected}");

            backend.publish_all("$granted", 7..8).await;
            assert_eq!(listener.next().await, json!({"channel": "$granted", "pub": {"data": 7}}));
            backend.call("subscribe", json!({"user": "ann", "channel": "room:a"})).await;
            assert_eq!(listener.next().await["channel"], "room:a");
            backend.publish_all("room:a", 8..9).await;
            loop {
                let push = listener.next().await;
                if push["pub"]["data"] == 8 {
                    break;
                }
                // It is told of itself, who joined.
                assert_eq!(push["join"]["info"]["user"], "ann", "{push}");
            }
            backend.call("unsubscribe", json!({"user": "ann", "channel": "room:a"})).await;
            let unsubscribed =
                json!({"channel": "room:a", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}});
            while listener.next().await != unsubscribed {}
            backend.call("disconnect", json!({"user": "ann"})).await;
            assert_eq!(listener.closed().await, (3503, "force disconnect".into()));
        }
        drop(backend);
        gateway.deserted().await;
    }
}

#[tokio::test]
async fn a_listener_needs_to_ask_for_nothing() {
    let gateway = TestGateway::start(settings(1)).await;
    let empty = |kind: Kind| match kind {
        Kind::WebSocket => Kind::WebSocket.request("{}"),
        Kind::HttpStream => post(kind.path(), ""),
        Kind::Sse => get(kind.path()),
    };
    for kind in KINDS {
        let socket = RawSocket::open(gateway.address).await;
        let mut listener = Listener::over(socket, kind, &empty(kind)).await;
        assert!(listener.next().await["connect"]["client"].is_string());
    }
    // A page may also post to a stream of events.
    let socket = RawSocket::open(gateway.address).await;
    let mut posted = Listener::over(socket, Kind::Sse, &post(Kind::Sse.path(), "{}")).await;
    assert!(posted.next().await["connect"]["client"].is_string());
}

#[tokio::test]
async fn a_listener_recovers_what_it_missed() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut backend = gateway.backend().await;
    for kind in KINDS {
        let topic = format!("history:{kind:?}");
        backend.publish_all(&topic, 1..4).await;
        let epoch = backend.call("history", json!({"channel": topic})).await["epoch"].take();
        let since = json!({"recover": true, "offset": 1, "epoch": epoch});
        let (mut listener, connected) =
            Listener::connect(&gateway, kind, &json!({"subs": {&topic: since}})).await;
        let subscribed = &connected["subs"][&topic];
        assert_eq!(subscribed["recovered"], true, "{connected}");
        let missed = subscribed["publications"].as_array().unwrap();
        assert_eq!(missed.iter().map(|one| &one["data"]).collect::<Vec<_>>(), [2, 3]);
        backend.publish_all(&topic, 4..5).await;
        assert_eq!(listener.next().await["pub"]["offset"], 4);
    }
}

#[tokio::test]
async fn a_refused_connect_is_told_on_the_connection() {
    let mut settings = settings(1);
    settings.client.allow_anonymous_connect_without_token = false;
    settings.client.disallow_anonymous_connection_tokens = true;
    let gateway = TestGateway::start(settings).await;
    for kind in KINDS {
        for (connect, code, reason) in [
            (json!({"token": token(&json!({"sub": "ann", "exp": 1}))}), 3005, "connection expired"),
            (json!({"token": "forged"}), 3500, "invalid token"),
            (json!({"token": token(&json!({}))}), 3507, "permission denied"),
            (json!({}), 3501, "bad request: no token"),
        ] {
            let closed = Listener::open(&gateway, kind, &connect).await.closed().await;
            assert_eq!(closed.0, code, "{closed:?}");
            assert!(closed.1.starts_with(reason), "{closed:?}");
        }
    }
    gateway.deserted().await;
}

#[tokio::test]
async fn requests_that_open_nothing_have_a_status_and_a_sentence() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://a.example".into()];
    settings.uni_sse.body_bytes_max = 1000;
    let gateway = TestGateway::start(settings).await;
    let long = json!({"token": "x".repeat(1000)}).to_string();
    let get = |kind: Kind| get(kind.path());
    let with_origin = |request: String, origin: &str| {
        request.replacen("Host: test\r\n", &format!("Host: test\r\nOrigin: https://{origin}\r\n"), 1)
    };
    let sse = Kind::Sse.path();
    for (request, status, said) in [
        (get(Kind::HttpStream), 405, "POST requests only"),
        (get(Kind::Sse).replace("GET", "PUT"), 405, "GET and POST requests only"),
        (Kind::HttpStream.request("nonsense"), 400, "not a JSON object"),
        (Kind::HttpStream.request(r#"{"token":1}"#), 400, "field of a wrong type at line 1 column"),
        (Kind::Sse.request("[]"), 400, "not a JSON object"),
        (Kind::WebSocket.request("{"), 400, "not JSON at line 1"),
        (get(Kind::WebSocket), 426, "WebSocket"),
        (post(sse, &long), 413, "1000 bytes, the limit that uni_sse.body_bytes_max sets"),
    ] {
        let response = RawSocket::ask(gateway.address, &with_origin(request.clone(), "a.example")).await;
        assert_eq!(response.status, status, "{request} {response:?}");
        assert!(response.body.contains(said), "{response:?}");
        // The page may read it.
        assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"), "{response:?}");
        let foreign = RawSocket::ask(gateway.address, &with_origin(request, "b.example")).await;
        assert_eq!(foreign.status, 403, "{foreign:?}");
    }
    // A body that is refused by its length is not waited for.
    let request = format!("POST {sse} HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(RawSocket::ask(gateway.address, &request).await.status, 413);
    let request = with_origin(Kind::Sse.request("{}"), "a.example");
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(request).await;
    assert!(socket.head().await.contains("access-control-allow-origin: https://a.example\r\n"));
}

#[tokio::test]
async fn a_websocket_may_send_its_connect_request_and_nothing_more() {
    let gateway = TestGateway::start(settings(1)).await;
    let open = async || {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.upgrade(&Kind::WebSocket.request("").replace("?cf_connect=", "")).await;
        socket
    };
    let mut socket = open().await;
    let connect = json!({"token": token(&json!({"sub": "ann"}))}).to_string();
    socket.send(frame(TEXT, &connect)).await;
    let connected = socket.frame().await.unwrap();
    assert!(connected.text().starts_with(r#"{"connect":{"client":"#), "{connected:?}");
    socket.send(frame(TEXT, &connect)).await;
    let listener = Listener { kind: Kind::WebSocket, socket };
    let (code, reason) = listener.closed().await;
    assert_eq!(code, 3501);
    assert!(reason.contains("connect was sent before"), "{reason}");

    // Also when it is there before the first answer.
    let socket = RawSocket::open(gateway.address).await;
    let mut request = Kind::WebSocket.request(&connect).into_bytes();
    request.extend(frame(TEXT, &connect));
    let mut eager = Listener::over(socket, Kind::WebSocket, request).await;
    assert!(eager.next().await["connect"].is_object());
    assert_eq!(eager.closed().await.0, 3501);

    for (message, said) in [("ping", "not a JSON object"), (r#"{"token":7}"#, "field of a wrong type")] {
        let mut socket = open().await;
        socket.send(frame(TEXT, message)).await;
        let (code, reason) = Listener { kind: Kind::WebSocket, socket }.closed().await;
        assert_eq!(code, 3501);
        assert!(reason.contains(said), "{reason}");
    }
}

#[tokio::test]
async fn a_quiet_listener_is_pinged_and_its_end_is_noticed() {
    let mut settings = settings(3);
    settings.client.ping_interval = Some(Duration::from_millis(200));
    settings.client.pong_timeout = Some(Duration::from_millis(100));
    let gateway = TestGateway::start(settings).await;
    let present = async || gateway.client().await.present("room:quiet").await;
    for kind in [Kind::HttpStream, Kind::Sse] {
        let connect = json!({"token": token(&json!({"sub": "ann", "channels": ["room:quiet"]}))});
        let mut listeners = Vec::new();
        for _ in 0..2 {
            let (mut listener, connected) = Listener::connect(&gateway, kind, &connect).await;
            assert_eq!(connected["ping"], 1, "{connected}");
            for _ in 0..3 {
                while listener.next().await != json!({}) {}
            }
            listeners.push(listener);
        }
        eventually("both are there", async || present().await == 2).await;
        listeners.pop().unwrap().socket.vanish();
        listeners.pop().unwrap().socket.finish().await;
        eventually("both have left", async || present().await == 0).await;
    }
    // A WebSocket has ping frames, and is closed without a pong.
    let (mut listener, _) = Listener::connect(&gateway, Kind::WebSocket, &json!({})).await;
    assert_eq!(listener.socket.frame().await.unwrap().opcode, PING);
    assert_eq!(listener.closed().await, (3012, "no pong".into()));
}

/// A stream is not read, so it has no pong to miss: the kernel tells that nothing arrives there.
#[tokio::test]
async fn a_listener_that_is_cut_off_is_noticed() {
    let mut settings = settings(2);
    settings.client.ping_interval = Some(Duration::from_millis(200));
    settings.client.pong_timeout = Some(Duration::from_millis(100));
    let gateway = TestGateway::start(settings).await;
    let present = async || gateway.client().await.present("room:cut").await;
    let connect = json!({"token": token(&json!({"sub": "ann", "channels": ["room:cut"]}))});
    for kind in [Kind::HttpStream, Kind::Sse] {
        let (listener, _) = Listener::connect(&gateway, kind, &connect).await;
        eventually("it is there", async || present().await == 1).await;
        listener.socket.cut_off();
        eventually("it has left", async || present().await == 0).await;
    }
}

/// What a slow listener costs is bounded, and the others get everything.
#[tokio::test]
async fn a_listener_that_reads_nothing_is_closed() {
    for kind in KINDS {
        let mut settings = settings(1);
        settings.client.queue_bytes_max = 256 * 1024;
        let gateway = TestGateway::start(settings).await;
        let mut backend = gateway.backend().await;
        let connect = json!({"subs": {"a": {}}}).to_string();
        let socket = RawSocket::open_small(gateway.address, 4096).await;
        let mut slow = Listener::over(socket, kind, &kind.request(&connect)).await;
        let (mut other, _) = Listener::connect(&gateway, kind, &json!({"subs": {"a": {}}})).await;
        let data = "x".repeat(50_000);
        let mut published = 0;
        while gateway.metric_of("fanwire_connections_closed_total", r#"code="3008""#).await < 1.0 {
            backend
                .call("publish", json!({"channel": "a", "data": {"number": published, "text": data}}))
                .await;
            assert_eq!(other.next().await["pub"]["data"]["number"], published);
            published += 1;
            assert!(published < 1000, "never closed");
        }
        // It gets whole messages, and the reason last.
        loop {
            let message = slow.next().await;
            if message.get("disconnect").is_some() {
                assert_eq!(message["disconnect"]["code"], 3008);
                break;
            }
        }
    }
}
