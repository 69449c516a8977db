//! The circuit breaker of a hook: a backend that fails is not called for a while, and what would call it is answered at
//! once.

use std::time::{Duration, Instant};

/// The span in which calls are compared with failures.
const WINDOW: Duration = Duration::from_secs(10);

/// Fewer calls say nothing about a backend.
const CALLS_MIN: u32 = 20;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The part of a pause that differs from node to node, so that nodes do not try again together.
const JITTER: f64 = 0.2;

/// Counts the calls of a hook in spans of ten seconds. It opens if half of twenty calls or more have failed, and lets one
/// call through after a pause that doubles each time.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// The number of the state: results of calls that began in an earlier one are not counted.
    epoch: u32,
    /// Openings since the last success.
    openings: u32,
}

#[derive(Debug)]
enum State {
    Closed {
        since: Instant,
        calls: u32,
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One call is under way.
    Probing,
}

/// The right to make one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    epoch: u32,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Closed { since: now, calls: 0, failures: 0 }, epoch: 0, openings: 0 }
    }

    /// Returns a pass for a call, or `None` if the backend is not to be called now.
    pub(super) fn pass(&mut self, now: Instant) -> Option<Pass> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if until <= now => self.enter(State::Probing),
            State::Open { .. } | State::Probing => return None,
        }
        Some(Pass { epoch: self.epoch })
    }

    /// Returns true while calls are answered without the backend.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Counts the result of a call. `random` is 0 to 1. Returns true if the breaker has opened or closed.
    pub(super) fn told(&mut self, pass: Pass, is_success: bool, now: Instant, random: f64) -> bool {
        if pass.epoch != self.epoch {
            return false;
        }
        match &mut self.state {
            State::Closed { since, calls, failures } => {
                if now.saturating_duration_since(*since) >= WINDOW {
                    (*since, *calls, *failures) = (now, 0, 0);
                }
                *calls += 1;
                *failures += u32::from(!is_success);
                let has_failed = *calls >= CALLS_MIN && *failures * 2 >= *calls;
                if has_failed {
                    self.open(now, random);
                }
                has_failed
            }
            State::Probing if is_success => {
                self.openings = 0;
                self.enter(State::Closed { since: now, calls: 0, failures: 0 });
                true
            }
            State::Probing => {
                self.open(now, random);
                false
            }
            State::Open { .. } => false,
        }
    }

    fn open(&mut self, now: Instant, random: f64) {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.openings.min(10)).min(PAUSE_MAX);
        let pause = doubled.mul_f64(1.0 - JITTER + 2.0 * JITTER * random);
        self.openings += 1;
        self.enter(State::Open { until: now + pause });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The middle of the jitter.
    const EVEN: f64 = 0.5;

    fn call(breaker: &mut Breaker, now: Instant, is_success: bool) -> bool {
        let pass = breaker.pass(now);
        pass.is_some_and(|pass| {
            breaker.told(pass, is_success, now, EVEN);
            true
        })
    }

    fn calls(breaker: &mut Breaker, now: Instant, results: impl IntoIterator<Item = bool>) -> usize {
        results.into_iter().filter(|&is_success| call(breaker, now, is_success)).count()
    }

    #[test]
    fn it_opens_when_half_of_twenty_calls_fail() {
        let now = Instant::now();
        for (results, is_open) in [
            (vec![false; 19], false),
            (vec![false; 20], true),
            ([vec![true; 11], vec![false; 9]].concat(), false),
            ([vec![true; 10], vec![false; 10]].concat(), true),
            ([vec![true; 100], vec![false; 99]].concat(), false),
            ([vec![true; 100], vec![false; 100]].concat(), true),
        ] {
            let mut breaker = Breaker::new(now);
            assert_eq!(calls(&mut breaker, now, results.clone()), results.len());
            assert_eq!(breaker.is_open(), is_open, "{results:?}");
            assert_eq!(breaker.pass(now).is_none(), is_open);
        }
    }

    #[test]
    fn failures_of_another_span_are_not_counted() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        for _ in 0..10 {
            calls(&mut breaker, now, vec![false; 19]);
            now += WINDOW;
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_call_at_a_time_tries_again_after_pauses_that_double() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        calls(&mut breaker, now, vec![false; 20]);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let pause = Duration::from_secs(pause);
            assert_eq!(breaker.pass(now + pause - Duration::from_millis(1)), None);
            now += pause;
            let probe = breaker.pass(now).unwrap();
            assert_eq!(breaker.pass(now + PAUSE_MAX * 10), None, "one probe is under way");
            assert!(!breaker.told(probe, false, now, EVEN));
        }
        now += PAUSE_MAX;
        let probe = breaker.pass(now).unwrap();
        assert!(breaker.told(probe, true, now, EVEN));
        assert!(!breaker.is_open());
        // It begins anew with short pauses.
        calls(&mut breaker, now, vec![false; 20]);
        assert!(breaker.is_open() && breaker.pass(now + PAUSE_MIN).is_some());
    }

    #[test]
    fn pauses_differ_by_a_fifth() {
        let now = Instant::now();
        for (random, millis) in [(0.0, 800), (1.0, 1200)] {
            let mut breaker = Breaker::new(now);
            for _ in 0..20 {
                let pass = breaker.pass(now).unwrap();
                breaker.told(pass, false, now, random);
            }
            let end = now + Duration::from_millis(millis);
            assert!(breaker.pass(end - Duration::from_millis(1)).is_none(), "{random}");
            assert!(breaker.pass(end + Duration::from_millis(1)).is_some(), "{random}");
        }
    }

    #[test]
    fn calls_that_began_before_it_opened_are_not_counted() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let late: Vec<Pass> = (0..9).filter_map(|_| breaker.pass(now)).collect();
        calls(&mut breaker, now, vec![false; 20]);
        let then = now + PAUSE_MIN;
        let probe = breaker.pass(then).unwrap();
        for pass in late {
            assert!(!breaker.told(pass, true, then, EVEN));
        }
        assert!(breaker.is_open());
        assert!(breaker.told(probe, true, then, EVEN));
    }
}
