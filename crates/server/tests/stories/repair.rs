//! Publications that a node missed are read from Redis in parts that are bounded in bytes, and delivered whole.

use fanwire_server::settings::EngineSettings;
use serde_json::{Value, json};

use crate::common::{OwnRedis, TestGateway, eventually, settings};

/// Publications of 60 KB that the node misses of each topic; a longer one is among them.
const PUBLICATIONS: u64 = 60;
const LONG: u64 = 30;

#[tokio::test]
async fn what_was_missed_is_read_in_parts_and_delivered_whole() {
    const TOPICS: usize = 4;
    let mut redis = OwnRedis::start();
    let mut settings = settings(2);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    settings.client.queue_bytes_max = 64 << 20;
    let gateway = TestGateway::start(settings).await;
    let topics: Vec<_> = (0..TOPICS).map(|number| format!("history:{number}")).collect();
    let mut clients = Vec::new();
    for topic in &topics {
        let mut client = gateway.client().await;
        client.subscribe(topic).await;
        clients.push(client);
    }
    let checks = gateway.metric("fanwire_position_checks_total").await;

    redis.silence();
    let mut backend = gateway.backend().await;
    for number in 1..=PUBLICATIONS {
        for topic in &topics {
            backend.call("publish", json!({"channel": topic, "data": data(number)})).await;
        }
    }
    redis.speak();

    for client in &mut clients {
        for number in 1..=PUBLICATIONS {
            let publication = client.publication().await.1;
            assert_eq!(publication["offset"], number);
            assert_eq!(publication["data"], data(number), "data of {number}");
        }
        client.nothing_more().await;
    }
    eventually("all are repaired", async || {
        gateway.metric_of("fanwire_repairs_total", "complete").await >= TOPICS as f64
    })
    .await;
    assert_eq!(gateway.metric_of("fanwire_repairs_total", "failed").await, 0.0);
    // Four publications fit a part, and the long one is one.
    let checks = gateway.metric("fanwire_position_checks_total").await - checks;
    let parts = PUBLICATIONS.div_ceil(4) * TOPICS as u64;
    assert!(checks >= parts as f64, "all was read in {checks} parts, not {parts}");
}

fn data(number: u64) -> Value {
    let length = if number == LONG { 600_000 } else { 60_000 };
    json!({"number": number, "text": "x".repeat(length)})
}
