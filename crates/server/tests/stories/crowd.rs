//! Fan-out that takes longer than one turn of the shard: what happens meanwhile keeps its order, and what waits
//! together is written together.

use serde_json::json;

use crate::common::{Client, TestGateway, settings};
use crate::recovery::{PUBLICATIONS, fill, follow_for_a_while};

/// More connections than a shard writes to in two turns.
const CROWD: usize = 600;
const WRITES: &str = "fanwire_socket_writes_total";

/// Writes to sockets so far. A client may read what was written before the shard has counted it: an answer of the shard
/// says that it has.
async fn writes(gateway: &TestGateway) -> f64 {
    gateway.backend().await.call("presence_stats", json!({"channel": "room:1"})).await;
    gateway.metric(WRITES).await
}

async fn read_all(mut client: Client) {
    for offset in 1..=PUBLICATIONS {
        assert_eq!(client.publication().await.1["offset"], offset);
    }
}

#[tokio::test]
async fn a_crowd_and_those_who_come_and_go_see_one_order() {
    let mut settings = settings(1);
    // A machine that is busy otherwise lets the crowd read late.
    settings.client.ping_interval = None;
    let gateway = TestGateway::start(settings).await;
    let topic = "history:crowd";
    let mut everybody = Vec::new();
    let mut epoch = String::new();
    for _ in 0..CROWD {
        let mut client = gateway.client().await;
        epoch = client.subscribe(topic).await["epoch"].as_str().unwrap().to_owned();
        everybody.push(tokio::spawn(read_all(client)));
    }
    let publisher = fill(&gateway, topic).await;
    for _ in 0..10 {
        let (mut client, epoch) = (gateway.client().await, epoch.clone());
        everybody.push(tokio::spawn(async move {
            let mut position = 0;
            while position < PUBLICATIONS {
                position = follow_for_a_while(&mut client, topic, &epoch, position).await;
            }
        }));
    }
    for client in everybody {
        client.await.unwrap();
    }
    publisher.await.unwrap();
}

#[tokio::test]
async fn publications_of_one_request_are_one_write_for_each_subscriber() {
    let gateway = TestGateway::start(settings(1)).await;
    let mut subscribers = Vec::new();
    for _ in 0..CROWD {
        let mut client = gateway.client().await;
        client.subscribe("news").await;
        subscribers.push(client);
    }
    let before = writes(&gateway).await;
    gateway.backend().await.publish_all("news", 0..16).await;
    for subscriber in &mut subscribers {
        for number in 0..16 {
            assert_eq!(subscriber.publication().await.1["data"], number);
        }
    }
    assert_eq!(writes(&gateway).await - before, CROWD as f64);
}

#[tokio::test]
async fn an_answer_and_what_it_brought_are_one_write() {
    const ROUNDS: u32 = 50;
    let gateway = TestGateway::start(settings(1)).await;
    let mut client = gateway.client().await;
    client.subscribe("mine").await;
    let before = writes(&gateway).await;
    for number in 0..ROUNDS {
        let publish = client.command("publish", json!({"channel": "mine", "data": number})).await;
        let messages = [client.next().await, client.next().await];
        assert!(messages.iter().any(|message| message["id"] == publish), "{messages:?}");
        assert!(messages.iter().any(|message| message["push"]["pub"]["data"] == number), "{messages:?}");
    }
    assert_eq!(writes(&gateway).await - before, f64::from(ROUNDS));
}
