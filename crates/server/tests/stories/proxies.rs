//! Clients behind a proxy: each counts for itself once the proxy is trusted to name it.

use serde_json::json;

use tokio::io::AsyncReadExt as _;

use crate::common::{Backend, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, settings, within};
use crate::encrypted::Encrypted;

const FLOOD: &str = "192.0.2.66";
const HONEST: &str = "192.0.2.1";
const CROWD: usize = 50;

const NOWHERE: &str = "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n";

fn behind_a_proxy() -> fanwire_server::Settings {
    let mut settings = settings(1);
    settings.admission.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    settings.admission.http_connections_max = 8;
    settings.api.connections_max = 8;
    settings
}

/// The node ends the connection without an answer, with a reset if it left something unread.
async fn dropped(socket: RawSocket) {
    let mut stream = socket.into_stream();
    let mut byte = [0];
    let read = within("the end", stream.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "no answer");
}

fn ahead(client: &str) -> String {
    format!("PROXY TCP4 {client} 198.51.100.1 50000 443\r\n")
}

fn call(client: &str, body: &str, length: usize) -> String {
    format!(
        "POST /api/info HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_header_ahead_of_a_connection_is_taken() {
    let gateway = TestGateway::start(behind_a_proxy()).await;
    let mut version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    version_2.extend([192, 0, 2, 1, 198, 51, 100, 1, 1, 1, 2, 2]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for header in [ahead(HONEST).into_bytes(), b"PROXY UNKNOWN\r\n".to_vec(), version_2, local, Vec::new()] {
        // With what follows at once, and in pieces.
        let mut socket = RawSocket::open(gateway.address).await;
        socket.send([&header, WEBSOCKET_HANDSHAKE.as_bytes()].concat()).await;
        assert_eq!(socket.response().await.status, 101);
        let mut socket = RawSocket::open(gateway.address).await;
        for byte in header {
            socket.send([byte]).await;
        }
        socket.send(WEBSOCKET_HANDSHAKE).await;
        assert_eq!(socket.response().await.status, 101);
    }
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send("PROXY TCP4 nobody\r\n").await;
    dropped(socket).await;
    Backend::new(gateway.address).await.call("info", json!({})).await;
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_before_the_handshake() {
    let node = Encrypted::start(behind_a_proxy()).await;
    let mut socket = RawSocket::open(node.gateway.address).await;
    socket.send("PROXY TCP6 2001:db8::1 2001:db8::2 50000 443\r\n").await;
    let mut socket = socket.encrypted(&node.trust).await;
    socket.send(NOWHERE).await;
    assert_eq!(socket.response().await.status, 404);
}

#[tokio::test]
async fn a_header_of_a_stranger_is_a_bad_request() {
    let mut settings = behind_a_proxy();
    settings.admission.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    let gateway = TestGateway::start(settings).await;
    assert_eq!(RawSocket::ask(gateway.address, &(ahead(HONEST) + WEBSOCKET_HANDSHAKE)).await.status, 400);
}

#[tokio::test]
async fn a_client_named_ahead_is_not_pushed_out_by_another() {
    let gateway = TestGateway::start(behind_a_proxy()).await;
    let mut honest = RawSocket::open(gateway.address).await;
    honest.send(ahead(HONEST) + NOWHERE).await;
    assert_eq!(honest.response().await.status, 404);
    let mut flood = Vec::new();
    for _ in 0..CROWD {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.try_send(ahead(FLOOD) + "G").await;
        flood.push(socket);
        // The node has begun with it by then, and waits for the rest.
        RawSocket::ask(gateway.address, NOWHERE).await;
    }
    dropped(flood.remove(0)).await;
    honest.send(NOWHERE).await;
    assert_eq!(honest.response().await.status, 404);
}

#[tokio::test]
async fn a_client_named_in_a_request_is_not_pushed_out_by_another() {
    let gateway = TestGateway::start(behind_a_proxy()).await;
    let mut honest = RawSocket::open(gateway.address).await;
    honest.send(call(HONEST, "{}", 2)).await;
    assert_eq!(honest.response().await.status, 200);
    let mut flood = Vec::new();
    for number in 0..CROWD {
        let mut socket = RawSocket::open(gateway.address).await;
        // The client may claim another address before that which the proxy saw.
        socket.try_send(call(&format!("10.0.0.{number}, {FLOOD}"), "{", 100)).await;
        flood.push(socket);
        // The node has begun with it by then, and waits for the rest.
        RawSocket::ask(gateway.address, NOWHERE).await;
    }
    dropped(flood.remove(0)).await;
    honest.send(call(HONEST, "{}", 2)).await;
    assert_eq!(honest.response().await.status, 200);
}
