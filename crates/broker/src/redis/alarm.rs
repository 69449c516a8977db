//! An alarm that reports tasks that have ended and must not.

use std::sync::Arc;

use tokio::sync::watch;

use super::server::health::Health;
use crate::planted;

/// The name of the first task that ended. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct TaskAlarm(Arc<watch::Sender<Option<&'static str>>>);

impl TaskAlarm {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Returns a task that ends only when the node must not join the cluster. Any other end raises the alarm.
    pub(super) fn keep(
        &self,
        name: &'static str,
        health: &Arc<Health>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (health, armed) = (Arc::clone(health), self.arm(name));
        async move {
            tokio::select! {
                () = planted::run(name, task) => {}
                () = health.until_refused() => {}
            }
            // The task that is refused may end by itself, before the others see why.
            if health.is_refused() {
                armed.disarm();
            }
        }
    }

    /// Returns a guard that the named task holds until it ends.
    fn arm(&self, name: &'static str) -> Armed {
        Armed { name: Some(name), alarm: self.clone() }
    }

    /// Waits until a task has ended, and returns its name. Cancel-safe.
    pub(super) async fn raised(&self) -> &'static str {
        let mut receiver = self.0.subscribe();
        // This handle keeps the sender alive.
        match receiver.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(name)) => name,
            _ => std::future::pending().await,
        }
    }
}

/// Raises the alarm when it is dropped, also on panic.
#[derive(Debug)]
struct Armed {
    name: Option<&'static str>,
    alarm: TaskAlarm,
}

impl Armed {
    /// Allows the task to end.
    fn disarm(mut self) {
        self.name = None;
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            self.alarm.0.send_modify(|ended| {
                ended.get_or_insert(name);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::settings::Incompatible;

    #[tokio::test]
    async fn a_task_that_panics_raises_the_alarm_and_one_that_may_end_does_not() {
        let alarm = TaskAlarm::new();
        alarm.arm("one").disarm();
        let armed = alarm.arm("other");
        let task = tokio::spawn(async move {
            let _armed = armed;
            panic!("planted");
        });
        assert_eq!(alarm.raised().await, "other");
        assert!(task.await.is_err());
    }

    #[tokio::test]
    async fn a_task_that_ends_as_the_node_is_refused_raises_none() {
        let alarm = TaskAlarm::new();
        let health = Arc::new(Health::new("redis:6379".to_owned(), 1));
        let refusing = {
            let health = Arc::clone(&health);
            async move { health.refuse(Incompatible::Layout { ours: 1, theirs: 2 }) }
        };
        alarm.keep("one", &health, refusing).await;
        assert_eq!(*alarm.0.borrow(), None);
    }

    #[tokio::test]
    async fn a_task_that_returns_raises_the_alarm() {
        let alarm = TaskAlarm::new();
        let health = Arc::new(Health::new("redis:6379".to_owned(), 1));
        alarm.keep("one", &health, async {}).await;
        assert_eq!(alarm.raised().await, "one");
    }
}
