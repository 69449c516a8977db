//! Groups, channels and counters of one node, and several nodes that share a Redis.

use std::time::Duration;

use fanwire_broker::{
    CallKind, EngineError, HistoryQuery, LinkRole, NewPublication, Published, RedisSettings, Since,
};

use crate::node::{META_TTL, Node, channels, eventually, kept, live, quiet, topic, wait_for_present};
use crate::redis_server::{RedisServer, wait_until_up};

#[tokio::test]
async fn a_group_meets_what_a_single_publication_meets() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::up(server.settings()).await;
    let (topic, foreign) = (topic("t"), topic("foreign"));
    node.engine.subscribe(&topic).await.unwrap();
    let before = node.keep(&topic, "1").await.unwrap();
    node.wait_for_told(&["1"]).await;

    // Another lineage: offsets jump once, and an earlier reader still gets all.
    server.kill();
    node.wait_until_down().await;
    server.resume();
    wait_until_up(&node.redis).await;
    // The topic may be joined again a moment after the connection is up.
    node.wait_for_told(&["1", "interrupted t"]).await;
    let jumped = node.keep_group(&topic, &["2", "3", "4"]).await;
    assert_eq!(jumped[0].epoch, before.epoch);
    assert!(jumped[0].offset > 1_000_000);
    assert_eq!([jumped[1].offset, jumped[2].offset], [jumped[0].offset + 1, jumped[0].offset + 2]);
    node.wait_for_told(&["1", "interrupted t", "interrupted t", "2", "3", "4"]).await;
    let since = Since { offset: before.offset, epoch: before.epoch.as_str() };
    let recovery = node.engine.recover(&topic, Some(since), 10, META_TTL).await.unwrap();
    assert_eq!((recovery.complete, recovery.publications.len()), (true, 3));

    // The stream is ahead of its position: it starts over.
    let _: String = server.ask(&format!("XADD fanwire:default:s:{{t}} {}-0 d x", jumped[2].offset + 1));
    let repaired = node.keep_group(&topic, &["5", "6"]).await;
    assert_ne!(repaired[0].epoch, before.epoch);
    assert_eq!([repaired[0].offset, repaired[1].offset], [1, 2]);
    let query = HistoryQuery { limit: 10.into(), ..HistoryQuery::default() };
    assert_eq!(node.engine.history(&topic, query, META_TTL).await.unwrap().publications.len(), 2);

    // Forgotten scripts are loaded, and the publications stay in order.
    node.wait_for_told(&["1", "interrupted t", "interrupted t", "2", "3", "4", "5", "6"]).await;
    let _: String = server.ask("SCRIPT FLUSH");
    let keyed = |publish| NewPublication { idempotency_key: Some("key".into()), ..publish };
    let group = vec![live("a"), kept("7"), live("b"), keyed(kept("8")), live("c"), kept("9"), live("d")];
    let results = node.engine.publish_group(&topic, group).await;
    let offsets: Vec<_> = results
        .into_iter()
        .filter_map(|result| result.unwrap().position.map(|position| position.offset))
        .collect();
    assert_eq!(offsets, [3, 4, 5]);
    eventually(|| node.told().len() == 15, || format!("{:?}", node.told())).await;
    assert_eq!(node.told()[8..], ["a", "7", "b", "8", "c", "9", "d"]);

    // Only the refused publications fail.
    let _: String = server.ask("CONFIG SET maxmemory 1");
    let group = vec![kept("full"), live("live"), kept("full")];
    let results = node.engine.publish_group(&topic, group.clone()).await;
    let sent = Ok(Published { position: None, suppressed: false });
    assert_eq!(results, [Err(EngineError::Full), sent, Err(EngineError::Full)]);
    let _: String = server.ask("CONFIG SET maxmemory 0");
    for key in ["m", "s"] {
        let _: i64 = server.ask(&format!("LPUSH fanwire:default:{key}:{{foreign}} x"));
        let results = node.engine.publish_group(&foreign, group.clone()).await;
        assert_eq!(results, [Err(EngineError::Foreign), sent, Err(EngineError::Foreign)], "{key}");
        let _: i64 = server.ask(&format!("DEL fanwire:default:{key}:{{foreign}}"));
    }
    server.kill();
    node.wait_until_down().await;
    assert_eq!(node.engine.publish_group(&topic, group).await, [Err(EngineError::Unavailable); 3]);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    node.keep_group(&topic, &["1", "2", "3"]).await;
    node.send(&topic, "4").await.unwrap();
    node.engine.recover(&topic, None, 0, META_TTL).await.unwrap();
    let _: String = server.ask("SET fanwire:default:m:{foreign} x");
    node.keep(&self::topic("foreign"), "x").await.unwrap_err();
    let mut request = redis::cmd("PUBLISH");
    request.arg("fanwire:default:c:{t}").arg("nonsense");
    request.exec(&mut server.client().get_connection().unwrap()).unwrap();
    node.wait_for_told(&["1", "2", "3", "4", "interrupted t"]).await;

    let stats = node.redis.stats();
    let of_kind = |kind: CallKind| {
        let calls = stats.calls[kind as usize];
        (calls.count(), calls.errors)
    };
    assert_eq!(of_kind(CallKind::Publish), (3, 1));
    assert_eq!(of_kind(CallKind::History), (1, 0));
    assert_eq!(of_kind(CallKind::Subscribe), (2, 0), "the node's own channel is one");
    assert!(of_kind(CallKind::Other).0 >= 1, "a probe");
    assert!(stats.calls[0].time > Duration::ZERO);
    let channel = "fanwire:default:c:{t}".len() as u64;
    assert_eq!((stats.messages, stats.malformed), (5, 1));
    assert!(stats.message_bytes > 5 * channel && stats.message_bytes < 5 * (channel + 60), "{stats:?}");
    assert_eq!((stats.reconnects, stats.probes_missed, stats.topics), (0, 0, 1));
    assert!(stats.round_trip.is_some());
    let roles: Vec<_> = stats.links.iter().map(|link| (link.role, link.is_up)).collect();
    let commands = (LinkRole::Commands, true);
    assert_eq!(roles, [commands, commands, commands, (LinkRole::Subscriptions, true)]);
}

#[tokio::test]
async fn a_topic_is_left_late_and_comes_back_for_nothing() {
    let server = RedisServer::start(&[]);
    let node = Node::up(RedisSettings { leave_delay: Duration::from_millis(300), ..server.settings() }).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    node.engine.unsubscribe(&topic).await.unwrap();
    node.engine.subscribe(&topic).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(channels(&server), ["fanwire:default:c:{t}"]);
    node.engine.unsubscribe(&topic).await.unwrap();
    assert_eq!(channels(&server).len(), 1);
    eventually(|| channels(&server).is_empty(), || "the channel is still there".to_owned()).await;
    eventually(|| node.engine.usage().topics == 0, || "the topic is still known".to_owned()).await;
}

#[tokio::test]
async fn nodes_share_publications_in_one_order() {
    let server = RedisServer::start(&[]);
    let (a, b) = (Node::up(server.settings()).await, Node::up(server.settings()).await);
    let topic = topic("t");
    for node in [&a, &b] {
        node.engine.subscribe(&topic).await.unwrap();
    }
    let publish = async |node: &Node, name: &str| {
        for number in 0..100 {
            node.keep(&topic, &format!("{name}{number}")).await.unwrap();
        }
    };
    tokio::join!(publish(&a, "a"), publish(&b, "b"));
    eventually(|| a.told().len() == 200 && b.told().len() == 200, || "not all arrived".to_owned()).await;
    assert_eq!(a.told(), b.told());
}

#[tokio::test]
async fn presence_is_shared_and_ends_with_the_lease() {
    let server = RedisServer::start(&[]);
    let settings = RedisSettings { lease: Duration::from_secs(1), ..server.settings() };
    let (a, b) = (Node::up(settings.clone()).await, Node::up(settings.clone()).await);
    let topic = topic("t");
    a.engine.add_presence(&topic, quiet("u", 1)).await.unwrap();
    b.engine.add_presence(&topic, quiet("u", 2)).await.unwrap();
    b.engine.add_presence(&topic, quiet("v", 3)).await.unwrap();
    for node in [&a, &b] {
        node.check_present(&topic, &[1, 2, 3], 2).await;
    }
    // A node that dies announces nothing.
    drop(b);
    wait_for_present(&a, &topic, 1).await;
    a.check_present(&topic, &[1], 1).await;

    // A node that leaves is removed at once.
    let c = Node::up(settings).await;
    c.engine.add_presence(&topic, quiet("w", 4)).await.unwrap();
    a.check_present(&topic, &[1, 4], 2).await;
    c.redis.leave().await.unwrap();
    a.check_present(&topic, &[1], 1).await;
    assert_eq!(a.redis.peers().await.unwrap().len(), 1);
}
