use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn epoch(number: u64) -> Epoch {
    Epoch::parse(format!("epoch{number:03}").as_bytes()).unwrap()
}

fn publication(offset: u64) -> Arc<Publication> {
    let data = bytes::Bytes::from_static(b"data");
    Arc::new(Publication { data, offset, ..Publication::default() })
}

fn at(number: u64, offset: u64) -> Position {
    Position { epoch: epoch(number), offset }
}

fn answer(number: u64, top: u64, complete: bool, offsets: impl IntoIterator<Item = u64>) -> Recovery {
    Recovery {
        top: at(number, top),
        complete,
        is_too_long: false,
        publications: offsets.into_iter().map(publication).collect(),
    }
}

/// The first of what came after a position, where all up to `top` can be had.
fn part(number: u64, top: u64, offsets: impl IntoIterator<Item = u64>) -> Recovery {
    Recovery { is_too_long: true, ..answer(number, top, false, offsets) }
}

fn offsets(repaired: &Repaired) -> Vec<u64> {
    repaired.deliver.iter().map(|stamped| stamped.publication.offset).collect()
}

fn repair(follow: &mut Follow, asked: StreamQuestion, answer: Recovery) -> Repaired {
    follow.repair(asked, answer, Instant::now())
}

fn following(number: u64, offset: u64) -> Follow {
    let mut follow = Follow::default();
    follow.begin(at(number, offset));
    follow
}

#[test]
fn what_follows_is_delivered_once() {
    let mut follow = following(1, 4);
    assert_eq!(follow.take(epoch(1), &publication(5)), NextStep::Deliver);
    assert_eq!(follow.take(epoch(1), &publication(5)), NextStep::Repeated);
    assert_eq!(follow.take(epoch(1), &publication(2)), NextStep::Repeated);
    assert_eq!(follow.position(), Some(at(1, 5)));
    assert!(!follow.is_dirty());
}

#[test]
fn a_hole_is_filled() {
    let mut follow = following(1, 4);
    assert_eq!(follow.take(epoch(1), &publication(7)), NextStep::Early);
    assert!(follow.is_dirty());
    let asked = follow.ask().unwrap();
    assert_eq!(asked.since, at(1, 4));
    assert_eq!(follow.take(epoch(1), &publication(8)), NextStep::Early);
    let repaired = repair(&mut follow, asked, answer(1, 7, true, [5, 6, 7]));
    assert_eq!((repaired.lost, offsets(&repaired)), (false, vec![5, 6, 7, 8]));
    assert_eq!(follow.position(), Some(at(1, 8)));
}

#[test]
fn a_large_hole_is_filled_part_by_part() {
    let mut follow = following(1, 4);
    assert_eq!(follow.take(epoch(1), &publication(9)), NextStep::Early);
    let asked = follow.ask().unwrap();
    let repaired = repair(&mut follow, asked, part(1, 9, [5, 6]));
    assert_eq!((repaired.lost, repaired.is_part, offsets(&repaired)), (false, true, vec![5, 6]));
    assert!(follow.due().unwrap() <= Instant::now());
    // What follows the part is delivered at once, and what comes too early waits.
    assert_eq!(follow.take(epoch(1), &publication(7)), NextStep::Deliver);
    assert_eq!(follow.take(epoch(1), &publication(10)), NextStep::Early);
    let asked = follow.ask().unwrap();
    assert_eq!(asked.since, at(1, 7));
    let repaired = repair(&mut follow, asked, part(1, 10, [8]));
    // The rest of it had arrived.
    assert_eq!((repaired.lost, repaired.is_part, offsets(&repaired)), (false, false, vec![8, 9, 10]));
    assert!(!follow.is_dirty());
}

#[test]
fn a_hole_of_which_the_rest_is_gone_is_a_loss() {
    let mut follow = following(1, 4);
    follow.mark_dirty();
    let asked = follow.ask().unwrap();
    assert!(repair(&mut follow, asked, part(1, 9, [5, 6])).is_part);
    let asked = follow.ask().unwrap();
    let repaired = repair(&mut follow, asked, answer(1, 20, false, []));
    assert_eq!((repaired.lost, offsets(&repaired)), (true, vec![]));
    assert_eq!(follow.position(), Some(at(1, 20)));
}

#[test]
fn a_part_that_others_have_delivered_is_gone_on_from() {
    let mut follow = following(1, 4);
    follow.mark_dirty();
    let (first, second) = (follow.ask().unwrap(), follow.ask().unwrap());
    assert!(repair(&mut follow, first, part(1, 9, [5, 6])).is_part);
    let repaired = repair(&mut follow, second, part(1, 9, [5, 6]));
    assert_eq!((repaired.is_part, offsets(&repaired)), (true, vec![]));
    assert!(!follow.pace.is_slow());
}

#[test]
fn parts_that_lead_nowhere_are_asked_for_later_and_later() {
    let mut follow = following(1, 4);
    let now = Instant::now();
    follow.mark_dirty();
    for _ in 0..3 {
        let asked = follow.ask().unwrap();
        assert!(!follow.repair(asked, part(1, 9, []), now).is_part);
    }
    assert!(follow.due().unwrap() > now);
}

#[test]
fn what_arrived_meanwhile_is_not_delivered_again() {
    let mut follow = following(1, 4);
    follow.mark_dirty();
    let asked = follow.ask().unwrap();
    assert_eq!(follow.take(epoch(1), &publication(5)), NextStep::Deliver);
    let repaired = repair(&mut follow, asked, answer(1, 6, true, [5, 6]));
    assert_eq!((repaired.lost, offsets(&repaired)), (false, vec![6]));
}

#[test]
fn a_loss_is_said_and_what_comes_next_is_delivered() {
    let mut follow = following(1, 4);
    assert_eq!(follow.take(epoch(1), &publication(9)), NextStep::Early);
    let asked = follow.ask().unwrap();
    let repaired = repair(&mut follow, asked, answer(1, 9, false, []));
    assert_eq!((repaired.lost, offsets(&repaired)), (true, vec![9]));
    assert_eq!(follow.position(), Some(at(1, 9)));
}

#[test]
fn another_epoch_is_a_loss() {
    let mut follow = following(1, 4);
    assert_eq!(follow.take(epoch(2), &publication(1)), NextStep::Early);
    let asked = follow.ask().unwrap();
    let repaired = repair(&mut follow, asked, answer(2, 1, false, []));
    assert_eq!((repaired.lost, offsets(&repaired)), (true, vec![1]));
    assert_eq!(follow.position(), Some(at(2, 1)));
}

#[test]
fn offsets_that_jumped_are_followed_when_the_stream_says_so() {
    let mut follow = following(1, 4);
    follow.mark_dirty();
    assert_eq!(follow.take(epoch(1), &publication(1_048_581)), NextStep::Early);
    let asked = follow.ask().unwrap();
    let repaired = repair(&mut follow, asked, answer(1, 1_048_581, true, [1_048_581]));
    assert_eq!((repaired.lost, offsets(&repaired)), (false, vec![1_048_581]));
}

#[test]
fn too_much_at_once_is_asked_for_again() {
    let mut follow = following(1, 0);
    let large = |offset| {
        let data = vec![0; Follow::WAITING_BYTES_MAX / 2 - Follow::WAITING_BYTES_EACH].into();
        Arc::new(Publication { data, offset, ..Publication::default() })
    };
    follow.take(epoch(1), &large(2));
    let asked = follow.ask().unwrap();
    for offset in 3..10 {
        assert_eq!(follow.take(epoch(1), &large(offset)), NextStep::Early);
    }
    assert!(follow.waiting_bytes <= Follow::WAITING_BYTES_MAX);
    let repaired = repair(&mut follow, asked, answer(1, 2, true, [1, 2]));
    assert_eq!(offsets(&repaired), [1, 2, 3]);
    assert!(follow.is_dirty());
}

#[test]
fn a_dirty_stream_stays_dirty_when_it_begins() {
    let mut follow = Follow::default();
    follow.mark_dirty();
    assert_eq!(follow.ask(), None);
    follow.begin(at(1, 3));
    assert!(follow.is_dirty());
    assert_eq!(follow.ask().map(|asked| asked.since), Some(at(1, 3)));
    assert!(!follow.is_dirty());
}

#[test]
fn an_answer_that_comes_too_late_to_matter_is_asked_for_again() {
    let mut follow = following(1, 4);
    follow.mark_dirty();
    let asked = follow.ask().unwrap();
    assert_eq!(follow.take(epoch(1), &publication(5)), NextStep::Deliver);
    assert!(!repair(&mut follow, asked, answer(1, 5, false, [])).lost);
    assert!(follow.is_dirty());
    let asked = follow.ask().unwrap();
    assert!(repair(&mut follow, asked, answer(2, 0, false, [])).lost);
    // Of two that asked at the same time, the second learns nothing from the old stream's answer.
    assert_eq!(repair(&mut follow, asked, answer(1, 5, true, [])).deliver, []);
    assert_eq!(follow.position(), Some(at(2, 0)));
}

#[test]
fn what_the_stream_does_not_know_is_dropped_and_counted() {
    // Of another stream, and of this one above its top.
    for (number, offset) in [(2, 1), (2, 5), (1, 99)] {
        let mut follow = following(1, 4);
        assert_eq!(follow.take(epoch(number), &publication(offset)), NextStep::Early);
        let asked = follow.ask().unwrap();
        let repaired = repair(&mut follow, asked, answer(1, 4, true, []));
        assert_eq!(repaired, Repaired { foreign: 1, ..Repaired::default() });
        assert_eq!((follow.due(), follow.waiting_bytes, follow.waiting.len()), (None, 0, 0));
        assert_eq!(follow.take(epoch(1), &publication(5)), NextStep::Deliver);
    }
}

#[test]
fn what_arrives_after_the_question_is_asked_for_again() {
    for (number, offset) in [(2, 1), (1, 9)] {
        let mut follow = following(1, 4);
        follow.mark_dirty();
        let asked = follow.ask().unwrap();
        assert_eq!(follow.take(epoch(number), &publication(offset)), NextStep::Early);
        let repaired = repair(&mut follow, asked, answer(1, 4, true, []));
        assert_eq!(repaired, Repaired::default());
        let asked = follow.ask().unwrap();
        let repaired = repair(&mut follow, asked, answer(number, offset, number == 1, 5..=offset));
        assert_eq!(offsets(&repaired).last(), Some(&offset));
    }
}

#[test]
fn a_loss_leaves_the_position_within_the_stream() {
    let mut follow = following(1, 4);
    let asked = follow.ask().unwrap();
    assert_eq!(follow.take(epoch(1), &publication(1 << 40)), NextStep::Early);
    assert!(repair(&mut follow, asked, answer(1, 9, false, [])).lost);
    assert_eq!(follow.position(), Some(at(1, 9)));
    assert!(follow.is_dirty());
}

#[test]
fn beginning_elsewhere_than_where_one_is_makes_it_dirty() {
    let mut follow = Follow::default();
    assert_eq!(follow.take(epoch(2), &publication(7)), NextStep::Deliver);
    follow.begin(at(1, 4));
    assert!(follow.is_dirty());
    let asked = follow.ask().unwrap();
    assert!(repair(&mut follow, asked, answer(1, 4, false, [])).lost);
    assert_eq!(follow.position(), Some(at(1, 4)));
}

#[test]
fn empty_publications_take_room_too() {
    let mut follow = following(1, 0);
    let empty =
        |offset| Arc::new(Publication { data: bytes::Bytes::new(), offset, ..Publication::default() });
    for offset in 2..100_000 {
        follow.take(epoch(1), &empty(offset));
    }
    assert!(follow.waiting.len() <= Follow::WAITING_BYTES_MAX / Follow::WAITING_BYTES_EACH);
}

#[test]
fn publications_without_room_are_counted_if_all_of_them_are_above_the_top() {
    for (stream_top, counted) in [(0, 99_999), (1_000, 99_000), (60_000, 0)] {
        let mut follow = following(1, 0);
        for offset in 2..=100_000 {
            follow.take(epoch(1), &publication(offset));
        }
        let asked = follow.ask().unwrap();
        let repaired = repair(&mut follow, asked, answer(1, stream_top, true, 1..=stream_top));
        let waited = (Follow::WAITING_BYTES_MAX / (Follow::WAITING_BYTES_EACH + "data".len())) as u64;
        assert!((1_000..60_000).contains(&waited));
        assert_eq!(repaired.foreign, counted);
    }
}

/// Asks as soon as it is due, for `seconds` in which something arrives every 10 ms. Returns how many times it asked.
fn asked_in(seconds: u64, mut arrive: impl FnMut(&mut Follow, u64)) -> u64 {
    let mut follow = following(1, 4);
    let begun = Instant::now();
    let mut asked_times = 0;
    for tick in 0..seconds * 100 {
        let now = begun + Duration::from_millis(10 * tick);
        arrive(&mut follow, tick);
        while follow.due().is_some_and(|due| due <= now) {
            let asked = follow.ask().unwrap();
            asked_times += 1;
            follow.repair(asked, answer(1, 4, true, []), now);
        }
    }
    assert!(follow.waiting_bytes <= 4096, "foreign publications are not kept");
    asked_times
}

#[test]
fn nothing_that_arrives_makes_a_node_ask_without_end() {
    let foreign = |follow: &mut Follow, tick| _ = follow.take(epoch(2), &publication(tick + 1));
    let asked = asked_in(60, foreign);
    assert!((4..=20).contains(&asked), "asked {asked} times because of one other stream");
    let many = |follow: &mut Follow, tick| _ = follow.take(epoch(2 + tick % 900), &publication(1));
    let asked = asked_in(60, many);
    assert!((4..=20).contains(&asked), "asked {asked} times because of many other streams");
    let mark = |follow: &mut Follow, _| follow.mark_dirty();
    let asked = asked_in(60, mark);
    assert!((50..=75).contains(&asked), "asked {asked} times because something may be missing");
}

#[test]
fn a_stream_that_has_what_is_missing_is_asked_at_once() {
    let mut follow = following(1, 0);
    let now = Instant::now();
    for offset in (2..40).step_by(2) {
        follow.take(epoch(1), &publication(offset));
        assert!(follow.due().unwrap() <= now.max(Instant::now()));
        let asked = follow.ask().unwrap();
        follow.repair(asked, answer(1, offset, true, [offset - 1, offset]), now);
        assert_eq!(follow.position(), Some(at(1, offset)));
    }
}

#[test]
fn quiet_ends_the_pause() {
    let mut follow = following(1, 4);
    let begun = Instant::now();
    for second in 0..20 {
        follow.take(epoch(2), &publication(1));
        let asked = follow.ask().unwrap();
        follow.repair(asked, answer(1, 4, true, []), begun + Duration::from_secs(2 * second));
        assert!(!follow.pace.is_slow());
    }
}

proptest! {
    /// A stream of which any part arrives, in any order, is delivered whole, in order and once, as long as the
    /// stream answers.
    #[test]
    fn whatever_arrives_all_is_delivered(
        arrivals in prop::collection::vec((1..60_u64, any::<bool>()), 0..120),
        part_max in 1..30_u64,
    ) {
        let after = |since: u64, top: u64| match since + part_max {
            last if last < top => part(1, top, since + 1..=last),
            _ => answer(1, top, true, since + 1..=top),
        };
        let mut follow = following(1, 0);
        let mut delivered = Vec::new();
        let mut top = 0;
        for (offset, asks) in arrivals {
            top = top.max(offset);
            if follow.take(epoch(1), &publication(offset)) == NextStep::Deliver {
                delivered.push(offset);
            }
            if asks && follow.is_dirty() {
                let asked = follow.ask().unwrap();
                delivered.extend(offsets(&repair(&mut follow, asked, after(asked.since.offset, top))));
            }
        }
        follow.mark_dirty();
        while follow.is_dirty() {
            let asked = follow.ask().unwrap();
            delivered.extend(offsets(&repair(&mut follow, asked, after(asked.since.offset, top))));
        }
        prop_assert_eq!(delivered, (1..=top).collect::<Vec<_>>());
    }
}
