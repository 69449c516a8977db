//! Requests that the client port serves, and the refusals of others.

use std::time::Duration;

use serde_json::json;

use crate::common::{RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, eventually, get, settings};

fn with_origin(request: &str, origin: &str) -> String {
    request.replacen("\r\n", &format!("\r\nOrigin: {origin}\r\n"), 1)
}

#[tokio::test]
async fn requests_that_lead_nowhere_are_told_why() {
    let gateway = TestGateway::start(settings(3)).await;
    let without = |header: &str| {
        let lines = WEBSOCKET_HANDSHAKE.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with(header)).collect::<String>()
    };
    let cases = [
        (get("/nowhere"), 404, None),
        (get("/"), 404, None),
        (get("/connection/websocket"), 426, Some(("upgrade", "websocket"))),
        (get("/connection/websocket").replace("GET", "POST"), 405, Some(("allow", "GET"))),
        (get("/subscribe").replace("GET", "POST"), 405, Some(("allow", "GET"))),
        (get("/subscribe"), 400, None),
        (without("Upgrade:"), 426, None),
        (without("Connection:"), 426, None),
        (without("Sec-WebSocket-Key:"), 400, None),
        (without("Sec-WebSocket-Version:"), 426, Some(("sec-websocket-version", "13"))),
        (
            WEBSOCKET_HANDSHAKE.replace("Version: 13", "Version: 8"),
            426,
            Some(("sec-websocket-version", "13")),
        ),
        (WEBSOCKET_HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, None),
        (
            WEBSOCKET_HANDSHAKE.replace("Sec-WebSocket-Key", "Sec-WebSocket-Key: AAAA\r\nSec-WebSocket-Key"),
            400,
            None,
        ),
        (WEBSOCKET_HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"), 505, None),
    ];
    for (request, status, header) in cases {
        let response = RawSocket::ask(gateway.address, &request).await;
        assert_eq!(response.status, status, "{request}");
        assert!(response.body.len() > 10, "a sentence: {response:?}");
        if let Some((name, value)) = header {
            assert_eq!(response.header(name), Some(value), "{request}");
        }
    }
    gateway.deserted().await;
}

#[tokio::test]
async fn the_probe_answers_while_the_node_takes_clients() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://a.example".into()];
    settings.admission.connections_max = 1;
    settings.shutdown.propagation = Duration::from_secs(1);
    let gateway = TestGateway::start(settings).await;
    let address = gateway.address;
    // It is no client: it is answered where there is no room for one.
    let _only = gateway.client().await;
    let page = with_origin(&get("/probe?at=1"), "https://a.example");
    let response = RawSocket::ask(address, &page).await;
    assert_eq!((response.status, &*response.body), (200, "{}"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"));
    let mut head = RawSocket::open(address).await;
    head.send(get("/probe").replace("GET", "HEAD").replacen("\r\n", "\r\nConnection: close\r\n", 1)).await;
    assert!(head.head().await.starts_with("HTTP/1.1 200 "));
    head.ended().await;
    let post = RawSocket::ask(address, &get("/probe").replace("GET", "POST")).await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    let leaves = eventually("the probe says that the node leaves", async || {
        let response = RawSocket::ask(address, &page).await;
        assert_eq!(response.header("cache-control"), Some("no-store"));
        response.status == 503 && response.header("retry-after") == Some("1")
    });
    tokio::join!(gateway.shutdown(), leaves);
}

#[tokio::test]
async fn what_is_turned_off_is_not_found_and_not_named() {
    let mut settings = settings(1);
    settings.probe.path = None;
    settings.subscribe.path = None;
    settings.publish.path = None;
    settings.http_stream.path = None;
    settings.sse.path = None;
    settings.emulation.path = None;
    settings.uni_websocket.path = None;
    settings.uni_http_stream.path = None;
    settings.uni_sse.path = None;
    let gateway = TestGateway::start(settings).await;
    for path in ["/probe", "/subscribe?topic=a", "/publish?topic=a", "/connection/uni_sse", "/emulation"] {
        let response = RawSocket::ask(gateway.address, &get(path)).await;
        assert_eq!(response.status, 404, "{response:?}");
        assert!(response.body.contains("/connection/websocket, /api."), "{response:?}");
    }
}

#[tokio::test]
async fn only_pages_of_allowed_origins_connect() {
    let mut settings = settings(1);
    settings.origins.allowed = vec!["https://*.example.com".into()];
    let gateway = TestGateway::start(settings).await;
    for path in [WEBSOCKET_HANDSHAKE, &get("/subscribe?topic=a&as=sse")] {
        let refused = RawSocket::ask(gateway.address, &with_origin(path, "https://example.org")).await;
        assert_eq!(refused.status, 403);
        assert!(refused.body.contains("client.allowed_origins"), "{}", refused.body);
        let mut allowed = RawSocket::open(gateway.address).await;
        allowed.send(with_origin(path, "https://www.example.com")).await;
        let head = allowed.head().await;
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_asked_to_come_back() {
    const CONNECTIONS_MAX: usize = 5;
    for shards in [1, 3] {
        let mut settings = settings(shards);
        settings.admission.connections_max = CONNECTIONS_MAX;
        let gateway = TestGateway::start(settings).await;
        // All at once: the limit holds for those on their way, too.
        let mut sockets = Vec::new();
        for _ in 0..4 * CONNECTIONS_MAX {
            sockets.push(RawSocket::open(gateway.address).await);
        }
        for socket in &mut sockets {
            socket.send(WEBSOCKET_HANDSHAKE).await;
        }
        let mut inside = Vec::new();
        for mut socket in sockets {
            let response = socket.response().await;
            match response.status {
                101 => inside.push(socket),
                503 => assert_eq!(response.header("retry-after"), Some("1")),
                _ => panic!("{response:?}"),
            }
        }
        assert_eq!(inside.len(), CONNECTIONS_MAX);
        let listener = RawSocket::ask(gateway.address, &get("/subscribe?topic=a")).await;
        assert_eq!(listener.status, 503);
        // One leaves and one may come.
        inside.pop();
        eventually("there is room again", async || {
            let mut socket = RawSocket::open(gateway.address).await;
            socket.send(WEBSOCKET_HANDSHAKE).await;
            socket.response().await.status == 101
        })
        .await;
    }
}

#[tokio::test]
async fn a_burst_of_new_connections_is_cut() {
    let mut settings = settings(1);
    settings.admission.connections_per_second_max = 3;
    let gateway = TestGateway::start(settings).await;
    let mut inside = 0;
    let mut cut = 0;
    for _ in 0..20 {
        match RawSocket::ask(gateway.address, WEBSOCKET_HANDSHAKE).await.status {
            101 => inside += 1,
            503 => cut += 1,
            status => panic!("{status}"),
        }
    }
    // The burst may fall into two seconds, on a slow machine into a few more.
    assert!(inside >= 3 && cut > 0, "{inside} {cut}");
}

#[tokio::test]
async fn a_request_that_does_not_come_to_an_end_is_dropped() {
    let mut settings = settings(1);
    settings.admission.request_header_timeout = Duration::from_millis(200);
    settings.admission.http_connections_max = 2;
    let gateway = TestGateway::start(settings).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.send("GET /connection/websocket HTTP/1.1\r\n").await;
        slow.push(socket);
    }
    // Others get the room of those in front.
    RawSocket::websocket(gateway.address).await;
    gateway.deserted().await;
}

/// No byte of the body comes, or one and then no more.
#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_out() {
    const CONNECTIONS_MAX: usize = 4;
    let mut settings = settings(1);
    settings.admission.http_connections_max = CONNECTIONS_MAX;
    settings.admission.post_connections_max = CONNECTIONS_MAX;
    let gateway = TestGateway::start(settings).await;
    let paths = ["/connection/http_stream", "/connection/uni_sse", "/emulation", "/publish?topic=room:a"];
    let mut slow = Vec::new();
    for path in paths.into_iter().cycle().take(4 * paths.len() * CONNECTIONS_MAX) {
        let mut socket = RawSocket::open(gateway.address).await;
        socket.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n")).await;
        if slow.len() % 2 == 0 {
            socket.send("x").await;
        }
        slow.push(socket);
    }
    RawSocket::websocket(gateway.address).await;
    let publish = "POST /publish?topic=room:a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n1";
    let published = RawSocket::ask(gateway.address, publish).await;
    assert_eq!(published.status, 200, "{published:?}");
}

#[tokio::test]
async fn backends_that_keep_their_connections_leave_room_for_clients() {
    const HTTP_CONNECTIONS_MAX: usize = 4;
    let mut settings = settings(1);
    settings.admission.http_connections_max = HTTP_CONNECTIONS_MAX;
    settings.admission.request_header_timeout = Duration::from_secs(3600);
    let gateway = TestGateway::start(settings).await;
    // Each has its answer and would like to stay for the next call.
    let mut backends = Vec::new();
    for _ in 0..4 * HTTP_CONNECTIONS_MAX {
        let mut backend = gateway.backend().await;
        backend.call("info", json!({})).await;
        backends.push(backend);
    }
    gateway.client().await;
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_answered_with_a_sentence() {
    let gateway = TestGateway::start(settings(1)).await;
    let get = "GET /livez HTTP/1.1\r\nHost: test\r\n";
    let headers = |count: usize| (0..count).map(|number| format!("a{number}: b\r\n")).collect::<String>();
    let handshake = WEBSOCKET_HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{}\r\n", headers(120)));
    for (request, status, why) in [
        (format!("{get}{}\r\n", headers(120)), 431, "more than 100 headers"),
        (format!("{get}Cookie: {}\r\n\r\n", "x".repeat(33_000)), 431, "longer than 32768 bytes"),
        (handshake, 431, "more than 100 headers"),
        ("hello\r\n\r\n".into(), 400, "HTTP/1.1"),
        ("GET / HTTP/3.7\r\nHost: test\r\n\r\n".into(), 400, "HTTP/1.1"),
    ] {
        for address in [gateway.address, gateway.internal_address] {
            let response = RawSocket::ask(address, &request).await;
            assert_eq!(response.status, status, "{why}");
            assert!(response.body.contains(why), "{response:?}");
        }
    }
    // Up to the bound, and behind an answer on the same connection.
    for address in [gateway.address, gateway.internal_address] {
        let mut socket = RawSocket::open(address).await;
        socket.send(format!("{get}{}\r\n{get}{}\r\n", headers(99), headers(100))).await;
        assert_ne!(socket.response().await.status, 431);
        let response = socket.response().await;
        assert_eq!(response.status, 431);
        assert!(response.body.contains("more than 100 headers"), "{response:?}");
        socket.ended().await;
    }
}
