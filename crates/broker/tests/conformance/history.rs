//! Pages of history, and its removal.

use fanwire_broker::{EngineError, HistoryOptions, HistoryQuery, NewPublication, ReadLimit, Since};
use fanwire_protocol::{Position, TopicName};

use crate::fixture::{Fixture, HISTORY, LONG, META_TTL, kept, offsets};

pub(crate) async fn a_limit_of_zero_asks_for_the_position_alone(fixture: Fixture) {
    let (topic, top) = seven_published(&fixture).await;
    for reverse in [false, true] {
        for since in [None, Some(Since { offset: 4, epoch: "" })] {
            let page = fixture.history(&topic, HistoryQuery { limit: 0.into(), since, reverse }).await;
            assert_eq!((page.top, page.publications.len()), (top, 0));
        }
    }
    let page = fixture.history(&fixture.topic("never used"), HistoryQuery::default()).await;
    assert_eq!((page.top.offset, page.publications.len()), (0, 0));
}

pub(crate) async fn pages_go_forward(fixture: Fixture) {
    let (topic, top) = seven_published(&fixture).await;
    let epoch = top.epoch.as_str();
    check(&fixture, &topic, None, 100, false, &[3, 4, 5, 6, 7]).await;
    check(&fixture, &topic, None, 2, false, &[3, 4]).await;
    check(&fixture, &topic, Some(Since { offset: 4, epoch }), 2, false, &[5, 6]).await;
    check(&fixture, &topic, Some(Since { offset: 6, epoch: "" }), 2, false, &[7]).await;
    check(&fixture, &topic, Some(Since { offset: 7, epoch }), 2, false, &[]).await;
}

pub(crate) async fn pages_go_backward(fixture: Fixture) {
    let (topic, top) = seven_published(&fixture).await;
    let epoch = top.epoch.as_str();
    check(&fixture, &topic, None, 100, true, &[7, 6, 5, 4, 3]).await;
    check(&fixture, &topic, None, 1, true, &[7]).await;
    check(&fixture, &topic, Some(Since { offset: 7, epoch }), 2, true, &[6, 5]).await;
    check(&fixture, &topic, Some(Since { offset: 4, epoch: "" }), 2, true, &[3]).await;
    check(&fixture, &topic, Some(Since { offset: 3, epoch }), 2, true, &[]).await;
}

pub(crate) async fn a_foreign_epoch_is_an_error(fixture: Fixture) {
    let (topic, _) = seven_published(&fixture).await;
    for (limit, reverse) in [(0, false), (10, false), (10, true)] {
        let query = HistoryQuery {
            limit: limit.into(),
            since: Some(Since { offset: 4, epoch: "abcdefgh" }),
            reverse,
        };
        let answer = fixture.engine.history(&topic, query, META_TTL).await;
        assert_eq!(answer, Err(EngineError::UnrecoverablePosition));
    }
}

pub(crate) async fn evicted_offsets_are_no_error(fixture: Fixture) {
    let (topic, top) = seven_published(&fixture).await;
    let epoch = top.epoch.as_str();
    check(&fixture, &topic, Some(Since { offset: 0, epoch }), 2, false, &[3, 4]).await;
    check(&fixture, &topic, Some(Since { offset: 1, epoch }), 100, false, &[3, 4, 5, 6, 7]).await;
    check(&fixture, &topic, Some(Since { offset: 2, epoch }), 2, true, &[]).await;
}

pub(crate) async fn positions_outside_the_stream_are_no_error(fixture: Fixture) {
    let (topic, _) = seven_published(&fixture).await;
    for offset in [9, u64::MAX] {
        check(&fixture, &topic, Some(Since { offset, epoch: "" }), 100, false, &[]).await;
        check(&fixture, &topic, Some(Since { offset, epoch: "" }), 2, true, &[7, 6]).await;
    }
    check(&fixture, &topic, Some(Since { offset: 0, epoch: "" }), 2, true, &[]).await;
}

pub(crate) async fn pages_end_at_their_bytes(fixture: Fixture) {
    let topic = fixture.topic("long");
    for _ in 0..5 {
        fixture.keep(&topic, &LONG).await;
    }
    // Each takes its data and some overhead. One always fits.
    for (publications, bytes, forward, backward, is_cut) in [
        (100, 5500, &[1, 2, 3, 4, 5][..], &[5, 4, 3, 2, 1][..], false),
        (100, 3500, &[1, 2, 3], &[5, 4, 3], true),
        (3, 3500, &[1, 2, 3], &[5, 4, 3], false),
        (100, 0, &[1], &[5], true),
        (1, 0, &[1], &[5], false),
        (0, 0, &[], &[], false),
    ] {
        let limit = ReadLimit { publications, bytes };
        for (reverse, expected) in [(false, forward), (true, backward)] {
            let page = fixture.history(&topic, HistoryQuery { limit, since: None, reverse }).await;
            assert_eq!(
                (offsets(&page.publications).as_slice(), page.is_cut),
                (expected, is_cut),
                "{limit:?}"
            );
        }
    }
    let since = Some(Since { offset: 4, epoch: "" });
    let limit = ReadLimit { publications: 100, bytes: 0 };
    let page = fixture.history(&topic, HistoryQuery { limit, since, reverse: false }).await;
    assert_eq!((offsets(&page.publications), page.is_cut), (vec![5], false));
    let page = fixture.history(&topic, HistoryQuery { limit, since, reverse: true }).await;
    assert_eq!((offsets(&page.publications), page.is_cut), (vec![3], true));
}

/// A reader that continues from the last offset of each page gets everything once.
pub(crate) async fn pages_that_are_cut_are_gone_on_from(fixture: Fixture) {
    let topic = fixture.topic("paged");
    let history = Some(HistoryOptions { size: 200, ..HISTORY });
    for number in 0..150_usize {
        let data = "x".repeat(number * 37 % 1000);
        fixture.publish(&topic, NewPublication { history, ..kept(&data) }).await;
    }
    for bytes in [0, 1000, 7000, 50_000] {
        let limit = ReadLimit { publications: 80, bytes };
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let query = HistoryQuery { limit, since: Some(Since { offset, epoch: "" }), reverse: false };
            let page = fixture.history(&topic, query).await;
            assert!(page.publications.len() <= 80 && page.top.offset == 150);
            let Some(last) = page.publications.last() else { break };
            offset = last.offset;
            assert!(page.is_cut || page.publications.len() == 80 || offset == 150);
            all.extend(offsets(&page.publications));
        }
        assert_eq!(all, (1..=150).collect::<Vec<_>>(), "{bytes}");
    }
}

pub(crate) async fn only_the_newest_are_kept(fixture: Fixture) {
    let topic = fixture.topic("t");
    for _ in 0..50 {
        fixture.keep(&topic, "data").await;
    }
    assert_eq!(fixture.kept_offsets(&topic).await, [46, 47, 48, 49, 50]);
}

pub(crate) async fn a_smaller_size_trims_at_once(fixture: Fixture) {
    let (topic, _) = seven_published(&fixture).await;
    let smaller = HistoryOptions { size: 2, ..HISTORY };
    fixture.publish(&topic, NewPublication { history: Some(smaller), ..kept("8") }).await;
    assert_eq!(fixture.kept_offsets(&topic).await, [7, 8]);
}

pub(crate) async fn removing_keeps_epoch_and_top(fixture: Fixture) {
    let (topic, top) = seven_published(&fixture).await;
    fixture.engine.remove_history(&topic).await.unwrap();
    check(&fixture, &topic, None, 100, false, &[]).await;
    assert_eq!(fixture.top(&topic).await, top);
    let next = fixture.keep(&topic, "8").await;
    assert_eq!(next, Position { offset: 8, ..top });
    check(&fixture, &topic, None, 100, false, &[8]).await;
}

pub(crate) async fn removing_what_was_never_there_is_no_error(fixture: Fixture) {
    let topic = fixture.topic("t");
    fixture.engine.remove_history(&topic).await.unwrap();
    assert_eq!(fixture.keep(&topic, "1").await.offset, 1);
}

/// Seven publications, of which 3 to 7 are stored.
async fn seven_published(fixture: &Fixture) -> (TopicName, Position) {
    let topic = fixture.topic("seven");
    for data in ["1", "2", "3", "4", "5", "6"] {
        fixture.keep(&topic, data).await;
    }
    let top = fixture.keep(&topic, "7").await;
    (topic, top)
}

/// Checks that the page holds exactly these offsets.
async fn check(
    fixture: &Fixture,
    topic: &TopicName,
    since: Option<Since<'_>>,
    limit: usize,
    reverse: bool,
    expected: &[u64],
) {
    let page = fixture.history(topic, HistoryQuery { limit: limit.into(), since, reverse }).await;
    assert_eq!(offsets(&page.publications), expected, "{since:?}, limit {limit}, reverse {reverse}");
    assert_eq!(page.top, fixture.top(topic).await);
}
