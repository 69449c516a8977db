//! Polls reach their session from any node, and go on without it when its node has died.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::common::{RawSocket, eventually};
use crate::poll::{Poller, data};

#[tokio::test]
async fn a_client_polls_one_node_after_the_other_and_stays_a_member() {
    let nodes = cluster(|_| ()).await;
    let mut watcher = nodes[0].client().await;
    watcher.subscribe("room:a").await;
    assert!(watcher.push().await["join"].is_object());
    let mut publisher = nodes[1].client().await;
    let mut poller = Poller::new("topic=room:a");
    poller.poll(nodes[0].address, 1).await;
    assert!(watcher.push().await["join"].is_object());
    let mut received = Vec::new();
    for number in 0..50_u64 {
        let node = &nodes[number as usize % nodes.len()];
        let mut waiting = poller.send(node.address, 20).await;
        publisher.publish("room:a", json!(number)).await;
        received.extend(data(&poller.take(&mut waiting).await));
        assert!(poller.session.is_some());
        // The next is a publication, no leave and no join.
        assert_eq!(watcher.publication().await.1["data"], number);
    }
    while received.len() < 50 {
        received.extend(poller.messages(nodes[1].address).await);
    }
    assert_eq!(received, (0..50).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_at_another_node() {
    let nodes = cluster(|_| ()).await;
    let mut publisher = nodes[1].client().await;
    let mut poller = Poller::new("topic=plain");
    poller.poll(nodes[0].address, 1).await;
    let mut lost = poller.send(nodes[1].address, 20).await;
    publisher.publish("plain", json!(1)).await;
    assert_eq!(lost.response().await.status, 200);
    publisher.publish("plain", json!(2)).await;
    assert_eq!(data(&poller.poll(nodes[2].address, 20).await), [1]);
    assert_eq!(data(&poller.poll(nodes[1].address, 20).await), [2]);
}

#[tokio::test]
async fn a_client_that_waits_elsewhere_and_vanishes_is_noticed() {
    let nodes = cluster(|settings| settings.subscribe.polls.grace = Duration::from_millis(300)).await;
    let mut watcher = nodes[0].client().await;
    let mut poller = Poller::new("topic=room:a");
    poller.poll(nodes[0].address, 1).await;
    let waiting = poller.send(nodes[1].address, 60).await;
    eventually("it waits", async || {
        nodes[0].metric_of("fanwire_session_calls_total", "from=\"node\"").await >= 1.0
    })
    .await;
    assert_eq!(watcher.present("room:a").await, 1);
    drop(waiting);
    eventually("it is no member any more", async || watcher.present("room:a").await == 0).await;
}

#[tokio::test]
async fn the_cursor_leads_on_when_the_node_of_the_session_is_gone() {
    let mut nodes = cluster(|_| ()).await;
    let mut publisher = nodes[1].client().await;
    let mut poller = Poller::new("topic=history:a");
    poller.poll(nodes[0].address, 1).await;
    publisher.publish("history:a", json!(1)).await;
    assert_eq!(data(&poller.poll(nodes[2].address, 20).await), [1]);
    nodes.remove(0).shutdown().await;
    publisher.publish("history:a", json!(2)).await;
    let began = Instant::now();
    let answer = poller.poll(nodes[0].address, 20).await;
    assert_eq!(answer["subscribed"], json!([{"topic": "history:a", "recovered": true}]));
    assert_eq!(data(&answer), [2]);
    assert!(began.elapsed() < Duration::from_secs(8));
    // Its session is where it was asked for last, and can be polled from elsewhere.
    let mut waiting: RawSocket = poller.send(nodes[1].address, 20).await;
    publisher.publish("history:a", json!(3)).await;
    assert_eq!(data(&poller.take(&mut waiting).await), [3]);
}
