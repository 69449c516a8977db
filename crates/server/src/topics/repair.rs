//! Asks a topic's stream for publications that may be missing, once for all subscribers of the node.

use std::rc::Rc;
use std::time::Duration;

use fanwire_broker::{Engine, EngineError, ReadLimit, Recovery, Since};
use fanwire_hub::HistoryBounds;
use fanwire_protocol::TopicName;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::Topics;
use super::follow::{Follow, Repaired};
use crate::message::ShardMessage;

/// Parts of streams that one shard reads at the same time. After an outage all topics want to be repaired.
pub(super) const PARTS_MAX: usize = 32;

/// The part of a stream that is read at once. A longer publication is read while the shard reads nothing else.
pub(crate) const PART: ReadLimit = ReadLimit { publications: usize::MAX, bytes: 256 << 10 };

impl Topics {
    /// Repairs the first part of a dirty stream, and enqueues the rest. A failed repair is tried again with a later sweep.
    pub(super) async fn repair(self: &Rc<Self>, name: &TopicName) {
        let room = self.room_for_part().await;
        let is_wanted = self.topics.borrow_mut().get_mut(name).is_some_and(|topic| {
            topic.repairing = false;
            (topic.follow.is_dirty() || topic.is_stale) && topic.total > 0
        });
        if is_wanted && self.tells_status(name) {
            self.repair_status(name).await;
            return self.enqueue_repair(name);
        }
        let history = self.namespace(name).ok().and_then(|namespace| namespace.history);
        let (true, Some(history)) = (is_wanted, history) else { return };
        if let Err(error) = self.repair_part(name, history, room).await {
            tracing::debug!(%error, topic = %name, "a stream could not be asked for what was missed");
            return self.postpone_repair(name);
        }
        self.enqueue_repair(name);
    }

    /// Repairs the whole stream.
    pub(super) async fn repair_now(
        self: &Rc<Self>,
        name: &TopicName,
        history: HistoryBounds,
    ) -> Result<(), EngineError> {
        loop {
            let room = self.room_for_part().await;
            if !self.repair_part(name, history, room).await? {
                return Ok(());
            }
        }
    }

    /// Reads and delivers the first part of the missing publications. Returns true if there are more. `room` is kept until
    /// they are delivered.
    async fn repair_part(
        self: &Rc<Self>,
        name: &TopicName,
        history: HistoryBounds,
        mut room: SemaphorePermit<'_>,
    ) -> Result<bool, EngineError> {
        let Some(asked) = self.following(name, Follow::ask).flatten() else { return Ok(false) };
        let since = Since { offset: asked.since.offset, epoch: asked.since.epoch.as_str() };
        let mut answer = self.engine.recover_part(name, since, PART, history.meta_ttl).await;
        if answer.as_ref().is_ok_and(Recovery::begins_too_long) {
            drop(room);
            room = self.room_for_all_parts().await;
            answer = self.engine.recover_part(name, since, 1, history.meta_ttl).await;
        }
        let answer = answer.inspect_err(|_| {
            self.following(name, Follow::mark_dirty);
        })?;
        self.counters.position_checks.add(1);
        let has_missed = !answer.complete || !answer.publications.is_empty();
        let is_had = answer.complete || answer.is_too_long;
        let repaired = self.following(name, |follow| follow.repair(asked, answer, Instant::now()));
        let repaired = repaired.unwrap_or_default();
        let is_part = repaired.is_part;
        if has_missed && !is_part {
            self.count_repair(is_had);
        }
        self.deliver_repaired(name, repaired);
        drop(room);
        Ok(is_part)
    }

    /// Waits until a part of a stream may be read.
    async fn room_for_part(&self) -> SemaphorePermit<'_> {
        let room = self.parts.acquire().await.expect("the semaphore is never closed");
        self.wait_for_room().await;
        room
    }

    /// Waits until nothing else is read.
    async fn room_for_all_parts(&self) -> SemaphorePermit<'_> {
        self.parts.acquire_many(PARTS_MAX as u32).await.expect("the semaphore is never closed")
    }

    /// Delivers the publications that a repair found, after the report of lost ones.
    fn deliver_repaired(&self, name: &TopicName, repaired: Repaired) {
        if repaired.foreign > 0
            && let Engine::Redis(redis) = &self.engine
        {
            redis.note_foreign(name, repaired.foreign);
        }
        if repaired.lost {
            self.send_to_members(name, || ShardMessage::Unrecoverable(name.clone()));
        }
        for stamped in repaired.deliver {
            self.send_stamped(name.clone(), stamped);
        }
    }

    /// Waits until no shard's fan-out is full, so that a repair does not add to it.
    async fn wait_for_room(&self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        self.inboxes.wait_for_room(Instant::now() + PATIENCE).await;
    }

    fn count_repair(&self, complete: bool) {
        if complete { self.counters.repairs.add(1) } else { self.counters.repairs_failed.add(1) }
    }
}
