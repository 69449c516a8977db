//! One timer wheel for all connections of a shard.
//!
//! A connection has one entry that counts: the earliest moment at which it wants to be looked at. Moving a deadline
//! forward leaves an old entry behind, which is passed over when it comes up. The entry of a connection that has gone
//! serves the next one in its slot, so that coming and going does not fill the wheel; it may come up too early then,
//! as does one whose deadline is beyond the wheel's horizon, and whoever is looked at too early is entered again.

/// Ticks since the wheel began.
type Tick = u32;

#[derive(Debug)]
pub struct Wheel {
    /// Connections, by the tick at which they come up.
    slots: Box<[Vec<u32>]>,
    /// The tick of the entry that counts, by connection; 0: it has none.
    due: Vec<Tick>,
    now: Tick,
}

impl Wheel {
    /// The wheel's resolution: nothing it times needs to be finer.
    pub const TICK_MILLIS: u64 = 100;
    const SLOTS: u32 = 512;

    pub fn new() -> Self {
        Self { slots: (0..Self::SLOTS).map(|_| Vec::new()).collect(), due: Vec::new(), now: 0 }
    }

    /// Makes sure that a connection comes up at `millis`, or soon after. It may come up earlier.
    pub fn enter(&mut self, connection: u32, millis: u64) {
        let tick = Tick::try_from(millis.div_ceil(Self::TICK_MILLIS)).unwrap_or(Tick::MAX);
        let due = tick.clamp(self.now + 1, self.now + Self::SLOTS - 1);
        let place = connection as usize;
        if self.due.len() <= place {
            self.due.resize(place + 1, 0);
        }
        if self.due[place] == 0 || due < self.due[place] {
            self.due[place] = due;
            self.slots[(due % Self::SLOTS) as usize].push(connection);
        }
    }

    /// Moves on towards `millis`, by one tick at most, and takes the connections that come up then. `None` when it is
    /// there.
    pub fn advance(&mut self, millis: u64) -> Option<Vec<u32>> {
        if u64::from(self.now) >= millis / Self::TICK_MILLIS {
            return None;
        }
        self.now += 1;
        let mut connections = std::mem::take(&mut self.slots[(self.now % Self::SLOTS) as usize]);
        connections.retain(|connection| {
            let due = &mut self.due[*connection as usize];
            let counts = *due == self.now;
            if counts {
                *due = 0;
            }
            counts
        });
        Some(connections)
    }

    /// Returns the end of the next tick, in milliseconds since the wheel began.
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
    fn connections_come_up_at_their_tick_and_never_before() {
        let mut wheel = Wheel::new();
        for (connection, millis) in [(1, 250), (2, 300), (3, 1), (4, 10_000_000), (1, 900), (2, 100)] {
            wheel.enter(connection, millis);
        }
        let mut seen = Vec::new();
        while let Some(connections) = wheel.advance(60_000) {
            seen.extend(connections.iter().map(|connection| (*connection, wheel.now)));
        }
        assert_eq!(seen, [(3, 1), (2, 1), (1, 3), (4, 511)]);
    }

    #[test]
    fn coming_and_going_does_not_fill_the_wheel() {
        let mut wheel = Wheel::new();
        for millis in 0..10_000 {
            // One connection after the other in two slots, each with a deadline far away.
            wheel.enter((millis % 2) as u32, millis + 15_000);
            while wheel.advance(millis).is_some() {}
        }
        assert_eq!(wheel.slots.iter().map(Vec::len).sum::<usize>(), 2);
    }

    proptest! {
        /// Against the earliest deadline of each connection: it comes up then, or soon after, and once.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0..8_u32, 0..20_000_u64, 0..20_000_u64), 1..60)) {
            let mut wheel = Wheel::new();
            let mut wanted = [None; 8];
            let mut millis = 0;
            let run_to = |wheel: &mut Wheel, wanted: &mut [Option<u64>; 8], millis| {
                while let Some(connections) = wheel.advance(millis) {
                    for connection in connections {
                        let deadline = wanted[connection as usize].take().expect("it comes up once");
                        let at = u64::from(wheel.now) * Wheel::TICK_MILLIS;
                        assert!(at >= deadline && at < deadline + 2 * Wheel::TICK_MILLIS, "{at} for {deadline}");
                    }
                }
                assert!(millis < wheel.next_tick_millis() && wheel.next_tick_millis() <= millis + Wheel::TICK_MILLIS);
            };
            for (connection, delay, pause) in steps {
                wheel.enter(connection, millis + delay);
                let wanted_by_it = &mut wanted[connection as usize];
                *wanted_by_it = Some(wanted_by_it.map_or(millis + delay, |earlier: u64| earlier.min(millis + delay)));
                millis += pause;
                run_to(&mut wheel, &mut wanted, millis);
            }
            run_to(&mut wheel, &mut wanted, millis + 60_000);
            prop_assert_eq!(wanted, [None; 8]);
        }
    }
}
