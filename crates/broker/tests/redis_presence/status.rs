//! The status of users: published by whichever node changes it, and kept.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fanwire_broker::{Event, Member, OutboxOptions, RedisSettings, StatusOptions, UserStatus, user_topic};
use fanwire_protocol::reason::Left;
use fanwire_protocol::{EventMask, StatusMessage};

use crate::node::{LEASE, Node, REAPING, client, eventually, info, keys, settings, topic, ttl};
use crate::redis_server::RedisServer;

const BEAT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_first_connection_and_the_last_are_told() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", undisturbed(&server)).await, Node::up("b", undisturbed(&server)).await);
    let user = "a/\"{ü}";
    a.engine.subscribe(&topic(&format!("status:{user}"))).await.unwrap();
    let unknown = status(&a, user).await;
    assert_eq!(UserStatus { time: 0, ..unknown }, UserStatus::default());
    let before = now();
    join(&b, user, "1").await;
    join(&a, user, "2").await;
    join(&a, user, "2").await;
    let online = status(&b, user).await;
    assert_eq!((online.online, online.connections, online.last_seen), (true, 2, online.time));
    leave(&b, user, "1").await;
    assert_eq!(status(&b, user).await.connections, 1);
    leave(&a, user, "2").await;
    a.settle().await;
    let told = told(&a);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&*told[0].user, told[0].online, told[1].online), (user, true, false));
    let offline = status(&a, user).await;
    assert_eq!((offline.online, offline.connections, offline.last_seen), (false, 0, told[1].last_seen));
    assert!(before - 50 <= told[0].last_seen && told[0].last_seen <= told[1].last_seen, "{before} {told:?}");
    let kept = keys(&server);
    assert!(kept.iter().all(|key| ttl(&server, key) > 0), "{kept:?}");
    assert!(kept.iter().all(|key| !key.contains(":ev:")), "no event is wanted: {kept:?}");
    let last_seen = kept.iter().find(|key| key.contains(":ls:")).unwrap();
    assert!(ttl(&server, last_seen) > 3_599_000);
}

#[tokio::test]
async fn the_users_of_a_dead_node_are_offline_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up("a", with_status(&server)).await, Node::up("b", with_status(&server)).await);
    for user in ["stays", "dies"] {
        a.engine.subscribe(&topic(&format!("status:{user}"))).await.unwrap();
        join(&b, user, user).await;
    }
    join(&a, "stays", "second").await;
    drop(b);
    let offline = || told(&a).iter().any(|told| !told.online);
    eventually(LEASE + REAPING, offline, || format!("{:?}", told(&a))).await;
    // It has been gone for as long as its lease.
    let last_seen = status(&a, "dies").await.last_seen;
    assert!(last_seen > 0 && last_seen <= now() - LEASE.as_millis() as i64, "{last_seen}");
    tokio::time::sleep(LEASE).await;
    a.settle().await;
    let told = told(&a);
    let said: Vec<_> = told.iter().map(|told| (&*told.user, told.online)).collect();
    assert_eq!(said, [("stays", true), ("dies", true), ("dies", false)]);
    assert_eq!(status(&a, "stays").await.connections, 1);
}

#[tokio::test]
async fn who_is_soon_back_was_online_all_the_time() {
    let server = RedisServer::start(&[]);
    let outbox = OutboxOptions { offline_delay: Duration::from_millis(500), ..OutboxOptions::default() };
    let a = Node::up("a", RedisSettings { outbox: Some(outbox), ..undisturbed(&server) }).await;
    a.engine.subscribe(&topic("status:u")).await.unwrap();
    for client in ["1", "2"] {
        join(&a, "u", client).await;
        leave(&a, "u", client).await;
    }
    let left = status(&a, "u").await;
    assert_eq!((left.online, left.connections), (true, 0));
    assert!(left.last_seen > 0 && left.last_seen <= left.time);
    wait_for_due(&a, "u", Duration::from_secs(5)).await;
    a.settle().await;
    let told = told(&a);
    assert_eq!(told.iter().map(|told| told.online).collect::<Vec<_>>(), [true, false]);
    assert_eq!(told[1].last_seen, left.last_seen, "the delay is not counted");
}

#[tokio::test]
async fn a_heartbeat_keeps_a_user_online_for_its_time() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", undisturbed(&server)).await;
    a.engine.subscribe(&topic("status:u")).await.unwrap();
    let beat = async || a.redis.heartbeat("u", EventMask::STATUS).await.unwrap();
    beat().await;
    assert_eq!((status(&a, "u").await.online, status(&a, "u").await.connections), (true, 0));
    // A connection that comes and goes meanwhile ends nothing.
    join(&a, "u", "1").await;
    beat().await;
    leave(&a, "u", "1").await;
    beat().await;
    let beaten = (Instant::now(), now());
    a.engine.outbox().unwrap().say_due().await.unwrap();
    assert!(status(&a, "u").await.online);
    wait_for_due(&a, "u", BEAT + Duration::from_secs(5)).await;
    assert!(beaten.0.elapsed() >= BEAT - Duration::from_millis(100), "{:?}", beaten.0.elapsed());
    a.settle().await;
    let told = told(&a);
    assert_eq!(told.iter().map(|told| told.online).collect::<Vec<_>>(), [true, false]);
    assert!((beaten.1 - told[1].last_seen).abs() < 1000, "{} {told:?}", beaten.1);
    let due: usize = server.ask("ZCARD fanwire:default:evd:{!}");
    assert_eq!(due, 0);
    assert!(keys(&server).iter().all(|key| ttl(&server, key) > 0));
}

#[tokio::test]
async fn many_users_are_asked_for_at_once() {
    let server = RedisServer::start(&[]);
    let a = Node::up("a", undisturbed(&server)).await;
    join(&a, "7", "7").await;
    let users: Vec<Box<str>> = (0..1000).map(|user| user.to_string().into()).collect();
    let all = a.redis.user_status(&users).await.unwrap();
    let online: Vec<_> = (0..1000).filter(|user| all[*user].online).collect();
    assert_eq!((all.len(), online), (1000, vec![7]));
    assert_eq!(a.redis.user_status(&[]).await.unwrap(), []);
    let twice = a.redis.user_status(&["7".into(), "8".into(), "7".into()]).await.unwrap();
    assert_eq!(twice.iter().map(|status| status.connections).collect::<Vec<_>>(), [1, 0, 1]);
}

fn with_status(server: &RedisServer) -> RedisSettings {
    let outbox = OutboxOptions { offline_delay: Duration::ZERO, ..OutboxOptions::default() };
    let status = StatusOptions {
        prefix: "status:".into(),
        heartbeat_ttl: BEAT,
        last_seen_ttl: Duration::from_secs(3600),
    };
    RedisSettings { outbox: Some(outbox), status: Some(status), ..settings(server) }
}

/// With a lease that a busy machine does not miss.
fn undisturbed(server: &RedisServer) -> RedisSettings {
    RedisSettings { lease: Duration::from_secs(20), ..with_status(server) }
}

async fn join(node: &Node, user: &str, client: &str) {
    let member = Member::new(info(client), false).with_events(EventMask::STATUS);
    node.engine.add_presence(&user_topic(user), vec![member]).await.unwrap();
}

async fn leave(node: &Node, user: &str, name: &str) {
    node.engine.remove_presence(&user_topic(user), client(name), &Left::Gone).await.unwrap();
}

async fn status(node: &Node, user: &str) -> UserStatus {
    node.redis.user_status(&[user.into()]).await.unwrap()[0]
}

async fn wait_for_due(node: &Node, user: &str, within: Duration) {
    let asked = Instant::now();
    while status(node, user).await.online {
        assert!(asked.elapsed() < within, "still online");
        node.engine.outbox().unwrap().say_due().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The changes that were published where the node listens.
fn told(node: &Node) -> Vec<StatusMessage> {
    let message = |event: &Event| match event {
        Event::Publication { topic, publication, epoch: None } => {
            let message = StatusMessage::parse(&publication.data)?;
            assert_eq!(topic.as_str(), format!("status:{}", message.user));
            assert!(publication.time > 1_700_000_000_000 && publication.offset == 0);
            Some(message)
        }
        _ => None,
    };
    node.delivered.lock().unwrap().iter().filter_map(message).collect()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}
