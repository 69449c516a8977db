//! Sockets that say nothing, or too little, or take nothing: others do not notice them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::common::{Backend, RawSocket, TestGateway, eventually, settings};

/// Longer than any test, so that only room for others ends a connection.
const FOREVER: Duration = Duration::from_secs(3600);

const CROWD: usize = 100;

const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";

/// A node that waits for ever, with less room than a crowd needs.
fn patient() -> fanwire_server::Settings {
    let mut settings = settings(1);
    let admission = &mut settings.admission;
    (admission.request_header_timeout, admission.idle_timeout, admission.write_timeout) =
        (FOREVER, FOREVER, FOREVER);
    (admission.silent_connections_max, admission.http_connections_max, admission.internal_connections_max) =
        (16, 8, 8);
    (settings.api.connections_max, settings.api.idle_timeout) = (8, FOREVER);
    settings
}

async fn crowd(address: SocketAddr, sent: &str) -> Vec<RawSocket> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut socket = RawSocket::open(address).await;
        socket.try_send(sent).await;
        crowd.push(socket);
    }
    crowd
}

/// Clients connect, the API and health answer.
async fn others_are_served(gateway: &TestGateway) {
    for _ in 0..6 {
        gateway.client().await.publish("a", json!(1)).await;
        for address in [gateway.address, gateway.internal_address] {
            Backend::new(address).await.call("info", json!({})).await;
        }
        assert_eq!(RawSocket::ask(gateway.internal_address, LIVE).await.status, 200);
    }
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let gateway = TestGateway::start(patient()).await;
    let crowd = (crowd(gateway.address, "").await, crowd(gateway.internal_address, "").await);
    others_are_served(&gateway).await;
    assert!(gateway.metric_of("fanwire_http_connections_dropped_total", "reason=\"silent\"").await > 0.0);
    drop(crowd);
    gateway.deserted().await;
}

#[tokio::test]
async fn a_crowd_with_unfinished_requests_keeps_nobody_out() {
    let gateway = TestGateway::start(patient()).await;
    for sent in [
        "G",
        "GET /connection/websocket HTTP/1.1\r\nHost: test\r\n",
        // With a key that is right, the body is waited for.
        "POST /api/publish HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let crowd = (crowd(gateway.address, sent).await, crowd(gateway.internal_address, sent).await);
        others_are_served(&gateway).await;
        drop(crowd);
    }
    gateway.deserted().await;
}

#[tokio::test]
async fn a_crowd_that_takes_no_answers_keeps_nobody_out() {
    const REQUESTS: usize = 2000;
    let gateway = TestGateway::start(patient()).await;
    for request in [LIVE, "POST /api/nothing HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"] {
        let mut crowd = Vec::new();
        for address in [gateway.address, gateway.internal_address] {
            for _ in 0..20 {
                let mut socket = RawSocket::open_small(address, 2048).await;
                // The kernel takes the whole of it, whether or not the node reads.
                socket.try_send(request.repeat(REQUESTS)).await;
                crowd.push(socket);
            }
        }
        others_are_served(&gateway).await;
        drop(crowd);
    }
}

#[tokio::test]
async fn answers_that_are_not_taken_end_their_connection_in_time() {
    let mut settings = settings(1);
    settings.admission.write_timeout = Duration::from_millis(200);
    let gateway = TestGateway::start(settings).await;
    for address in [gateway.address, gateway.internal_address] {
        let mut socket = RawSocket::open_small(address, 2048).await;
        let request = format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(1000));
        let sending = async {
            for _ in 0..20_000 {
                socket.try_send(&request).await;
            }
        };
        let ended = eventually("it is counted", async || {
            let name = "fanwire_http_connections_dropped_total";
            let port = if address == gateway.address { "client" } else { "internal" };
            gateway.metric_of(name, &format!("port=\"{port}\",reason=\"write_timeout\"")).await == 1.0
        });
        tokio::join!(
            async {
                tokio::select! { () = sending => {} () = tokio::time::sleep(FOREVER) => {} }
            },
            ended
        );
    }
    gateway.deserted().await;
}
