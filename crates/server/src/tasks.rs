//! Long-lived tasks without state: one that ends is started again, and readiness shows it.
//!
//! Tasks whose state may be broken then (a shard, a topic, the node's part in its cluster, those of the Redis
//! engine) end the node instead: see [`crate::run::Failed`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use fanwire_broker::planted;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The tasks, those that clients depend on first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Accepts connections of clients for one shard.
    Accept,
    /// Accepts connections to the internal port.
    Internal,
    /// Logs the node's state each minute.
    Summary,
    /// Looks for a new certificate.
    Certificate,
    /// Fetches the keys of identity providers.
    Keys,
    /// Works on the outboxes of events.
    Events,
}

impl Task {
    pub(crate) const ALL: [Self; 6] =
        [Self::Accept, Self::Internal, Self::Summary, Self::Certificate, Self::Keys, Self::Events];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Internal => "internal",
            Self::Summary => "summary",
            Self::Certificate => "certificate",
            Self::Keys => "keys",
            Self::Events => "events",
        }
    }
}

/// The pause between an end and the next start, so that a task that ends at once uses no core.
const PAUSE: Duration = Duration::from_millis(100);

/// The time that a task has to run before the node is ready again.
const PROBATION: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    restarts: [AtomicU64; Task::ALL.len()],
    /// The last end of each task.
    last: Mutex<[Option<Instant>; Task::ALL.len()]>,
}

impl Tasks {
    /// Runs a task. `start` makes it anew whenever it ends, by a panic or by itself.
    pub(crate) async fn keep<F>(&self, task: Task, mut start: impl FnMut() -> F) -> Infallible
    where
        F: Future<Output = ()>,
    {
        loop {
            let how = {
                let mut running = pin!(planted::run(task.label(), start()));
                let ended = poll_fn(|context| {
                    match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
                        Ok(poll) => poll.map(|()| "returned"),
                        Err(_) => Poll::Ready("panicked"),
                    }
                });
                ended.await
            };
            self.restarts[task as usize].fetch_add(1, Relaxed);
            self.last.lock().unwrap_or_else(PoisonError::into_inner)[task as usize] = Some(Instant::now());
            tracing::error!(task = task.label(), "a task {how} and is started again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The number of times that each task was started again.
    pub(crate) fn restarts(&self) -> [(Task, u64); Task::ALL.len()] {
        Task::ALL.map(|task| (task, self.restarts[task as usize].load(Relaxed)))
    }

    /// The first task that ended within the probation.
    pub(crate) fn unsteady(&self) -> Option<Task> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unsteady = |task: &Task| last[*task as usize].is_some_and(|at| at.elapsed() < PROBATION);
        Task::ALL.into_iter().find(is_unsteady)
    }
}

/// A task that is aborted when its owner drops this.
#[derive(Debug)]
pub(crate) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Waits for the end of the task, also by a panic. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the owner of a task when the task panics. Drop it with the task.
#[derive(Debug)]
pub(crate) struct PanicAlarm(pub Rc<Notify>);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps a task that panics, then returns, then goes on.
    async fn end_twice(tasks: &Tasks, task: Task) {
        let (mut starts, goes_on) = (0, Notify::new());
        let kept = tasks.keep(task, || {
            starts += 1;
            let (start, goes_on) = (starts, &goes_on);
            async move {
                tokio::task::yield_now().await;
                assert!(start > 1, "planted");
                if start > 2 {
                    goes_on.notify_one();
                    std::future::pending().await
                }
            }
        });
        tokio::select! {
            never = kept => match never {},
            () = goes_on.notified() => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_or_returns_is_started_again() {
        let tasks = Tasks::default();
        assert_eq!(tasks.unsteady(), None);
        end_twice(&tasks, Task::Accept).await;
        assert_eq!(tasks.restarts()[..2], [(Task::Accept, 2), (Task::Internal, 0)]);
        assert_eq!(tasks.unsteady(), Some(Task::Accept));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_clients_notice_is_not_hidden_by_a_later_one() {
        let tasks = Tasks::default();
        for task in [Task::Accept, Task::Summary] {
            end_twice(&tasks, task).await;
        }
        assert_eq!(tasks.unsteady(), Some(Task::Accept));
    }

    #[tokio::test]
    async fn a_panic_is_told_and_an_end_is_not() {
        let told = Rc::<Notify>::default();
        let alarm = || PanicAlarm(told.clone());
        tokio::task::LocalSet::new()
            .run_until(async {
                let ended = alarm();
                tokio::task::spawn_local(async move { drop(ended) }).await.unwrap();
                let is_told = tokio::time::timeout(Duration::ZERO, told.notified()).await.is_ok();
                assert!(!is_told);
                let panics = alarm();
                let task = tokio::task::spawn_local(async move {
                    let _panics = panics;
                    panic!("planted");
                });
                told.notified().await;
                assert!(task.await.is_err());
            })
            .await;
    }
}
