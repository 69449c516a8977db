//! Answers that pages of other origins can read, and those that they cannot.

use crate::common::{RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, get, post, settings};

const ORIGIN: &str = "https://a.example";
const STRANGER: &str = "https://b.example";

async fn gateway() -> TestGateway {
    let mut settings = settings(1);
    settings.origins.allowed = vec![ORIGIN.into()];
    settings.admission.connections_max = 1;
    TestGateway::start(settings).await
}

fn from_page(request: &str, origin: &str) -> String {
    request.replacen("\r\n", &format!("\r\nOrigin: {origin}\r\n"), 1)
}

fn preflight(path: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: test\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, x-own\r\n\r\n"
    )
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_every_answer() {
    let gateway = gateway().await;
    let requests = [
        (get("/nowhere"), 404),
        (get("/"), 404),
        (get("/subscribe"), 400),
        (get("/subscribe?topic=$private"), 403),
        (get("/subscribe").replace("GET", "DELETE"), 405),
        (get("/subscribe").replace("GET", "OPTIONS"), 405),
        (get("/subscribe").replace("Host: test", "Host: test\r\nHost: other"), 400),
        (get("/connection/websocket"), 426),
        (get("/connection/uni_websocket"), 426),
        (get("/connection/http_stream"), 405),
        (get("/connection/sse"), 400),
        (get("/connection/uni_http_stream"), 405),
        (get("/connection/uni_sse?cf_connect=no"), 400),
        (get("/emulation"), 405),
        (post("/emulation", "{}"), 400),
        (get("/publish"), 405),
        (post("/publish", "1"), 400),
        (post("/publish?topic=nowhere:a", "1"), 404),
        (post("/probe", ""), 405),
        (WEBSOCKET_HANDSHAKE.replace("Sec-WebSocket-Key", "X-Key"), 400),
    ];
    let readable = [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "ETag, Fanwire-Session, Retry-After"),
        ("vary", "Origin"),
    ];
    let check = async |request: &str, status: u16| {
        let response = RawSocket::ask(gateway.address, &from_page(request, ORIGIN)).await;
        assert_eq!(response.status, status, "{request}");
        for (name, value) in readable {
            assert_eq!(response.header(name), Some(value), "{name} of {response:?}");
        }
        // It may be another one with a token, or a moment later.
        assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
        let lines = response.head.to_lowercase();
        assert_eq!(lines.matches("access-control-allow-origin").count(), 1, "{lines}");
    };
    for (request, status) in requests {
        check(&request, status).await;
    }
    gateway.deserted().await;
    let mut stream = RawSocket::open(gateway.address).await;
    stream.send(from_page(&get("/subscribe?topic=a&as=sse"), ORIGIN)).await;
    let head = stream.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for (name, value) in readable {
        assert!(head.contains(&format!("\r\n{name}: {value}\r\n")), "{name} of {head}");
    }
    // The stream takes the only place.
    check(&get("/subscribe?topic=a"), 503).await;
    check(WEBSOCKET_HANDSHAKE, 503).await;
}

#[tokio::test]
async fn a_page_of_another_origin_reads_nothing() {
    let gateway = gateway().await;
    for (request, status) in [
        (get("/nowhere"), 404),
        (get("/subscribe?topic=a"), 403),
        (get("/subscribe").replace("GET", "POST"), 403),
        (get("/connection/websocket"), 403),
        (WEBSOCKET_HANDSHAKE.to_owned(), 403),
        (preflight("/subscribe"), 403),
        (preflight("/nowhere"), 403),
    ] {
        let response = RawSocket::ask(gateway.address, &from_page(&request, STRANGER)).await;
        assert_eq!(response.status, status, "{request}");
        assert!(!response.head.to_lowercase().contains("access-control"), "{response:?}");
        assert_eq!(response.header("vary"), Some("Origin"), "{response:?}");
        assert!(status == 404 || response.body.contains("client.allowed_origins"), "{response:?}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_on_every_path_but_the_api() {
    let gateway = gateway().await;
    // A missing route too: the request that follows says so, in words.
    for path in ["/subscribe", "/connection/websocket", "/nowhere", "/"] {
        let response = RawSocket::ask(gateway.address, &from_page(&preflight(path), ORIGIN)).await;
        assert_eq!((response.status, &*response.body), (204, ""), "{response:?}");
        for (name, value) in [
            ("access-control-allow-origin", ORIGIN),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-allow-headers", "authorization, x-own"),
            ("access-control-max-age", "300"),
        ] {
            assert_eq!(response.header(name), Some(value), "{name} of {response:?}");
        }
        let lines = response.head.to_lowercase();
        assert!(lines.contains("\r\nvary: origin\r\n"), "{lines}");
        assert!(lines.contains("\r\nvary: access-control-request-headers\r\n"), "{lines}");
    }
    // It belongs to backends.
    let response = RawSocket::ask(gateway.address, &from_page(&preflight("/api/publish"), ORIGIN)).await;
    assert!(response.status >= 400, "{response:?}");
    assert!(!response.head.to_lowercase().contains("access-control"), "{response:?}");
}
