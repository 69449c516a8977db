//! Saying goodbye: each side hears the other's close, and then the connection is really over.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{CLOSE, Client, RawSocket, TEXT, TestGateway, eventually, frame, settings};

fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, code.to_be_bytes())
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code_and_the_end() {
    for shards in [1, 3] {
        let gateway = TestGateway::start(settings(shards)).await;
        for (sent, answered) in
            [(close(1000), 1000), (close(1001), 1001), (close(3000), 3000), (close(4999), 4999)]
        {
            let mut client = gateway.client().await;
            client.socket.send(sent).await;
            assert_eq!(client.closed().await, (answered, String::new()));
            client.socket.ended().await;
        }
        let mut client = gateway.client().await;
        client.socket.send(frame(CLOSE, "")).await;
        assert_eq!(client.closed().await.0, 1005, "no code is answered with no code");
        client.socket.ended().await;
        gateway.deserted().await;
    }
}

#[tokio::test]
async fn a_close_with_the_end_right_behind_it_is_answered_too() {
    let gateway = TestGateway::start(settings(1)).await;
    for _ in 0..20 {
        let mut client = gateway.client().await;
        client.socket.send(close(1000)).await;
        client.socket.finish().await;
        assert_eq!(client.closed().await.0, 1000);
        client.socket.ended().await;
    }
}

#[tokio::test]
async fn what_was_asked_before_the_close_is_answered_before_it() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut client = gateway.client().await;
    let command = r#"{"id":2,"unsubscribe":{"channel":"a"}}"#;
    client.socket.send([frame(TEXT, command), close(1000)].concat()).await;
    assert_eq!(client.next().await["id"], 2);
    assert_eq!(client.closed().await.0, 1000);
}

#[tokio::test]
async fn a_client_that_follows_a_close_is_gone_at_once() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut client = gateway.client().await;
    client.socket.send(frame(TEXT, "oops")).await;
    assert_eq!(client.closed().await.0, 3501);
    let closed = Instant::now();
    client.socket.send(close(3501)).await;
    client.socket.ended().await;
    gateway.deserted().await;
    assert!(
        closed.elapsed() < Duration::from_secs(4),
        "it did not wait for the time that silent clients get"
    );
}

#[tokio::test]
async fn a_client_that_does_not_follow_has_its_time_and_no_more() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut client = gateway.client().await;
    client.subscribe("a").await;
    client.socket.send(frame(TEXT, "oops")).await;
    assert_eq!(client.closed().await.0, 3501);
    // What it sends from now on has no effect, but is taken.
    client.socket.try_send(frame(TEXT, r#"{"id":9,"publish":{"channel":"a","data":1}}"#)).await;
    let closed = Instant::now();
    gateway.deserted().await;
    let waited = closed.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn the_reason_arrives_although_the_client_has_much_more_to_say() {
    let gateway = TestGateway::start(settings(1)).await;
    for _ in 0..10 {
        let mut client = gateway.client().await;
        let publish = json!({"id": 3, "publish": {"channel": "a", "data": "x".repeat(60_000)}}).to_string();
        let mut everything = frame(TEXT, "oops");
        for _ in 0..50 {
            everything.extend(frame(TEXT, &publish));
        }
        client.socket.try_send(everything).await;
        // A reset would take away what was not read yet.
        assert_eq!(client.closed().await.0, 3501);
        client.socket.ended().await;
    }
}

#[tokio::test]
async fn nothing_is_said_to_a_client_that_asked_to_go() {
    let gateway = TestGateway::start(settings(3)).await;
    let mut publisher = gateway.client().await;
    let mut client = gateway.client().await;
    client.subscribe("a").await;
    client.socket.send(close(1000)).await;
    assert_eq!(client.closed().await.0, 1000);
    publisher.publish("a", json!(1)).await;
    client.socket.ended().await;
}

#[tokio::test]
async fn a_websocket_without_any_command_closes_as_well() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut socket = RawSocket::websocket(gateway.address).await;
    socket.send(close(1000)).await;
    assert_eq!(socket.closed().await.0, 1000);
    socket.ended().await;
}

/// The numbers 3000 and 3008 are the application's own here: what waits for the client is not dropped for them.
#[tokio::test]
async fn a_client_that_the_api_closes_gets_what_waits_for_it_whatever_the_number() {
    const WAITING: f64 = 100_000.0;
    for code in [3000, 3008] {
        let gateway = TestGateway::start(settings(1)).await;
        let mut backend = gateway.backend().await;
        let mut slow = Client::connect_small(gateway.address).await;
        slow.subscribe("news").await;
        let text = "x".repeat(4096);
        let mut published = 0;
        while gateway.metric("fanwire_send_queue_bytes").await < WAITING {
            let data = json!({"number": published, "text": text});
            backend.call("publish", json!({"channel": "news", "data": data})).await;
            published += 1;
        }
        eventually("all reached the session", async || {
            gateway.metric("fanwire_messages_delivered_total").await >= f64::from(published)
        })
        .await;
        let disconnect = json!({"code": code, "reason": "its own"});
        backend.call("disconnect", json!({"client": slow.id(), "disconnect": disconnect})).await;
        eventually("it is closed", async || gateway.metric("fanwire_clients").await == 0.0).await;
        for number in 0..published {
            assert_eq!(slow.publication().await.1["data"]["number"], number);
        }
        assert_eq!(slow.closed().await, (code, "its own".into()));
    }
}
