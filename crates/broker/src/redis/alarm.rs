//! An alarm that reports tasks that have ended and must not.

use std::sync::Arc;

use tokio::sync::watch;

/// The name of the first task that ended. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct TaskAlarm(Arc<watch::Sender<Option<&'static str>>>);

impl TaskAlarm {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Returns a guard that the named task holds until it ends.
    pub(super) fn arm(&self, name: &'static str) -> Armed {
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
pub(super) struct Armed {
    name: Option<&'static str>,
    alarm: TaskAlarm,
}

impl Armed {
    /// Allows the task to end.
    pub(super) fn disarm(mut self) {
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
}
