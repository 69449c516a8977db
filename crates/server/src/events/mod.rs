//! The events of members on their way to the application. One node of the cluster at a time works on the outboxes.

mod batch;
mod deliverer;
mod outboxes;
mod progress;
mod webhook;
mod worker;

use std::sync::Arc;

use crate::node::Node;
use crate::tasks::{OwnedTask, Task};
use webhook::Webhook;
use worker::Work;

pub(crate) use batch::EventBody;
pub(crate) use outboxes::Outboxes;
pub use webhook::WebhookError;

/// The node's share in the work. Dropping it ends its task.
pub(crate) struct Events {
    task: OwnedTask,
    work: Work,
}

impl Events {
    /// Starts the task, if the settings ask for events.
    pub(crate) fn start(node: &Node) -> Result<Option<Self>, WebhookError> {
        let Some(outboxes) = Outboxes::of(node) else { return Ok(None) };
        let webhook = node.settings.webhook.as_ref().map(Webhook::new).transpose()?.map(Arc::new);
        let metrics = node.metrics.events.clone();
        metrics.serve();
        let work = Work { outboxes, webhook, metrics, worker: node.id };
        let (kept, task) = (node.clone(), work.clone());
        let task = OwnedTask::spawn(async move {
            kept.tasks.keep(Task::Events, || task.clone().run()).await;
        });
        Ok(Some(Self { task, work }))
    }

    /// Ends the task, and leaves the work to another node at once.
    pub(crate) async fn stop(self) {
        drop(self.task);
        self.work.stop().await;
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("outboxes", &self.work.outboxes).finish_non_exhaustive()
    }
}
