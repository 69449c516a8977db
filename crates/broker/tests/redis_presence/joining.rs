//! Nodes that must not join the cluster, and clients that are admitted up to a limit.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanwire_broker::{Engine, EngineError, LinkState, NewPublication, RedisSettings};
use fanwire_protocol::reason::Left;
use tokio::task::LocalSet;

use crate::node::{LEASE, Node, REAPING, announced, client, eventually, info, keys, settings, topic};
use crate::redis_server::RedisServer;

#[tokio::test]
async fn a_node_with_another_lease_does_not_join() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let other = RedisSettings { lease: Duration::from_secs(15), ..settings(&server) };
    let b = Node::start("b", other.clone());
    let reason = b.wait_until_refused().await;
    assert_eq!(
        reason.to_string(),
        "engine.redis.lease is 15s here and 600ms on the nodes of this cluster; give all nodes the same"
    );
    // It is final.
    let topic = topic("t");
    let unavailable = EngineError::Unavailable;
    assert_eq!(b.engine.add_presence(&topic, announced("u")).await, Err(unavailable));
    assert_eq!(b.engine.admit(&topic, info("u"), 5).await, Err(unavailable));
    assert_eq!(b.engine.presence(&topic, usize::MAX).await, Err(unavailable));
    assert_eq!(b.engine.subscribe(&topic).await, Err(unavailable));
    assert_eq!(b.engine.publish(&topic, NewPublication::default()).await, Err(unavailable));
    assert_eq!(b.redis.peers().await, Err(unavailable));
    b.redis.leave().await.unwrap();
    // The connections of `a`, and that of the test.
    let connections = || server.ask::<String>("CLIENT LIST").lines().count();
    eventually(Duration::from_secs(5), || connections() == 5, || format!("{} connections", connections()))
        .await;
    assert!(matches!(*b.redis.state().borrow(), LinkState::Refused(_)));
    // Members are never refused.
    tokio::time::sleep(LEASE).await;
    assert_eq!(a.names().await, ["a"]);

    // After the others have left it may differ.
    a.redis.leave().await.unwrap();
    assert_eq!(Node::up("b", other).await.names().await, ["b"]);
}

#[tokio::test]
async fn another_prefix_is_refused_unless_it_is_meant() {
    let server = RedisServer::start(&[]);
    let with = |prefix: &str| RedisSettings { prefix: prefix.into(), ..settings(&server) };
    let a = Node::up("a", with("a")).await;
    let reason = Node::start("b", with("b")).wait_until_refused().await;
    assert_eq!(
        reason.to_string(),
        "this Redis already serves a cluster with prefix \"a\"; this node has \"b\". Set engine.redis.prefix to the \
         same on all nodes, or engine.redis.allow_other_prefixes if two clusters share this Redis"
    );
    // Another application is the same cluster, and a node that finds its own cluster may join.
    let other = RedisSettings { application: "other".into(), ..with("a") };
    let other = Node::up("other", other).await;
    assert_eq!(other.names().await, ["other"]);
    let b = Node::up("b", RedisSettings { allow_other_prefixes: true, ..with("b") }).await;
    let (a2, b2) = (Node::up("a2", with("a")).await, Node::up("b2", with("b")).await);
    assert_eq!(a.names().await, ["a", "a2"]);
    assert_eq!(b.names().await, ["b", "b2"]);

    // After all have left, any prefix may join.
    for node in [a, a2, other, b, b2] {
        node.redis.leave().await.unwrap();
    }
    assert_eq!(Node::up("c", with("c")).await.names().await, ["c"]);
}

#[tokio::test]
async fn all_nodes_together_admit_no_more_than_allowed() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("!user:u");
    let admitted = Arc::new(Mutex::new(Vec::new()));
    let at_once = LocalSet::new();
    for number in 0..60 {
        let engine = Engine::Redis(if number % 2 == 0 { a.redis.clone() } else { b.redis.clone() });
        let (topic, admitted) = (topic.clone(), Arc::clone(&admitted));
        at_once.spawn_local(async move {
            let user = number.to_string();
            if engine.admit(&topic, info(&user), 10).await.unwrap() {
                admitted.lock().unwrap().push(user);
            }
        });
    }
    at_once.await;
    let mut admitted = admitted.lock().unwrap().clone();
    admitted.sort();
    assert_eq!(admitted.len(), 10);
    // Refused clients leave nothing behind.
    let c = Node::up("c", settings(&server)).await;
    assert!(!c.engine.admit(&topic, info("new"), 10).await.unwrap());
    let listed = keys(&server).into_iter().filter(|key| key.contains(":px:")).count();
    assert!(listed <= 2, "{:?}", keys(&server));
    drop(c);
    assert_eq!(a.present(&topic).await, admitted);

    // A present client is not counted twice.
    let again = &admitted[0];
    let is_of_a = again.parse::<u32>().unwrap().is_multiple_of(2);
    let (node, other) = if is_of_a { (a, b) } else { (b, a) };
    assert!(node.engine.admit(&topic, info(again), 10).await.unwrap());
    assert!(!node.engine.admit(&topic, info("new"), 10).await.unwrap());
    node.engine.remove_presence(&topic, client(again), &Left::Gone).await.unwrap();
    // A node that has just joined is counted by nodes that do not know it yet.
    let c = Node::up("c", settings(&server)).await;
    assert!(c.engine.admit(&topic, info("new"), 10).await.unwrap());
    for node in [&node, &other] {
        assert!(!node.engine.admit(&topic, info("more"), 10).await.unwrap());
    }

    // The place of a dead node's client is free again.
    drop(c);
    let died = Instant::now();
    while !other.engine.admit(&topic, info("more"), 10).await.unwrap() {
        assert!(died.elapsed() < LEASE + REAPING, "nothing is free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(other.present(&topic).await.len(), 10);
    assert!(!node.engine.admit(&topic, info("another"), 10).await.unwrap());
}

#[tokio::test]
async fn without_redis_a_node_admits_as_many_as_its_own() {
    let mut server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let topic = topic("!user:u");
    assert!(a.engine.admit(&topic, info("1"), 2).await.unwrap());
    server.kill();
    eventually(
        Duration::from_secs(5),
        || *a.redis.state().borrow() != LinkState::Up,
        || "still up".to_owned(),
    )
    .await;
    assert!(a.engine.admit(&topic, info("2"), 2).await.unwrap());
    assert!(!a.engine.admit(&topic, info("3"), 2).await.unwrap());
    server.resume();
    a.wait_for_present(&topic, &["1", "2"], Duration::from_secs(10)).await;
}
