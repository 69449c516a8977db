//! The same life behind TLS: what clients send and get, in any size and at any pace, and how they part.

use std::io::Write;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use fanwire_server::Settings;

use crate::common::{
    Authority, BINARY, Backend, CLOSE, CertificateFiles, Client, RawSocket, TEXT, TestGateway, Trust,
    WEBSOCKET_HANDSHAKE, eventually, frame, settings, within,
};

pub(crate) const BOTH: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

/// A node behind TLS, and those who trust it.
pub(crate) struct Encrypted {
    pub(crate) gateway: TestGateway,
    pub(crate) trust: Trust,
    pub(crate) _files: CertificateFiles,
}

impl Encrypted {
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::start_with(settings, &[&TLS13]).await
    }

    pub(crate) async fn start_with(
        mut settings: Settings,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let authority = Authority::new();
        let files = CertificateFiles::new(&authority.issue());
        settings.tls = Some(files.settings());
        let gateway = TestGateway::start(settings).await;
        Self { gateway, trust: authority.trust(versions), _files: files }
    }

    pub(crate) async fn socket(&self) -> RawSocket {
        RawSocket::open(self.gateway.address).await.encrypted(&self.trust).await
    }

    async fn small_socket(&self, receive_bytes: u32) -> RawSocket {
        RawSocket::open_small(self.gateway.address, receive_bytes).await.encrypted(&self.trust).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect_over(self.socket().await, json!({})).await
    }

    pub(crate) async fn handshakes(&self, result: &str) -> f64 {
        self.gateway.metric_of("fanwire_tls_handshakes_total", &format!("result=\"{result}\"")).await
    }
}

#[tokio::test]
async fn clients_publish_and_receive() {
    for versions in BOTH {
        for shards in [1, 3] {
            let node = Encrypted::start_with(settings(shards), versions).await;
            let mut subscriber = node.client().await;
            let agreed = &subscriber.socket.tls().get_ref().1;
            assert_eq!(agreed.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(agreed.protocol_version(), Some(versions[0].version));
            subscriber.subscribe("history:a").await;
            let mut publisher = node.client().await;
            publisher.publish_all("history:a", 0..500).await;
            for number in 0..500 {
                assert_eq!(subscriber.publication().await.1["data"], number);
            }
            subscriber.nothing_more().await;
        }
    }
}

#[tokio::test]
async fn listeners_and_backends_are_served() {
    let node = Encrypted::start(settings(2)).await;
    let mut listener = node.socket().await;
    listener.send("GET /subscribe?topic=room:a&as=sse HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(listener.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut backend = Backend::over(node.socket().await);
    eventually("the listener is there", async || {
        backend.call("presence_stats", json!({"channel": "room:a"})).await["num_clients"] == 1
    })
    .await;
    backend.call("publish", json!({"channel": "room:a", "data": "over TLS"})).await;
    assert!(listener.until("over TLS").await.contains("data: "));

    // A response that ends its connection ends it with a word.
    let mut last = node.socket().await;
    last.send("GET /nothing HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(last.response().await.status, 404);
    last.ended().await;
}

#[tokio::test]
async fn what_comes_with_the_request_is_not_left_behind() {
    for versions in BOTH {
        let node = Encrypted::start_with(settings(1), versions).await;
        // Far more than is read at once, in the same breath as the request: some of it is decrypted before the
        // connection is handed over, and no event of the socket tells of it.
        for messages in [1, 100, 150, 200, 250, 2000] {
            let mut socket = node.socket().await;
            let command = json!({"id": 1, "connect": {}}).to_string();
            let ask = |id| json!({"id": id, "presence_stats": {"channel": "room:a"}}).to_string();
            let frames = (2..2 + messages).map(|id| frame(TEXT, ask(id)));
            let all = [WEBSOCKET_HANDSHAKE.as_bytes().to_vec(), frame(TEXT, command)];
            socket.send(all.into_iter().chain(frames).collect::<Vec<_>>().concat()).await;
            assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
            let mut next = 1;
            while next < 2 + messages {
                for line in socket.frame().await.unwrap().text().lines() {
                    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["id"], next);
                    next += 1;
                }
            }
        }
    }
}

/// A WebSocket that gets back what it sends.
async fn echo(mut socket: RawSocket) -> RawSocket {
    socket.upgrade(&WEBSOCKET_HANDSHAKE.replace("/connection/websocket", "/echo")).await;
    socket
}

/// Bytes that differ from their neighbours.
fn message(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|number| ((number * 31) >> 3) as u8).collect()
}

#[tokio::test]
async fn large_messages_pass_both_ways_and_through_narrow_sockets() {
    const MESSAGE_BYTES: usize = 256 * 1024;
    for versions in BOTH {
        let mut settings = settings(1);
        settings.websocket.message_bytes_max = MESSAGE_BYTES;
        let node = Encrypted::start_with(settings, versions).await;
        let message = message(MESSAGE_BYTES);
        for socket in [node.socket().await, node.small_socket(4096).await] {
            let mut socket = echo(socket).await;
            for _ in 0..3 {
                socket.send(frame(BINARY, &message)).await;
                let echo = socket.frame().await.unwrap();
                assert!(echo.payload == message, "{} bytes came back", echo.payload.len());
            }
        }
    }
}

#[tokio::test]
async fn what_the_kernel_does_not_take_follows_by_itself() {
    const MESSAGE_BYTES: usize = 16 * 1024;
    let node = Encrypted::start(settings(1)).await;
    let message = frame(BINARY, message(MESSAGE_BYTES));
    let received = async || node.gateway.metric("fanwire_received_bytes_total").await;
    let queued = async || node.gateway.metric("fanwire_send_queue_bytes").await;
    let send = async |socket: &mut RawSocket, messages: usize| {
        let expected = received().await + (messages * message.len()) as f64;
        socket.send(message.repeat(messages)).await;
        eventually("all was read", async || received().await >= expected).await;
    };
    // How much the kernel keeps for a client that does not read.
    let mut first = echo(node.small_socket(4096).await).await;
    let mut kept = 0;
    while queued().await == 0.0 {
        send(&mut first, 1).await;
        kept += 1;
        assert!(kept < 2000, "the kernel takes everything");
    }
    first.vanish();
    // A little less: in one of these cases all is encrypted, the kernel has not taken all of it, and nothing waits
    // behind that.
    for messages in kept - 8..=kept {
        let mut socket = echo(node.small_socket(4096).await).await;
        send(&mut socket, messages).await;
        for _ in 0..messages {
            assert_eq!(socket.frame().await.unwrap().payload.len(), MESSAGE_BYTES);
        }
    }
}

#[tokio::test]
async fn keys_may_change_on_the_way() {
    let node = Encrypted::start(settings(1)).await;
    let mut client = node.client().await;
    client.subscribe("a").await;
    for number in 0..100 {
        client.socket.tls().get_mut().1.refresh_traffic_keys().unwrap();
        client.publish("a", json!(number)).await;
        assert_eq!(client.publication().await.1["data"], number);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_as_slow() {
    const QUEUE_BYTES: &str = "fanwire_send_queue_bytes";
    for versions in BOTH {
        let mut settings = settings(1);
        settings.client.queue_bytes_max = 64 * 1024;
        let node = Encrypted::start_with(settings, versions).await;
        let mut slow = Client::connect_over(node.small_socket(64 * 1024).await, json!({})).await;
        slow.subscribe("room:1").await;
        let mut reader = node.client().await;
        reader.subscribe("room:1").await;
        let reading = tokio::spawn(async move {
            let mut count = 0;
            while let push = reader.push().await
                && push["pub"]["data"] != "last"
            {
                count += u32::from(push.get("pub").is_some());
            }
            count
        });
        let mut publisher = node.client().await;
        let text = "x".repeat(4096);
        let mut published = 0;
        eventually("the slow client is let go", async || {
            for _ in 0..16 {
                publisher.publish("room:1", json!({"number": published, "text": text})).await;
                published += 1;
            }
            publisher.present("room:1").await == 1
        })
        .await;
        publisher.publish("room:1", json!("last")).await;
        assert_eq!(reading.await.unwrap(), published);
        assert!(node.gateway.metric(QUEUE_BYTES).await < 2.0 * 4096.0);

        // What was begun is whole, then comes the reason, then TLS' own end.
        let mut number = 0;
        let closed = loop {
            let frame = slow.socket.frame().await.unwrap();
            if frame.opcode == CLOSE {
                break frame.close();
            }
            let message: Value = serde_json::from_str(frame.text()).unwrap();
            if message["push"].get("pub").is_some() {
                assert_eq!(message["push"]["pub"]["data"]["number"], number);
                number += 1;
            }
        };
        assert_eq!(closed, (3008, "slow".into()));
        slow.socket.ended().await;
        assert!(number > 0 && number < published);
        eventually("nothing waits", async || node.gateway.metric(QUEUE_BYTES).await == 0.0).await;
    }
}

#[tokio::test]
async fn everybody_is_told_when_the_node_goes_down() {
    for versions in BOTH {
        let node = Encrypted::start_with(settings(2), versions).await;
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(node.client().await);
        }
        let mut listener = node.socket().await;
        listener.send("GET /subscribe?topic=a&as=sse HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert!(listener.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        let going = tokio::spawn(node.gateway.shutdown());
        for client in &mut clients {
            assert_eq!(client.closed().await, (3001, "shutdown".into()));
            client.socket.ended().await;
        }
        listener.until("\"code\":3001").await;
        listener.until("\n\n").await;
        listener.ended().await;
        drop((clients, listener));
        going.await.unwrap();
    }
}

#[tokio::test]
async fn each_way_to_part_is_understood() {
    let node = Encrypted::start(settings(1)).await;
    let mut witness = node.client().await;

    // The client closes the WebSocket, and hears the answer and TLS' own end.
    let mut client = node.client().await;
    client.subscribe("room:a").await;
    client.socket.send(frame(CLOSE, 1000u16.to_be_bytes())).await;
    assert_eq!(client.closed().await.0, 1000);
    client.socket.ended().await;

    // It ends TLS without a word, and hears the same of the node.
    let mut client = node.client().await;
    client.subscribe("room:a").await;
    client.socket.finish().await;
    while client.socket.frame().await.is_some() {}

    // It is gone, or its connection is cut within TLS.
    let mut client = node.client().await;
    client.subscribe("room:a").await;
    client.socket.vanish();
    let mut client = node.client().await;
    client.subscribe("room:a").await;
    drop(client.socket.into_stream());

    // What it sends is no TLS any more.
    let mut client = node.client().await;
    client.subscribe("room:a").await;
    let mut stream = client.socket.into_stream();
    stream.write_all(&[0x17; 4096]).await.unwrap();

    // It is sent away, and goes on with what is no TLS.
    let mut client = node.client().await;
    client.socket.send(frame(TEXT, "no command")).await;
    assert_eq!(client.closed().await.0, 3501);
    client.socket.ended().await;
    let mut late = client.socket.into_stream();
    late.write_all(&[0x17; 4096]).await.unwrap();

    eventually("all are gone", async || witness.present("room:a").await == 0).await;
    witness.publish("a", json!("still served")).await;
    drop((stream, late));
    // The witness is.
    eventually("no other socket is left", async || node.gateway.sockets() == 1).await;
}

#[tokio::test]
async fn what_was_said_before_a_connection_broke_is_heard() {
    for versions in BOTH {
        let node = Encrypted::start_with(settings(1), versions).await;
        let mut subscriber = node.client().await;
        subscriber.subscribe("a").await;
        let mut client = node.client().await;
        let publish = json!({"id": 100, "publish": {"channel": "a", "data": "last words"}});
        let (_, session) = client.socket.tls().get_mut();
        session.writer().write_all(&frame(TEXT, publish.to_string())).unwrap();
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).unwrap();
        }
        // At once, so that both are read at once.
        records.extend([0x17; 64]);
        let mut stream = client.socket.into_stream();
        stream.write_all(&records).await.unwrap();
        let heard = within("it is heard", subscriber.publication()).await;
        assert_eq!(heard.1["data"], "last words");
    }
}
