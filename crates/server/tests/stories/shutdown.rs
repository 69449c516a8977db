//! A node that shuts down tells its clients, ends, and leaves its port free.

use std::time::{Duration, Instant};

use fanwire_server::settings::ShutdownSettings;
use serde_json::json;
use tokio::task::JoinSet;

use crate::common::{
    Backend, CLOSE, Client, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, eventually, frame, settings,
};

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
        let mut gateway = TestGateway::start(settings.clone()).await;
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
            gateway = TestGateway::start(settings.clone()).await;
        }
        gateway.client().await.publish("a", json!("again")).await;
    }
}

#[tokio::test]
async fn what_was_published_before_arrives_before_the_goodbye() {
    const PUBLICATIONS: u32 = 1000;
    let gateway = TestGateway::start(settings(3)).await;
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
    let gateway = TestGateway::start(settings).await;
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
async fn nothing_of_a_dropped_node_lives_on() {
    let gateway = TestGateway::start(settings(1)).await;
    let (address, internal_address) = (gateway.address, gateway.internal_address);
    let mut kept = RawSocket::open(internal_address).await;
    kept.send("GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(kept.response().await.status, 200);
    drop(gateway);
    kept.ended().await;
    for address in [address, internal_address] {
        eventually("the port is free", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    }
}

#[tokio::test]
async fn a_window_is_used_evenly_and_who_waits_in_it_is_served() {
    const CLIENTS: usize = 300;
    /// The part of a longer window that this many clients take.
    const WINDOW: Duration = Duration::from_secs(3);
    const TENTHS: usize = 10;
    /// Four ticks of a shard's clock, for a machine that has other things to do.
    const TOLERANCE: usize = CLIENTS / TENTHS * 4 / 3;
    /// Between two publications.
    const PAUSE: Duration = Duration::from_millis(20);

    let mut settings = settings(3);
    settings.shutdown.window = Duration::from_secs(60);
    let gateway = TestGateway::start(settings).await;
    let mut publisher = Backend::new(gateway.internal_address).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = gateway.client().await;
        client.subscribe("news").await;
        clients.push(client);
    }

    let began = Instant::now();
    let mut told = JoinSet::new();
    for mut client in clients {
        told.spawn(async move {
            let mut received = 0;
            loop {
                let frame = client.socket.frame().await.unwrap();
                if frame.opcode == CLOSE {
                    assert_eq!(frame.close(), (3001, "shutdown".into()));
                    return (began.elapsed(), received);
                }
                for line in frame.text().lines().filter(|line| *line != "{}") {
                    let message: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert_eq!(message["push"]["pub"]["data"], received, "{message}");
                    received += 1;
                }
            }
        });
    }
    let going = tokio::spawn(gateway.shutdown());
    let mut published = Vec::new();
    let mut stood_still = Duration::ZERO;
    while began.elapsed() < WINDOW * 8 / 10 {
        let turn = Instant::now();
        publisher.call("publish", json!({"channel": "news", "data": published.len()})).await;
        published.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
        stood_still = stood_still.max(turn.elapsed() - PAUSE);
    }
    let closes = told.join_all().await;
    going.await.unwrap();

    // Where the machine had no time for this process, nobody was closed either.
    let tolerance = TOLERANCE + CLIENTS * stood_still.as_millis() as usize / WINDOW.as_millis() as usize;
    for tenth in 1..=TENTHS {
        let until = WINDOW * tenth as u32 / TENTHS as u32;
        let closed = closes.iter().filter(|(at, _)| *at <= until).count();
        assert!(closed.abs_diff(CLIENTS * tenth / TENTHS) <= tolerance, "{closed} after {until:?}");
    }
    for (at, received) in closes {
        // The last may still have been on its way through the node.
        let patience = Duration::from_millis(500) + stood_still;
        let owed = published.iter().filter(|done| **done + patience < at).count();
        assert!(received >= owed, "{received} of {owed} before {at:?}");
    }
}

#[tokio::test]
async fn clients_are_taken_until_balancers_know() {
    const READINESS: &str = "GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut settings = settings(2);
    let propagation = Duration::from_secs(4);
    settings.shutdown.propagation = propagation;
    let gateway = TestGateway::start(settings).await;
    let (address, internal_address) = (gateway.address, gateway.internal_address);
    let mut first = gateway.client().await;
    let began = Instant::now();
    let going = tokio::spawn(gateway.shutdown());
    eventually("the node is not ready", async || {
        RawSocket::ask(internal_address, READINESS).await.status == 503
    })
    .await;
    let mut second = Client::connect(address, json!({})).await;
    first.subscribe("a").await;
    second.publish("a", json!("still here")).await;
    assert_eq!(first.publication().await.1["data"], "still here");
    let call = "POST /api/info HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}";
    let response = RawSocket::ask(address, call).await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));

    // Nobody is left to wait for, but backends may still be sent here.
    drop((first, second));
    going.await.unwrap();
    assert!(began.elapsed() >= propagation, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_without_clients_ends_at_once() {
    let mut settings = settings(3);
    let long = Duration::from_secs(60);
    settings.shutdown = ShutdownSettings { propagation: Duration::ZERO, window: long, timeout: long };
    let gateway = TestGateway::start(settings).await;
    let mut kept = gateway.backend().await;
    kept.call("info", json!({})).await;
    let silent = RawSocket::open(gateway.address).await;
    let began = Instant::now();
    gateway.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop((kept, silent));
}

#[tokio::test]
async fn listeners_are_told_in_the_window_too() {
    let mut settings = settings(1);
    settings.shutdown.window = Duration::from_secs(1);
    let gateway = TestGateway::start(settings).await;
    let mut listeners = Vec::new();
    for _ in 0..20 {
        let mut listener = RawSocket::open(gateway.address).await;
        listener.send("GET /subscribe?topic=a&as=sse HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert!(listener.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        listeners.push(listener);
    }
    let going = tokio::spawn(gateway.shutdown());
    for listener in &mut listeners {
        let goodbye =
            "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}\n\n";
        listener.until(goodbye).await;
        listener.ended().await;
    }
    drop(listeners);
    going.await.unwrap();
}

#[tokio::test]
async fn whoever_is_on_the_way_when_the_node_goes_down_is_taken_and_sent_away() {
    let mut settings = settings(1);
    // The second waits in the kernel's queue.
    settings.admission.http_connections_max = 1;
    let gateway = TestGateway::start(settings).await;
    let address = gateway.address;
    let mut client = gateway.client().await;
    let mut first = RawSocket::open(address).await;
    let mut second = RawSocket::open(address).await;
    let going = tokio::spawn(gateway.shutdown());
    assert_eq!(client.closed().await.0, 3001);
    for late in [&mut first, &mut second] {
        late.upgrade(WEBSOCKET_HANDSHAKE).await;
        assert_eq!(late.closed().await.0, 3001);
    }
    drop((client, first, second));
    going.await.unwrap();
    let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_node_whose_owner_has_gone_ends() {
    // Other tests have shards of their own, so only many of them tell anything.
    const NODES: usize = 30;
    for _ in 0..NODES {
        let gateway = TestGateway::start(settings(3)).await;
        gateway.client().await;
    }
    eventually("shards end", async || shard_threads() < NODES).await;
}

#[tokio::test]
async fn two_nodes_do_not_share_a_port() {
    let gateway = TestGateway::start(settings(2)).await;
    let mut settings = settings(2);
    settings.client_address = gateway.address;
    let error = fanwire_server::start(settings).unwrap_err().to_string();
    assert!(error.contains("server.port"), "{error}");
}
