//! What is particular to the Redis engine: losing Redis and finding it again, what stands in its way there, and
//! several nodes that share it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod redis_server;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire_broker::{
    CallKind, Engine, EngineError, Event, HistoryOptions, HistoryQuery, LinkError, LinkRole, LinkState,
    Member, Peer, PresenceStats, Publish, Published, Redis, RedisSettings, Since, UNPUBLISHED_META_TTL_MAX,
};
use fanwire_protocol::{ClientId, ClientInfo, Position, TopicName};
use redis_server::{RedisServer, wait_until_up};
use uuid::Uuid;

const META_TTL: Duration = Duration::from_secs(60);
const HISTORY: HistoryOptions =
    HistoryOptions { size: 1000, ttl: Duration::from_secs(30), meta_ttl: META_TTL };

/// An engine with what it delivered.
struct Node {
    redis: Redis,
    engine: Engine,
    delivered: Arc<Mutex<Vec<Event>>>,
}

impl Node {
    fn start(settings: RedisSettings) -> Self {
        let delivered = Arc::<Mutex<Vec<Event>>>::default();
        let sink = Arc::clone(&delivered);
        let node = Peer { id: Uuid::new_v4(), name: "test".into() };
        let redis =
            Redis::start(settings, node, Arc::new(move |event| sink.lock().unwrap().push(event))).unwrap();
        Self { engine: Engine::Redis(redis.clone()), redis, delivered }
    }

    async fn up(settings: RedisSettings) -> Self {
        let node = Self::start(settings);
        wait_until_up(&node.redis).await;
        node
    }

    async fn keep(&self, topic: &TopicName, data: &str) -> Result<Position, EngineError> {
        self.engine.publish(topic, kept(data)).await.map(|published| published.position.unwrap())
    }

    async fn keep_group(&self, topic: &TopicName, data: &[&str]) -> Vec<Position> {
        let results = self.engine.publish_group(topic, data.iter().map(|data| kept(data)).collect()).await;
        results.into_iter().map(|result| result.unwrap().position.unwrap()).collect()
    }

    async fn send(&self, topic: &TopicName, data: &str) -> Result<Published, EngineError> {
        self.engine.publish(topic, live(data)).await
    }

    /// What arrived, in few words.
    fn told(&self) -> Vec<String> {
        let tell = |event: &Event| match event {
            Event::Publication { publication, .. } => String::from_utf8(publication.data.to_vec()).unwrap(),
            Event::Join { info, .. } => format!("+{}", info.user),
            Event::Leave { info, .. } => format!("-{}", info.user),
            Event::Gap { topic } => format!("interrupted {topic}"),
        };
        self.delivered.lock().unwrap().iter().map(tell).collect()
    }

    async fn wait_for_told(&self, expected: &[&str]) {
        eventually(|| self.told() == expected, || format!("{:?} instead of {expected:?}", self.told())).await;
    }

    async fn wait_until_down(&self) -> LinkError {
        let mut state = self.redis.state();
        let down =
            state.wait_for(|state| matches!(state, LinkState::Down(error) if *error != LinkError::NotYet));
        let down = tokio::time::timeout(Duration::from_secs(20), down).await.unwrap().unwrap().clone();
        let LinkState::Down(error) = down else { unreachable!("awaited above") };
        error
    }

    async fn check_present(&self, topic: &TopicName, numbers: &[u128], users: usize) {
        let mut present = self.engine.presence(topic, usize::MAX).await.unwrap();
        present.sort_by_key(|info| info.client);
        let present: Vec<_> = present.iter().map(|info| info.client).collect();
        assert_eq!(present, numbers.iter().copied().map(client).collect::<Vec<_>>());
        let stats = self.engine.presence_stats(topic).await.unwrap();
        assert_eq!(stats, PresenceStats { clients: numbers.len(), users });
    }
}

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

    // The restarted server is another lineage, so offsets jump, and a reader from before still gets all.
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
    // What a lost branch may have handed out is not there.
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
    // Presence is written anew.
    wait_for_present(&node, &topic, 1).await;
}

#[tokio::test]
async fn a_closed_subscriber_connection_is_replaced() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topics: Vec<_> = (0..1500).map(|number| topic(&number.to_string())).collect();
    // All at once, as after a reconnect of many clients.
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
async fn a_group_meets_what_a_single_publication_meets() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::up(server.settings()).await;
    let (topic, foreign) = (topic("t"), topic("foreign"));
    node.engine.subscribe(&topic).await.unwrap();
    let before = node.keep(&topic, "1").await.unwrap();
    node.wait_for_told(&["1"]).await;

    // Another lineage: offsets jump once, and a reader from before gets all.
    server.kill();
    node.wait_until_down().await;
    server.resume();
    wait_until_up(&node.redis).await;
    // The topic may be joined anew a moment after the connection is up.
    node.wait_for_told(&["1", "interrupted t"]).await;
    let jumped = node.keep_group(&topic, &["2", "3", "4"]).await;
    assert_eq!(jumped[0].epoch, before.epoch);
    assert!(jumped[0].offset > 1_000_000);
    assert_eq!([jumped[1].offset, jumped[2].offset], [jumped[0].offset + 1, jumped[0].offset + 2]);
    node.wait_for_told(&["1", "interrupted t", "interrupted t", "2", "3", "4"]).await;
    let since = Since { offset: before.offset, epoch: before.epoch.as_str() };
    let recovery = node.engine.recover(&topic, Some(since), 10, META_TTL).await.unwrap();
    assert_eq!((recovery.complete, recovery.publications.len()), (true, 3));

    // A stream that is ahead of its position: it starts over.
    let _: String = server.ask(&format!("XADD fanwire:default:s:{{t}} {}-0 d x", jumped[2].offset + 1));
    let repaired = node.keep_group(&topic, &["5", "6"]).await;
    assert_ne!(repaired[0].epoch, before.epoch);
    assert_eq!([repaired[0].offset, repaired[1].offset], [1, 2]);
    let query = HistoryQuery { limit: 10.into(), ..HistoryQuery::default() };
    assert_eq!(node.engine.history(&topic, query, META_TTL).await.unwrap().publications.len(), 2);

    // Scripts that are forgotten are loaded, and what was published has one order.
    node.wait_for_told(&["1", "interrupted t", "interrupted t", "2", "3", "4", "5", "6"]).await;
    let _: String = server.ask("SCRIPT FLUSH");
    let keyed = |publish| Publish { idempotency_key: Some("key".into()), ..publish };
    let group = vec![live("a"), kept("7"), live("b"), keyed(kept("8")), live("c"), kept("9"), live("d")];
    let results = node.engine.publish_group(&topic, group).await;
    let offsets: Vec<_> = results
        .into_iter()
        .filter_map(|result| result.unwrap().position.map(|position| position.offset))
        .collect();
    assert_eq!(offsets, [3, 4, 5]);
    eventually(|| node.told().len() == 15, || format!("{:?}", node.told())).await;
    assert_eq!(node.told()[8..], ["a", "7", "b", "8", "c", "9", "d"]);

    // What fails is alone in that.
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
    // The stream is ahead of its position: it starts over rather than being stuck.
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
    let keyed = Publish { idempotency_key: Some("key".into()), history: Some(HISTORY), ..live("3") };
    assert_eq!(node.engine.publish(&topic, keyed.clone()).await, Err(EngineError::Full));
    // Neither is a topic begun that Redis knows nothing of.
    let fresh = self::topic("fresh");
    assert_eq!(node.keep(&fresh, "1").await, Err(EngineError::Full));
    assert_eq!(node.engine.publish(&fresh, keyed.clone()).await, Err(EngineError::Full));
    assert_eq!(node.engine.recover(&fresh, None, 0, META_TTL).await.unwrap_err(), EngineError::Full);
    let query = HistoryQuery::default();
    assert_eq!(node.engine.history(&fresh, query, META_TTL).await.unwrap_err(), EngineError::Full);
    // Messages that are not kept, and reading, need no memory.
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
    // Asking again makes it live longer, and not long.
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
    let first = Publish { history: Some(options), ..live("1") };
    let first = node.engine.publish(&topic, first).await.unwrap().position.unwrap();
    assert_eq!(first, Position { offset: 1, ..before });
    assert!(lives() > month - Duration::from_secs(10), "{:?}", lives());
    let _: bool = server.ask("PEXPIRE fanwire:default:m:{t} 5000");
    node.engine.recover(&topic, None, 0, month).await.unwrap();
    assert!(lives() > month - Duration::from_secs(10), "{:?}", lives());
    // What a caller asks for may be less.
    node.engine.recover(&self::topic("u"), None, 0, Duration::from_secs(3)).await.unwrap();
    assert!(server.ask::<i64>("PTTL fanwire:default:m:{u}") <= 3000);
}

#[tokio::test]
async fn a_stream_that_was_deleted_expires_too() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let topic = topic("t");
    let lives = || Duration::from_millis(server.ask("PTTL fanwire:default:s:{t}"));
    // More often than there are buckets in this time.
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
    let version = |version| Publish { version, ..kept("v") };
    let before = node.engine.publish(&topic, version(5)).await.unwrap().position.unwrap();
    let _: String = server.ask("XADD fanwire:default:s:{t} 9-0 d x");
    let after = node.keep(&topic, "1").await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert!(node.engine.publish(&topic, version(5)).await.unwrap().suppressed);
    assert!(!node.engine.publish(&topic, version(6)).await.unwrap().suppressed);
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
        // Four links, each of which soon tries about once a second.
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
    // A node that dies says nothing.
    drop(b);
    wait_for_present(&a, &topic, 1).await;
    a.check_present(&topic, &[1], 1).await;

    // A node that leaves is gone at once.
    let c = Node::up(settings).await;
    c.engine.add_presence(&topic, quiet("w", 4)).await.unwrap();
    a.check_present(&topic, &[1, 4], 2).await;
    c.redis.leave().await.unwrap();
    a.check_present(&topic, &[1], 1).await;
    assert_eq!(a.redis.peers().await.unwrap().len(), 1);
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
    assert_eq!(node.engine.remove_presence(&topic, client(1)).await, Err(EngineError::Unavailable));
    server.resume();
    wait_until_up(&node.redis).await;
    wait_for_present(&node, &topic, 1).await;
    node.check_present(&topic, &[2], 1).await;
}

#[tokio::test]
async fn everything_of_ours_expires() {
    let server = RedisServer::start(&[]);
    let node = Node::up(server.settings()).await;
    let (topic, read) = (topic("t"), topic("read"));
    node.engine.subscribe(&topic).await.unwrap();
    node.engine.add_presence(&topic, quiet("a", 1)).await.unwrap();
    let keyed =
        Publish { idempotency_key: Some("key".into()), version: 3, history: Some(HISTORY), ..live("1") };
    node.engine.publish(&topic, keyed).await.unwrap();
    let keyed = Publish { idempotency_key: Some("live".into()), ..live("2") };
    node.engine.publish(&topic, keyed).await.unwrap();
    node.engine.recover(&read, None, 0, META_TTL).await.unwrap();
    let keys: Vec<String> = server.ask("KEYS *");
    assert_eq!(keys.len(), 13, "{keys:?}");
    for key in keys {
        assert!(server.ask::<i64>(&format!("TTL {key}")) > 0, "{key}");
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn kept(data: &str) -> Publish {
    Publish { history: Some(HISTORY), ..live(data) }
}

fn live(data: &str) -> Publish {
    Publish { data: Bytes::copy_from_slice(data.as_bytes()), ..Publish::default() }
}

fn client(number: u128) -> ClientId {
    ClientId(Uuid::from_u128(number))
}

/// One member, whose leave nobody is told of.
fn quiet(user: &str, number: u128) -> Vec<Member> {
    let info = ClientInfo {
        user: user.into(),
        client: client(number),
        connection: Bytes::new(),
        subscription: Bytes::new(),
    };
    vec![Member::new(Arc::new(info), false)]
}

/// The channels that are joined by somebody, without those of nodes themselves.
fn channels(server: &RedisServer) -> Vec<String> {
    let mut channels: Vec<String> = server.ask("PUBSUB CHANNELS");
    channels.retain(|channel| !channel.contains("{!"));
    channels
}

/// How many connections the server has ever accepted.
fn connections(server: &RedisServer) -> u64 {
    let info: String = server.ask("INFO stats");
    let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().trim().parse().unwrap()
}

async fn wait_for_present(node: &Node, topic: &TopicName, clients: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.engine.presence(topic, usize::MAX).await.unwrap().len() != clients {
        assert!(Instant::now() < deadline, "{:?}", node.engine.presence(topic, usize::MAX).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn eventually(holds: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{}", complaint());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
