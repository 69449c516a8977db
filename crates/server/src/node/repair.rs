//! Asking a topic's stream for what may have been missed, once for all subscribers of the node.

use std::rc::Rc;
use std::time::Duration;

use fanwire_broker::{Engine, EngineError, Since};
use fanwire_hub::HistoryBounds;
use fanwire_protocol::TopicName;
use tokio::time::Instant;

use super::Topics;
use super::follow::{Follow, Repaired};
use crate::inbox::{Inbox, Message};

impl Topics {
    /// The repair that doubt has asked for. What fails is tried again with a later sweep.
    pub(super) async fn repair(self: &Rc<Self>, name: &TopicName) {
        // The semaphore is never closed.
        let _permit = self.repairs.acquire().await;
        self.wait_for_room().await;
        let is_wanted = self.topics.borrow_mut().get_mut(name).is_some_and(|topic| {
            topic.repairing = false;
            topic.follow.is_doubtful() && topic.total > 0
        });
        let history = self.namespace(name).ok().and_then(|namespace| namespace.history);
        let (true, Some(history)) = (is_wanted, history) else { return };
        if let Err(error) = self.repair_now(name, history).await {
            tracing::debug!(%error, topic = %name, "a stream could not be asked for what was missed");
            return self.postpone_repair(name);
        }
        self.enqueue_repair(name);
    }

    /// Brings what was delivered in line with the stream.
    pub(super) async fn repair_now(
        self: &Rc<Self>,
        name: &TopicName,
        history: HistoryBounds,
    ) -> Result<(), EngineError> {
        let Some(asked) = self.following(name, Follow::ask).flatten() else { return Ok(()) };
        let since = Since { offset: asked.since.offset, epoch: asked.since.epoch.as_str() };
        match self.engine.recover(name, Some(since), history.size, history.meta_ttl).await {
            Ok(answer) => {
                self.counters.position_checks.add(1);
                if !answer.complete || !answer.publications.is_empty() {
                    self.count_repair(answer.complete);
                }
                if let Some(repaired) =
                    self.following(name, |follow| follow.repair(asked, answer, Instant::now()))
                {
                    self.deliver_repaired(name, repaired);
                }
                Ok(())
            }
            Err(error) => {
                self.following(name, Follow::doubt);
                Err(error)
            }
        }
    }

    /// Delivers what a repair found, after the word that some of it cannot be had.
    fn deliver_repaired(&self, name: &TopicName, repaired: Repaired) {
        if repaired.foreign > 0
            && let Engine::Redis(redis) = &self.engine
        {
            redis.note_foreign(name, repaired.foreign);
        }
        if repaired.lost {
            self.send_to_members(name, || Message::Lost(name.clone()));
        }
        for stamped in repaired.deliver {
            self.send_stamped(name.clone(), stamped);
        }
    }

    /// Shards that are behind already are not given a whole history on top.
    async fn wait_for_room(&self) {
        const PATIENCE: u32 = 2000;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..PATIENCE {
            if !self.inboxes.iter().any(Inbox::is_full) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn count_repair(&self, complete: bool) {
        if complete { self.counters.repairs.add(1) } else { self.counters.repairs_failed.add(1) }
    }
}
