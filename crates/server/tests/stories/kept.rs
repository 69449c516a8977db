//! The time that connections are kept between requests.

use std::time::Duration;

use crate::common::{RawSocket, TestGateway, eventually, settings};

/// Long enough for a busy machine to send what it owes.
const SHORT: Duration = Duration::from_secs(2);
/// More than that.
const LONGER: Duration = Duration::from_millis(2500);
const NOWHERE: &str = "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n";
const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn callers_of_the_api_keep_their_connections_beyond_the_time_for_a_head() {
    let mut settings = settings(1);
    (settings.admission.request_header_timeout, settings.admission.idle_timeout) = (SHORT, SHORT);
    let gateway = TestGateway::start(settings).await;
    let calls = async |address| {
        let mut socket = RawSocket::open(address).await;
        for _ in 0..3 {
            socket.send("POST /api/info HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}").await;
            let response = socket.response().await;
            assert_eq!((response.status, response.header("keep-alive")), (200, Some("timeout=75")));
            tokio::time::sleep(LONGER).await;
        }
    };
    tokio::join!(calls(gateway.address), calls(gateway.internal_address));
}

#[tokio::test]
async fn who_asks_to_close_is_not_told_otherwise() {
    let gateway = TestGateway::start(settings(1)).await;
    for address in [gateway.address, gateway.internal_address] {
        let mut socket = RawSocket::open(address).await;
        socket.send("GET /nowhere HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        let response = socket.response().await;
        assert_eq!((response.header("connection"), response.header("keep-alive")), (Some("close"), None));
        socket.ended().await;
    }
}

#[tokio::test]
async fn others_are_kept_for_less() {
    let mut settings = settings(1);
    settings.admission.idle_timeout = SHORT;
    let gateway = TestGateway::start(settings).await;
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(NOWHERE).await;
    assert_eq!(socket.response().await.header("keep-alive"), Some("timeout=2"));
    socket.ended().await;
    // Whoever reads health and metrics is kept as a caller is.
    let mut scraper = RawSocket::open(gateway.internal_address).await;
    for _ in 0..2 {
        scraper.send(LIVE).await;
        assert_eq!(scraper.response().await.header("keep-alive"), Some("timeout=75"));
        tokio::time::sleep(LONGER).await;
    }
}

#[tokio::test]
async fn the_time_for_a_later_head_counts_from_its_first_byte() {
    let mut settings = settings(1);
    settings.admission.request_header_timeout = SHORT;
    let gateway = TestGateway::start(settings).await;
    let asks = async |address| {
        let mut socket = RawSocket::open(address).await;
        socket.send(NOWHERE).await;
        assert_eq!(socket.response().await.status, 404);
        tokio::time::sleep(LONGER).await;
        socket.send(NOWHERE).await;
        assert_eq!(socket.response().await.status, 404);
        socket.send("GET /nowhere HTTP/1.1\r\n").await;
        socket.ended().await;
    };
    tokio::join!(asks(gateway.address), asks(gateway.internal_address));
    let name = "fanwire_http_connections_dropped_total";
    eventually("both are counted", async || gateway.metric_of(name, "reason=\"head_timeout\"").await == 2.0)
        .await;
}
