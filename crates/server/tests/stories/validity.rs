//! Requests that two servers may read in two ways are refused, and answers that depend on a page's origin say so.

use crate::common::{RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, settings};

const GET: &str = "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n";

/// A chunked call of the API that also says how long it is.
fn two_lengths(first: &str, second: &str) -> String {
    let body = r#"{"channel":"a","data":1}"#;
    let size = body.len();
    format!(
        "POST /api/publish HTTP/1.1\r\nHost: test\r\n{first}\r\n{second}\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
    )
}

#[tokio::test]
async fn a_request_with_two_lengths_is_refused_and_the_last_one() {
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    let gateway = TestGateway::start(settings(3)).await;
    let mut client = gateway.client().await;
    client.subscribe("a").await;
    for address in [gateway.address, gateway.internal_address] {
        for request in [
            two_lengths(CHUNKED, "Content-Length: 5"),
            two_lengths("content-length: 5", CHUNKED),
            two_lengths("Content-Length: 0", "transfer-encoding:\tChunked"),
        ] {
            for before in ["", GET] {
                let mut socket = RawSocket::open(address).await;
                socket.send(format!("{before}{request}{GET}")).await;
                if !before.is_empty() {
                    assert_eq!(socket.response().await.status, 404);
                }
                let response = socket.response().await;
                assert_eq!(
                    (response.status, response.header("connection")),
                    (400, Some("close")),
                    "{request}"
                );
                assert!(response.body.contains("both Content-Length and Transfer-Encoding"), "{response:?}");
                socket.ended().await;
            }
        }
        // Each alone is fine, again and again.
        let mut socket = RawSocket::open(address).await;
        let chunked = two_lengths(CHUNKED, "X: y").replace("/publish", "/info");
        for request in [&chunked, &chunked, GET] {
            socket.send(request).await;
            let status = socket.response().await.status;
            assert_eq!(status, if request == GET { 404 } else { 200 });
        }
    }
    // None was carried out.
    let published = gateway.metric("fanwire_messages_delivered_total").await;
    assert_eq!(published, 0.0);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let gateway = TestGateway::start(settings(1)).await;
    let (client, internal) = (gateway.address, gateway.internal_address);
    let post = "POST /api/info HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}";
    let live = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";
    let listen = "GET /subscribe?topic=a&as=sse HTTP/1.1\r\nHost: test\r\n\r\n";
    for (address, request) in
        [(client, post), (client, WEBSOCKET_HANDSHAKE), (client, listen), (internal, post), (internal, live)]
    {
        let without = RawSocket::ask(address, &request.replacen("Host: test\r\n", "", 1)).await;
        assert_eq!((without.status, without.header("connection")), (400, Some("close")), "{request}");
        assert!(without.body.contains("no Host"), "{without:?}");
        for other in ["test", "evil.example"] {
            let two = request.replacen("Host: test\r\n", &format!("Host: test\r\nhost: {other}\r\n"), 1);
            let doubled = RawSocket::ask(address, &two).await;
            assert_eq!(doubled.status, 400, "{two}");
            assert!(doubled.body.contains("more than one Host"), "{doubled:?}");
        }
    }
    let old = RawSocket::ask(internal, "GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200);
    gateway.deserted().await;
}

#[tokio::test]
async fn a_path_of_the_api_has_no_empty_part() {
    let gateway = TestGateway::start(settings(1)).await;
    for address in [gateway.address, gateway.internal_address] {
        for path in ["/api//publish", "/api//", "/api/publish//", "/api///batch"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 24\r\n\r\n{{\"channel\":\"a\",\"data\":1}}"
            );
            let response = RawSocket::ask(address, &request).await;
            assert_eq!(response.status, 400, "{path}");
            assert!(response.body.contains("two slashes"), "{response:?}");
        }
    }
}

#[tokio::test]
async fn answers_that_depend_on_the_origin_say_so() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://a.example".into()];
    settings.admission.connections_max = 2;
    let gateway = TestGateway::start(settings).await;
    let listen = "GET /subscribe?topic=a&as=sse HTTP/1.1\r\nHost: test\r\n\r\n";
    let preflight = listen.replace("GET", "OPTIONS");
    let wrong = listen.replace("topic=a", "topic=");
    let post = "POST /api/info HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}";
    for origin in ["", "Origin: https://a.example\r\n", "Origin: https://b.example\r\n"] {
        let with_origin = |request: &str| request.replacen("\r\n", &format!("\r\n{origin}"), 1);
        for request in [listen, WEBSOCKET_HANDSHAKE] {
            let mut socket = RawSocket::open(gateway.address).await;
            socket.send(with_origin(request)).await;
            let head = socket.head().await.to_lowercase();
            assert!(head.contains("\r\nvary: origin\r\n"), "{head}");
            socket.vanish();
            gateway.deserted().await;
        }
        let broken = WEBSOCKET_HANDSHAKE.replace("Version: 13", "Version: 8");
        for request in [&preflight, &wrong, &broken] {
            let response = RawSocket::ask(gateway.address, &with_origin(request)).await;
            let heads = response.head.to_lowercase();
            assert!(heads.contains("\r\nvary: origin\r\n"), "{heads}");
        }
        for address in [gateway.address, gateway.internal_address] {
            let response = RawSocket::ask(address, &with_origin(post)).await;
            assert_eq!(response.header("vary"), Some("Origin, Sec-Fetch-Site"), "{response:?}");
        }
    }
    // Also when there is no room.
    let _both = (gateway.client().await, gateway.client().await);
    let full = RawSocket::ask(gateway.address, WEBSOCKET_HANDSHAKE).await;
    assert_eq!((full.status, full.header("vary")), (503, Some("Origin")));
}
