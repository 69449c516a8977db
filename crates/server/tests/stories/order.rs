//! Every subscriber sees a topic's publications in one order, each exactly once.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::{Backend, Client, TestGateway, settings};

const PUBLISHERS: usize = 8;
const SUBSCRIBERS: usize = 50;
const TOPICS: usize = 5;
/// By each publisher, into each topic.
const PUBLICATIONS: usize = 20;

fn topics(namespace: &str) -> Vec<String> {
    (0..TOPICS).map(|topic| format!("{namespace}{topic}")).collect()
}

enum Publisher {
    Client(Client),
    Backend(Backend),
}

impl Publisher {
    /// Publishes into all topics in turn, and waits for each answer.
    async fn publish(mut self, name: usize, topics: Vec<String>) {
        for number in 0..PUBLICATIONS {
            for topic in &topics {
                let data = json!({"publisher": name, "number": number});
                match &mut self {
                    Self::Client(client) => client.publish(topic, data).await,
                    Self::Backend(backend) => {
                        backend.call("publish", json!({"channel": topic, "data": data})).await;
                    }
                }
            }
        }
    }
}

/// Everything that a subscriber of all topics gets, by topic.
async fn listen(mut client: Client) -> BTreeMap<String, Vec<Value>> {
    let mut received = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..TOPICS * PUBLISHERS * PUBLICATIONS {
        let (topic, publication) = client.publication().await;
        received.entry(topic).or_default().push(publication);
    }
    client.nothing_more().await;
    received
}

async fn all_see_the_same(shards: usize, namespace: &str) -> BTreeMap<String, Vec<Value>> {
    let gateway = TestGateway::start(settings(shards)).await;
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = gateway.client().await;
        for topic in topics(namespace) {
            client.subscribe(&topic).await;
        }
        subscribers.push(tokio::spawn(listen(client)));
    }
    let mut publishers = Vec::new();
    for name in 0..PUBLISHERS {
        let publisher = match name % 2 {
            0 => Publisher::Client(gateway.client().await),
            _ => Publisher::Backend(gateway.backend().await),
        };
        publishers.push(tokio::spawn(publisher.publish(name, topics(namespace))));
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut all = Vec::new();
    for subscriber in subscribers {
        all.push(subscriber.await.unwrap());
    }
    let first = all.pop().unwrap();
    for other in all {
        assert_eq!(other, first);
    }
    first
}

/// Checks that each publisher's publications arrived in the order in which they were sent.
fn check_publishers(publications: &[Value]) {
    for publisher in 0..PUBLISHERS {
        let of_publisher = publications.iter().map(|publication| &publication["data"]);
        let numbers = of_publisher.filter(|data| data["publisher"] == publisher).map(|data| &data["number"]);
        assert!(numbers.eq((0..PUBLICATIONS).map(|number| json!(number)).collect::<Vec<_>>().iter()));
    }
}

#[tokio::test]
async fn streams_arrive_whole_and_in_one_order() {
    for shards in [1, 3] {
        for (topic, publications) in all_see_the_same(shards, "history:").await {
            let offsets = publications.iter().map(|publication| publication["offset"].as_u64().unwrap());
            assert!(offsets.eq(1..=(PUBLISHERS * PUBLICATIONS) as u64), "{topic}");
            check_publishers(&publications);
        }
    }
}

#[tokio::test]
async fn topics_without_history_have_one_order_too() {
    for shards in [1, 3] {
        for publications in all_see_the_same(shards, "plain").await.values() {
            check_publishers(publications);
        }
    }
}
