//! The share of a shard's time for requests: HTTP and TLS handshakes run as tasks beside the shard's loop, in the same
//! thread, and must not keep it from its clients.
//!
//! Each poll of such a task waits for a permit, first come, first served. The loop begins a new share in each of its
//! turns. A share allows polls until its time is used; the last one may exceed it, so the cost of a single poll is bounded
//! where it arises: one request a poll, one signature a poll.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

/// Time for requests between two turns of the shard's loop: one or two full TLS handshakes, or some ten requests.
const SHARE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct RequestBudget {
    /// One permit while the share lasts, none once it is used. Waiters get it in the order in which they came.
    permit: Semaphore,
    used: Cell<Duration>,
    is_used_up: Cell<bool>,
    /// Wakes a loop that waits for something to happen: requests wait for it.
    used_up: Notify,
}

impl Default for RequestBudget {
    fn default() -> Self {
        Self {
            permit: Semaphore::new(1),
            used: Cell::default(),
            is_used_up: Cell::default(),
            used_up: Notify::new(),
        }
    }
}

impl RequestBudget {
    /// Runs a future of which each poll waits for the permit.
    pub(crate) async fn paced<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut waiting = pin!(None);
        poll_fn(|context| {
            if waiting.is_none() {
                waiting.set(Some(self.permit.acquire()));
            }
            let Some(wait) = waiting.as_mut().as_pin_mut() else { return Poll::Pending };
            let Poll::Ready(permit) = wait.poll(context) else { return Poll::Pending };
            waiting.set(None);
            let began = Instant::now();
            let polled = future.as_mut().poll(context);
            // The semaphore is never closed.
            if let Ok(permit) = permit
                && self.is_share_over(began.elapsed())
            {
                permit.forget();
            }
            polled
        })
        .await
    }

    /// Begins the next share. To be called in each turn of the shard's loop.
    pub(crate) fn begin(&self) {
        self.used.set(Duration::ZERO);
        if self.is_used_up.take() {
            self.permit.add_permits(1);
        }
    }

    /// Waits until a share is used up; safe to cancel.
    pub(crate) async fn used_up(&self) {
        if !self.is_used_up.get() {
            self.used_up.notified().await;
        }
    }

    fn is_share_over(&self, used: Duration) -> bool {
        self.used.set(self.used.get() + used);
        let is_over = self.used.get() >= SHARE;
        if is_over {
            self.is_used_up.set(true);
            self.used_up.notify_waiters();
        }
        is_over
    }
}

/// Lets one request pass in each poll of its connection, however many the peer has sent at once.
#[derive(Debug, Default)]
pub(crate) struct OnePerPoll(Cell<bool>);

impl OnePerPoll {
    /// To be called before the connection is polled.
    pub(crate) fn begin(&self) {
        self.0.set(false);
    }

    pub(crate) async fn pass(&self) {
        poll_fn(|context| {
            if self.0.replace(true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::thread;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// A task that notes its number at each of its polls, which use up a whole share each.
    fn costly(
        budget: &Rc<RequestBudget>,
        polled: &Rc<RefCell<Vec<u32>>>,
        number: u32,
    ) -> tokio::task::JoinHandle<()> {
        let (budget, polled) = (budget.clone(), polled.clone());
        spawn_local(async move {
            budget
                .paced(async {
                    loop {
                        polled.borrow_mut().push(number);
                        thread::sleep(SHARE);
                        yield_now().await;
                    }
                })
                .await;
        })
    }

    #[tokio::test]
    async fn costly_polls_are_one_a_share_and_first_come_first_served() {
        LocalSet::new()
            .run_until(async {
                let budget = Rc::new(RequestBudget::default());
                let polled = Rc::new(RefCell::new(Vec::new()));
                let tasks = [1, 2, 3].map(|number| costly(&budget, &polled, number));
                for share in 1..=9 {
                    for _ in 0..10 {
                        yield_now().await;
                    }
                    assert_eq!(polled.borrow().len(), share, "one more, however often they could run");
                    budget.begin();
                }
                assert_eq!(*polled.borrow(), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
                // One that goes away while it waits, or before it uses its permit, holds nobody up.
                tasks[0].abort();
                tasks[1].abort();
                for _ in 0..3 {
                    yield_now().await;
                    budget.begin();
                }
                assert!(polled.borrow()[9..].ends_with(&[3, 3]), "{polled:?}");
            })
            .await;
    }

    #[tokio::test]
    async fn a_loop_that_waits_is_woken_when_a_share_is_used_up() {
        LocalSet::new()
            .run_until(async {
                let budget = Rc::new(RequestBudget::default());
                let polled = Rc::default();
                let _task = costly(&budget, &polled, 1);
                for _ in 0..3 {
                    budget.used_up().await;
                    budget.begin();
                }
                assert!(polled.borrow().len() >= 3);
            })
            .await;
    }

    #[tokio::test]
    async fn one_request_passes_in_each_poll() {
        let gate = OnePerPoll::default();
        let passed = Cell::new(0);
        let mut requests = pin!(async {
            for _ in 0..3 {
                gate.pass().await;
                passed.set(passed.get() + 1);
            }
        });
        for count in 1..=3 {
            poll_fn(|context| {
                gate.begin();
                let _ = requests.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
            assert_eq!(passed.get(), count);
        }
    }
}
