//! The order in which a shard closes its connections while the node drains: evenly over a window and at random, so that
//! no moment and no topic has more clients that come back than another.

use std::time::Duration;

use fanwire_hub::effect::ConnectionKey;
use rand::Rng;
use rand::seq::SliceRandom;

#[derive(Debug)]
pub(super) struct DrainSchedule {
    /// In random order. The last is closed next.
    waiting: Vec<ConnectionKey>,
    /// The time at which it is closed.
    next: Duration,
    end: Duration,
}

impl DrainSchedule {
    /// The last connection is closed when the window ends.
    pub(super) fn new(mut waiting: Vec<ConnectionKey>, now: Duration, window: Duration) -> Self {
        waiting.shuffle(&mut rand::rng());
        let mut schedule = Self { waiting, next: now, end: now + window };
        schedule.next += schedule.pause();
        schedule
    }

    /// Adds a connection that was opened after the drain began.
    pub(super) fn add(&mut self, connection: ConnectionKey) {
        self.waiting.push(connection);
        let last = self.waiting.len() - 1;
        self.waiting.swap(rand::rng().random_range(0..=last), last);
    }

    /// Returns a connection whose time has come. Call it until there is none.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<ConnectionKey> {
        if now < self.next {
            return None;
        }
        let pause = self.pause();
        let connection = self.waiting.pop()?;
        self.next += pause;
        Some(connection)
    }

    /// The time between two closings after `next`, so that the remaining connections fill the remaining time.
    fn pause(&self) -> Duration {
        let left = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).max(1);
        self.end.saturating_sub(self.next) / left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn keys(slots: std::ops::Range<u32>) -> Vec<ConnectionKey> {
        slots.map(|slot| ConnectionKey { slot, generation: 1 }).collect()
    }

    /// Returns the number of connections due in each step of the window, and all that were due.
    fn run(schedule: &mut DrainSchedule, steps: u32, step: Duration) -> (Vec<usize>, Vec<ConnectionKey>) {
        let mut all = Vec::new();
        let counts = (1..=steps)
            .map(|number| {
                let before = all.len();
                all.extend(std::iter::from_fn(|| schedule.take_due(START + step * number)));
                all.len() - before
            })
            .collect();
        (counts, all)
    }

    #[test]
    fn a_window_of_nothing_sends_all_away_at_once() {
        let mut schedule = DrainSchedule::new(keys(0..1000), START, Duration::ZERO);
        assert_eq!(std::iter::from_fn(|| schedule.take_due(START)).count(), 1000);
        schedule.add(keys(1000..1001)[0]);
        assert!(schedule.take_due(START).is_some(), "nobody is kept after the window");
    }

    #[test]
    fn nobody_goes_first_because_of_its_place() {
        let order = |_| {
            run(
                &mut DrainSchedule::new(keys(0..100), START, Duration::from_secs(1)),
                10,
                Duration::from_millis(100),
            )
            .1
        };
        let orders: Vec<_> = (0..2).map(order).collect();
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[0], keys(0..100));
    }

    #[test]
    fn those_who_come_later_share_the_time_that_is_left() {
        let mut schedule = DrainSchedule::new(keys(0..50), START, Duration::from_secs(10));
        let half = Duration::from_secs(5);
        assert_eq!(std::iter::from_fn(|| schedule.take_due(START + half)).count(), 25);
        for key in keys(50..75) {
            schedule.add(key);
        }
        let three_quarters = std::iter::from_fn(|| schedule.take_due(START + half * 3 / 2)).count();
        assert!((24..=26).contains(&three_quarters), "{three_quarters} of 50");
        assert_eq!(std::iter::from_fn(|| schedule.take_due(START + half * 2)).count(), 50 - three_quarters);
    }

    proptest! {
        /// Each step of the window gets its share, to less than two, and everybody goes once.
        #[test]
        fn departures_are_even(count in 1..5000_u32, steps in 1..200_u32, millis in 1..60_000_u64) {
            let step = Duration::from_millis(millis);
            let mut schedule = DrainSchedule::new(keys(0..count), START, step * steps);
            let (counts, mut all) = run(&mut schedule, steps, step);
            let share = f64::from(count) / f64::from(steps);
            prop_assert!(counts.iter().all(|&due| (due as f64 - share).abs() < 2.0), "{:?}", counts);
            all.sort_unstable_by_key(|key| key.slot);
            prop_assert_eq!(all, keys(0..count));
            prop_assert_eq!(schedule.take_due(START + step * (steps + 1)), None);
        }
    }
}
