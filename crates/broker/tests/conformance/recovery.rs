//! What a reader that comes back is told: all that it missed, or that it cannot be had.

use fanwire_broker::{Limit, Recovery, Since};
use fanwire_protocol::{Position, TopicName};

use crate::fixture::{Fixture, LONG, META_TTL, offsets};

pub(crate) async fn a_topic_that_was_never_used_has_an_epoch_that_stays(fixture: Fixture) {
    let topic = fixture.topic("t");
    let top = fixture.top(&topic).await;
    assert_eq!(top.offset, 0);
    assert_eq!(fixture.top(&topic).await, top);
    assert_eq!(fixture.keep(&topic, "1").await, Position { epoch: top.epoch, offset: 1 });
    check(&fixture, &topic, 0, top.epoch.as_str(), Some(&[1])).await;
}

pub(crate) async fn asking_without_a_position_returns_the_top(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    let recovery = fixture.engine.recover(&topic, None, 100, META_TTL).await.unwrap();
    assert_eq!(recovery, Recovery { top, complete: true, publications: Vec::new(), is_too_long: false });
}

pub(crate) async fn a_reader_at_the_top_has_missed_nothing(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    check(&fixture, &topic, 3, top.epoch.as_str(), Some(&[])).await;
    let never_used = fixture.topic("never used");
    check(&fixture, &never_used, 0, "", Some(&[])).await;
}

pub(crate) async fn a_reader_gets_all_that_it_missed(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    check(&fixture, &topic, 2, top.epoch.as_str(), Some(&[3])).await;
    check(&fixture, &topic, 1, top.epoch.as_str(), Some(&[2, 3])).await;
    check(&fixture, &topic, 0, top.epoch.as_str(), Some(&[1, 2, 3])).await;
}

pub(crate) async fn an_empty_epoch_matches_any(fixture: Fixture) {
    let (topic, _) = three_kept(&fixture).await;
    check(&fixture, &topic, 1, "", Some(&[2, 3])).await;
}

pub(crate) async fn a_foreign_epoch_is_never_complete(fixture: Fixture) {
    let (topic, _) = three_kept(&fixture).await;
    // "_" is what client libraries send when they have dropped their state.
    for epoch in ["_", "abcdefgh", "no epoch at all, and far too long to be one", "é"] {
        for offset in [0, 1, 3, u64::MAX] {
            check(&fixture, &topic, offset, epoch, None).await;
        }
    }
}

pub(crate) async fn a_position_above_the_top_is_never_complete(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    for offset in [4, 5, u64::MAX] {
        check(&fixture, &topic, offset, top.epoch.as_str(), None).await;
        check(&fixture, &topic, offset, "", None).await;
    }
}

pub(crate) async fn what_was_trimmed_makes_it_incomplete(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    for data in ["4", "5", "6", "7"] {
        fixture.keep(&topic, data).await;
    }
    // Five are kept: 3 to 7.
    check(&fixture, &topic, 2, top.epoch.as_str(), Some(&[3, 4, 5, 6, 7])).await;
    check(&fixture, &topic, 1, top.epoch.as_str(), None).await;
    check(&fixture, &topic, 0, "", None).await;
}

pub(crate) async fn a_limit_that_is_reached_makes_it_incomplete(fixture: Fixture) {
    let (topic, _) = three_kept(&fixture).await;
    for (offset, limit, complete) in [(0, 3, true), (0, 2, false), (1, 2, true), (2, 0, false), (3, 0, true)]
    {
        let since = Since { offset, epoch: "" };
        let recovery = fixture.engine.recover(&topic, Some(since), limit, META_TTL).await.unwrap();
        assert_eq!(recovery.complete, complete, "from {offset} with limit {limit}");
        assert!(complete || recovery.publications.is_empty());
    }
}

pub(crate) async fn a_removed_history_recovers_only_from_the_top(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    fixture.engine.remove_history(&topic).await.unwrap();
    check(&fixture, &topic, 3, top.epoch.as_str(), Some(&[])).await;
    check(&fixture, &topic, 2, top.epoch.as_str(), None).await;

    fixture.keep(&topic, "4").await;
    check(&fixture, &topic, 3, top.epoch.as_str(), Some(&[4])).await;
    check(&fixture, &topic, 2, top.epoch.as_str(), None).await;
}

async fn three_kept(fixture: &Fixture) -> (TopicName, Position) {
    let topic = fixture.topic("three");
    for data in ["1", "2"] {
        fixture.keep(&topic, data).await;
    }
    let top = fixture.keep(&topic, "3").await;
    (topic, top)
}

/// A reader at that position is given exactly `missed`, or told that it cannot have all.
async fn check(fixture: &Fixture, topic: &TopicName, offset: u64, epoch: &str, missed: Option<&[u64]>) {
    let recovery = fixture.recover(topic, offset, epoch).await;
    assert_eq!(recovery.complete, missed.is_some(), "since {offset} of {epoch:?}");
    assert_eq!(offsets(&recovery.publications), missed.unwrap_or_default(), "since {offset} of {epoch:?}");
    assert_eq!(recovery.top, fixture.top(topic).await);
}

pub(crate) async fn what_is_too_long_is_said_and_not_sent(fixture: Fixture) {
    let topic = fixture.topic("long");
    for _ in 0..4 {
        fixture.keep(&topic, &LONG).await;
    }
    let top = fixture.top(&topic).await;
    // Each takes its data and a little more.
    for (offset, bytes, complete) in
        [(0, 4500, true), (1, 3500, true), (0, 3900, false), (2, 1900, false), (3, 0, false), (4, 0, true)]
    {
        let limit = Limit { publications: 100, bytes };
        let since = Since { offset, epoch: top.epoch.as_str() };
        let recovery = fixture.engine.recover(&topic, Some(since), limit, META_TTL).await.unwrap();
        assert_eq!((recovery.complete, recovery.is_too_long), (complete, !complete), "{offset} {bytes}");
        assert_eq!(recovery.publications.len() as u64, if complete { 4 - offset } else { 0 });
        assert_eq!(recovery.top, top);
    }
    // What cannot be had at all is not said to be too long.
    let limit = Limit { publications: 1, bytes: 10_000 };
    for (offset, epoch) in [(0, ""), (2, "abcdefgh"), (9, "")] {
        let since = Since { offset, epoch };
        let recovery = fixture.engine.recover(&topic, Some(since), limit, META_TTL).await.unwrap();
        assert!(!recovery.complete && !recovery.is_too_long);
    }
}
