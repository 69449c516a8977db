//! Unexpected values in Redis, full memory, and expiry.

use std::time::Duration;

use fanwire_broker::{
    EngineError, HistoryOptions, HistoryQuery, LinkState, NewPublication, Published, UNPUBLISHED_META_TTL_MAX,
};
use fanwire_protocol::Position;

use crate::node::{HISTORY, META_TTL, Node, kept, live, quiet, topic};
use crate::redis_server::RedisServer;

#[tokio::test]
async fn foreign_values_are_named_and_harm_no_other_topic() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    for (key, command) in [
        ("m", "SET fanwire:default:m:{m} something"),
        ("m", "LPUSH fanwire:default:m:{m2} something"),
        ("s", "SADD fanwire:default:s:{s} something"),
        ("pn", "SET fanwire:default:pn:{pn} something"),
    ] {
        let _: redis::Value = server.ask(command);
        let topic = topic(command.split(['{', '}']).nth(1).unwrap());
        if key == "pn" {
            assert_eq!(node.engine.add_presence(&topic, quiet("a", 1)).await, Err(EngineError::Foreign));
            assert_eq!(node.engine.presence(&topic, usize::MAX).await, Err(EngineError::Foreign));
            assert_eq!(node.engine.presence_stats(&topic).await, Err(EngineError::Foreign));
            continue;
        }
        assert_eq!(node.keep(&topic, "1").await, Err(EngineError::Foreign), "{command}");
        let query = HistoryQuery { limit: 10.into(), ..HistoryQuery::default() };
        assert_eq!(node.engine.history(&topic, query, META_TTL).await.unwrap_err(), EngineError::Foreign);
    }
    node.keep(&topic("other"), "1").await.unwrap();
    assert_eq!(*node.redis.state().borrow(), LinkState::Up);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_an_error() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    node.keep(&topic, "1").await.unwrap();
    let _: String = server.ask("XADD fanwire:default:s:{t} 2-0 d nonsense");
    let query = HistoryQuery { limit: 10.into(), ..HistoryQuery::default() };
    assert_eq!(node.engine.history(&topic, query, META_TTL).await, Err(EngineError::Refused));
    // The stream is ahead of its position: it starts over.
    let before = node.engine.recover(&topic, None, 0, META_TTL).await.unwrap().top;
    let after = node.keep(&topic, "2").await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(node.engine.history(&topic, query, META_TTL).await.unwrap().publications.len(), 1);
}

#[tokio::test]
async fn strange_messages_are_told_as_interruptions() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    for message in ["", "nonsense", "\u{1}\n\u{9}", "\u{1}\n\u{1}\u{4}\0"] {
        let mut request = redis::cmd("PUBLISH");
        request.arg("fanwire:default:c:{t}").arg(message);
        let received: usize = request.query(&mut server.client().get_connection().unwrap()).unwrap();
        assert_eq!(received, 1);
    }
    node.send(&topic, "1").await.unwrap();
    let interrupted = "interrupted t";
    node.wait_for_told(&[interrupted, interrupted, interrupted, interrupted, "1"]).await;
}

#[tokio::test]
async fn full_memory_is_named_and_nothing_is_half_done() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    node.engine.subscribe(&topic).await.unwrap();
    let before = node.keep(&topic, "1").await.unwrap();
    let _: String = server.ask("CONFIG SET maxmemory 1");
    assert_eq!(node.keep(&topic, "2").await, Err(EngineError::Full));
    let keyed = NewPublication { idempotency_key: Some("key".into()), history: Some(HISTORY), ..live("3") };
    assert_eq!(node.engine.publish(&topic, keyed.clone()).await, Err(EngineError::Full));
    // An unknown topic is not started either.
    let fresh = self::topic("fresh");
    assert_eq!(node.keep(&fresh, "1").await, Err(EngineError::Full));
    assert_eq!(node.engine.publish(&fresh, keyed.clone()).await, Err(EngineError::Full));
    assert_eq!(node.engine.recover(&fresh, None, 0, META_TTL).await.unwrap_err(), EngineError::Full);
    let query = HistoryQuery::default();
    assert_eq!(node.engine.history(&fresh, query, META_TTL).await.unwrap_err(), EngineError::Full);
    // Publications without history and reads need no memory.
    node.send(&topic, "live").await.unwrap();
    assert_eq!(node.engine.recover(&topic, None, 0, META_TTL).await.unwrap().top, before);

    let _: String = server.ask("CONFIG SET maxmemory 0");
    let after = node.engine.publish(&topic, keyed).await.unwrap();
    assert_eq!(after, Published { position: Some(Position { offset: 2, ..before }), suppressed: false });
    node.wait_for_told(&["1", "live", "3"]).await;
}

#[tokio::test]
async fn a_name_that_was_only_asked_about_is_soon_forgotten() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let (topic, month) = (topic("t"), Duration::from_secs(30 * 24 * 60 * 60));
    let lives = || Duration::from_millis(server.ask("PTTL fanwire:default:m:{t}"));
    // Another read extends its lifetime, but not by much.
    for _ in 0..2 {
        let _: bool = server.ask("DEL fanwire:default:m:{t}");
        for _ in 0..2 {
            node.engine.recover(&topic, None, 0, month).await.unwrap();
            assert!(
                (Duration::from_secs(590)..=UNPUBLISHED_META_TTL_MAX).contains(&lives()),
                "{:?}",
                lives()
            );
            let _: bool = server.ask("PEXPIRE fanwire:default:m:{t} 5000");
            node.engine.history(&topic, HistoryQuery::default(), month).await.unwrap();
        }
    }
    let before = node.engine.recover(&topic, None, 0, month).await.unwrap().top;
    let options = HistoryOptions { meta_ttl: month, ..HISTORY };
    let first = NewPublication { history: Some(options), ..live("1") };
    let first = node.engine.publish(&topic, first).await.unwrap().position.unwrap();
    assert_eq!(first, Position { offset: 1, ..before });
    assert!(lives() > month - Duration::from_secs(10), "{:?}", lives());
    let _: bool = server.ask("PEXPIRE fanwire:default:m:{t} 5000");
    node.engine.recover(&topic, None, 0, month).await.unwrap();
    assert!(lives() > month - Duration::from_secs(10), "{:?}", lives());
    // A caller may ask for a shorter time.
    node.engine.recover(&self::topic("u"), None, 0, Duration::from_secs(3)).await.unwrap();
    assert!(server.ask::<i64>("PTTL fanwire:default:m:{u}") <= 3000);
}

#[tokio::test]
async fn a_stream_that_was_deleted_expires_too() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    let lives = || Duration::from_millis(server.ask("PTTL fanwire:default:s:{t}"));
    // More often than once a bucket.
    for number in 0..5 {
        node.keep(&topic, "1").await.unwrap();
        assert!(lives() >= HISTORY.ttl, "{number}: {:?}", lives());
        node.keep_group(&topic, &["2", "3"]).await;
        let _: bool = server.ask("DEL fanwire:default:s:{t}");
        node.keep_group(&topic, &["4", "5"]).await;
        assert!(lives() >= HISTORY.ttl && lives() <= HISTORY.ttl * 9 / 8, "{number}: {:?}", lives());
        let _: bool = server.ask("DEL fanwire:default:s:{t}");
    }
}

#[tokio::test]
async fn a_stream_that_starts_over_knows_the_last_version() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    let version = |version| NewPublication { version, ..kept("v") };
    let before = node.engine.publish(&topic, version(5)).await.unwrap().position.unwrap();
    let _: String = server.ask("XADD fanwire:default:s:{t} 9-0 d x");
    let after = node.keep(&topic, "1").await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert!(node.engine.publish(&topic, version(5)).await.unwrap().suppressed);
    assert!(!node.engine.publish(&topic, version(6)).await.unwrap().suppressed);
}

#[tokio::test]
async fn everything_of_ours_expires() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let (topic, read) = (topic("t"), topic("read"));
    node.engine.subscribe(&topic).await.unwrap();
    node.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    let keyed = NewPublication {
        idempotency_key: Some("key".into()),
        version: 3,
        history: Some(HISTORY),
        ..live("1")
    };
    node.engine.publish(&topic, keyed).await.unwrap();
    let keyed = NewPublication { idempotency_key: Some("live".into()), ..live("2") };
    node.engine.publish(&topic, keyed).await.unwrap();
    node.engine.recover(&read, None, 0, META_TTL).await.unwrap();
    let keys: Vec<String> = server.ask("KEYS *");
    assert_eq!(keys.len(), 13, "{keys:?}");
    for key in keys {
        assert!(server.ask::<i64>(&format!("TTL {key}")) > 0, "{key}");
    }
}
