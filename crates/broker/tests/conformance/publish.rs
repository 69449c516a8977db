//! Positions of publications, the two ways in which a publish is suppressed, and groups.

use std::sync::Arc;

use fanwire_broker::{EngineError, Event, HistoryOptions, NewPublication, Published};
use fanwire_protocol::{Position, Publication, Tags, TopicName};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::fixture::{Fixture, HISTORY, IDEMPOTENCY_TTL, client, info, kept, live, told};

pub(crate) async fn offsets_count_from_one(fixture: Fixture) {
    let topic = fixture.topic("t");
    let first = fixture.keep(&topic, "1").await;
    assert_eq!(first.offset, 1);
    for offset in 2..20 {
        let position = fixture.keep(&topic, "more").await;
        assert_eq!((position.offset, position.epoch), (offset, first.epoch));
    }
}

pub(crate) async fn topics_do_not_share_positions(fixture: Fixture) {
    let (a, b) = (fixture.topic("a"), fixture.topic("b"));
    fixture.keep(&a, "1").await;
    let a_top = fixture.keep(&a, "2").await;
    let b_top = fixture.keep(&b, "1").await;
    assert_eq!((a_top.offset, b_top.offset), (2, 1));
    assert_ne!(a_top.epoch, b_top.epoch);
}

pub(crate) async fn publications_that_are_not_kept_have_no_position(fixture: Fixture) {
    let topic = fixture.topic("t");
    let published = fixture.publish(&topic, live("1")).await;
    assert_eq!(published, Published { position: None, suppressed: false });
}

pub(crate) async fn publications_that_are_not_kept_leave_the_stream_alone(fixture: Fixture) {
    let topic = fixture.topic("t");
    let first = fixture.keep(&topic, "1").await;
    fixture.publish(&topic, live("between")).await;
    assert_eq!(fixture.top(&topic).await, first);
    assert_eq!(fixture.keep(&topic, "2").await.offset, 2);
    assert_eq!(fixture.kept_offsets(&topic).await, [1, 2]);
}

pub(crate) async fn a_repeated_key_publishes_nothing_and_returns_the_first_result(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let first = fixture.publish(&topic, with_key(kept("1"), "key")).await;
    fixture.keep(&topic, "2").await;

    let repeat = fixture.publish(&topic, with_key(kept("3"), "key")).await;
    assert_eq!(repeat, Published { position: first.position, suppressed: true });
    assert!(!fixture.publish(&topic, with_key(kept("4"), "other key")).await.suppressed);
    assert_eq!(told(&fixture.events().await), ["1", "2", "4"]);
    assert_eq!(fixture.kept_offsets(&topic).await, [1, 2, 3]);
}

pub(crate) async fn a_key_without_history_is_remembered_too(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    fixture.publish(&topic, with_key(live("1"), "key")).await;
    let repeat = fixture.publish(&topic, with_key(live("2"), "key")).await;
    assert_eq!(repeat, Published { position: None, suppressed: true });
    assert_eq!(told(&fixture.events().await), ["1"]);
}

pub(crate) async fn a_key_belongs_to_one_topic(fixture: Fixture) {
    let (a, b) = (fixture.topic("a"), fixture.topic("b"));
    assert!(!fixture.publish(&a, with_key(kept("1"), "key")).await.suppressed);
    assert!(!fixture.publish(&b, with_key(kept("1"), "key")).await.suppressed);
}

pub(crate) async fn a_key_is_forgotten_after_its_time(fixture: Fixture) {
    let topic = fixture.topic("t");
    let first = fixture.publish(&topic, with_key(live("1"), "key")).await;
    assert!(!first.suppressed);
    fixture.pass(IDEMPOTENCY_TTL / 2).await;
    assert!(fixture.publish(&topic, with_key(live("2"), "key")).await.suppressed);
    // A repeat does not extend the key's lifetime.
    fixture.pass(IDEMPOTENCY_TTL / 2).await;
    assert!(!fixture.publish(&topic, with_key(live("3"), "key")).await.suppressed);
    assert!(fixture.publish(&topic, with_key(live("4"), "key")).await.suppressed);
}

pub(crate) async fn an_old_version_is_suppressed(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    assert!(!fixture.publish(&topic, with_version(kept("10"), 10, "")).await.suppressed);
    fixture.keep(&topic, "unversioned").await;
    let top = fixture.top(&topic).await;
    for version in [1, 9, 10] {
        let published = fixture.publish(&topic, with_version(kept("old"), version, "")).await;
        assert_eq!(published, Published { position: Some(top), suppressed: true }, "version {version}");
    }
    assert!(!fixture.publish(&topic, with_version(kept("11"), 11, "")).await.suppressed);
    assert_eq!(told(&fixture.events().await), ["10", "unversioned", "11"]);
    assert_eq!(fixture.top(&topic).await.offset, 3);
}

pub(crate) async fn a_new_version_epoch_starts_over(fixture: Fixture) {
    let topic = fixture.topic("t");
    assert!(!fixture.publish(&topic, with_version(kept("1"), 10, "a")).await.suppressed);
    assert!(!fixture.publish(&topic, with_version(kept("2"), 3, "b")).await.suppressed);
    assert!(fixture.publish(&topic, with_version(kept("3"), 3, "b")).await.suppressed);
    assert!(!fixture.publish(&topic, with_version(kept("4"), 4, "b")).await.suppressed);
}

pub(crate) async fn publications_without_a_version_pass_and_change_no_version(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.publish(&topic, with_version(kept("1"), u64::from(u32::MAX), "a")).await;
    assert!(!fixture.publish(&topic, with_version(kept("2"), 0, "a")).await.suppressed);
    assert!(!fixture.publish(&topic, kept("3")).await.suppressed);
    assert!(fixture.publish(&topic, with_version(kept("4"), u64::from(u32::MAX), "a")).await.suppressed);
}

pub(crate) async fn a_version_survives_the_history(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.publish(&topic, with_version(kept("1"), 10, "a")).await;
    fixture.engine.remove_history(&topic).await.unwrap();
    assert!(fixture.publish(&topic, with_version(kept("2"), 10, "a")).await.suppressed);
}

pub(crate) async fn a_suppressed_version_uses_up_no_key(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.publish(&topic, with_version(kept("1"), 10, "a")).await;
    assert!(fixture.publish(&topic, with_key(with_version(kept("2"), 9, "a"), "key")).await.suppressed);
    assert!(!fixture.publish(&topic, with_key(with_version(kept("3"), 11, "a"), "key")).await.suppressed);
}

pub(crate) async fn a_group_keeps_its_order(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let first = fixture.keep(&topic, "1").await;
    let group = vec![kept("2"), kept("3"), live("live"), kept("4")];
    let published = group_of(&fixture, &topic, group).await;
    let offsets: Vec<_> = published.iter().map(|published| published.position).collect();
    let at = |offset| Some(Position { offset, ..first });
    assert_eq!(offsets, [at(2), at(3), None, at(4)]);
    assert!(published.iter().all(|published| !published.suppressed));
    assert_eq!(told(&fixture.events().await), ["1", "2", "3", "live", "4"]);
    assert_eq!(fixture.kept_offsets(&topic).await, [1, 2, 3, 4]);
    assert_eq!(fixture.keep(&topic, "5").await.offset, 5);
}

pub(crate) async fn an_empty_group_is_nothing(fixture: Fixture) {
    assert!(group_of(&fixture, &fixture.topic("t"), Vec::new()).await.is_empty());
}

pub(crate) async fn what_is_suppressed_in_a_group_keeps_no_other_from_being_published(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let group = vec![
        with_key(kept("1"), "key"),
        with_key(kept("repeated"), "key"),
        with_version(kept("2"), 7, ""),
        with_version(kept("old"), 7, ""),
        with_key(live("3"), "live"),
        with_key(live("repeated"), "live"),
        kept("4"),
    ];
    let published = group_of(&fixture, &topic, group).await;
    let suppressed: Vec<_> = published.iter().map(|published| published.suppressed).collect();
    assert_eq!(suppressed, [false, true, false, true, false, true, false]);
    let offset = |index: usize| published[index].position.map(|position| position.offset);
    assert_eq!((offset(1), offset(3), offset(5), offset(6)), (Some(1), Some(2), None, Some(3)));
    assert_eq!(told(&fixture.events().await), ["1", "2", "3", "4"]);
}

/// More than one step of an engine, by number and by size.
pub(crate) async fn a_large_group_is_published_whole(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.subscribe(&topic).await.unwrap();
    let many: Vec<_> = (1..=600).map(|number: u32| number.to_string()).collect();
    let published = group_of(&fixture, &topic, many.iter().map(|data| kept(data)).collect()).await;
    let offsets = published.iter().map(|published| published.position.unwrap().offset);
    assert!(offsets.eq(1..=600));
    assert_eq!(told(&fixture.events().await), many);
    assert_eq!(fixture.kept_offsets(&topic).await, [596, 597, 598, 599, 600]);

    let huge = "x".repeat(600_000);
    let published = group_of(&fixture, &topic, vec![kept(&huge); 12]).await;
    assert_eq!(published.last().unwrap().position.unwrap().offset, 612);
    assert_eq!(fixture.events().await.len(), 12);
}

pub(crate) async fn a_group_equals_the_same_publications_one_by_one(fixture: Fixture) {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (grouped, single) = (fixture.topic(&format!("g{seed}")), fixture.topic(&format!("s{seed}")));
        for topic in [&grouped, &single] {
            fixture.engine.subscribe(topic).await.unwrap();
        }
        for _ in 0..4 {
            let count = random.random_range(1..12);
            let group: Vec<_> = (0..count).map(|_| any_publish(&mut random)).collect();
            let story = format!("seed {seed}: {group:?}");
            let mut one_by_one = Vec::new();
            for publish in group.clone() {
                one_by_one.push(fixture.publish(&single, publish).await);
            }
            let at_once = group_of(&fixture, &grouped, group).await;
            let in_short = |published: &[Published]| {
                let in_short = |published: &Published| {
                    (published.position.map(|position| position.offset), published.suppressed)
                };
                published.iter().map(in_short).collect::<Vec<_>>()
            };
            assert_eq!(in_short(&at_once), in_short(&one_by_one), "{story}");
            assert_eq!(fixture.kept_offsets(&grouped).await, fixture.kept_offsets(&single).await, "{story}");
            let events = fixture.events().await;
            assert_eq!(publications(&events, &grouped), publications(&events, &single), "{story}");
            if random.random_bool(0.2) {
                fixture.engine.remove_history(&grouped).await.unwrap();
                fixture.engine.remove_history(&single).await.unwrap();
            }
        }
    }
}

/// One of few keys and versions, so that they repeat.
fn any_publish(random: &mut SmallRng) -> NewPublication {
    let smaller = HistoryOptions { size: 2, ..HISTORY };
    let mut publish = live(&random.random_range(0..1000).to_string());
    publish.history =
        *[None, Some(HISTORY), Some(HISTORY), Some(HISTORY), Some(smaller)].choose(random).unwrap();
    if random.random_bool(0.2) {
        publish = with_key(publish, ["a", "b", "c"].choose(random).unwrap());
    }
    if random.random_bool(0.2) {
        publish = with_version(publish, random.random_range(1..6), ["", "x"].choose(random).unwrap());
    }
    if random.random_bool(0.1) {
        publish.tags = Some(Arc::new(Tags::from([("tag".to_owned(), "value".to_owned())])));
    }
    if random.random_bool(0.1) {
        publish.info = Some(info("user", 1));
    }
    if random.random_bool(0.1) {
        publish.exclude = Some(client(1));
    }
    publish
}

/// The publications of the topic, without the epoch and the time.
fn publications(events: &[Event], wanted: &TopicName) -> Vec<Publication> {
    let publication = |event: &Event| match event {
        Event::Publication { topic, publication, .. } if topic == wanted => {
            Some(Publication { time: 0, ..Publication::clone(publication) })
        }
        _ => None,
    };
    events.iter().filter_map(publication).collect()
}

async fn group_of(fixture: &Fixture, topic: &TopicName, group: Vec<NewPublication>) -> Vec<Published> {
    let results = fixture.engine.publish_group(topic, group).await;
    results.into_iter().collect::<Result<_, EngineError>>().unwrap()
}

fn with_key(publish: NewPublication, key: &str) -> NewPublication {
    NewPublication { idempotency_key: Some(key.into()), ..publish }
}

fn with_version(publish: NewPublication, version: u64, version_epoch: &str) -> NewPublication {
    NewPublication { version, version_epoch: version_epoch.into(), ..publish }
}
