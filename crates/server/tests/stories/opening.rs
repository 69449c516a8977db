//! Streams whose response is still to be decided, as their subscriptions wait for Redis.

use std::time::{Duration, Instant};

use fanwire_server::settings::{EngineSettings, Settings};
use serde_json::json;

use crate::common::{OwnRedis, RawSocket, TestGateway, settings};
use crate::sse::event;

/// The time for which Redis answers nothing.
const PAUSE: Duration = Duration::from_secs(2);

const LISTEN: &str = "GET /subscribe?topic=room:a&topic=room:b&as=sse HTTP/1.1\r\nHost: test\r\n\r\n";

async fn gateway() -> (OwnRedis, TestGateway) {
    gateway_with(|_| ()).await
}

async fn gateway_with(change: impl FnOnce(&mut Settings)) -> (OwnRedis, TestGateway) {
    let redis = OwnRedis::start();
    let mut settings = settings(1);
    change(&mut settings);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    (redis, TestGateway::start(settings).await)
}

/// Asks for a stream of which nothing can come yet.
async fn waiting(redis: &mut OwnRedis, gateway: &TestGateway) -> RawSocket {
    redis.pause(PAUSE);
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(LISTEN).await;
    let head = tokio::time::timeout(PAUSE / 10, socket.head()).await;
    assert!(head.is_err(), "{head:?}");
    socket
}

/// Reads what stands before the first event.
async fn begin(socket: &mut RawSocket) {
    let head = socket.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let retry = socket.until("\n\n").await;
    assert!(retry.starts_with("retry: "), "{retry}");
}

#[tokio::test]
async fn the_response_waits_for_the_subscriptions() {
    let (mut redis, gateway) = gateway().await;
    let mut socket = waiting(&mut redis, &gateway).await;
    begin(&mut socket).await;
    let mut backend = gateway.backend().await;
    for topic in ["room:b", "room:a"] {
        backend.publish_all(topic, 1..2).await;
        assert_eq!(event(&mut socket).await.1["topic"], topic);
    }
}

#[tokio::test]
async fn a_client_may_leave_before_the_response() {
    let (mut redis, gateway) = gateway().await;
    let paused = Instant::now();
    waiting(&mut redis, &gateway).await.vanish();
    gateway.deserted().await;
    assert!(paused.elapsed() < PAUSE);
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_reads_the_response() {
    let (mut redis, gateway) = gateway().await;
    let mut accepted = waiting(&mut redis, &gateway).await;
    accepted.finish().await;
    begin(&mut accepted).await;
    assert!(accepted.until("\n\n").await.starts_with("event: subscribed\n"));
    accepted.ended().await;

    redis.pause(PAUSE);
    let mut refused = RawSocket::open(gateway.address).await;
    refused.send(&LISTEN.replace("room:b", "nowhere:b")).await;
    refused.finish().await;
    let head = refused.head().await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    gateway.deserted().await;
}

#[tokio::test]
async fn a_response_that_is_not_decided_in_time_sends_the_client_elsewhere() {
    let patience = PAUSE / 4;
    let (mut redis, gateway) = gateway_with(|settings| settings.client.stale_close_delay = patience).await;
    redis.pause(PAUSE);
    let asked = Instant::now();
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(LISTEN).await;
    begin(&mut socket).await;
    let (name, data) = event(&mut socket).await;
    assert_eq!(name, "disconnect");
    assert_eq!(data, json!({"code": 3004, "reason": "internal server error", "reconnect": true}));
    assert!(asked.elapsed() >= patience && asked.elapsed() < PAUSE, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_node_that_goes_down_before_the_response_sends_the_client_elsewhere() {
    let (mut redis, gateway) = gateway().await;
    let mut socket = waiting(&mut redis, &gateway).await;
    let reading = async {
        begin(&mut socket).await;
        let (name, data) = event(&mut socket).await;
        assert_eq!(name, "disconnect");
        assert_eq!(data, json!({"code": 3001, "reason": "shutdown", "reconnect": true}));
        socket.ended().await;
    };
    tokio::join!(gateway.shutdown(), reading);
}

#[tokio::test]
async fn a_client_comes_back_when_topics_cannot_be_subscribed_just_now() {
    let (mut redis, gateway) = gateway().await;
    redis.silence();
    let mut socket = RawSocket::open(gateway.address).await;
    socket.send(LISTEN).await;
    begin(&mut socket).await;
    let (name, data) = event(&mut socket).await;
    assert_eq!(name, "disconnect");
    assert_eq!(data, json!({"code": 3004, "reason": "internal server error", "reconnect": true}));
    socket.ended().await;
    drop(socket);
    gateway.deserted().await;
}
