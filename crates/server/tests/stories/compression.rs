//! Compressed connections: agreed on or not, the same messages, once compressed for all, and bounded whatever comes.

use fanwire_server::settings::DeflateSettings;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};

use crate::common::{
    CLOSE, CONTINUATION, PONG, RawSocket, TEXT, TestGateway, WEBSOCKET_HANDSHAKE, fragment, frame, settings,
};

const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
const DEFLATED: u8 = 0x40;
const OFFER: &str = "permessage-deflate; client_max_window_bits";
/// Longer than replies to connect and subscribe.
const MIN_BYTES: usize = 200;

async fn gateway(shards: usize) -> TestGateway {
    let mut settings = settings(shards);
    settings.websocket.deflate = Some(DeflateSettings { level: 1, payload_bytes_min: MIN_BYTES });
    TestGateway::start(settings).await
}

fn offering(offer: &str) -> String {
    let header = format!("Sec-WebSocket-Extensions: {offer}\r\nUpgrade: ");
    WEBSOCKET_HANDSHAKE.replace("Upgrade: ", &header)
}

/// A client that sends and reads frames as they are, so that a test sees what is compressed.
struct Compressed {
    socket: RawSocket,
    head: String,
}

/// A frame as it came: whether it was compressed, and what it carried.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raw {
    first: u8,
    payload: Vec<u8>,
}

impl Raw {
    fn is_deflated(&self) -> bool {
        self.first & DEFLATED != 0
    }

    fn message(&self) -> Vec<u8> {
        assert_eq!(self.first & !DEFLATED, 0x80 | TEXT, "{self:?}");
        if self.is_deflated() { inflate(&self.payload) } else { self.payload.clone() }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.message()).unwrap()
    }
}

impl Compressed {
    async fn open(gateway: &TestGateway, offer: &str) -> Self {
        let mut socket = RawSocket::open(gateway.address).await;
        let head = socket.upgrade(&offering(offer)).await;
        Self { socket, head }
    }

    /// Connected and subscribed.
    async fn subscribed(gateway: &TestGateway, offer: &str, topic: &str) -> Self {
        let mut client = Self::open(gateway, offer).await;
        let subscribe = json!({"id": 2, "subscribe": {"channel": topic}});
        client.socket.send(deflated(&format!("{}\n{subscribe}", json!({"id": 1, "connect": {}})))).await;
        assert_eq!(client.next().await.json()["id"], 1);
        assert_eq!(client.next().await.json()["id"], 2);
        client
    }

    async fn next(&mut self) -> Raw {
        let head = self.socket.bytes(2).await;
        assert_eq!(head[1] & 0x80, 0, "a server's frame is masked");
        let length = match head[1] {
            126 => {
                let length = self.socket.bytes(2).await;
                u16::from_be_bytes([length[0], length[1]]).into()
            }
            127 => u64::from_be_bytes(self.socket.bytes(8).await.try_into().unwrap()) as usize,
            short => usize::from(short),
        };
        Raw { first: head[0], payload: self.socket.bytes(length).await }
    }

    /// The code with which the server closes; frames before that are dropped.
    async fn closed(&mut self) -> u16 {
        loop {
            let frame = self.next().await;
            if frame.first == 0x80 | CLOSE {
                return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        }
    }
}

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut stream = Compress::new(Compression::best(), false);
    let mut payload = Vec::with_capacity(message.len() + 100);
    stream.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
    payload.strip_suffix(&TAIL).unwrap().to_vec()
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 << 20);
    let whole = [payload, &TAIL].concat();
    Decompress::new(false).decompress_vec(&whole, &mut message, FlushDecompress::Sync).unwrap();
    message
}

/// A compressed text message of a client.
fn deflated(text: &str) -> Vec<u8> {
    frame(DEFLATED | TEXT, deflate(text.as_bytes()))
}

fn long(text: &str) -> Value {
    json!({"text": text.repeat(50)})
}

#[tokio::test]
async fn it_is_agreed_on_where_it_is_on_and_offered() {
    let on = gateway(1).await;
    let off = TestGateway::start(settings(1)).await;
    let extension = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
                     client_no_context_takeover\r\n";
    assert!(Compressed::open(&on, OFFER).await.head.contains(extension));
    let declined = [
        (&off, OFFER),
        (&on, "x-other"),
        (&on, "permessage-deflate; server_max_window_bits=7"),
        (&on, "permessage-deflate; unheard_of"),
    ];
    for (gateway, offer) in declined {
        let mut client = Compressed::open(gateway, offer).await;
        assert!(!client.head.contains("sec-websocket-extensions"), "{offer}: {}", client.head);
        // The connection is one without compression, and a good one.
        client.socket.send(frame(TEXT, json!({"id": 1, "connect": {}}).to_string())).await;
        assert_eq!(client.next().await.json()["id"], 1);
        client.socket.send(deflated("{}")).await;
        assert_eq!(client.closed().await, 1002);
    }
}

#[tokio::test]
async fn a_publication_is_compressed_once_and_is_the_same_for_all() {
    for shards in [1, 3] {
        let gateway = gateway(shards).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(Compressed::subscribed(&gateway, OFFER, "a").await);
        }
        let mut plain = Compressed::subscribed_plain(&gateway, "a").await;
        let mut backend = gateway.client().await;
        backend.publish("a", long("again and ")).await;
        backend.publish("a", json!("short")).await;

        let expected = [plain.next().await, plain.next().await];
        assert!(!expected[0].is_deflated());
        let mut first = None;
        for client in &mut clients {
            let frame = client.next().await;
            assert!(frame.is_deflated());
            assert!(frame.payload.len() < expected[0].payload.len() / 2);
            assert_eq!(frame.message(), expected[0].payload);
            assert_eq!(&frame, first.get_or_insert(frame.clone()));
            // What is short is sent as it is.
            assert_eq!(client.next().await, expected[1]);
        }
        let (before, after) = (
            gateway.metric("fanwire_compression_input_bytes_total").await,
            gateway.metric("fanwire_compression_output_bytes_total").await,
        );
        // The one publication, with its header (RFC 6455 section 5.2); whichever shard was first.
        let whole = |payload: usize| (payload + if payload < 126 { 2 } else { 4 }) as f64;
        assert_eq!(before, whole(expected[0].payload.len()));
        assert_eq!(after, whole(first.unwrap().payload.len()));
        assert_eq!(gateway.metric("fanwire_connections_compressed").await, 6.0);
        drop(clients);
        drop((plain, backend));
        gateway.deserted().await;
        assert_eq!(gateway.metric("fanwire_connections_compressed").await, 0.0);
    }
}

impl Compressed {
    /// The same client without compression.
    async fn subscribed_plain(gateway: &TestGateway, topic: &str) -> Self {
        let mut socket = RawSocket::websocket(gateway.address).await;
        let subscribe = json!({"id": 2, "subscribe": {"channel": topic}});
        let commands = format!("{}\n{subscribe}", json!({"id": 1, "connect": {}}));
        socket.send(frame(TEXT, commands)).await;
        let mut client = Self { socket, head: String::new() };
        for _ in 0..2 {
            assert!(!client.next().await.is_deflated());
        }
        client
    }
}

#[tokio::test]
async fn replies_are_compressed_too_and_control_frames_never() {
    let gateway = gateway(1).await;
    let mut client = Compressed::subscribed(&gateway, OFFER, "history:a").await;
    let publish = json!({"id": 3, "publish": {"channel": "history:a", "data": long("word ")}});
    // In fragments, of which only the first says that they are compressed, with a ping in between.
    let payload = deflate(publish.to_string().as_bytes());
    let (one, rest) = payload.split_at(payload.len() / 2);
    let ping = frame(0x9, [b'x'; 125]);
    let frames = [fragment(false, DEFLATED | TEXT, one), ping, fragment(true, CONTINUATION, rest)].concat();
    client.socket.send(frames).await;
    assert_eq!(client.next().await, Raw { first: 0x80 | PONG, payload: vec![b'x'; 125] });
    let mut answers = [client.next().await.json(), client.next().await.json()];
    answers.sort_by_key(|answer| answer.get("push").is_some());
    assert_eq!(answers[0], json!({"id": 3, "publish": {}}));
    assert_eq!(answers[1]["push"]["pub"]["data"], long("word "));

    client.socket.send(deflated(r#"{"id":4,"history":{"channel":"history:a","limit":10}}"#)).await;
    let history = client.next().await;
    assert!(history.is_deflated());
    assert_eq!(history.json()["history"]["publications"][0]["data"], long("word "));
}

#[tokio::test]
async fn a_long_reply_for_one_client_is_not_what_others_wait_for() {
    let gateway = gateway(1).await;
    let mut client = Compressed::subscribed(&gateway, OFFER, "a").await;
    let mut backend = gateway.client().await;
    let mut history = async |topic: &str, publications: usize| {
        for _ in 0..publications {
            backend.publish(topic, json!("x".repeat(1000))).await;
        }
        let history = json!({"id": 3, "history": {"channel": topic, "limit": -1}});
        client.socket.send(deflated(&history.to_string())).await;
        let reply = client.next().await;
        let publications_sent = reply.json()["history"]["publications"].as_array().unwrap().len();
        assert_eq!(publications_sent, publications);
        reply.is_deflated()
    };
    assert!(history("history:short", 60).await);
    assert!(!history("history:long", 70).await);
}

#[tokio::test]
async fn a_small_window_gets_what_fits_it() {
    let gateway = gateway(1).await;
    let offer = "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9";
    let mut small = Compressed::subscribed(&gateway, offer, "a").await;
    assert!(small.head.contains("; server_max_window_bits=9\r\n"), "{}", small.head);
    let mut full = Compressed::subscribed(&gateway, OFFER, "a").await;
    let mut backend = gateway.client().await;
    for (data, fits) in [(json!("x".repeat(300)), true), (json!("x".repeat(600)), false)] {
        backend.publish("a", data.clone()).await;
        let (small, full) = (small.next().await, full.next().await);
        assert_eq!((small.is_deflated(), full.is_deflated()), (fits, true));
        assert_eq!(small.json()["push"]["pub"]["data"], data);
        assert_eq!(small.message(), full.message());
    }
}

#[tokio::test]
async fn bombs_and_nonsense_are_refused() {
    let gateway = gateway(1).await;
    let mut witness = Compressed::subscribed(&gateway, OFFER, "a").await;
    let bomb = deflate(&vec![b' '; 30 << 20]);
    assert!(bomb.len() < 60_000);
    let just_too_big = deflate(&vec![b' '; 64 * 1024 + 1]);
    for (payload, code) in [
        (bomb, 1009),
        (just_too_big, 1009),
        (vec![0xFF; 10], 1007),
        (vec![], 1007),
        (deflate(b"\xFF\xFE and no text"), 1007),
        (deflate(b"no JSON"), 3501),
    ] {
        for is_in_fragments in [false, true] {
            let mut client = Compressed::open(&gateway, OFFER).await;
            if is_in_fragments {
                let (one, rest) = payload.split_at(payload.len() / 2);
                client.socket.send(fragment(false, DEFLATED | TEXT, one)).await;
                client.socket.try_send(fragment(true, CONTINUATION, rest)).await;
            } else {
                client.socket.try_send(frame(DEFLATED | TEXT, &payload)).await;
            }
            assert_eq!(client.closed().await, code, "{} bytes", payload.len());
        }
    }
    for wrong in [
        frame(DEFLATED | 0x9, "ping"),
        [fragment(false, TEXT, "a"), frame(DEFLATED | CONTINUATION, "b")].concat(),
        frame(DEFLATED | 0x20 | TEXT, deflate(b"{}")),
    ] {
        let mut client = Compressed::open(&gateway, OFFER).await;
        client.socket.send(wrong).await;
        assert_eq!(client.closed().await, 1002);
    }
    gateway.client().await.publish("a", long("still here ")).await;
    assert_eq!(witness.next().await.json()["push"]["pub"]["data"], long("still here "));
}

/// A few kilobytes become megabytes of commands, which are taken as the client reads its answers; and its close is
/// found behind them.
#[tokio::test]
async fn what_a_packet_may_become_waits_until_it_is_wanted() {
    const MESSAGES: usize = 40;
    const COMMANDS: usize = 500;
    let gateway = gateway(1).await;
    let mut client = Compressed::subscribed(&gateway, OFFER, "a").await;
    let mut packet = Vec::new();
    let mut bytes = 0;
    for message in 0..MESSAGES {
        let commands: Vec<String> = (0..COMMANDS)
            .map(|command| {
                let id = 10 + message * COMMANDS + command;
                json!({"id": id, "presence_stats": {"channel": format!("room:{}", "x".repeat(50))}})
                    .to_string()
            })
            .collect();
        let text = commands.join("\n");
        bytes += text.len();
        packet.extend(deflated(&text));
    }
    assert!(bytes > 20 * packet.len(), "{bytes} in {}", packet.len());
    packet.extend(frame(CLOSE, 1000u16.to_be_bytes()));
    client.socket.send(packet).await;
    for id in 10..10 + MESSAGES * COMMANDS {
        let reply = client.next().await.json();
        assert_eq!(reply["id"], id);
    }
    assert_eq!(client.closed().await, 1000);
    client.socket.ended().await;
    gateway.deserted().await;
}

#[tokio::test]
async fn the_echo_route_compresses() {
    let gateway = gateway(1).await;
    let mut socket = RawSocket::open(gateway.address).await;
    let request = offering(OFFER).replace("/connection/websocket", "/echo");
    let head = socket.upgrade(&request).await;
    let mut client = Compressed { socket, head };
    let text = "echo, echo, ".repeat(1000);
    client.socket.send([deflated(&text), deflated("short"), frame(TEXT, &text), deflated("")].concat()).await;
    for (expected, is_deflated) in [(&*text, true), ("short", false), (&text, true), ("", false)] {
        let echo = client.next().await;
        assert_eq!(echo.is_deflated(), is_deflated);
        assert_eq!(echo.message(), expected.as_bytes());
    }
}
