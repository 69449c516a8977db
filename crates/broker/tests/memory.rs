//! The memory engine's own behaviour: its bounds, the release of memory, and deliveries that call the engine.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::{
    Engine, HistoryOptions, HistoryQuery, Member, MemorySettings, NewPublication, Published, Since,
    UNPUBLISHED_META_TTL_MAX, Usage,
};
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, Position, TopicName};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const HISTORY: HistoryOptions =
    HistoryOptions { size: 10, ttl: Duration::from_secs(5), meta_ttl: Duration::from_secs(20) };

fn engine(settings: MemorySettings) -> Engine {
    Engine::memory(settings, Box::new(|_| ()))
}

fn bounded(history_bytes_max: usize) -> MemorySettings {
    MemorySettings { history_bytes_max, ..MemorySettings::default() }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn kept(data: impl Into<Bytes>) -> NewPublication {
    NewPublication { data: data.into(), history: Some(HISTORY), ..NewPublication::default() }
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
    let published = NewPublication { history: Some(options), ..NewPublication::default() };
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
        engine.remove_presence(&topic, client, &Left::Gone).await.unwrap();
        engine.unsubscribe(&topic).await.unwrap();
    }
    let usage = engine.usage();
    assert_eq!((usage.topics, usage.streams, usage.publications), (1000, 1000, 1000));

    tokio::time::advance(HISTORY.ttl).await;
    engine.sweep();
    let positions = engine.usage();
    assert_eq!((positions.topics, positions.streams, positions.publications), (1000, 1000, 0));
    assert!(usage.bytes - positions.bytes > 4 * 1000);

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
    engine.publish(&topic, NewPublication::default()).await.unwrap();
    engine.presence(&topic, usize::MAX).await.unwrap();
    engine.remove_presence(&topic, ClientId(Uuid::nil()), &Left::Gone).await.unwrap();
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
async fn too_much_history_costs_the_largest_and_among_equals_what_expires_first() {
    let engine = engine(bounded(20_000));
    for name in ["small", "early", "late"] {
        engine.subscribe(&topic(name)).await.unwrap();
    }
    keep(&engine, "small", "data").await;
    for _ in 0..6 {
        keep(&engine, "early", vec![0; 1000]).await;
    }
    tokio::time::advance(2 * SECOND).await;
    for _ in 0..10 {
        keep(&engine, "late", vec![0; 1000]).await;
        assert!(engine.usage().bytes <= 20_000);
    }
    assert_eq!(kept_offsets(&engine, "small").await, [1]);
    assert_eq!(kept_offsets(&engine, "early").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(kept_offsets(&engine, "late").await, [2, 3, 4, 5, 6, 7, 8, 9, 10]);
    // As large as the other, which expires earlier.
    for _ in 0..2 {
        keep(&engine, "early", vec![0; 1000]).await;
    }
    tokio::time::advance(2 * SECOND).await;
    keep(&engine, "late", vec![0; 1000]).await;
    assert_eq!(engine.usage().evicted, 4);
    assert_eq!(engine.usage().forgotten, 0);

    // A reader that missed evicted publications notices; one that has seen them does not.
    let first = kept_offsets(&engine, "late").await[0];
    for (offset, complete) in [(first - 2, false), (first - 1, true)] {
        let since = Since { offset, epoch: "" };
        let recovery = engine.recover(&topic("late"), Some(since), 100, HISTORY.meta_ttl).await.unwrap();
        assert_eq!(recovery.complete, complete);
    }
}

#[tokio::test]
async fn a_publication_above_the_limit_is_delivered_and_not_kept() {
    let delivered = Rc::new(Cell::new(0));
    let count = Rc::clone(&delivered);
    let engine = Engine::memory(bounded(3000), Box::new(move |_| count.set(count.get() + 1)));
    engine.subscribe(&topic("t")).await.unwrap();
    assert_eq!(keep(&engine, "t", vec![0; 3000]).await.offset, 1);
    assert_eq!(delivered.get(), 1);
    assert_eq!(kept_offsets(&engine, "t").await, [] as [u64; 0]);
    let usage = engine.usage();
    assert_eq!((usage.streams, usage.publications, usage.evicted, usage.forgotten), (1, 0, 1, 0));

    keep(&engine, "u", vec![0; 3000]).await;
    let usage = engine.usage();
    assert_eq!((usage.streams, usage.publications, usage.evicted, usage.forgotten), (2, 0, 2, 0));
    assert_eq!(keep(&engine, "t", "small").await.offset, 2);
    assert_eq!(kept_offsets(&engine, "t").await, [2]);
}

/// A flood of new names evicts itself: earlier topics keep their data, used or not.
#[tokio::test(start_paused = true)]
async fn a_flood_of_names_costs_the_flood() {
    const BYTES_MAX: usize = 1 << 20;
    let engine = engine(bounded(BYTES_MAX));
    let month = 30 * 24 * 60 * 60 * SECOND;
    let options = HistoryOptions { size: 10, ttl: month, meta_ttl: month };
    let publish = async |name: &str| {
        let publish =
            NewPublication { data: "data".into(), history: Some(options), ..NewPublication::default() };
        engine.publish(&topic(name), publish).await.unwrap().position.unwrap()
    };
    // One is read again later, one has a subscriber, one is only published to, one is as young as the flood.
    publish("known").await;
    tokio::time::advance(90 * SECOND).await;
    publish("known").await;
    let once = publish("once").await;
    tokio::time::advance(11 * 60 * SECOND).await;
    engine.subscribe(&topic("watched")).await.unwrap();
    publish("watched").await;
    let young = publish("young").await;
    for number in 0..20_000 {
        let name = format!("flood:{number}");
        engine.subscribe(&topic(&name)).await.unwrap();
        publish(&name).await;
        engine.unsubscribe(&topic(&name)).await.unwrap();
        assert!(engine.usage().bytes <= BYTES_MAX);
    }
    assert!(engine.usage().forgotten > 10_000);
    for (name, offset) in [("known", 2), ("once", 1), ("watched", 1), ("young", 1)] {
        assert!(kept_offsets(&engine, name).await.contains(&offset), "{name}");
    }
    assert_eq!(publish("once").await, Position { offset: 2, ..once });
    assert_eq!(publish("young").await, Position { offset: 2, ..young });

    // The rest of the flood grows old, and is evicted for new topics.
    tokio::time::advance(11 * 60 * SECOND).await;
    let new = publish("new").await;
    publish("newer").await;
    assert_eq!(publish("new").await, Position { offset: 2, ..new });
    assert!(engine.usage().bytes <= BYTES_MAX);
}

/// A position costs memory without any publication.
#[tokio::test(start_paused = true)]
async fn names_that_are_only_asked_about_are_bounded() {
    const BYTES_MAX: usize = 1 << 20;
    let engine = engine(bounded(BYTES_MAX));
    let known = keep(&engine, "known", "data").await;
    for number in 0..20_000 {
        let name = topic(&format!("flood:{number}"));
        engine.recover(&name, None, 0, HISTORY.meta_ttl).await.unwrap();
    }
    let usage = engine.usage();
    assert!(usage.bytes <= BYTES_MAX && usage.streams > 1000 && usage.forgotten > 10_000, "{usage:?}");
    assert_eq!(keep(&engine, "known", "data").await, Position { offset: 2, ..known });
}

#[tokio::test]
async fn endless_lifetimes_do_not_overflow_the_clock() {
    let settings = MemorySettings { idempotency_ttl: Duration::MAX, ..MemorySettings::default() };
    let engine = engine(settings);
    let forever = HistoryOptions { size: usize::MAX, ttl: Duration::MAX, meta_ttl: Duration::MAX };
    let publish = NewPublication {
        history: Some(forever),
        idempotency_key: Some("key".into()),
        ..NewPublication::default()
    };
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
    assert!(engine.usage().bytes < 2000);
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
