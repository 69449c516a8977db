//! Nodes that die, are paused or leave, and the leaves of their members.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fanwire_broker::{EngineError, Peer, PresenceStats, RedisSettings};
use fanwire_protocol::reason::Left;

use crate::node::{
    LEASE, Node, Pausable, REAPING, announced, client, eventually, join_many, keys, quiet, settings, topic,
};
use crate::redis_server::{RedisServer, wait_until_up};

#[tokio::test]
async fn the_members_of_a_dead_node_leave_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let c = Node::up("c", settings(&server)).await;
    let topic = topic("t");
    for node in [&a, &b] {
        node.engine.subscribe(&topic).await.unwrap();
    }
    a.join(&topic, &["stays"]).await;
    c.join(&topic, &["u", "v"]).await;
    c.engine.add_presence(&topic, quiet("quiet")).await.unwrap();
    assert_eq!(b.present(&topic).await, ["quiet", "stays", "u", "v"]);
    assert_eq!(b.names().await, ["a", "b", "c"]);

    drop(c);
    let died = Instant::now();
    a.wait_for_present(&topic, &["stays"], LEASE + Duration::from_millis(100)).await;
    for node in [&a, &b] {
        node.wait_for_left(&["u", "v"], (LEASE + REAPING).saturating_sub(died.elapsed())).await;
    }
    assert_eq!(b.names().await, ["a", "b"]);
    let stats = b.engine.presence_stats(&topic).await.unwrap();
    assert_eq!(stats, PresenceStats { clients: 1, users: 1 });
    // No data of it remains, so no further leave can follow.
    let of_kind = |kind: &str| keys(&server).iter().filter(|key| key.contains(kind)).count();
    let is_forgotten = || {
        let nodes: usize = server.ask("ZCARD fanwire:n:{!}");
        nodes == 2 && of_kind(":p:{t}:") == 1 && of_kind(":px:") == 1 && of_kind(":l:{!}:") == 0
    };
    eventually(REAPING, is_forgotten, || format!("{:?}", keys(&server))).await;
    tokio::time::sleep(LEASE * 2).await;
    for node in [&a, &b] {
        node.settle().await;
        assert_eq!(node.left(), ["u", "v"]);
    }
}

#[tokio::test]
async fn what_no_node_wrote_hides_no_dead_node() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u"]).await;
    for number in 0..40 {
        let _: i64 = server.ask(&format!("ZADD fanwire:n:{{!}} {number} stranger{number}"));
    }
    drop(b);
    a.wait_for_left(&["u"], LEASE * 3 + REAPING).await;
    let is_alone = || server.ask::<usize>("ZCARD fanwire:n:{!}") == 1;
    eventually(LEASE * 3, is_alone, || server.ask::<Vec<String>>("ZRANGE fanwire:n:{!} 0 -1").join(" "))
        .await;
}

#[tokio::test]
async fn a_dead_node_of_another_application_is_reaped() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let of_other = RedisSettings { application: "other".into(), ..settings(&server) };
    let (b, c) = (Node::up("b", of_other.clone()).await, Node::up("c", of_other).await);
    let topic = topic("t");
    for node in [&a, &c] {
        node.engine.subscribe(&topic).await.unwrap();
    }
    a.join(&topic, &["stays"]).await;
    b.join(&topic, &["u"]).await;
    assert_eq!(c.names().await, ["b", "c"]);
    drop(b);
    c.wait_for_left(&["u"], LEASE + REAPING).await;
    let is_forgotten = || {
        let of_other = keys(&server).iter().filter(|key| key.starts_with("fanwire:other:")).count();
        of_other == 0 && server.ask::<usize>("ZCARD fanwire:n:{!}") == 2
    };
    eventually(REAPING, is_forgotten, || format!("{:?}", keys(&server))).await;
    a.settle().await;
    assert_eq!(a.left(), [""; 0]);
    assert_eq!(a.present(&topic).await, ["stays"]);
}

#[tokio::test]
async fn two_that_reap_at_once_say_each_leave_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let c = Node::up("c", settings(&server)).await;
    let topics: Vec<_> = (0..40).map(|number| topic(&number.to_string())).collect();
    let mut expected = join_many(&c, &topics, 50).await;
    expected.sort();
    for topic in &topics {
        a.engine.subscribe(topic).await.unwrap();
    }
    drop(c);
    // Both ignore that another node is reaping.
    let is_over = Arc::new(AtomicBool::new(false));
    let saboteur = {
        let (is_over, client) = (Arc::clone(&is_over), server.client());
        thread::spawn(move || {
            let mut connection = client.get_connection().unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let locks: Vec<String> =
                    redis::cmd("KEYS").arg("fanwire:l:*").query(&mut connection).unwrap();
                for lock in locks {
                    redis::cmd("DEL").arg(lock).query::<()>(&mut connection).unwrap();
                }
            }
        })
    };
    let arrived = || a.left().len() >= expected.len();
    eventually(Duration::from_secs(10), arrived, || format!("{} left", a.left().len())).await;
    is_over.store(true, Ordering::Relaxed);
    saboteur.join().unwrap();
    tokio::time::sleep(LEASE).await;
    a.settle().await;
    assert_eq!(a.left(), expected);
    drop(b);
}

#[tokio::test]
async fn ten_thousand_members_leave_in_time() {
    let server = RedisServer::start(&[]);
    let lease = Duration::from_secs(2);
    let settings = RedisSettings { lease, ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    // One topic with many members, and many topics with few.
    let (large, small) = (vec![topic("large")], (0..2000).map(|number| topic(&number.to_string())));
    let small: Vec<_> = small.collect();
    let mut expected: HashSet<_> = join_many(&b, &large, 6000).await.into_iter().collect();
    expected.extend(join_many(&b, &small, 2).await);
    assert_eq!(expected.len(), 10_000);
    for topic in large.iter().chain(&small) {
        a.engine.subscribe(topic).await.unwrap();
    }
    assert_eq!(a.engine.presence_stats(&large[0]).await.unwrap().clients, 6000);

    drop(b);
    let died = Instant::now();
    let count = || a.delivered.lock().unwrap().len();
    eventually(lease + REAPING, || count() >= expected.len(), || format!("{} left", count())).await;
    println!("10,000 members left {:?} after their node's death", died.elapsed());
    a.settle().await;
    assert_eq!(a.left().len(), expected.len());
    assert_eq!(a.left().into_iter().collect::<HashSet<_>>(), expected);
}

#[tokio::test]
async fn a_paused_node_finds_its_members_gone_and_goes_on_as_another() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", settings(&server)).await;
    let b = Pausable::up("b", settings(&server)).await;
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.node.join(&topic, &["u", "v"]).await;
    let mut fenced = b.node.redis.fenced();
    assert_eq!(*fenced.borrow_and_update(), 0);
    let before = b.node.redis.peers().await.unwrap();

    b.pause(LEASE * 3);
    a.wait_for_left(&["u", "v"], LEASE + REAPING).await;
    assert_eq!(a.names().await, ["a"]);
    // Writes requested while it is paused come too late.
    let late = b.node.engine.add_presence(&topic, announced("late")).await;
    assert_eq!(late, Err(EngineError::Unavailable));
    tokio::time::timeout(Duration::from_secs(10), fenced.changed()).await.unwrap().unwrap();
    assert_eq!(*fenced.borrow_and_update(), 1);
    assert_eq!(a.present(&topic).await, [""; 0]);

    // Its clients are closed then, and others connect.
    for user in ["u", "v", "late"] {
        b.node.engine.remove_presence(&topic, client(user), &Left::Gone).await.unwrap();
    }
    b.node.join(&topic, &["w"]).await;
    assert_eq!(a.present(&topic).await, ["w"]);
    // For others it is the same node.
    let mut after = b.node.redis.peers().await.unwrap();
    let by_id = |peers: &mut Vec<Peer>| peers.sort_by_key(|peer| peer.id);
    let mut before = before;
    by_id(&mut before);
    by_id(&mut after);
    assert_eq!(before, after);

    tokio::time::sleep(LEASE * 2).await;
    a.settle().await;
    assert!(["u,v", "late,u,v"].contains(&a.left().join(",").as_str()), "{:?}", a.left());
    assert_eq!(a.present(&topic).await, ["w"]);
    assert_eq!(*fenced.borrow_and_update(), 1);
    // Of the old incarnation only the tombstone remains.
    let members = keys(&server).into_iter().filter(|key| key.contains(":p:{t}:")).count();
    assert_eq!(members, 1, "{:?}", keys(&server));
}

#[tokio::test]
async fn who_leaves_says_so_at_once() {
    let server = RedisServer::start(&[]);
    let settings = RedisSettings { lease: Duration::from_secs(30), ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u", "v", "w"]).await;
    b.engine.add_presence(&topic, quiet("quiet")).await.unwrap();
    b.engine.remove_presence(&topic, client("u"), &Left::Gone).await.unwrap();
    a.wait_for_left(&["u"], Duration::from_secs(5)).await;

    b.redis.leave().await.unwrap();
    assert_eq!(a.present(&topic).await, [""; 0]);
    assert_eq!(a.names().await, ["a"]);
    a.wait_for_left(&["u", "v", "w"], Duration::from_secs(5)).await;
    // Later calls have no effect.
    b.redis.leave().await.unwrap();
    b.engine.remove_presence(&topic, client("v"), &Left::Gone).await.unwrap();
    assert_eq!(b.engine.add_presence(&topic, announced("x")).await, Err(EngineError::Unavailable));
    assert_eq!(b.redis.peers().await, Err(EngineError::Unavailable));
    a.settle().await;
    assert_eq!(a.left(), ["u", "v", "w"]);
    assert_eq!(a.names().await, ["a"]);
}

#[tokio::test]
async fn who_leaves_is_not_fenced() {
    let server = RedisServer::start(&[]);
    // So that a heartbeat is in flight most of the time.
    let settings = RedisSettings { lease: Duration::from_millis(30), ..settings(&server) };
    for _ in 0..50 {
        let node = Node::start("a", settings.clone());
        wait_until_up(&node.redis).await;
        node.redis.leave().await.unwrap();
        assert_eq!(*node.redis.fenced().borrow(), 0);
        let nodes: usize = server.ask("ZCARD fanwire:n:{!}");
        assert_eq!(nodes, 0);
    }
}

#[tokio::test]
async fn nobody_is_fenced_because_redis_was_away() {
    for persistence in ["no", "yes"] {
        let mut server = RedisServer::start(&["--appendonly", persistence, "--appendfsync", "always"]);
        let nodes = [Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await];
        let topic = topic("t");
        nodes[0].engine.subscribe(&topic).await.unwrap();
        nodes[0].join(&topic, &["u"]).await;
        nodes[1].join(&topic, &["v"]).await;

        server.kill();
        tokio::time::sleep(LEASE * 2).await;
        server.resume();
        nodes[0].wait_for_present(&topic, &["u", "v"], Duration::from_secs(5)).await;
        tokio::time::sleep(LEASE * 2).await;
        wait_until_up(&nodes[0].redis).await;
        nodes[0].settle().await;
        assert_eq!(nodes[0].left(), [""; 0]);
        assert!(nodes.iter().all(|node| *node.redis.fenced().borrow() == 0));
        assert_eq!(nodes[0].present(&topic).await, ["u", "v"]);
    }
}

#[tokio::test]
async fn who_does_not_come_back_after_an_outage_is_dead() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    // Longer than a reconnect may take: a node without a subscription receives no leave.
    let lease = Duration::from_secs(2);
    let settings = RedisSettings { lease, ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["v"]).await;
    server.kill();
    drop(b);
    tokio::time::sleep(lease + LEASE).await;
    server.resume();
    wait_until_up(&a.redis).await;
    a.wait_for_left(&["v"], lease + REAPING).await;
}
