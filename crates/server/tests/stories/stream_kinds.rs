//! The kinds of streams with replies, lines, Protobuf and events, in the same stories: what holds for one holds for all.

use std::time::Duration;

use fanwire_protocol::centrifuge::{
    Command, ConnectRequest, Encoding, ReplyMessage, SubscribeRequest, encode,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::common::{RawSocket, TestGateway, eventually, get, in_query, post, post_of, settings, token};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lines,
    Protobuf,
    Events,
}

const KINDS: [Kind; 3] = [Kind::Lines, Kind::Protobuf, Kind::Events];

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Lines | Self::Protobuf => "/connection/http_stream",
            Self::Events => "/connection/sse",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Protobuf => "application/octet-stream",
            Self::Events => "text/event-stream; charset=utf-8",
        }
    }

    /// A request that begins with these commands: connect with a token, and a subscribe for each topic.
    fn request(self, token: &str, topics: &[&str]) -> Vec<u8> {
        let connect = ConnectRequest { token: token.to_owned(), ..ConnectRequest::default() };
        let connect = Command { id: 1, connect: Some(connect), ..Command::default() };
        let subscribe = |(id, topic): (u32, &&str)| {
            let request = SubscribeRequest { channel: (*topic).to_owned(), ..SubscribeRequest::default() };
            Command { id, subscribe: Some(request), ..Command::default() }
        };
        let commands = std::iter::once(connect).chain((2..).zip(topics).map(subscribe));
        match self {
            Self::Protobuf => post_of(
                self.content_type(),
                self.path(),
                &commands.flat_map(|c| c.encode_length_delimited_to_vec()).collect::<Vec<_>>(),
            ),
            Self::Lines | Self::Events => {
                let mut lines = vec![json!({"id": 1, "connect": {"token": token}}).to_string()];
                lines.extend((2..).zip(topics).map(|(id, topic): (u32, _)| {
                    json!({"id": id, "subscribe": {"channel": topic}}).to_string()
                }));
                self.with_text(&lines.join("\n"))
            }
        }
    }

    fn with_text(self, text: &str) -> Vec<u8> {
        if self == Self::Events {
            return get(&format!("{}?cf_connect={}", self.path(), in_query(text))).into();
        }
        post(self.path(), text).into()
    }
}

struct Stream {
    kind: Kind,
    socket: RawSocket,
}

impl Stream {
    async fn open(gateway: &TestGateway, kind: Kind, request: &[u8]) -> Self {
        Self::over(RawSocket::open(gateway.address).await, kind, request).await
    }

    async fn over(mut socket: RawSocket, kind: Kind, request: &[u8]) -> Self {
        socket.send(request).await;
        let head = socket.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        for line in [
            &format!("content-type: {}\r\n", kind.content_type()),
            "cache-control: private, no-cache, no-store, must-revalidate, max-age=0\r\n",
            "pragma: no-cache\r\n",
            "x-accel-buffering: no\r\n",
            "connection: close\r\n",
        ] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
        // It ends with the connection.
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        if kind == Kind::Events {
            assert_eq!(socket.bytes(2).await, b"\r\n");
        }
        Self { kind, socket }
    }

    /// The next message, in JSON whatever the kind. A ping is an empty object.
    async fn next(&mut self) -> Value {
        let text = match self.kind {
            Kind::Protobuf => {
                let mut length = 0;
                for shift in (0..).step_by(7) {
                    let [byte] = self.socket.bytes(1).await[..] else { unreachable!("one was asked for") };
                    length |= usize::from(byte & 0x7F) << shift;
                    if byte < 0x80 {
                        break;
                    }
                }
                let message = ReplyMessage::decode(&*self.socket.bytes(length).await).unwrap();
                let mut json = Vec::new();
                encode(Encoding::Json, &message, &mut json);
                String::from_utf8(json).unwrap()
            }
            Kind::Lines => self.socket.until("\n").await,
            Kind::Events => {
                self.socket.until("\n\n").await.strip_prefix("data: ").unwrap().trim_end().to_owned()
            }
        };
        serde_json::from_str(&text).unwrap()
    }

    /// The code and the reason of the last message; messages before it are dropped.
    async fn closed(mut self) -> (u64, String) {
        loop {
            let message = self.next().await;
            let disconnect = &message["push"]["disconnect"];
            if let (Some(code), Some(reason)) = (disconnect["code"].as_u64(), disconnect["reason"].as_str()) {
                self.socket.ended().await;
                return (code, reason.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn replies_and_pushes_come_in_order_until_the_end() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        let mut backend = gateway.backend().await;
        for kind in KINDS {
            let topic = format!("history:{kind:?}");
            let request = kind.request(&token(&json!({"sub": "ann"})), &["a", &topic, "$secret"]);
            let mut stream = Stream::open(&gateway, kind, &request).await;
            let connected = stream.next().await;
            assert_eq!((&connected["id"], &connected["connect"]["pong"]), (&json!(1), &json!(true)));
            // Topics have owners of their own, so replies for different topics may change places.
            let mut replies: Vec<Value> = Vec::new();
            while replies.len() < 3 {
                replies.push(stream.next().await);
            }
            replies.sort_by_key(|reply| reply["id"].as_u64());
            assert!(
                replies[0]["subscribe"].is_object() && replies[1]["subscribe"].is_object(),
                "{replies:?}"
            );
            assert_eq!(replies[2]["error"]["code"], 103, "{replies:?}");
            backend.publish_all(&topic, 0..100).await;
            for number in 0..100 {
                let push = stream.next().await;
                assert_eq!(
                    (&push["push"]["channel"], &push["push"]["pub"]["data"]),
                    (&json!(topic), &json!(number))
                );
            }
            backend.call("disconnect", json!({"user": "ann"})).await;
            assert_eq!(stream.closed().await, (3503, "force disconnect".into()));
        }
        drop(backend);
        gateway.deserted().await;
    }
}

/// Otherwise a page would see a CORS error in place of the reason.
#[tokio::test]
async fn pages_of_allowed_origins_may_read_streams_and_refusals() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://a.example".into()];
    settings.http_stream.body_bytes_max = 100;
    settings.sse.body_bytes_max = 100;
    let gateway = TestGateway::start(settings).await;
    let long = " ".repeat(101);
    for (request, status) in [
        (Kind::Lines.request("", &[]), 200),
        (Kind::Protobuf.request("", &[]), 200),
        (Kind::Events.request("", &[]), 200),
        (get(Kind::Lines.path()).into(), 405),
        (Kind::Lines.with_text("nonsense"), 400),
        (post_of("application/octet-stream", Kind::Lines.path(), b"\xff"), 400),
        (Kind::Events.with_text("nonsense"), 400),
        (post(Kind::Lines.path(), &long).into(), 413),
        (post(Kind::Events.path(), &long).into(), 413),
    ] {
        for (page, expected) in [("https://a.example", status), ("https://b.example", 403)] {
            let at = request.windows(12).position(|window| window == b"Host: test\r\n").unwrap();
            let origin = format!("Origin: {page}\r\n");
            let mut socket = RawSocket::open(gateway.address).await;
            socket.send([&request[..at], origin.as_bytes(), &request[at..]].concat()).await;
            let head = socket.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{head}");
            let shared = format!("access-control-allow-origin: {page}\r\n");
            assert_eq!(head.contains(&shared), page == "https://a.example", "{head}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_does_not_answer_is_gone() {
    let mut settings = settings(3);
    settings.client.ping_interval = Some(Duration::from_millis(300));
    settings.client.pong_timeout = Some(Duration::from_secs(1));
    let gateway = TestGateway::start(settings).await;
    let present = async || gateway.client().await.present("room:a").await;
    for kind in KINDS {
        let request = kind.request(&token(&json!({"sub": "ann"})), &["room:a"]);
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = Stream::open(&gateway, kind, &request).await;
            assert!(stream.next().await["connect"].is_object());
            streams.push(stream);
        }
        let silent = streams.pop().unwrap();
        assert_eq!(silent.closed().await, (3012, "no pong".into()));
        streams.pop().unwrap().socket.vanish();
        streams.pop().unwrap().socket.finish().await;
        eventually("all have left", async || present().await == 0).await;
    }
}

/// What a slow client costs is bounded, and the others get everything.
#[tokio::test]
async fn a_client_that_reads_nothing_is_closed() {
    for kind in KINDS {
        let mut settings = settings(1);
        settings.client.queue_bytes_max = 256 * 1024;
        let gateway = TestGateway::start(settings).await;
        let mut backend = gateway.backend().await;
        let request = kind.request("", &["a"]);
        let socket = RawSocket::open_small(gateway.address, 4096).await;
        let mut slow = Stream::over(socket, kind, &request).await;
        let mut other = Stream::open(&gateway, kind, &request).await;
        for stream in [&mut slow, &mut other] {
            assert!(stream.next().await["connect"].is_object());
            assert!(stream.next().await["subscribe"].is_object());
        }
        let text = "x".repeat(50_000);
        let mut published = 0;
        while gateway.metric_of("fanwire_connections_closed_total", r#"code="3008""#).await < 1.0 {
            backend
                .call("publish", json!({"channel": "a", "data": {"number": published, "text": text}}))
                .await;
            assert_eq!(other.next().await["push"]["pub"]["data"]["number"], published);
            published += 1;
            assert!(published < 1000, "never closed");
        }
        // It gets whole messages, and the reason last.
        assert_eq!(slow.closed().await, (3008, "slow".into()));
    }
}

#[tokio::test]
async fn streams_say_that_the_node_leaves() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut streams = Vec::new();
    for kind in KINDS {
        let mut stream = Stream::open(&gateway, kind, &kind.request("", &[])).await;
        assert!(stream.next().await["connect"].is_object());
        streams.push(stream);
    }
    let ends = async {
        for stream in streams {
            assert_eq!(stream.closed().await, (3001, "shutdown".into()));
        }
    };
    tokio::join!(gateway.shutdown(), ends);
}
