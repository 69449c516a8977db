//! Redis is lost and found again, or cannot be used at all.

use std::time::{Duration, Instant};

use fanwire_broker::{Engine, EngineError, LinkError, Published, RedisSettings, Since};
use fanwire_protocol::reason::Left;

use crate::node::{META_TTL, Node, client, connections, eventually, quiet, topic, wait_for_present};
use crate::redis_server::{RedisServer, wait_until_up};

#[tokio::test]
async fn a_restart_loses_no_subscription_and_is_told() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::up(server.settings()).await;
    let (topic, second) = (topic("t"), topic("u"));
    node.engine.subscribe(&topic).await.unwrap();
    node.engine.subscribe(&second).await.unwrap();
    node.engine.unsubscribe(&second).await.unwrap();
    let before = node.keep(&topic, "1").await.unwrap();
    node.wait_for_told(&["1"]).await;

    server.kill();
    node.wait_until_down().await;
    let asked = Instant::now();
    assert_eq!(node.keep(&topic, "lost").await, Err(EngineError::Unavailable));
    assert_eq!(node.send(&topic, "lost").await, Err(EngineError::Unavailable));
    assert_eq!(node.engine.subscribe(&second).await, Err(EngineError::Unavailable));
    assert_eq!(node.engine.add_presence(&topic, quiet("a", 1)).await, Err(EngineError::Unavailable));
    assert!(asked.elapsed() < Duration::from_millis(200), "{:?}", asked.elapsed());

    tokio::time::sleep(Duration::from_secs(2)).await;
    server.resume();
    let back = Instant::now();
    wait_until_up(&node.redis).await;
    node.wait_for_told(&["1", "interrupted t"]).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());

    // The restarted server is another lineage, so offsets jump, and an earlier reader still gets all.
    let after = node.keep(&topic, "2").await.unwrap();
    assert_eq!(after.epoch, before.epoch);
    assert!(after.offset > 1_000_000);
    let next = node.keep(&topic, "3").await.unwrap();
    assert_eq!(next.offset, after.offset + 1);
    node.wait_for_told(&["1", "interrupted t", "interrupted t", "2", "3"]).await;
    let since = Since { offset: before.offset, epoch: before.epoch.as_str() };
    let recovery = node.engine.recover(&topic, Some(since), 10, META_TTL).await.unwrap();
    let offsets: Vec<_> = recovery.publications.iter().map(|publication| publication.offset).collect();
    assert_eq!((recovery.complete, offsets), (true, vec![after.offset, next.offset]));
    // Offsets that a lost branch may have assigned do not exist.
    let since = Since { offset: before.offset + 1, ..since };
    assert!(!node.engine.recover(&topic, Some(since), 10, META_TTL).await.unwrap().complete);
}

#[tokio::test]
async fn a_restart_without_data_is_a_new_epoch() {
    let mut server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    node.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    let before = node.keep(&topic, "1").await.unwrap();
    node.wait_for_told(&["1"]).await;
    server.kill();
    node.wait_until_down().await;
    server.resume();
    wait_until_up(&node.redis).await;
    node.wait_for_told(&["1", "interrupted t"]).await;

    let since = Since { offset: before.offset, epoch: before.epoch.as_str() };
    let recovery = node.engine.recover(&topic, Some(since), 10, META_TTL).await.unwrap();
    assert!(!recovery.complete);
    assert_ne!(recovery.top.epoch, before.epoch);
    // Presence is rewritten.
    wait_for_present(&node, &topic, 1).await;
}

#[tokio::test]
async fn a_closed_subscriber_connection_is_replaced() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topics: Vec<_> = (0..1500).map(|number| topic(&number.to_string())).collect();
    // All at once, as after many clients reconnect.
    let subscribes = tokio::task::LocalSet::new();
    for topic in &topics {
        let (engine, topic) = (Engine::Redis(node.redis.clone()), topic.clone());
        subscribes.spawn_local(async move { engine.subscribe(&topic).await.unwrap() });
    }
    subscribes.await;
    assert_eq!(node.engine.usage().topics, 1500);

    assert_eq!(server.ask::<usize>("CLIENT KILL TYPE pubsub"), 1);
    eventually(|| node.told().len() == 1500, || format!("{} interrupted", node.told().len())).await;
    wait_until_up(&node.redis).await;
    for topic in &topics {
        assert_eq!(
            node.send(topic, topic.as_str()).await,
            Ok(Published { position: None, suppressed: false })
        );
    }
    eventually(|| node.told().len() == 3000, || format!("{} arrived", node.told().len())).await;
}

#[tokio::test]
async fn a_server_that_stops_answering_is_noticed_and_found_again() {
    let server = RedisServer::start(&[]);
    let settings = RedisSettings {
        answer_timeout: Duration::from_millis(500),
        probe_interval: Duration::from_millis(200),
        ..server.settings()
    };
    let node = Node::up(settings).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    assert_eq!(server.ask::<String>("CLIENT PAUSE 3000 ALL"), "OK");
    let paused = Instant::now();
    assert_eq!(node.wait_until_down().await, LinkError::Silent);
    assert!(paused.elapsed() < Duration::from_millis(1500), "{:?}", paused.elapsed());
    wait_until_up(&node.redis).await;
    node.wait_for_told(&["interrupted t"]).await;
    node.send(&topic, "1").await.unwrap();
    node.wait_for_told(&["interrupted t", "1"]).await;
}

#[tokio::test]
async fn flushed_data_is_a_new_epoch_and_presence_comes_back() {
    let server = RedisServer::start(&[]);
    let node = Node::up(RedisSettings { lease: Duration::from_millis(600), ..server.settings() }).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    node.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    let before = node.keep(&topic, "1").await.unwrap();
    for command in ["FLUSHALL", "SCRIPT FLUSH"] {
        assert_eq!(server.ask::<String>(command), "OK");
    }
    let after = node.keep(&topic, "2").await.unwrap();
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch);
    node.wait_for_told(&["1", "2"]).await;
    wait_for_present(&node, &topic, 1).await;
}

#[tokio::test]
async fn presence_that_changed_during_a_loss_is_made_right() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    node.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    node.engine.add_presence(&topic, quiet("b", 2)).await.unwrap();
    server.kill();
    node.wait_until_down().await;
    assert_eq!(
        node.engine.remove_presence(&topic, client(1), &Left::Gone).await,
        Err(EngineError::Unavailable)
    );
    server.resume();
    wait_until_up(&node.redis).await;
    wait_for_present(&node, &topic, 1).await;
    node.check_present(&topic, &[2], 1).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_tried_without_haste() {
    let server = RedisServer::start(&["--requirepass", "right"]);
    for password in [None, Some("wrong")] {
        let settings = RedisSettings { password: password.map(Into::into), ..server.settings() };
        let node = Node::start(settings);
        assert_eq!(node.wait_until_down().await, LinkError::WrongPassword);
        let tried = connections(&server);
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Four links, each of which tries about once a second.
        let tried = connections(&server) - tried;
        assert!((2..40).contains(&tried), "{tried} attempts in three seconds");
        assert_eq!(node.send(&topic("t"), "1").await, Err(EngineError::Unavailable));
    }
    let settings = RedisSettings { password: Some("right".into()), ..server.settings() };
    Node::up(settings).await.send(&topic("t"), "1").await.unwrap();
}

#[tokio::test]
async fn a_missing_server_is_named_and_awaited() {
    let mut server = RedisServer::start(&[]);
    server.kill();
    let node = Node::start(server.settings());
    assert!(matches!(node.wait_until_down().await, LinkError::Unreachable(_)));
    assert_eq!(node.engine.subscribe(&topic("t")).await, Err(EngineError::Unavailable));
    server.resume();
    wait_until_up(&node.redis).await;
    node.engine.subscribe(&topic("t")).await.unwrap();
}
