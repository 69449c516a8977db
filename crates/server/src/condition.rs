//! Waiting for something that other tasks bring about.

use std::pin::pin;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Wakes the tasks that wait for a condition.
#[derive(Debug, Default)]
pub(crate) struct Condition(Notify);

impl Condition {
    /// Lets every waiting task look again. Call it after the change.
    pub(crate) fn notify(&self) {
        self.0.notify_waiters();
    }

    /// Waits until `is_met` returns true. Returns false if it does not by the deadline.
    pub(crate) async fn wait_until(&self, deadline: Instant, is_met: impl Fn() -> bool) -> bool {
        while !is_met() {
            let mut notified = pin!(self.0.notified());
            // Enabled before the second test, so that no change after it is missed.
            notified.as_mut().enable();
            if !is_met() && timeout_at(deadline, notified).await.is_err() {
                return is_met();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_task_goes_on_at_the_instant_of_the_change() {
        let began = Instant::now();
        let (condition, is_met) = <(Arc<Condition>, Arc<AtomicBool>)>::default();
        let (waits_for, looks_at) = (condition.clone(), is_met.clone());
        let waiting =
            tokio::spawn(
                async move { waits_for.wait_until(began + PATIENCE, || looks_at.load(Relaxed)).await },
            );
        tokio::task::yield_now().await;
        condition.notify();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "nothing has changed");
        is_met.store(true, Relaxed);
        condition.notify();
        assert!(waiting.await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_gives_up_at_the_deadline() {
        let began = Instant::now();
        assert!(!Condition::default().wait_until(began + PATIENCE, || false).await);
        assert!((PATIENCE..PATIENCE * 2).contains(&began.elapsed()));
        assert!(Condition::default().wait_until(began, || true).await);
    }
}
