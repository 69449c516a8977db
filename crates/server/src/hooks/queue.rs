//! The calls of a hook that wait, and those under way: decides what is called next, and what is answered without a call.
//!
//! Users take turns. A call is not made if its client has gone, if it has waited too long, or while the breaker is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Pass};
use crate::fair_queue::{FairQueue, User, Waiter};

/// The interest of a client in a call. A call that waits is not made once this is dropped; one that was sent is not
/// taken back.
#[derive(Debug)]
pub(crate) struct HookTicket(Arc<AtomicBool>);

/// The other end of a ticket.
#[derive(Clone, Debug, Default)]
pub(super) struct Interest(Arc<AtomicBool>);

impl Interest {
    pub(super) fn ticket(&self) -> HookTicket {
        HookTicket(self.0.clone())
    }

    fn is_gone(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Drop for HookTicket {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The reason for which a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCall {
    /// Its client has gone. Nobody waits for an answer.
    Gone,
    /// It has waited for `wait_max`.
    Late,
    /// The breaker is open.
    Open,
}

/// The next step of a hook.
#[derive(Debug)]
pub(super) enum Turn<T> {
    Call(T, Option<Pass>),
    Answer(T, NoCall),
}

#[derive(Debug)]
struct Entry<T> {
    call: T,
    interest: Interest,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: FairQueue<Entry<T>>,
    under_way: usize,
    requests_max: usize,
    wait_max: Duration,
    /// `None` always calls.
    breaker: Option<Breaker>,
    began: Instant,
}

impl<T> Queue<T> {
    pub(super) fn new(requests_max: usize, wait_max: Duration, has_breaker: bool, now: Instant) -> Self {
        Self {
            waiting: FairQueue::default(),
            under_way: 0,
            requests_max,
            wait_max,
            breaker: has_breaker.then(|| Breaker::new(now)),
            began: now,
        }
    }

    pub(super) fn push(&mut self, call: T, interest: Interest, user: &str, now: Instant) {
        self.waiting.push(Entry { call, interest }, User::new(user), self.millis(now));
    }

    /// Returns the next step; `None` if the calls that wait have to wait on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn<T>> {
        let first = self.waiting.front()?;
        let why_not = if first.item.interest.is_gone() {
            Some(NoCall::Gone)
        } else if self.is_late(first, now) {
            Some(NoCall::Late)
        } else {
            None
        };
        let (pass, why_not) = match (&mut self.breaker, why_not) {
            (_, Some(why_not)) => (None, Some(why_not)),
            // A probe needs no room: there is none but it.
            (Some(breaker), None) if breaker.is_open() => match breaker.pass(now) {
                Some(probe) => (Some(probe), None),
                None => (None, Some(NoCall::Open)),
            },
            (_, None) if self.under_way >= self.requests_max => return None,
            (breaker, None) => (breaker.as_mut().and_then(|breaker| breaker.pass(now)), None),
        };
        let call = self.waiting.pop_front()?.item.call;
        Some(match why_not {
            Some(why_not) => Turn::Answer(call, why_not),
            None => {
                self.under_way += 1;
                Turn::Call(call, pass)
            }
        })
    }

    /// A call has ended. `random` is 0 to 1. Returns true if the breaker has opened or closed.
    pub(super) fn ended(&mut self, pass: Option<Pass>, is_success: bool, now: Instant, random: f64) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        match (&mut self.breaker, pass) {
            (Some(breaker), Some(pass)) => breaker.told(pass, is_success, now, random),
            _ => false,
        }
    }

    /// Removes the calls that are not to be made any more, wherever they stand.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<(T, NoCall)> {
        let (began, wait_max) = (self.began, self.wait_max);
        let since = now.saturating_duration_since(began).saturating_sub(wait_max).as_millis() as u64;
        let is_late = |waiter: &Waiter<Entry<T>>| waiter.since_millis < since;
        let removed = self.waiting.retain(|waiter| !waiter.item.interest.is_gone() && !is_late(waiter));
        let why_not = |waiter: Waiter<Entry<T>>| match waiter.item.interest.is_gone() {
            true => (waiter.item.call, NoCall::Gone),
            false => (waiter.item.call, NoCall::Late),
        };
        removed.into_iter().map(why_not).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.front().is_none()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker.as_ref().is_some_and(Breaker::is_open)
    }

    fn is_late(&self, waiter: &Waiter<Entry<T>>, now: Instant) -> bool {
        let waited = self.millis(now).saturating_sub(waiter.since_millis);
        waited > self.wait_max.as_millis() as u64
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(5);

    struct World {
        queue: Queue<u32>,
        now: Instant,
        tickets: Vec<HookTicket>,
    }

    impl World {
        fn new(requests_max: usize) -> Self {
            let now = Instant::now();
            Self { queue: Queue::new(requests_max, WAIT_MAX, true, now), now, tickets: Vec::new() }
        }

        fn push(&mut self, user: &str, calls: impl IntoIterator<Item = u32>) {
            for call in calls {
                let interest = Interest::default();
                self.tickets.push(interest.ticket());
                self.queue.push(call, interest, user, self.now);
            }
        }

        /// Takes all steps that may be taken: calls as they are, others with the reason.
        fn steps(&mut self) -> Vec<(u32, Option<NoCall>)> {
            let step = |turn| match turn {
                Turn::Call(call, _) => (call, None),
                Turn::Answer(call, why_not) => (call, Some(why_not)),
            };
            std::iter::from_fn(|| self.queue.next(self.now)).map(step).collect()
        }

        /// Makes calls that fail until the breaker opens.
        fn break_down(&mut self) {
            for call in 0..20 {
                self.push("", [call]);
                let Some(Turn::Call(_, pass)) = self.queue.next(self.now) else { panic!("no call") };
                let has_turned = self.queue.ended(pass, false, self.now, 0.5);
                assert_eq!(has_turned, call == 19);
            }
            assert!(self.queue.is_open());
        }
    }

    #[test]
    fn no_more_are_under_way_than_may_be_and_users_take_turns() {
        let mut world = World::new(3);
        world.push("crowd", 0..4);
        world.push("one", [10]);
        assert_eq!(world.steps(), [(0, None), (10, None), (1, None)]);
        assert_eq!(world.queue.under_way(), 3);
        world.queue.ended(None, true, world.now, 0.5);
        assert_eq!(world.steps(), [(2, None)]);
        for _ in 0..3 {
            world.queue.ended(None, true, world.now, 0.5);
        }
        assert_eq!(world.steps(), [(3, None)]);
        assert!(world.queue.is_empty());
    }

    #[test]
    fn whoever_has_gone_or_waited_too_long_is_not_called_for() {
        let mut world = World::new(1);
        world.push("", 0..5);
        assert_eq!(world.steps(), [(0, None)]);
        drop(world.tickets.remove(2));
        world.now += WAIT_MAX;
        assert_eq!(world.queue.sweep(world.now), [(2, NoCall::Gone)]);
        world.push("", [5]);
        world.now += Duration::from_millis(1);
        // They need no room for that.
        let late = |call| (call, Some(NoCall::Late));
        assert_eq!(world.steps(), [late(1), late(3), late(4)]);
        world.now += WAIT_MAX;
        assert_eq!(world.queue.sweep(world.now), [(5, NoCall::Late)]);
        assert!(world.queue.is_empty() && world.queue.under_way() == 1);
    }

    #[test]
    fn while_the_breaker_is_open_all_are_answered_at_once_but_for_one_that_tries() {
        let mut world = World::new(4);
        world.break_down();
        world.push("", 0..3);
        let open = |call| (call, Some(NoCall::Open));
        assert_eq!(world.steps(), [open(0), open(1), open(2)]);
        world.now += Duration::from_secs(1);
        world.push("", 3..6);
        assert_eq!(world.steps(), [(3, None), open(4), open(5)]);
        assert_eq!(world.queue.under_way(), 1);
    }

    #[test]
    fn a_probe_that_answers_closes_the_breaker() {
        let mut world = World::new(4);
        world.break_down();
        world.now += Duration::from_secs(1);
        world.push("", [0]);
        let Some(Turn::Call(0, pass)) = world.queue.next(world.now) else { panic!("no probe") };
        assert!(world.queue.ended(pass, true, world.now, 0.5));
        world.push("", 1..3);
        assert_eq!(world.steps(), [(1, None), (2, None)]);
    }

    #[test]
    fn without_a_breaker_every_call_is_made() {
        let now = Instant::now();
        let mut queue = Queue::new(1, WAIT_MAX, false, now);
        let mut tickets = Vec::new();
        for call in 0..100 {
            let interest = Interest::default();
            tickets.push(interest.ticket());
            queue.push(call, interest, "", now);
            assert!(matches!(queue.next(now), Some(Turn::Call(_, None))));
            assert!(!queue.ended(None, false, now, 0.5));
        }
    }
}
