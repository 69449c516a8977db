//! The outboxes of a node without Redis. They are lost when the process ends.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanwire_protocol::TopicName;
use fanwire_protocol::reason::Left;
use tokio::time::Instant;

use super::event_log::EventLog;
use crate::contract::Member;
use crate::outbox::{Backlog, DeadLetter, EventId, LetterId, Letters, OutboxOptions, Refusal, StoredEvent};
use crate::wall_clock;

/// The outboxes of a node's memory engines. Cloning shares them.
#[derive(Clone)]
pub struct MemoryOutbox {
    /// Taken for each event that is written, and by whoever delivers.
    log: Arc<Mutex<EventLog>>,
}

impl MemoryOutbox {
    /// The most events and vacancies that one call works on while engines wait: less than a millisecond.
    const ROUND_MAX: usize = 1000;

    pub fn new(options: OutboxOptions) -> Self {
        Self { log: Arc::new(Mutex::new(EventLog::new(options))) }
    }

    /// Says all vacancies, due or not.
    pub fn say_all(&self) {
        self.log().say_all();
    }

    /// Returns true if no event waits.
    pub fn is_empty(&self) -> bool {
        self.log().is_empty()
    }

    pub(crate) fn slots(&self) -> Vec<u16> {
        self.log().slots()
    }

    pub(crate) fn read(&self, slots: &[u16], events_max: usize) -> Vec<StoredEvent> {
        let mut events = Vec::new();
        for slot in slots {
            events.extend(self.log().read(*slot, events_max));
        }
        events
    }

    pub(crate) fn remove(&self, last: &[EventId]) {
        for last in last {
            self.log().remove(*last);
        }
    }

    pub(crate) fn say_due(&self) {
        let now = Instant::now();
        while self.log().say_due(now, Self::ROUND_MAX) {}
    }

    pub(crate) fn tidy(&self) -> Backlog {
        let now = Instant::now();
        while self.log().drop_old(now, Self::ROUND_MAX) {}
        let mut log = self.log();
        log.letters().tidy(wall_clock::now());
        log.take_backlog()
    }

    pub(crate) fn bury(&self, event: &StoredEvent, refusal: Refusal) {
        self.log().bury(event, refusal);
    }

    pub(crate) fn dead_letters(&self, limit: usize) -> Vec<DeadLetter> {
        self.log().letters().oldest(limit)
    }

    pub(crate) fn retry(&self, which: &Letters) -> u64 {
        self.log().letters().retry(wall_clock::now(), which)
    }

    pub(crate) fn remove_dead_letters(&self, which: &Letters) -> u64 {
        self.log().letters().remove(which)
    }

    pub(crate) fn retried(&self, limit: usize) -> Vec<DeadLetter> {
        self.log().letters().retried(limit)
    }

    pub(crate) fn settle(&self, letter: LetterId, refused: Option<(&StoredEvent, Refusal)>) {
        let mut log = self.log();
        log.letters().end_retry(letter);
        if let Some((event, refusal)) = refused {
            log.bury(event, refusal);
        }
    }

    pub(super) fn joined(&self, topic: &TopicName, member: &Member, others: usize) {
        self.log().joined(topic, member, others);
    }

    pub(super) fn left(&self, topic: &TopicName, member: &Member, left: &Left, others: usize) {
        self.log().left(topic, member, left, others);
    }

    fn log(&self) -> MutexGuard<'_, EventLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOutbox").finish_non_exhaustive()
    }
}
