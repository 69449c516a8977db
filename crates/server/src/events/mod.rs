//! The events of members on their way to the application. One node of the cluster at a time works on the outboxes.

mod batch;
mod deliverer;
mod progress;
mod webhook;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanwire_broker::{MemoryOutbox, Outboxes};
use tokio::time::sleep;

use crate::node::Node;
use crate::tasks::{OwnedTask, Task};
use webhook::Webhook;
use worker::Work;

pub(crate) use batch::EventBody;
pub use webhook::WebhookError;

/// The node's share in the work. Dropping it ends its task.
pub(crate) struct Events {
    task: OwnedTask,
    work: Work,
}

impl Events {
    /// Starts the task, if the settings ask for events.
    pub(crate) fn start(node: &Node) -> Result<Option<Self>, WebhookError> {
        let Some(outboxes) = node.outboxes.clone() else { return Ok(None) };
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

    /// Ends the task, and leaves the work to another node at once. What is in memory is delivered first.
    pub(crate) async fn stop(self) {
        if let Outboxes::Memory(outbox) = &self.work.outboxes {
            deliver_last(outbox).await;
        }
        drop(self.task);
        self.work.stop().await;
    }
}

/// Gives the task some time for what would be lost with the process. Its users are offline.
async fn deliver_last(outbox: &MemoryOutbox) {
    const PATIENCE: Duration = Duration::from_secs(5);
    const LOOK: Duration = Duration::from_millis(20);
    outbox.say_all();
    let began = Instant::now();
    while !outbox.is_empty() && began.elapsed() < PATIENCE {
        sleep(LOOK).await;
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("outboxes", &self.work.outboxes).finish_non_exhaustive()
    }
}
