//! Expiry: first the whole history of a topic, and much later its position.

use std::time::Duration;

use fanwire_broker::{HistoryQuery, NewPublication};
use fanwire_protocol::Position;

use crate::fixture::{Fixture, HISTORY_TTL, META_TTL, kept};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn history_expires_as_a_whole(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.keep(&topic, "1").await;
    fixture.pass(HISTORY_TTL / 2).await;
    fixture.keep(&topic, "2").await;
    fixture.pass(HISTORY_TTL + SECOND).await;
    assert_eq!(fixture.kept_offsets(&topic).await, [] as [u64; 0]);
}

pub(crate) async fn publishing_keeps_all_history_alive(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.keep(&topic, "1").await;
    fixture.pass(HISTORY_TTL / 2).await;
    fixture.keep(&topic, "2").await;
    fixture.pass(HISTORY_TTL - SECOND).await;
    assert_eq!(fixture.kept_offsets(&topic).await, [1, 2]);
}

pub(crate) async fn epoch_and_top_outlive_the_history(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.keep(&topic, "1").await;
    let top = fixture.keep(&topic, "2").await;
    fixture.pass(HISTORY_TTL + SECOND).await;
    assert!(fixture.recover(&topic, 2, top.epoch.as_str()).await.complete);
    assert!(!fixture.recover(&topic, 1, top.epoch.as_str()).await.complete);
    assert_eq!(fixture.keep(&topic, "3").await, Position { offset: 3, ..top });
    assert_eq!(fixture.kept_offsets(&topic).await, [3]);
}

pub(crate) async fn a_lost_position_starts_a_new_epoch(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.keep(&topic, "1").await;
    let before = fixture.keep(&topic, "2").await;
    fixture.pass(META_TTL + SECOND).await;

    assert!(!fixture.recover(&topic, 2, before.epoch.as_str()).await.complete);
    let after = fixture.keep(&topic, "3").await;
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch);
    assert!(!fixture.recover(&topic, 1, before.epoch.as_str()).await.complete);
    assert_eq!(fixture.kept_offsets(&topic).await, [1]);
}

pub(crate) async fn publishing_keeps_the_position_alive(fixture: Fixture) {
    let topic = fixture.topic("t");
    let first = fixture.keep(&topic, "1").await;
    fixture.pass(META_TTL - SECOND).await;
    fixture.keep(&topic, "2").await;
    fixture.pass(META_TTL - SECOND).await;
    assert_eq!(fixture.top(&topic).await, Position { offset: 2, ..first });
}

pub(crate) async fn asking_keeps_the_position_alive(fixture: Fixture) {
    let topic = fixture.topic("t");
    let first = fixture.keep(&topic, "1").await;
    fixture.pass(META_TTL - SECOND).await;
    assert_eq!(fixture.top(&topic).await, first);
    fixture.pass(META_TTL - SECOND).await;
    assert_eq!(fixture.history(&topic, HistoryQuery::default()).await.top, first);
    fixture.pass(META_TTL - SECOND).await;
    assert!(fixture.recover(&topic, 1, first.epoch.as_str()).await.complete);
}

pub(crate) async fn a_lost_position_loses_versions(fixture: Fixture) {
    let topic = fixture.topic("t");
    let publish = || NewPublication { version: 5, ..kept("1") };
    assert!(!fixture.publish(&topic, publish()).await.suppressed);
    fixture.pass(META_TTL + SECOND).await;
    assert!(!fixture.publish(&topic, publish()).await.suppressed);
}
