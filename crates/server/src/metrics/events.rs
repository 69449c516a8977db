//! The figures of events. Those of the outboxes are known to the node that works on them, and are 0 on the others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use fanwire_broker::Backlog;
use prometheus::proto::{MetricFamily, MetricType};

use super::{family, sample};

/// The receiver's word on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostResult {
    Delivered,
    /// These events will not do.
    Refused,
    /// Not now.
    Busy,
    /// Something is wrong, with the receiver or with the events.
    Failed,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct EventMetrics(Arc<Figures>);

#[derive(Default)]
struct Figures {
    /// The node has events.
    is_served: AtomicBool,
    is_working: AtomicBool,
    delivered: AtomicU64,
    buried: AtomicU64,
    dropped: AtomicU64,
    /// Requests by their result.
    posts: [AtomicU64; RESULTS.len()],
    events: AtomicU64,
    /// In milliseconds since 1970; 0 for none.
    oldest: AtomicU64,
    dead_letters: AtomicU64,
    oldest_dead_letter: AtomicU64,
}

const RESULTS: [(PostResult, &str); 4] = [
    (PostResult::Delivered, "delivered"),
    (PostResult::Refused, "refused"),
    (PostResult::Busy, "busy"),
    (PostResult::Failed, "failed"),
];

impl EventMetrics {
    /// From now on a scrape has the figures.
    pub(crate) fn serve(&self) {
        self.0.is_served.store(true, Relaxed);
    }

    pub(crate) fn posted(&self, result: PostResult) {
        self.0.posts[result as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn delivered(&self, events: usize) {
        self.0.delivered.fetch_add(events as u64, Relaxed);
    }

    pub(crate) fn buried(&self) {
        self.0.buried.fetch_add(1, Relaxed);
    }

    /// This node works on the outboxes, and this is in them.
    pub(crate) fn backlog(&self, backlog: Backlog) {
        self.0.is_working.store(true, Relaxed);
        self.0.dropped.fetch_add(backlog.dropped, Relaxed);
        self.set(backlog);
    }

    /// Another node works on the outboxes.
    pub(crate) fn idle(&self) {
        self.0.is_working.store(false, Relaxed);
        self.set(Backlog::default());
    }

    fn set(&self, backlog: Backlog) {
        let Backlog { events, oldest, dead_letters, oldest_dead_letter, .. } = backlog;
        self.0.events.store(events, Relaxed);
        self.0.oldest.store(oldest.unwrap_or_default(), Relaxed);
        self.0.dead_letters.store(dead_letters, Relaxed);
        self.0.oldest_dead_letter.store(oldest_dead_letter.unwrap_or_default(), Relaxed);
    }

    /// Returns the families, if the node has events.
    pub(crate) fn collect(&self) -> Vec<MetricFamily> {
        if !self.0.is_served.load(Relaxed) {
            return Vec::new();
        }
        let read = |figure: &AtomicU64| figure.load(Relaxed) as f64;
        let count = |name: &str, help: &str, figure: &AtomicU64| {
            family(name, help, MetricType::COUNTER, vec![sample(MetricType::COUNTER, &[], read(figure))])
        };
        let gauge = |name: &str, help: &str, value: f64| {
            family(name, help, MetricType::GAUGE, vec![sample(MetricType::GAUGE, &[], value)])
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64;
        let age = |figure: &AtomicU64| match read(figure) {
            0.0 => 0.0,
            time => (now - time).max(0.0) / 1000.0,
        };
        let Figures { delivered, buried, dropped, posts, events, oldest, dead_letters, .. } = &*self.0;
        let posts = RESULTS.map(|(result, label)| {
            sample(MetricType::COUNTER, &[("result", label)], read(&posts[result as usize]))
        });
        let is_working = f64::from(u8::from(self.0.is_working.load(Relaxed)));
        vec![
            family(
                "fanwire_event_posts_total",
                "Requests to the webhook. refused: an answer about the events (400, 413, 422); busy: 429 or 503; failed: \
                 any other status, or no answer.",
                MetricType::COUNTER,
                posts.into(),
            ),
            count("fanwire_events_delivered_total", "Events that the webhook took.", delivered),
            count("fanwire_event_dead_letters_total", "Events that became dead letters.", buried),
            count(
                "fanwire_events_dropped_total",
                "Events that nobody took within events.retention, or beyond events.outbox_length_max or \
                 events.memory_bytes_max.",
                dropped,
            ),
            gauge(
                "fanwire_events_working",
                "1 on the node that works on the outboxes of events; the figures of their contents are 0 on others.",
                is_working,
            ),
            gauge("fanwire_events_waiting", "Events that wait, looked at every 10 s.", read(events)),
            gauge(
                "fanwire_events_oldest_age_seconds",
                "The age of the oldest event that waits.",
                age(oldest),
            ),
            gauge("fanwire_event_dead_letters", "Dead letters, looked at every 10 s.", read(dead_letters)),
            gauge(
                "fanwire_event_dead_letters_oldest_age_seconds",
                "The time since the oldest dead letter became one.",
                age(&self.0.oldest_dead_letter),
            ),
        ]
    }
}

impl fmt::Debug for EventMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_their_order() {
        for (place, (result, _)) in RESULTS.into_iter().enumerate() {
            assert_eq!(result as usize, place);
        }
    }
}
