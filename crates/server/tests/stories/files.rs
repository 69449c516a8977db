//! The limit of open files: clients use up their share, and the node goes on.

use serde_json::json;

use crate::common::{
    Backend, Client, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, eventually, post, settings,
};

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

/// A client that polls is a client between two polls, and has no open file then.
#[tokio::test]
async fn clients_that_poll_leave_files_and_places_to_others() {
    let settings = limited(1);
    let possible = settings.clients_possible().unwrap();
    let gateway = TestGateway::start(settings).await;
    let poll = async || {
        let connect = "{\"id\":1,\"connect\":{}}";
        RawSocket::ask(gateway.address, &post("/connection/http_stream?wait=1", connect)).await
    };
    for _ in 0..possible / 4 {
        let answer = poll().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let refused = poll().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.starts_with("Clients of this address that poll are a quarter"), "{refused:?}");
    // None of them has an open file.
    eventually("their sockets have gone", async || gateway.sockets() == 0).await;
    let mut clients = Vec::new();
    for _ in 0..possible - possible / 4 {
        clients.push(RawSocket::websocket(gateway.address).await);
    }
    let refused = RawSocket::ask(gateway.address, WEBSOCKET_HANDSHAKE).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    health_answers(&gateway).await;
}

#[tokio::test]
async fn clients_that_poll_are_counted_by_address() {
    let mut settings = limited(1);
    settings.admission.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let possible = settings.clients_possible().unwrap();
    let gateway = TestGateway::start(settings).await;
    let poll = async |client: u8| {
        let from = format!("Host: test\r\nX-Forwarded-For: 192.0.2.{client}\r\n");
        let connect = post("/connection/http_stream?wait=1", "{\"id\":1,\"connect\":{}}");
        RawSocket::ask(gateway.address, &connect.replace("Host: test\r\n", &from)).await.status
    };
    for _ in 0..possible / 4 {
        assert_eq!(poll(1).await, 200);
    }
    assert_eq!(poll(1).await, 503);
    assert_eq!(poll(2).await, 200, "another address has its own");
}

/// A node that takes eight clients. Two of them poll and wait, and a third has seen both.
async fn with_two_polls() -> (TestGateway, Vec<RawSocket>, Client) {
    let mut settings = settings(1);
    settings.admission.connections_max = 8;
    let gateway = TestGateway::start(settings).await;
    let mut polls = Vec::new();
    for _ in 0..2 {
        let mut poll = RawSocket::open(gateway.address).await;
        poll.send("GET /subscribe?topic=room:a&wait=60&as=poll HTTP/1.1\r\nHost: test\r\n\r\n").await;
        polls.push(poll);
    }
    let mut watcher = gateway.client().await;
    eventually("both are members", async || watcher.present("room:a").await == 2).await;
    (gateway, polls, watcher)
}

/// A poll that waits is no second client.
#[tokio::test]
async fn polls_that_wait_count_as_their_clients() {
    let (gateway, _polls, _watcher) = with_two_polls().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(RawSocket::websocket(gateway.address).await);
    }
    let refused = RawSocket::ask(gateway.address, WEBSOCKET_HANDSHAKE).await;
    assert_eq!((refused.status, &*refused.body), (503, "server.connections_max is reached.\n"));
}

/// The sockets of polls that were just answered, and are not closed yet, take no places from other clients.
#[tokio::test]
async fn polls_that_are_answered_count_as_their_clients() {
    let (gateway, mut polls, mut watcher) = with_two_polls().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(RawSocket::websocket(gateway.address).await);
    }
    watcher.publish("room:a", json!("to both")).await;
    for poll in &mut polls {
        let answer = poll.response().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("to both"), "{answer:?}");
    }
    clients.push(RawSocket::websocket(gateway.address).await);
    let refused = RawSocket::ask(gateway.address, WEBSOCKET_HANDSHAKE).await;
    assert_eq!((refused.status, &*refused.body), (503, "server.connections_max is reached.\n"));
    drop(polls);
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
