//! Positions of publications, and the two ways in which a publish is suppressed.

use fanwire_broker::{Publish, Published};

use crate::fixture::{Fixture, IDEMPOTENCY_TTL, kept, live, told};

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
    // A repeat does not prolong the key's life.
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

fn with_key(publish: Publish, key: &str) -> Publish {
    Publish { idempotency_key: Some(key.into()), ..publish }
}

fn with_version(publish: Publish, version: u64, version_epoch: &str) -> Publish {
    Publish { version, version_epoch: version_epoch.into(), ..publish }
}
