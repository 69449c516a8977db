//! The outboxes of memory engines: shared by the engines of a node, and bounded in bytes and time.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_broker::{
    Engine, Letters, Member, MemoryOutbox, MemorySettings, OutboxOptions, Outboxes, Refusal, StoredEvent,
};
use fanwire_protocol::reason::Left;
use fanwire_protocol::{ClientId, ClientInfo, EventMask, TopicName};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
const BYTES_MAX: usize = 64 << 10;
const OPTIONS: OutboxOptions = OutboxOptions {
    offline_delay: Duration::ZERO,
    retention: HOUR,
    length_max: 1,
    bytes_max: BYTES_MAX,
    dead_letters_max: 10,
    dead_letters_ttl: HOUR,
};

fn outbox(options: OutboxOptions) -> MemoryOutbox {
    MemoryOutbox::new(options)
}

fn engine(outbox: &MemoryOutbox) -> Engine {
    let settings = MemorySettings { outbox: Some(outbox.clone()), ..MemorySettings::default() };
    Engine::memory(settings, Box::new(|_| ()))
}

fn topic(name: impl ToString) -> TopicName {
    TopicName::new(&name.to_string()).unwrap()
}

async fn join(engine: &Engine, topic: &TopicName, number: u128, events: EventMask) {
    let (user, client) = ("u".into(), ClientId(Uuid::from_u128(number)));
    let info = ClientInfo { user, client, connection: Bytes::new(), subscription: Bytes::new() };
    engine.add_presence(topic, vec![Member::new(Arc::new(info), false).with_events(events)]).await.unwrap();
}

async fn leave(engine: &Engine, topic: &TopicName, number: u128) {
    engine.remove_presence(topic, ClientId(Uuid::from_u128(number)), &Left::Gone).await.unwrap();
}

/// All events, in the order in which they were written.
async fn stored(engine: &Engine) -> Vec<StoredEvent> {
    let outbox = engine.outbox().unwrap();
    let mut events = outbox.read(&outbox.slots().await.unwrap(), 1_000_000).await.unwrap();
    events.sort_by_key(|event| (event.id.millis, event.id.sequence));
    events
}

fn clients(events: &[StoredEvent]) -> Vec<u128> {
    events.iter().map(|event| event.client.unwrap().0.as_u128()).collect()
}

#[tokio::test]
async fn the_oldest_events_are_dropped_and_counted() {
    const JOINS: u128 = 10_000;
    let engine = engine(&outbox(OPTIONS));
    for number in 0..JOINS {
        join(&engine, &topic(number % 500), number, EventMask::JOIN).await;
    }
    let events = stored(&engine).await;
    // About 260 bytes each.
    assert!((200..260).contains(&events.len()), "{}", events.len());
    assert_eq!(clients(&events), (JOINS - events.len() as u128..JOINS).collect::<Vec<_>>());
    let backlog = engine.outbox().unwrap().tidy().await.unwrap();
    assert_eq!((backlog.events, backlog.dropped), (events.len() as u64, JOINS as u64 - events.len() as u64));
    assert_eq!(backlog.oldest, Some(events[0].id.millis));
    // What was taken leaves room.
    let last: Vec<_> = events.iter().map(|event| event.id).collect();
    engine.outbox().unwrap().remove(&last).await.unwrap();
    for number in 0..200 {
        join(&engine, &topic("t"), JOINS + number, EventMask::JOIN).await;
    }
    assert_eq!(stored(&engine).await.len(), 200);
    assert_eq!(engine.outbox().unwrap().tidy().await.unwrap().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn many_vacancies_are_said_before_they_are_due() {
    const USERS: usize = 1000;
    const ONLINE_OR_NOT: EventMask = EventMask::from_bits(12);
    let engine = engine(&outbox(OutboxOptions { offline_delay: HOUR, retention: 9 * HOUR, ..OPTIONS }));
    let mut offline = Vec::new();
    for number in 0..USERS {
        let user = topic(format!("!user:{number}"));
        join(&engine, &user, 1, ONLINE_OR_NOT).await;
        leave(&engine, &user, 1).await;
        let events = stored(&engine).await;
        let said = events.iter().filter(|event| event.kind.as_str() == "user_offline");
        offline.extend(said.map(|event| event.user.clone().unwrap().parse::<usize>().unwrap()));
        let ids: Vec<_> = events.iter().map(|event| event.id).collect();
        engine.outbox().unwrap().remove(&ids).await.unwrap();
    }
    // Half of the bytes, about 170 each.
    assert!((USERS - 200..USERS - 180).contains(&offline.len()), "{}", offline.len());
    assert_eq!(offline, (0..offline.len()).collect::<Vec<_>>());
    tokio::time::advance(HOUR).await;
    engine.outbox().unwrap().say_due().await.unwrap();
    assert_eq!(stored(&engine).await.len(), USERS - offline.len());
    assert_eq!(engine.outbox().unwrap().tidy().await.unwrap().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_for_their_time() {
    let engine = engine(&outbox(OPTIONS));
    for number in 0..10 {
        join(&engine, &topic(number), number, EventMask::JOIN).await;
        tokio::time::advance(HOUR / 10).await;
    }
    tokio::time::advance(HOUR / 20).await;
    let backlog = engine.outbox().unwrap().tidy().await.unwrap();
    assert_eq!((backlog.events, backlog.dropped), (9, 1));
    assert_eq!(clients(&stored(&engine).await), (1..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_not_taken_holds_up_its_own_outbox_alone() {
    let engine = engine(&outbox(OutboxOptions { bytes_max: 1 << 20, ..OPTIONS }));
    for number in 0..1000 {
        join(&engine, &topic(number % 500), number, EventMask::JOIN).await;
    }
    let outbox = engine.outbox().unwrap();
    let slots = outbox.slots().await.unwrap();
    assert!(slots.len() > 180, "{}", slots.len());
    let first = outbox.read(&slots, 1).await.unwrap();
    assert_eq!(first.len(), slots.len());
    let of_one = outbox.read(&slots[..1], 1000).await.unwrap();
    outbox.remove(&[of_one.last().unwrap().id]).await.unwrap();
    assert_eq!(stored(&engine).await.len(), 1000 - of_one.len());
    assert!(!outbox.slots().await.unwrap().contains(&slots[0]));
}

#[tokio::test]
async fn the_engines_of_a_node_share_it() {
    let outbox = outbox(OPTIONS);
    let (a, b) = (engine(&outbox), engine(&outbox));
    for number in 0..20 {
        join(&a, &topic(format!("a{number}")), number, EventMask::JOIN).await;
        join(&b, &topic(format!("b{number}")), number, EventMask::JOIN).await;
    }
    let events = stored(&a).await;
    assert_eq!(events, stored(&b).await);
    let expected: Vec<_> = (0..20).flat_map(|number| [number, number]).collect();
    assert_eq!(clients(&events), expected);
    let ids: HashSet<_> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids.len(), 40);
    assert!(matches!(a.outbox(), Some(Outboxes::Memory(_))));
}

#[tokio::test]
async fn dead_letters_are_bounded_in_number_bytes_and_time() {
    let options = OutboxOptions { dead_letters_max: 100, ..OPTIONS };
    let refusal = |attempts| Refusal { status: 400, attempts };
    let bury = async |options, letters| {
        let engine = engine(&outbox(options));
        for number in 0..20 {
            join(&engine, &topic(number), number, EventMask::JOIN).await;
        }
        let event = stored(&engine).await.remove(0);
        let outbox = engine.outbox().unwrap();
        for attempts in 0..letters {
            outbox.bury(&event, refusal(attempts)).await.unwrap();
        }
        // They take no room of events.
        assert_eq!(outbox.tidy().await.unwrap().events, 20);
        outbox
    };
    // A quarter of the bytes is for 63 of them.
    for (options, expected) in [(options, 63), (OPTIONS, 10)] {
        let outbox = bury(options, 200).await;
        let letters = outbox.dead_letters(1000).await.unwrap();
        let attempts: Vec<_> = letters.iter().map(|letter| letter.refusal.attempts).collect();
        assert_eq!(attempts, (200 - expected..200).collect::<Vec<_>>());
    }
    let outbox = bury(OutboxOptions { dead_letters_ttl: Duration::from_millis(50), ..options }, 3).await;
    let first = outbox.dead_letters(1).await.unwrap()[0].id;
    outbox.retry(&Letters::These(vec![first])).await.unwrap();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(outbox.tidy().await.unwrap().dead_letters, 0);
    assert_eq!(outbox.retried(10).await.unwrap(), []);
}
