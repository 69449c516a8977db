//! The limit of open files: clients use up their share, and the node goes on.

use serde_json::json;

use crate::common::{Backend, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, eventually, settings};

const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";

fn limited(shards: usize) -> fanwire_server::Settings {
    let mut settings = settings(shards);
    settings.files_max = Some(100);
    settings
}

async fn health_answers(gateway: &TestGateway) {
    assert_eq!(RawSocket::ask(gateway.internal_address, LIVE).await.status, 200);
    Backend::new(gateway.internal_address).await.call("info", json!({})).await;
}

#[tokio::test]
async fn clients_beyond_the_limit_of_open_files_are_answered_503() {
    let settings = limited(2);
    let possible = settings.clients_possible().unwrap();
    let gateway = TestGateway::start(settings).await;
    let mut clients = Vec::new();
    for _ in 0..possible {
        clients.push(RawSocket::websocket(gateway.address).await);
    }
    for _ in 0..10 {
        let refused = RawSocket::ask(gateway.address, WEBSOCKET_HANDSHAKE).await;
        assert_eq!((refused.status, &*refused.body), (503, "The limit of open files is reached.\n"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    health_answers(&gateway).await;
    drop(clients);
    gateway.deserted().await;
    gateway.client().await.publish("a", json!(1)).await;
}

#[tokio::test]
async fn silent_connections_give_way_when_files_are_out() {
    let settings = limited(1);
    let possible = settings.clients_possible().unwrap();
    let gateway = TestGateway::start(settings).await;
    let mut clients = Vec::new();
    for _ in 0..possible - 1 {
        clients.push(RawSocket::websocket(gateway.address).await);
    }
    let mut crowd = Vec::new();
    for address in [gateway.address, gateway.internal_address] {
        for _ in 0..50 {
            crowd.push(RawSocket::open(address).await);
        }
    }
    eventually("they give way", async || {
        let dropped = async |port: &str| {
            let labels = format!("port=\"{port}\",reason=\"files\"");
            gateway.metric_of("fanwire_http_connections_dropped_total", &labels).await
        };
        dropped("client").await > 0.0 && dropped("internal").await > 0.0
    })
    .await;
    clients.push(RawSocket::websocket(gateway.address).await);
    Backend::new(gateway.address).await.call("info", json!({})).await;
    health_answers(&gateway).await;
    drop((clients, crowd));
    gateway.deserted().await;
}
