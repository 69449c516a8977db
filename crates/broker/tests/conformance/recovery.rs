//! Recovery of a reader: all missed publications, or none if some are not available.

use fanwire_broker::{ReadLimit, Recovery, Since};
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
    // Five are stored: 3 to 7.
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

/// Checks that a reader at that position gets exactly `missed`, or an incomplete answer.
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
    // Each takes its data and some overhead.
    for (offset, bytes, complete) in
        [(0, 4500, true), (1, 3500, true), (0, 3900, false), (2, 1900, false), (3, 0, false), (4, 0, true)]
    {
        let limit = ReadLimit { publications: 100, bytes };
        let since = Since { offset, epoch: top.epoch.as_str() };
        let recovery = fixture.engine.recover(&topic, Some(since), limit, META_TTL).await.unwrap();
        assert_eq!((recovery.complete, recovery.is_too_long), (complete, !complete), "{offset} {bytes}");
        assert_eq!(recovery.publications.len() as u64, if complete { 4 - offset } else { 0 });
        assert_eq!(recovery.top, top);
    }
    // A missing publication is not reported as too long.
    let limit = ReadLimit { publications: 1, bytes: 10_000 };
    for (offset, epoch) in [(0, ""), (2, "abcdefgh"), (9, "")] {
        let since = Since { offset, epoch };
        let recovery = fixture.engine.recover(&topic, Some(since), limit, META_TTL).await.unwrap();
        assert!(!recovery.complete && !recovery.is_too_long);
    }
}

pub(crate) async fn what_was_missed_is_read_part_by_part(fixture: Fixture) {
    let topic = fixture.topic("parts");
    for data in ["1", "2", &LONG, "4", "5"] {
        fixture.keep(&topic, data).await;
    }
    let top = fixture.top(&topic).await;
    let all = ReadLimit::from(usize::MAX);
    let short = ReadLimit { publications: usize::MAX, bytes: 500 };
    let two = ReadLimit { publications: 2, bytes: 500 };
    // The limit, and the offsets read after each offset.
    for (limit, parts) in [
        (all, [&[1, 2, 3, 4, 5][..], &[2, 3, 4, 5], &[3, 4, 5], &[4, 5], &[5], &[]]),
        (short, [&[1, 2][..], &[2], &[], &[4, 5], &[5], &[]]),
        (two, [&[1, 2][..], &[2], &[], &[4, 5], &[5], &[]]),
        (1.into(), [&[1][..], &[2], &[3], &[4], &[5], &[]]),
        (0.into(), [&[][..], &[], &[], &[], &[], &[]]),
    ] {
        for (offset, part) in (0..).zip(parts) {
            let since = Since { offset, epoch: top.epoch.as_str() };
            let recovery = fixture.engine.recover_part(&topic, since, limit, META_TTL).await.unwrap();
            assert_eq!(offsets(&recovery.publications), part, "after {offset} within {limit:?}");
            let complete = offset + part.len() as u64 == 5;
            assert_eq!(
                (recovery.complete, recovery.is_too_long),
                (complete, !complete),
                "{offset} {limit:?}"
            );
            assert_eq!(recovery.top, top);
        }
    }
}

pub(crate) async fn no_part_is_read_of_what_cannot_be_had(fixture: Fixture) {
    let (topic, top) = three_kept(&fixture).await;
    for data in ["4", "5", "6", "7"] {
        fixture.keep(&topic, data).await;
    }
    let epoch = top.epoch.as_str();
    // Five are stored: 3 to 7.
    for (offset, epoch) in [(1, epoch), (0, ""), (8, epoch), (u64::MAX, ""), (3, "abcdefgh"), (3, "_")] {
        let since = Since { offset, epoch };
        let recovery = fixture.engine.recover_part(&topic, since, 2, META_TTL).await.unwrap();
        assert!(!recovery.complete && !recovery.is_too_long, "after {offset} of {epoch:?}");
        assert_eq!(recovery.publications, []);
        assert_eq!(recovery.top.offset, 7);
    }
}
