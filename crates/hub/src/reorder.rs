//! The order of a client's messages that come by several ways: each by an HTTP request of its own, over connections and
//! nodes of which any may be late.
//!
//! Clients number their requests one by one. A message that is ahead of its turn waits for the missing ones for a bounded
//! time, in bounded memory. One that comes again, since proxies and clients repeat requests that break off, is known by its
//! mark.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use bytes::Bytes;
use rustc_hash::FxHasher;

/// The messages of one client that wait for their turn.
#[derive(Debug)]
pub struct Reorder {
    /// The highest id of the requests that were taken.
    passed: u32,
    /// By `first`; of equal ones the older first.
    waiting: Vec<WaitingMessage>,
    bytes: usize,
    /// The marks of the last messages that came and have an id, the newest last.
    marks: VecDeque<u64>,
}

#[derive(Debug)]
struct WaitingMessage {
    /// 0 for a message that waits for no other.
    first: u32,
    data: Bytes,
    /// `NEVER` for a message that waits for no other, but until the client may ask more.
    due_millis: u64,
}

const NEVER: u64 = u64::MAX;

/// The turn of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// It is kept; see [`Reorder::ready`].
    Later,
    /// It came before: nothing is to be done.
    Repeated,
    /// It is not kept: too much waits.
    Full,
}

impl Reorder {
    /// The time that a message waits for an earlier one.
    pub const WAIT_MILLIS: u64 = 100;
    /// Messages that wait, of any number of requests each.
    pub const MESSAGES_MAX: usize = 64;
    /// Bytes of messages that wait. One message alone may have more.
    pub const BYTES_MAX: usize = 64 << 10;
    /// The last messages of a client that are known when they come again.
    pub const MARKS_MAX: usize = 64;

    /// Starts with a message whose turn it is.
    pub fn starting_with(data: &[u8]) -> Self {
        let (data, bytes) = (Bytes::copy_from_slice(data), data.len());
        Self {
            passed: 0,
            waiting: vec![WaitingMessage { first: 0, data, due_millis: NEVER }],
            bytes,
            marks: VecDeque::new(),
        }
    }

    /// Takes a message. `first` is the id of its first request that has one. While the client `is_held_up`, or others are
    /// ready, it waits, whatever its ids are. What waits is copied: a part of a longer buffer would keep all of it.
    pub fn take(&mut self, first: Option<u32>, data: &[u8], is_held_up: bool, now: u64) -> Turn {
        let mark = first.map(|first| mark(first, data));
        if mark.is_some_and(|mark| self.marks.contains(&mark)) {
            return Turn::Repeated;
        }
        let turn = self.turn(first, data, is_held_up, now);
        if let Some(mark) = mark.filter(|_| turn != Turn::Full) {
            if self.marks.len() == Self::MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back(mark);
        }
        turn
    }

    fn turn(&mut self, first: Option<u32>, data: &[u8], is_held_up: bool, now: u64) -> Turn {
        let is_ahead = first.is_some_and(|first| self.is_ahead(first));
        if !is_ahead && !is_held_up && !self.is_ready(now) {
            return Turn::Now;
        }
        let is_full = self.waiting.len() == Self::MESSAGES_MAX || self.bytes + data.len() > Self::BYTES_MAX;
        if is_full && !self.waiting.is_empty() {
            return Turn::Full;
        }
        let first = first.unwrap_or(0);
        let due_millis = if is_ahead { now + Self::WAIT_MILLIS } else { NEVER };
        let place = self.waiting.partition_point(|waiting| waiting.first <= first);
        self.waiting.insert(place, WaitingMessage { first, data: Bytes::copy_from_slice(data), due_millis });
        self.bytes += data.len();
        Turn::Later
    }

    /// Notes that the request of this id is taken.
    pub fn pass(&mut self, id: u32) {
        self.passed = self.passed.max(id);
    }

    /// Returns the next message whose turn it is. Its requests have to pass before it is asked again. Once the time of one
    /// is over, those before it follow without what is missing between them.
    pub fn ready(&mut self, now: u64) -> Option<Bytes> {
        if !self.is_ready(now) {
            return None;
        }
        let WaitingMessage { data, .. } = self.waiting.remove(0);
        self.bytes -= data.len();
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
        Some(data)
    }

    /// Returns true if there is a message whose turn it is.
    pub fn is_ready(&self, now: u64) -> bool {
        self.waiting.first().is_some_and(|next| !self.is_ahead(next.first) || self.deadline() <= now)
    }

    /// Returns the time at which the first message has waited long enough; `u64::MAX` if none waits for another.
    pub fn deadline(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.due_millis).min().unwrap_or(NEVER)
    }

    /// Returns the bytes of the messages that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_ahead(&self, first: u32) -> bool {
        first > self.passed.saturating_add(1)
    }
}

/// Tells messages of one client apart. A client that makes two alike harms itself alone.
fn mark(first: u32, data: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u32(first);
    hasher.write(data);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    /// One after connect, which had id 1.
    fn connected() -> Reorder {
        let mut order = Reorder::starting_with(&message("1"));
        assert_eq!(order.take(None, &message("pong"), false, 0), Turn::Later, "behind it");
        for expected in ["1", "pong"] {
            assert_eq!(order.ready(0), Some(message(expected)));
        }
        order.pass(1);
        order
    }

    #[test]
    fn a_gap_is_passed_when_its_time_is_over() {
        let mut order = connected();
        assert_eq!(order.take(Some(2), &message("2"), false, 0), Turn::Now);
        order.pass(2);
        assert_eq!(order.take(Some(6), &message("67"), false, 10), Turn::Later);
        assert_eq!(order.take(Some(4), &message("4"), false, 50), Turn::Later);
        assert_eq!((order.ready(109), order.deadline(), order.bytes()), (None, 110, 3));
        // The later one of the two is due, and nothing overtakes the one before it.
        assert_eq!(order.ready(110), Some(message("4")));
        order.pass(4);
        assert_eq!(order.ready(110), Some(message("67")));
        order.pass(6);
        order.pass(7);
        assert_eq!((order.ready(110), order.deadline(), order.bytes()), (None, u64::MAX, 0));
        // Late ones have lost their place, and are not lost.
        assert_eq!(order.take(Some(3), &message("3"), false, 200), Turn::Now);
        order.pass(3);
        assert_eq!(order.take(Some(8), &message("8"), false, 200), Turn::Now);
    }

    #[test]
    fn a_client_that_is_held_up_waits_without_a_time() {
        let mut order = connected();
        assert_eq!(order.take(Some(2), &message("2"), true, 0), Turn::Later);
        assert_eq!(order.take(None, &message("pong"), true, 0), Turn::Later);
        assert_eq!(order.deadline(), u64::MAX);
        assert_eq!(order.take(Some(3), &message("3"), true, 0), Turn::Later);
        assert_eq!(order.deadline(), 100);
        assert_eq!(order.take(None, &message("send"), false, 0), Turn::Later, "behind the others");
        for (expected, id) in [("pong", 0), ("send", 0), ("2", 2), ("3", 3)] {
            assert_eq!(order.ready(1), Some(message(expected)));
            order.pass(id);
        }
        assert_eq!(order.take(None, &message("pong"), false, 0), Turn::Now);
    }

    #[test]
    fn the_highest_id_is_the_end_of_counting() {
        let mut order = connected();
        order.pass(u32::MAX);
        for (id, text) in [(u32::MAX, "last"), (1, "first"), (u32::MAX, "again")] {
            assert_eq!(order.take(Some(id), &message(text), false, 0), Turn::Now);
            order.pass(id);
        }
    }

    #[test]
    fn the_bounds_hold_for_all_but_a_message_alone() {
        let mut order = connected();
        let long = Bytes::from(vec![0; Reorder::BYTES_MAX + 1]);
        assert_eq!(order.take(Some(3), &long, false, 0), Turn::Later);
        assert_eq!(order.take(Some(4), &message(""), false, 0), Turn::Full);
        assert_eq!(order.ready(100), Some(long));
        for id in 0..Reorder::MESSAGES_MAX as u32 {
            assert_eq!(order.take(Some(300 + id), &message(""), false, 200), Turn::Later);
        }
        assert_eq!(order.take(Some(400), &message(""), false, 200), Turn::Full);
        assert_eq!(order.take(None, &message(""), true, 200), Turn::Full);
        assert_eq!(order.take(None, &message(""), false, 200), Turn::Now);
    }

    #[test]
    fn a_message_that_comes_again_is_known_among_the_last_ones() {
        let mut order = connected();
        assert_eq!(order.take(Some(3), &message("3"), false, 0), Turn::Later);
        assert_eq!(order.take(Some(3), &message("3"), false, 0), Turn::Repeated, "while it waits");
        for turn in [Turn::Now, Turn::Repeated] {
            assert_eq!(order.take(Some(2), &message("2"), false, 0), turn);
        }
        order.pass(2);
        assert_eq!(order.ready(0), Some(message("3")));
        order.pass(3);
        assert_eq!(order.take(Some(3), &message("other"), false, 0), Turn::Now, "of the same id");
        for _ in 0..2 {
            assert_eq!(order.take(None, &message("pong"), false, 0), Turn::Now, "without an id");
        }
        for id in 4..4 + Reorder::MARKS_MAX as u32 {
            assert_eq!(order.take(Some(3), &message("other"), false, 0), Turn::Repeated, "before {id}");
            assert_eq!(order.take(Some(id), &message("next"), false, 0), Turn::Now);
            order.pass(id);
        }
        assert_eq!(order.take(Some(3), &message("other"), false, 0), Turn::Now, "long ago");
        assert_eq!(order.marks.len(), Reorder::MARKS_MAX);
        let full = message(&"x".repeat(Reorder::BYTES_MAX));
        assert_eq!(order.take(Some(900), &message("waits"), false, 0), Turn::Later);
        for _ in 0..2 {
            assert_eq!(order.take(Some(901), &full, false, 0), Turn::Full, "was not taken");
        }
    }

    #[test]
    fn what_waits_keeps_no_more_than_is_counted() {
        let body = Bytes::from(vec![0; Reorder::BYTES_MAX]);
        let mut order = Reorder::starting_with(&body.slice(..10));
        for id in 3..13 {
            assert_eq!(order.take(Some(id), &body.slice(..10), false, 0), Turn::Later);
        }
        assert_eq!(order.bytes(), 110);
        assert!(body.is_unique(), "the body is free");
    }

    /// Messages of so many requests each, and the order in which they come.
    fn arrivals() -> impl Strategy<Value = (Vec<u32>, Vec<usize>)> {
        prop::collection::vec(1..=5_u32, 1..=Reorder::MESSAGES_MAX).prop_flat_map(|sizes| {
            let places: Vec<usize> = (0..sizes.len()).collect();
            (Just(sizes), Just(places).prop_shuffle())
        })
    }

    proptest! {
        #[test]
        fn any_permutation_within_the_bounds_comes_out_in_order((sizes, order) in arrivals(), held_up in 2..8_usize) {
            let mut last = 1;
            let firsts: Vec<u32> = sizes.iter().map(|size| { last += size; last + 1 - size }).collect();
            let place_of = |data: &Bytes| str::from_utf8(data).unwrap().parse::<usize>().unwrap();
            let serve = |reorder: &mut Reorder, served: &mut Vec<usize>, data: &Bytes| {
                let place = place_of(data);
                (0..sizes[place]).for_each(|request| reorder.pass(firsts[place] + request));
                served.push(place);
            };
            let mut reorder = connected();
            let mut served = Vec::new();
            for (time, place) in order.into_iter().enumerate() {
                let data = message(&place.to_string());
                let is_held_up = time.is_multiple_of(held_up);
                match reorder.take(Some(firsts[place]), &data, is_held_up, time as u64) {
                    Turn::Now => serve(&mut reorder, &mut served, &data),
                    Turn::Later => {}
                    Turn::Repeated | Turn::Full => prop_assert!(false, "so many fit, and no two are alike"),
                }
                while !is_held_up && let Some(data) = reorder.ready(time as u64) {
                    serve(&mut reorder, &mut served, &data);
                }
            }
            while let Some(data) = reorder.ready(Reorder::WAIT_MILLIS - 1) {
                serve(&mut reorder, &mut served, &data);
            }
            prop_assert_eq!(served, (0..firsts.len()).collect::<Vec<_>>());
            prop_assert_eq!((reorder.bytes, reorder.deadline()), (0, u64::MAX));
        }

        /// Whatever comes, and whenever: each message is served once or refused, what waits is bounded, and nothing waits
        /// longer than its time.
        #[test]
        fn nothing_is_lost_or_served_twice(
            steps in prop::collection::vec((0..12_u32, 0..9000_usize, any::<bool>(), 0..60_u64), 1..100),
        ) {
            let mut reorder = connected();
            let (mut now, mut refused) = (0, 0);
            let mut served = Vec::new();
            let count = steps.len();
            for (number, (first, bytes, is_held_up, pause)) in steps.into_iter().enumerate() {
                now += pause;
                let mut data = vec![0; bytes + 8];
                data[..4].copy_from_slice(&(number as u32).to_be_bytes());
                data[4..8].copy_from_slice(&first.to_be_bytes());
                let data = Bytes::from(data);
                match reorder.take(Some(first).filter(|first| *first > 0), &data, is_held_up, now) {
                    Turn::Now => {
                        reorder.pass(first);
                        served.push(data);
                    }
                    Turn::Later => {}
                    Turn::Repeated => prop_assert!(false, "no two are alike"),
                    Turn::Full => refused += 1,
                }
                prop_assert!(reorder.waiting.len() <= 1 || reorder.bytes <= Reorder::BYTES_MAX);
                prop_assert!(reorder.waiting.len() <= Reorder::MESSAGES_MAX);
                prop_assert_eq!(reorder.bytes, reorder.waiting.iter().map(|waiting| waiting.data.len()).sum::<usize>());
                let due = reorder.waiting.iter().map(|waiting| waiting.due_millis).min();
                prop_assert_eq!(reorder.deadline(), due.unwrap_or(u64::MAX));
                if !is_held_up {
                    while let Some(data) = reorder.ready(now) {
                        reorder.pass(u32::from_be_bytes(data[4..8].try_into().unwrap()));
                        served.push(data);
                    }
                    prop_assert!(reorder.deadline() > now);
                }
            }
            while let Some(data) = reorder.ready(now + Reorder::WAIT_MILLIS) {
                served.push(data);
            }
            prop_assert!(reorder.waiting.is_empty());
            prop_assert_eq!(served.len() + refused, count);
            served.sort();
            served.dedup();
            prop_assert_eq!(served.len() + refused, count);
        }
    }
}
