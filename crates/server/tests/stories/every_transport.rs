//! What holds for a client on any transport: one that reads too slowly costs only itself, and one that vanishes is noticed.

use std::time::Duration;

use fanwire_protocol::centrifuge::{
    Command, ConnectRequest, Encoding, ReplyMessage, SubscribeRequest, encode,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::common::{
    BINARY, CLOSE, PING, RawSocket, TEXT, TestGateway, eventually, frame, get, handshake, in_query, post,
    post_of, settings,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WebSocket,
    ProtobufWebSocket,
    HttpStream,
    ProtobufHttpStream,
    Sse,
    UniWebSocket,
    UniHttpStream,
    UniSse,
    SubscribeEvents,
    SubscribeLines,
    SubscribeWebSocket,
    SubscribeEnvelopes,
}

use Kind::*;

const KINDS: [Kind; 12] = [
    WebSocket,
    ProtobufWebSocket,
    HttpStream,
    ProtobufHttpStream,
    Sse,
    UniWebSocket,
    UniHttpStream,
    UniSse,
    SubscribeEvents,
    SubscribeLines,
    SubscribeWebSocket,
    SubscribeEnvelopes,
];

/// Commands that connect and subscribe.
fn commands(topic: &str) -> String {
    format!("{}\n{}", json!({"id": 1, "connect": {}}), json!({"id": 2, "subscribe": {"channel": topic}}))
}

fn protobuf_commands(topic: &str) -> Vec<u8> {
    let subscribe = SubscribeRequest { channel: topic.to_owned(), ..SubscribeRequest::default() };
    [
        Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() },
        Command { id: 2, subscribe: Some(subscribe), ..Command::default() },
    ]
    .iter()
    .flat_map(Command::encode_length_delimited_to_vec)
    .collect()
}

impl Kind {
    /// All that a client of one topic sends.
    fn request(self, topic: &str) -> Vec<u8> {
        let connect = json!({"subs": {topic: {}}}).to_string();
        let upgrade = |target: &str| handshake(target, "").into_bytes();
        match self {
            WebSocket => [upgrade("/connection/websocket"), frame(TEXT, commands(topic))].concat(),
            ProtobufWebSocket => {
                let head = upgrade("/connection/websocket?format=protobuf");
                [head, frame(BINARY, protobuf_commands(topic))].concat()
            }
            HttpStream => post("/connection/http_stream", &commands(topic)).into(),
            ProtobufHttpStream => {
                post_of("application/octet-stream", "/connection/http_stream", &protobuf_commands(topic))
            }
            Sse => get(&format!("/connection/sse?cf_connect={}", in_query(&commands(topic)))).into(),
            UniWebSocket => [upgrade("/connection/uni_websocket"), frame(TEXT, connect)].concat(),
            UniHttpStream => post("/connection/uni_http_stream", &connect).into(),
            UniSse => get(&format!("/connection/uni_sse?cf_connect={}", in_query(&connect))).into(),
            SubscribeEvents => get(&format!("/subscribe?topic={topic}&as=sse")).into(),
            SubscribeLines => get(&format!("/subscribe?topic={topic}&as=ndjson")).into(),
            SubscribeWebSocket => upgrade(&format!("/subscribe?topic={topic}")),
            SubscribeEnvelopes => upgrade(&format!("/subscribe?topic={topic}&envelope=json")),
        }
    }

    fn is_websocket(self) -> bool {
        matches!(self, WebSocket | ProtobufWebSocket | UniWebSocket | SubscribeWebSocket | SubscribeEnvelopes)
    }

    /// The client answers pings, by itself or by a library.
    fn answers_pings(self) -> bool {
        self.is_websocket() || matches!(self, HttpStream | ProtobufHttpStream | Sse)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Publication(u64),
    Goodbye(u64),
    Other,
}

/// A client that sends nothing more.
struct Client {
    kind: Kind,
    socket: RawSocket,
}

impl Client {
    async fn open(gateway: &TestGateway, kind: Kind, topic: &str) -> Self {
        Self::over(RawSocket::open(gateway.address).await, kind, topic).await
    }

    async fn over(mut socket: RawSocket, kind: Kind, topic: &str) -> Self {
        socket.send(kind.request(topic)).await;
        let head = socket.head().await;
        let status = if kind.is_websocket() { 101 } else { 200 };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{kind:?}: {head}");
        Self { kind, socket }
    }

    async fn next(&mut self) -> Said {
        match self.kind {
            HttpStream | UniHttpStream | SubscribeLines => read(&self.socket.until("\n").await),
            Sse | UniSse | SubscribeEvents => {
                let event = self.socket.until("\n\n").await;
                read(event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(""))
            }
            ProtobufHttpStream => {
                let mut length = Vec::new();
                while length.last().is_none_or(|byte| byte & 0x80 != 0) {
                    length.extend(self.socket.bytes(1).await);
                }
                let length = prost::decode_length_delimiter(&*length).unwrap();
                read_protobuf(ReplyMessage::decode(&*self.socket.bytes(length).await).unwrap())
            }
            WebSocket | ProtobufWebSocket | UniWebSocket | SubscribeWebSocket | SubscribeEnvelopes => {
                let frame = self.socket.frame().await.unwrap();
                match frame.opcode {
                    PING => Said::Other,
                    CLOSE => Said::Goodbye(frame.close().0.into()),
                    TEXT => read(frame.text()),
                    _ => read_protobuf(ReplyMessage::decode_length_delimited(&*frame.payload).unwrap()),
                }
            }
        }
    }
}

fn read_protobuf(message: ReplyMessage) -> Said {
    let mut json = Vec::new();
    encode(Encoding::Json, &message, &mut json);
    read(str::from_utf8(&json).unwrap())
}

/// Reads what stands in a message, whatever is around it.
fn read(text: &str) -> Said {
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    let number = ["/push/pub/data/number", "/pub/data/number", "/data/number", "/number"];
    let code = ["/push/disconnect/code", "/disconnect/code", "/code"];
    let find = |places: &[&str]| places.iter().find_map(|place| message.pointer(place)?.as_u64());
    match (find(&number), find(&code)) {
        (Some(number), _) => Said::Publication(number),
        (None, Some(code)) => Said::Goodbye(code),
        (None, None) => Said::Other,
    }
}

/// The number of the last publication.
const LAST: u64 = 1_000_000;

/// Reads to the end; the numbers have to be whole and in order. Returns how many came before the last, and the code of the
/// goodbye if that came instead.
async fn read_all(mut client: Client) -> (u64, Option<u64>) {
    let mut count = 0;
    loop {
        match client.next().await {
            Said::Publication(LAST) => return (count, None),
            Said::Publication(number) => {
                assert_eq!(number, count, "{:?}", client.kind);
                count += 1;
            }
            Said::Goodbye(code) => return (count, Some(code)),
            Said::Other => {}
        }
    }
}

/// Publishes until so many clients are closed as slow, and then the last. Returns how many came before that.
async fn publish_until_closed(gateway: &TestGateway, topic: &str, clients: usize) -> u64 {
    let mut backend = gateway.backend().await;
    let text = "x".repeat(50_000);
    let mut publish = async |number: u64| {
        backend.call("publish", json!({"channel": topic, "data": {"number": number, "text": text}})).await;
    };
    let closed = async || gateway.metric_of("fanwire_connections_closed_total", r#"code="3008""#).await;
    let mut count = 0;
    while closed().await < clients as f64 {
        assert!(count < 2000, "{} are closed", closed().await);
        publish(count).await;
        count += 1;
    }
    publish(LAST).await;
    count
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_only_itself() {
    const QUEUE_BYTES: &str = "fanwire_send_queue_bytes";
    let mut settings = settings(1);
    settings.client.queue_bytes_max = 256 << 10;
    // Nobody is closed for want of a pong.
    settings.client.pong_timeout = None;
    let gateway = TestGateway::start(settings).await;
    let mut slow = Vec::new();
    let mut others = Vec::new();
    for kind in KINDS {
        // Small enough to be slow, and large enough to read what waits before the node gives up on a goodbye.
        let socket = RawSocket::open_small(gateway.address, 64 << 10).await;
        slow.push(Client::over(socket, kind, "a").await);
        others.push(Client::open(&gateway, kind, "a").await);
    }
    let all = 2 * KINDS.len() as u64;
    eventually("all are subscribed", async || {
        let mut backend = gateway.backend().await;
        let channels = backend.call("channels", json!({})).await;
        channels["channels"]["a"]["num_clients"] == all
    })
    .await;
    let read = |client: Client| (client.kind, tokio::spawn(read_all(client)));
    let others: Vec<_> = others.into_iter().map(read).collect();
    let count = publish_until_closed(&gateway, "a", KINDS.len()).await;
    for (kind, reader) in others {
        assert_eq!(reader.await.unwrap(), (count, None), "{kind:?}");
    }
    let slow: Vec<_> = slow.into_iter().map(read).collect();
    for (kind, reader) in slow {
        let (read, code) = reader.await.unwrap();
        assert!(code == Some(3008) && read > 0 && read < count, "{kind:?}: {read} of {count}, {code:?}");
    }
    eventually("nothing waits", async || gateway.metric(QUEUE_BYTES).await == 0.0).await;
}

/// Behind a cable that was pulled: no end and no reset arrives at the server.
#[tokio::test]
async fn a_client_that_vanishes_without_a_word_is_noticed_and_its_presence_ends() {
    const CLOSED: &str = "fanwire_connections_closed_total";
    let mut settings = settings(2);
    settings.client.ping_interval = Some(Duration::from_secs(2));
    settings.client.pong_timeout = Some(Duration::from_secs(1));
    let gateway = TestGateway::start(settings).await;
    let present = async |kind: Kind| {
        let mut backend = gateway.backend().await;
        let stats = backend.call("presence_stats", json!({"channel": format!("room:{kind:?}")})).await;
        stats["num_clients"].as_u64().unwrap()
    };
    let mut cut = Vec::new();
    for kind in KINDS {
        let client = Client::open(&gateway, kind, &format!("room:{kind:?}")).await;
        eventually(&format!("{kind:?} is there"), async || present(kind).await == 1).await;
        client.socket.cut_off();
        cut.push(client);
    }
    for kind in KINDS {
        eventually(&format!("{kind:?} has left"), async || present(kind).await == 0).await;
    }
    let by_pong = KINDS.into_iter().filter(|kind| kind.answers_pings()).count();
    let closed = async |code: &str| gateway.metric_of(CLOSED, &format!("code=\"{code}\"")).await;
    eventually("all are counted", async || {
        closed("3012").await + closed("other").await == KINDS.len() as f64
    })
    .await;
    assert_eq!(closed("3012").await, by_pong as f64, "TCP tells of those that are only written to");
    drop(cut);
}

/// It waits longer than there are pings elsewhere. Nothing is sent to it meanwhile, so TCP has to ask.
#[tokio::test]
async fn a_client_that_vanishes_while_its_poll_waits_is_noticed() {
    let mut settings = settings(2);
    settings.client.ping_interval = Some(Duration::from_secs(1));
    settings.client.pong_timeout = Some(Duration::from_secs(1));
    settings.subscribe.polls.grace = Duration::from_secs(1);
    settings.subscribe.polls.wait_max = Duration::from_secs(3600);
    let gateway = TestGateway::start(settings).await;
    let present = async || gateway.client().await.present("room:a").await;
    let poll = async || {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.send(get("/subscribe?topic=room:a&as=poll&wait=3600")).await;
        socket
    };
    let (there, vanished) = (poll().await, poll().await);
    eventually("both are there", async || present().await == 2).await;
    vanished.cut_off();
    eventually("one has left", async || present().await == 1).await;
    // The other answers what TCP asks.
    eventually("one is still open", async || gateway.sockets() == 1).await;
    drop(there);
    eventually("both have left", async || present().await == 0).await;
}

#[tokio::test]
async fn every_client_counts_for_its_address() {
    let mut settings = settings(2);
    settings.client.address_connections_max = KINDS.len();
    let gateway = TestGateway::start(settings).await;
    let mut inside = Vec::new();
    for kind in KINDS {
        inside.push(Client::open(&gateway, kind, "a").await);
    }
    eventually("all are subscribed", async || {
        let mut backend = gateway.backend().await;
        let channels = backend.call("channels", json!({})).await;
        channels["channels"]["a"]["num_clients"] == KINDS.len()
    })
    .await;
    let refused = async |kind: Kind| {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.send(kind.request("a")).await;
        if socket.head().await.starts_with("HTTP/1.1 400 ") {
            return true;
        }
        let mut client = Client { kind, socket };
        loop {
            match client.next().await {
                Said::Goodbye(code) => return code == 3504,
                Said::Publication(_) => return false,
                Said::Other => {}
            }
        }
    };
    for kind in KINDS {
        assert!(refused(kind).await, "{kind:?}");
    }
    drop(inside);
    gateway.deserted().await;
    Client::open(&gateway, SubscribeEvents, "a").await;
}
