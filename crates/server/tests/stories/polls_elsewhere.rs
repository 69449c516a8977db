//! Polls reach their session from any node, and go on without it when its node has died.

use std::time::{Duration, Instant};

use fanwire_server::settings::EngineSettings;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::cluster::cluster;
use crate::common::{OwnRedis, RawSocket, TestGateway, WEBSOCKET_HANDSHAKE, eventually, post, settings};
use crate::poll::{Poller, data};
use crate::polls_left::leave_long_answers;

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
async fn a_client_leaves_by_any_node() {
    let nodes = cluster(|settings| settings.subscribe.polls.grace = Duration::from_secs(60)).await;
    let mut watcher = nodes[0].client().await;
    let mut poller = Poller::new("topic=room:a");
    poller.poll(nodes[0].address, 1).await;
    assert_eq!(watcher.present("room:a").await, 1);
    let end = post(&format!("/subscribe?end&session={}", poller.session.unwrap()), "");
    assert_eq!(RawSocket::ask(nodes[1].address, &end).await.status, 204);
    eventually("it is no member any more", async || watcher.present("room:a").await == 0).await;
}

#[tokio::test]
async fn a_client_that_waits_elsewhere_and_vanishes_is_noticed() {
    let nodes = cluster(|settings| settings.subscribe.polls.grace = Duration::from_secs(2)).await;
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

/// It is no client of the node, which spends a file on it all the same.
#[tokio::test]
async fn a_poll_that_comes_elsewhere_does_not_wait_where_files_are_out() {
    let nodes = cluster(|settings| settings.files_max = Some(100)).await;
    let mut poller = Poller::new("topic=room:a");
    poller.poll(nodes[0].address, 1).await;
    let full = nodes[1].address;
    let mut clients = Vec::new();
    loop {
        let mut client = RawSocket::open(full).await;
        client.send(WEBSOCKET_HANDSHAKE).await;
        if client.head().await.starts_with("HTTP/1.1 503 ") {
            break;
        }
        clients.push(client);
    }
    let refused = RawSocket::ask(full, &poller.request(60)).await;
    assert_eq!((refused.status, &*refused.body), (503, "The limit of open files is reached.\n"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // What does not wait needs none.
    poller.poll(full, 0).await;
    drop(clients);
    nodes[1].deserted().await;
    poller.poll(full, 1).await;
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

#[tokio::test]
async fn a_session_that_cannot_be_asked_for_a_while_goes_on() {
    let mut redis = OwnRedis::start();
    // Its node counts as alive for longer than Redis is away.
    redis.settings.lease = Duration::from_secs(30);
    let mut settings = settings(2);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    let nodes = [TestGateway::start(settings.clone()).await, TestGateway::start(settings).await];
    let mut publisher = nodes[0].client().await;
    let mut poller = Poller::new("topic=plain");
    poller.poll(nodes[0].address, 1).await;
    publisher.publish("plain", json!(1)).await;
    redis.pause(Duration::from_secs(5));
    let refused = poller.send(nodes[1].address, 20).await.response().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("does not answer"), "{refused:?}");
    let mut answer = None;
    eventually("redis is back", async || {
        let response = poller.send(nodes[1].address, 20).await.response().await;
        answer = (response.status == 200).then_some(response.body);
        answer.is_some()
    })
    .await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!((data(&answer), &answer["subscribed"]), (vec![json!(1)], &Value::Null));
}

#[tokio::test]
async fn what_polls_bring_counts_for_the_address_of_their_client() {
    /// Those of two seconds may come at once: some polls, and one answer.
    const BYTES_PER_SECOND: usize = 4096;
    let nodes = cluster(|settings| {
        settings.admission.forwarded_bytes_per_second_max = BYTES_PER_SECOND;
    })
    .await;
    let mut publisher = nodes[0].client().await;
    let mut poller = Poller::new("topic=history:a");
    poller.poll(nodes[0].address, 1).await;
    publisher.publish("history:a", json!("x".repeat(5 * BYTES_PER_SECOND))).await;
    let answer = poller.poll(nodes[1].address, 20).await;
    assert_eq!(data(&answer).len(), 1);
    publisher.publish("history:a", json!(2)).await;
    let refused = poller.send(nodes[1].address, 20).await.response().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("server.forwarded_bytes_per_second_max"), "{refused:?}");
    // At its own node, and once there is room again, it gets what it has not got.
    assert_eq!(data(&poller.poll(nodes[0].address, 20).await), [2]);
    publisher.publish("history:a", json!(3)).await;
    let mut answer = None;
    eventually("there is room", async || {
        let response = poller.send(nodes[1].address, 20).await.response().await;
        answer = (response.status == 200).then_some(response.body);
        answer.is_some()
    })
    .await;
    assert_eq!(data(&serde_json::from_str(&answer.unwrap()).unwrap()), [3]);
}

/// A shard gives up long answers that one address has not taken once it keeps many. One that was not sent is not made.
#[tokio::test]
async fn a_node_sends_another_only_so_much_for_the_polls_of_an_address_and_keeps_the_rest() {
    /// Of one address; a node sends another twice as much for its polls.
    const BYTES_PER_SECOND: usize = 4 << 10;
    const LONG: usize = 60_000;
    let nodes = cluster(|settings| {
        settings.shards = 1;
        settings.subscribe.polls.grace = Duration::from_secs(60);
        settings.admission.forwarded_bytes_per_second_max = BYTES_PER_SECOND;
        settings.admission.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let mut publisher = nodes[0].client().await;
    leave_long_answers(&nodes[0]).await;
    let from = async |address: &str, topic: &str| {
        let mut poller = Poller::new(&format!("topic={topic}"));
        let header = format!("\r\nX-Forwarded-For: {address}\r\n");
        let opened = poller.request(1).replacen("\r\n", &header, 1);
        let mut socket = RawSocket::open(nodes[0].address).await;
        socket.send(opened).await;
        poller.take(&mut socket).await;
        let mut waiting = RawSocket::open(nodes[1].address).await;
        waiting.send(poller.request(60).replacen("\r\n", &header, 1)).await;
        (poller, waiting)
    };
    let (_first, mut first) = from("127.0.0.1", "first").await;
    let (mut second, mut refused) = from("127.0.0.1", "second").await;
    let (_other, mut other) = from("192.0.2.1", "other").await;
    eventually("they wait", async || {
        nodes[0].metric_of("fanwire_session_calls_total", "from=\"node\",result=\"waits\"").await == 3.0
    })
    .await;
    publisher.publish("first", json!("x".repeat(LONG))).await;
    assert_eq!(first.response().await.status, 200);
    publisher.publish("second", json!("x".repeat(LONG))).await;
    let refused = refused.response().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("The session's node has too"), "{refused:?}");
    publisher.publish("other", json!("x".repeat(LONG))).await;
    assert_eq!(other.response().await.status, 200);
    // Nothing is lost by that.
    let answer = second.poll(nodes[0].address, 20).await;
    assert_eq!((data(&answer).len(), &answer["subscribed"]), (1, &Value::Null), "{answer}");
}

/// Their clients are counted by the node of their sessions, and over HTTP/2 they take no file.
#[tokio::test]
async fn no_more_polls_wait_for_other_nodes_than_there_may_be_clients() {
    const CLIENTS_MAX: usize = 3;
    let redis = OwnRedis::start();
    let mut settings = settings(2);
    settings.engine = EngineSettings::Redis(redis.settings.clone());
    let holder = TestGateway::start(settings.clone()).await;
    settings.admission.connections_max = CLIENTS_MAX;
    let limited = TestGateway::start(settings).await;
    let mut pollers: Vec<_> = (0..=CLIENTS_MAX).map(|_| Poller::new("topic=plain")).collect();
    let mut first = Vec::new();
    for poller in &pollers {
        first.push(poller.send(holder.address, 1).await);
    }
    for (poller, first) in pollers.iter_mut().zip(&mut first) {
        poller.take(first).await;
    }
    let mut waiting = Vec::new();
    for poller in &pollers[..CLIENTS_MAX] {
        waiting.push(poller.send(limited.address, 60).await);
    }
    // Only then do they have the places, whichever shard is late.
    eventually("there is nothing for them yet", async || {
        holder.metric_of("fanwire_session_calls_total", r#"from="node",result="waits""#).await
            >= CLIENTS_MAX as f64
    })
    .await;
    // One that is let in before they wait gives its place back.
    eventually("one more is refused", async || {
        let mut more = pollers[CLIENTS_MAX].send(limited.address, 60).await;
        let refused = timeout(Duration::from_millis(500), more.response()).await;
        refused.is_ok_and(|refused| {
            let limit = refused.body.starts_with("server.connections_max");
            (refused.status, refused.header("retry-after"), limit) == (503, Some("1"), true)
        })
    })
    .await;
    // Clients of its own have their places.
    let mut publisher = limited.client().await;
    publisher.publish("plain", json!(1)).await;
    for (poller, waiting) in pollers.iter_mut().zip(&mut waiting) {
        assert_eq!(data(&poller.take(waiting).await), [1]);
    }
}
