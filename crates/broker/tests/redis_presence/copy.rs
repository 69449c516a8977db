//! Redis' copy of a node's members: repairs, expiry and cost.

use std::time::{Duration, Instant};

use fanwire_broker::{EngineError, LinkState, PresenceStats, RedisSettings};
use fanwire_protocol::reason::Left;

use crate::node::{
    LEASE, Node, REAPING, announced, client, commands, eventually, info, join_many, keys, settings, topic,
    ttl,
};
use crate::redis_server::{RedisServer, wait_until_up};

#[tokio::test]
async fn a_topic_of_very_many_is_rewritten() {
    let server = RedisServer::start(&[]);
    let node = Node::up("a", settings(&server)).await;
    let topics = [topic("large"), topic("small")];
    join_many(&node, &topics[..1], 7000).await;
    join_many(&node, &topics[1..], 3).await;
    for _ in 0..2 {
        let _: String = server.ask("FLUSHALL");
        for (topic, expected) in topics.iter().zip([7000, 3]) {
            let asked = Instant::now();
            while node.engine.presence(topic, usize::MAX).await.unwrap().len() != expected {
                assert!(asked.elapsed() < Duration::from_secs(10), "{topic} is not as it was");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let stats = PresenceStats { clients: expected, users: expected };
            let asked = Instant::now();
            while node.engine.presence_stats(topic).await.unwrap() != stats {
                assert!(asked.elapsed() < Duration::from_secs(10), "{topic} is not counted as it was");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for key in keys(&server) {
            assert!(ttl(&server, &key) > 0, "{key}");
        }
    }
}

#[tokio::test]
async fn members_whose_keys_were_deleted_expire_too() {
    let server = RedisServer::start(&[]);
    let settings = RedisSettings { lease: Duration::from_secs(60), ..settings(&server) };
    let node = Node::up("a", settings).await;
    let topic = topic("t");
    node.join(&topic, &["u", "v"]).await;
    let delete = || {
        for key in keys(&server).iter().filter(|key| key.contains("{t}")) {
            let _: i64 = server.ask(&format!("DEL {key}"));
        }
    };
    let check = |count| {
        let of_topic: Vec<_> = keys(&server).into_iter().filter(|key| key.contains("{t}")).collect();
        assert_eq!(of_topic.len(), count, "{of_topic:?}");
        for key in of_topic {
            assert!(ttl(&server, &key) > 0, "{key}");
        }
    };
    delete();
    node.join(&topic, &["w"]).await;
    check(2);
    delete();
    // One stays, so the counts are written.
    node.engine.remove_presence(&topic, client("u"), &Left::Gone).await.unwrap();
    check(1);
}

#[tokio::test]
async fn flushed_members_are_back_with_the_next_heartbeat() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    a.join(&topic, &["u"]).await;
    b.join(&topic, &["v"]).await;
    for _ in 0..3 {
        let _: String = server.ask("FLUSHALL");
        a.wait_for_present(&topic, &["u", "v"], LEASE / 3 + Duration::from_millis(300)).await;
    }
    assert_eq!(a.names().await, ["a", "b"]);
    tokio::time::sleep(LEASE * 2).await;
    a.settle().await;
    assert_eq!(a.left(), [""; 0]);
    assert_eq!((*a.redis.fenced().borrow(), *b.redis.fenced().borrow()), (0, 0));
}

#[tokio::test]
async fn a_leave_that_redis_did_not_hear_is_said_later() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let settings = RedisSettings { lease: Duration::from_secs(5), ..settings(&server) };
    let (a, b) = (Node::up("a", settings.clone()).await, Node::up("b", settings).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u", "v", "w"]).await;
    server.kill();
    eventually(
        Duration::from_secs(5),
        || *b.redis.state().borrow() != LinkState::Up,
        || "still up".to_owned(),
    )
    .await;
    for user in ["u", "v"] {
        let removed = b.engine.remove_presence(&topic, client(user), &Left::Gone).await;
        assert_eq!(removed, Err(EngineError::Unavailable));
    }
    // One of them returns: for others it was never absent.
    let added = b.engine.add_presence(&topic, announced("v")).await;
    assert_eq!(added, Err(EngineError::Unavailable));
    server.resume();
    a.wait_for_present(&topic, &["v", "w"], Duration::from_secs(10)).await;
    wait_until_up(&a.redis).await;
    a.settle().await;
    // The leave may be published before the subscription is back; it is not published twice.
    assert!([vec![], vec!["u".to_owned()]].contains(&a.left()), "{:?}", a.left());
    b.engine.remove_presence(&topic, client("w"), &Left::Gone).await.unwrap();
    a.settle().await;
    assert!(a.left().ends_with(&["w".to_owned()]), "{:?}", a.left());
}

#[tokio::test]
async fn a_full_redis_keeps_leases_and_lets_members_leave() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topic = topic("t");
    a.engine.subscribe(&topic).await.unwrap();
    b.join(&topic, &["u", "v"]).await;
    let _: String = server.ask("CONFIG SET maxmemory 1");
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(a.present(&topic).await, ["u", "v"]);
    assert_eq!(b.engine.add_presence(&topic, announced("w")).await, Err(EngineError::Full));
    // This node decides by its own members.
    assert!(b.engine.admit(&self::topic("!user:u"), info("1"), 1).await.unwrap());
    assert!(!b.engine.admit(&self::topic("!user:u"), info("2"), 1).await.unwrap());
    b.engine.remove_presence(&topic, client("u"), &Left::Gone).await.unwrap();
    a.wait_for_left(&["u"], Duration::from_secs(5)).await;
    let _: String = server.ask("CONFIG SET maxmemory 0");
    // Refused clients are present in the end.
    a.wait_for_present(&self::topic("!user:u"), &["1"], LEASE + REAPING).await;
    a.wait_for_present(&topic, &["v", "w"], LEASE + REAPING).await;
    assert_eq!((*a.redis.fenced().borrow(), *b.redis.fenced().borrow()), (0, 0));
}

#[tokio::test]
async fn members_that_stay_cost_redis_nothing() {
    let server = RedisServer::start(&[]);
    let node = Node::up("a", settings(&server)).await;
    let topics: Vec<_> = (0..100).map(|number| topic(&number.to_string())).collect();
    join_many(&node, &topics, 20).await;
    tokio::time::sleep(LEASE).await;
    let _: String = server.ask("CONFIG RESETSTAT");
    tokio::time::sleep(LEASE * 3).await;
    let commands = commands(&server);
    println!("2000 members cost {commands} commands in {:?}", LEASE * 3);
    // About ten heartbeats of fewer than twenty commands each, and some probes.
    assert!(commands < 300, "{commands} commands");
}

#[tokio::test]
async fn nothing_remains_but_what_expires() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", settings(&server)).await, Node::up("b", settings(&server)).await);
    let topics: Vec<_> = (0..50).map(|number| topic(&number.to_string())).collect();
    let joined = join_many(&a, &topics, 4).await;
    join_many(&b, &topics, 3).await;
    assert!(a.engine.admit(&topic("!user:u"), info("u"), 1).await.unwrap());
    for key in keys(&server) {
        assert!(ttl(&server, &key) > 0, "{key}");
    }
    for (number, user) in joined.iter().enumerate() {
        a.engine.remove_presence(&topics[number / 4], client(user), &Left::Gone).await.unwrap();
    }
    a.engine.remove_presence(&topic("!user:u"), client("u"), &Left::Gone).await.unwrap();
    for node in [a, b] {
        node.redis.leave().await.unwrap();
    }
    let mut left = keys(&server);
    left.sort();
    for key in &left {
        assert!(ttl(&server, key) > 0, "{key}");
    }
    // The tombstones of two nodes, and the settings for one lease.
    let kinds: Vec<_> = left.iter().map(|key| key.split(":{!}").next().unwrap()).collect();
    assert!(kinds.iter().filter(|kind| **kind == "fanwire:t").count() == 2, "{left:?}");
    assert!(left.len() <= 3, "{left:?}");
}
