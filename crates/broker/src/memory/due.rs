//! Topics in the order in which something of theirs ends, to the second.
//!
//! Each topic has at most one place in the order, and remembers it in an [`Appointment`], without which it could
//! not be found again. Whole seconds, rounded up, make most changes no change at all: a busy topic moves once a
//! second, not at every publication.

use std::collections::BTreeSet;

use fanwire_protocol::TopicName;
use tokio::time::Instant;

pub(super) struct Due {
    /// Second 0.
    start: Instant,
    order: BTreeSet<(u64, TopicName)>,
}

/// A topic's place in one [`Due`].
#[derive(Default)]
pub(super) struct Appointment(Option<u64>);

impl Due {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, order: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Gives the topic the place that belongs to `at`, instead of the one that it had.
    pub(super) fn set(&mut self, topic: &TopicName, appointment: &mut Appointment, at: Instant) {
        let since_start = at.saturating_duration_since(self.start);
        let second = since_start.as_secs() + u64::from(since_start.subsec_nanos() > 0);
        if appointment.0 != Some(second) {
            self.cancel(topic, appointment);
            self.order.insert((second, topic.clone()));
            appointment.0 = Some(second);
        }
    }

    /// Takes the topic out, if it is in.
    pub(super) fn cancel(&mut self, topic: &TopicName, appointment: &mut Appointment) {
        if let Some(second) = appointment.0.take() {
            self.order.remove(&(second, topic.clone()));
        }
    }

    /// The topic that ends first.
    pub(super) fn first(&self) -> Option<TopicName> {
        self.order.first().map(|(_, topic)| topic.clone())
    }

    /// The topic that ends first, if its end has come.
    pub(super) fn first_past(&self, now: Instant) -> Option<TopicName> {
        let (second, topic) = self.order.first()?;
        (*second <= now.saturating_duration_since(self.start).as_secs()).then(|| topic.clone())
    }
}
