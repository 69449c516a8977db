//! A node that goes down tells everybody, ends, and leaves its port free.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{CLOSE, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, frame, settings};

/// Threads of shards that live in this process, whichever test started them.
fn shard_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("shard-")).count()
}

#[tokio::test]
async fn every_client_is_told_and_the_same_port_serves_again() {
    for shards in [1, 3] {
        let mut settings = settings(shards);
        let mut gateway = TestGateway::start(settings.clone());
        settings.client_address = gateway.address;
        for _ in 0..3 {
            let mut clients = Vec::new();
            for number in 0..20 {
                let mut client = gateway.client().await;
                client.subscribe(&format!("history:{number}")).await;
                clients.push(client);
            }
            // One has not said anything yet.
            let mut fresh = RawSocket::websocket(gateway.address).await;
            let goodbyes = async {
                for client in &mut clients {
                    assert_eq!(client.closed().await, (3001, "shutdown".into()));
                    client.socket.send(frame(CLOSE, 3001u16.to_be_bytes())).await;
                    client.socket.ended().await;
                }
                assert_eq!(fresh.closed().await.0, 3001);
                drop(fresh);
            };
            let began = Instant::now();
            tokio::join!(gateway.shutdown(), goodbyes);
            assert!(began.elapsed() < Duration::from_secs(5), "all clients followed");
            gateway = TestGateway::start(settings.clone());
        }
        gateway.client().await.publish("a", json!("again")).await;
    }
}

#[tokio::test]
async fn what_was_published_before_arrives_before_the_goodbye() {
    const PUBLICATIONS: u32 = 1000;
    let gateway = TestGateway::start(settings(3));
    let mut subscriber = gateway.client().await;
    subscriber.subscribe("a").await;
    gateway.client().await.publish_all("a", 0..PUBLICATIONS).await;
    let going = tokio::spawn(gateway.shutdown());
    for number in 0..PUBLICATIONS {
        assert_eq!(subscriber.publication().await.1["data"], number);
    }
    assert_eq!(subscriber.closed().await.0, 3001);
    drop(subscriber);
    going.await.unwrap();
}

#[tokio::test]
async fn clients_that_do_not_follow_are_not_waited_for_without_end() {
    let mut settings = settings(3);
    settings.shutdown.timeout = Duration::from_millis(500);
    let gateway = TestGateway::start(settings);
    let mut client = gateway.client().await;
    let began = Instant::now();
    gateway.shutdown().await;
    assert!(
        (Duration::from_millis(400)..Duration::from_secs(4)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client.closed().await.0, 3001);
}

#[tokio::test]
async fn whoever_comes_while_the_node_goes_down_is_sent_away() {
    let gateway = TestGateway::start(settings(1));
    let address = gateway.address;
    let mut client = gateway.client().await;
    // Opened before, so that the kernel cannot refuse it.
    let mut late = RawSocket::open(address).await;
    let going = tokio::spawn(gateway.shutdown());
    assert_eq!(client.closed().await.0, 3001);
    late.send(WEBSOCKET_HANDSHAKE).await;
    let response = late.response().await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    drop((client, late));
    going.await.unwrap();
}

#[tokio::test]
async fn a_node_whose_owner_has_gone_ends() {
    // Other tests have shards of their own, so only many of them tell anything.
    const NODES: usize = 30;
    for _ in 0..NODES {
        let gateway = TestGateway::start(settings(3));
        gateway.client().await;
    }
    crate::common::eventually("shards end", async || shard_threads() < NODES).await;
}

#[tokio::test]
async fn two_nodes_do_not_share_a_port() {
    let gateway = TestGateway::start(settings(2));
    let mut settings = settings(2);
    settings.client_address = gateway.address;
    let error = fanwire_server::start(settings).unwrap_err().to_string();
    assert!(error.contains("server.port"), "{error}");
}
