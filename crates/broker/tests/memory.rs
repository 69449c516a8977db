//! What is particular to the memory engine: its bounds, that memory returns, and deliveries that call back.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::{
    Engine, HistoryOptions, HistoryQuery, Member, MemorySettings, Publish, Published, Since,
    UNPUBLISHED_META_TTL_MAX, Usage,
};
use fanwire_protocol::{ClientId, ClientInfo, Position, TopicName};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const HISTORY: HistoryOptions =
    HistoryOptions { size: 10, ttl: Duration::from_secs(5), meta_ttl: Duration::from_secs(20) };

fn engine(settings: MemorySettings) -> Engine {
    Engine::memory(settings, Box::new(|_| ()))
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn kept(data: impl Into<Bytes>) -> Publish {
    Publish { data: data.into(), history: Some(HISTORY), ..Publish::default() }
}

async fn keep(engine: &Engine, name: &str, data: impl Into<Bytes>) -> Position {
    engine.publish(&topic(name), kept(data)).await.unwrap().position.unwrap()
}

async fn kept_offsets(engine: &Engine, name: &str) -> Vec<u64> {
    let query = HistoryQuery { limit: usize::MAX.into(), ..HistoryQuery::default() };
    let history = engine.history(&topic(name), query, HISTORY.meta_ttl).await.unwrap();
    history.publications.iter().map(|publication| publication.offset).collect()
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_only_asked_about_is_soon_forgotten() {
    let engine = engine(MemorySettings::default());
    let month = 30 * 24 * 60 * 60 * SECOND;
    let options = HistoryOptions { meta_ttl: month, ..HISTORY };
    let published = Publish { history: Some(options), ..Publish::default() };
    let published = engine.publish(&topic("published"), published).await.unwrap().position.unwrap();
    let ask = async |name: &str| engine.recover(&topic(name), None, 0, month).await.unwrap().top;
    ask("published").await;
    let before = ask("asked").await;
    for _ in 0..2 {
        tokio::time::advance(UNPUBLISHED_META_TTL_MAX - SECOND).await;
        assert_eq!(ask("asked").await, before);
    }
    tokio::time::advance(UNPUBLISHED_META_TTL_MAX + SECOND).await;
    engine.sweep();
    assert_eq!(engine.usage().topics, 1);
    assert_ne!(ask("asked").await.epoch, before.epoch);
    assert_eq!(ask("published").await, published);
}

#[tokio::test(start_paused = true)]
async fn memory_returns_when_topics_end() {
    let engine = engine(MemorySettings::default());
    for number in 0..1000_u128 {
        let topic = topic(&number.to_string());
        let client = ClientId(Uuid::from_u128(number));
        let info =
            ClientInfo { user: "u".into(), client, connection: Bytes::new(), subscription: Bytes::new() };
        engine.subscribe(&topic).await.unwrap();
        engine.add_presence(&topic, vec![Member::new(Arc::new(info), false)]).await.unwrap();
        engine.publish(&topic, kept("data")).await.unwrap();
        engine
            .publish_leave(&topic, engine.presence(&topic, usize::MAX).await.unwrap()[0].clone())
            .await
            .unwrap();
        engine.remove_presence(&topic, client).await.unwrap();
        engine.unsubscribe(&topic).await.unwrap();
    }
    let usage = engine.usage();
    assert_eq!((usage.topics, usage.publications), (1000, 1000));
    assert!(usage.bytes > 4 * 1000);

    tokio::time::advance(HISTORY.ttl).await;
    engine.sweep();
    assert_eq!(engine.usage(), Usage { topics: 1000, ..Usage::default() });

    tokio::time::advance(HISTORY.meta_ttl - HISTORY.ttl).await;
    engine.sweep();
    assert_eq!(engine.usage(), Usage::default());
}

#[tokio::test]
async fn topics_without_a_stream_end_at_once() {
    let engine = engine(MemorySettings::default());
    let topic = topic("t");
    engine.unsubscribe(&topic).await.unwrap();
    engine.remove_history(&topic).await.unwrap();
    engine.publish(&topic, Publish::default()).await.unwrap();
    engine.presence(&topic, usize::MAX).await.unwrap();
    engine.remove_presence(&topic, ClientId(Uuid::nil())).await.unwrap();
    assert_eq!(engine.usage().topics, 0);

    engine.subscribe(&topic).await.unwrap();
    assert_eq!(engine.usage().topics, 1);
    engine.unsubscribe(&topic).await.unwrap();
    assert_eq!(engine.usage().topics, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_is_bounded_and_the_next_one_goes_on() {
    let engine = engine(MemorySettings::default());
    const TOPICS: usize = 120_000;
    for number in 0..TOPICS {
        engine.recover(&topic(&number.to_string()), None, 0, SECOND).await.unwrap();
    }
    tokio::time::advance(2 * SECOND).await;
    let mut sweeps = 0;
    while engine.usage().topics > 0 {
        let before = engine.usage().topics;
        engine.sweep();
        assert!(before - engine.usage().topics <= 50_000);
        sweeps += 1;
    }
    assert_eq!(sweeps, 3);
}

#[tokio::test(start_paused = true)]
async fn too_much_history_costs_what_expires_first() {
    let settings = MemorySettings { history_bytes_max: 10_000, ..MemorySettings::default() };
    let engine = engine(settings);
    for _ in 0..4 {
        keep(&engine, "early", vec![0; 1000]).await;
    }
    tokio::time::advance(2 * SECOND).await;
    for _ in 0..6 {
        keep(&engine, "late", vec![0; 1000]).await;
        assert!(engine.usage().bytes <= 10_000);
    }
    assert_eq!(kept_offsets(&engine, "early").await, [3, 4]);
    assert_eq!(kept_offsets(&engine, "late").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(engine.usage().evicted, 2);

    // A reader that missed what is gone is told so; one that had seen it is not disturbed.
    for (offset, complete) in [(1, false), (2, true)] {
        let since = Since { offset, epoch: "" };
        let recovery = engine.recover(&topic("early"), Some(since), 100, HISTORY.meta_ttl).await.unwrap();
        assert_eq!(recovery.complete, complete);
    }
}

#[tokio::test]
async fn a_publication_above_the_limit_is_delivered_and_not_kept() {
    let delivered = Rc::new(Cell::new(0));
    let count = Rc::clone(&delivered);
    let settings = MemorySettings { history_bytes_max: 1000, ..MemorySettings::default() };
    let engine = Engine::memory(settings, Box::new(move |_| count.set(count.get() + 1)));
    engine.subscribe(&topic("t")).await.unwrap();
    assert_eq!(keep(&engine, "t", vec![0; 1000]).await.offset, 1);
    assert_eq!(delivered.get(), 1);
    assert_eq!(kept_offsets(&engine, "t").await, [] as [u64; 0]);
    assert_eq!(engine.usage(), Usage { topics: 1, publications: 0, bytes: 0, evicted: 1 });

    keep(&engine, "u", vec![0; 1000]).await;
    assert_eq!(engine.usage(), Usage { topics: 2, publications: 0, bytes: 0, evicted: 2 });
    assert_eq!(keep(&engine, "t", "small").await.offset, 2);
    assert_eq!(kept_offsets(&engine, "t").await, [2]);
}

#[tokio::test(start_paused = true)]
async fn too_many_positions_cost_the_one_that_expires_first() {
    let engine = engine(MemorySettings { streams_max: 3, ..MemorySettings::default() });
    let oldest = keep(&engine, "1", "data").await;
    tokio::time::advance(SECOND).await;
    let second = keep(&engine, "2", "data").await;
    engine.subscribe(&topic("1")).await.unwrap();
    for name in ["3", "4"] {
        tokio::time::advance(SECOND).await;
        keep(&engine, name, "data").await;
    }
    assert_eq!(engine.usage().topics, 4, "the topic without a stream still has its subscription");
    assert_eq!((engine.usage().publications, engine.usage().evicted), (3, 1));
    engine.unsubscribe(&topic("1")).await.unwrap();
    assert_eq!(engine.usage().topics, 3);

    assert_eq!(keep(&engine, "2", "data").await, Position { offset: 2, ..second });
    let anew = keep(&engine, "1", "data").await;
    assert_eq!(anew.offset, 1);
    assert_ne!(anew.epoch, oldest.epoch);
}

#[tokio::test]
async fn endless_lifetimes_do_not_overflow_the_clock() {
    let settings = MemorySettings { idempotency_ttl: Duration::MAX, ..MemorySettings::default() };
    let engine = engine(settings);
    let forever = HistoryOptions { size: usize::MAX, ttl: Duration::MAX, meta_ttl: Duration::MAX };
    let publish =
        Publish { history: Some(forever), idempotency_key: Some("key".into()), ..Publish::default() };
    let first = engine.publish(&topic("t"), publish.clone()).await.unwrap();
    engine.sweep();
    let repeat = engine.publish(&topic("t"), publish).await.unwrap();
    assert_eq!(repeat, Published { suppressed: true, ..first });
}

#[tokio::test]
async fn history_does_not_keep_the_request_alive_that_it_came_in() {
    let engine = engine(MemorySettings::default());
    let request = Bytes::from(vec![b'x'; 10_000]);
    keep(&engine, "t", request.slice(10..20)).await;
    assert!(request.is_unique());
    assert!(engine.usage().bytes < 1000);
}

#[tokio::test]
async fn a_delivery_may_call_the_engine() {
    let shared: Rc<RefCell<Weak<Engine>>> = Rc::default();
    let (seen, handle) = (Rc::new(Cell::new(0)), Rc::clone(&shared));
    let count = Rc::clone(&seen);
    let deliver = move |_| {
        let engine = handle.borrow().upgrade().unwrap();
        engine.sweep();
        count.set(count.get() + engine.usage().topics);
    };
    let engine = Rc::new(Engine::memory(MemorySettings::default(), Box::new(deliver)));
    *shared.borrow_mut() = Rc::downgrade(&engine);
    engine.subscribe(&topic("t")).await.unwrap();
    keep(&engine, "t", "data").await;
    assert_eq!(seen.get(), 1);
}
