//! One timer wheel for all connections of a shard.
//!
//! A connection has one entry: the earliest moment at which it wants to be looked at. Moving a deadline leaves
//! the old entry behind; the owner recognises it as stale when it comes up. A deadline beyond the wheel's
//! horizon comes up early and is entered again.

/// Ticks since the wheel began.
pub type Tick = u32;

/// Which connection an entry is for, and at which tick it was meant to come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub connection: u32,
    pub due: Tick,
}

#[derive(Debug)]
pub struct Wheel {
    slots: Box<[Vec<Entry>]>,
    now: Tick,
}

impl Wheel {
    /// The wheel's resolution: nothing it times needs to be finer.
    pub const TICK_MILLIS: u64 = 100;
    const SLOTS: u32 = 512;

    pub fn new() -> Self {
        Self { slots: (0..Self::SLOTS).map(|_| Vec::new()).collect(), now: 0 }
    }

    /// Enters a connection and says at which tick it will come up: never before `millis`, unless that is
    /// beyond the horizon.
    pub fn enter(&mut self, connection: u32, millis: u64) -> Tick {
        let tick = Tick::try_from(millis.div_ceil(Self::TICK_MILLIS)).unwrap_or(Tick::MAX);
        let due = tick.clamp(self.now + 1, self.now + Self::SLOTS - 1);
        self.slots[(due % Self::SLOTS) as usize].push(Entry { connection, due });
        due
    }

    /// Moves on towards `millis`, by one tick at most, and takes what is due then. `None` when it is there.
    pub fn advance(&mut self, millis: u64) -> Option<Vec<Entry>> {
        if u64::from(self.now) >= millis / Self::TICK_MILLIS {
            return None;
        }
        self.now += 1;
        Some(std::mem::take(&mut self.slots[(self.now % Self::SLOTS) as usize]))
    }

    /// When the next tick ends, in milliseconds since the wheel began.
    pub fn next_tick_millis(&self) -> u64 {
        u64::from(self.now + 1) * Self::TICK_MILLIS
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_come_up_at_their_tick_and_never_before() {
        let mut wheel = Wheel::new();
        for (connection, millis) in [(1, 250), (2, 300), (3, 1), (4, 10_000_000)] {
            wheel.enter(connection, millis);
        }
        let mut seen = Vec::new();
        while let Some(entries) = wheel.advance(60_000) {
            seen.extend(entries.iter().map(|entry| (entry.connection, entry.due)));
        }
        assert_eq!(seen, [(3, 1), (1, 3), (2, 3), (4, 511)]);
    }

    proptest! {
        /// Every entry comes up once, at the tick that was said, which is no later than it has to be.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0..120_000_u64, 0..20_000_u64), 1..60)) {
            let mut wheel = Wheel::new();
            let mut expected = Vec::new();
            let mut seen = Vec::new();
            let mut millis = 0;
            let mut run_to = |wheel: &mut Wheel, millis| {
                while let Some(entries) = wheel.advance(millis) {
                    assert!(entries.iter().all(|entry| entry.due == wheel.now));
                    seen.extend(entries.iter().map(|entry| (entry.connection, entry.due)));
                }
                assert!(millis < wheel.next_tick_millis() && wheel.next_tick_millis() <= millis + Wheel::TICK_MILLIS);
            };
            for (connection, (delay, pause)) in (0..).zip(steps) {
                let due = wheel.enter(connection, millis + delay);
                let horizon = wheel.now + Wheel::SLOTS - 1;
                prop_assert!(due > wheel.now && due <= horizon);
                let at = u64::from(due) * Wheel::TICK_MILLIS;
                prop_assert!(at >= millis + delay || due == horizon);
                prop_assert!(at < millis + delay + Wheel::TICK_MILLIS || due == wheel.now + 1);
                expected.push((connection, due));
                millis += pause;
                run_to(&mut wheel, millis);
            }
            run_to(&mut wheel, millis + 60_000);
            seen.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }
}
