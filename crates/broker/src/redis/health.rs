//! Whether Redis can be used: all connections of the engine seen as one, said once when it changes.

use std::fmt;
use std::mem::Discriminant;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connection::LinkError;

/// Whether the engine can do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// All connections are there.
    Up,
    /// At least one is missing: why the last attempt failed.
    Down(LinkError),
}

pub(super) struct Health {
    address: String,
    state: watch::Sender<LinkState>,
    /// For each connection why it is missing, and since when any is.
    missing: Mutex<Missing>,
}

struct Missing {
    links: Vec<Option<LinkError>>,
    since: Instant,
    was_up: bool,
    /// The reason that was logged last.
    told: Option<Discriminant<LinkError>>,
}

impl Health {
    pub(super) fn new(address: String, links: usize) -> Self {
        let links = vec![Some(LinkError::NotYet); links];
        let missing = Missing { links, since: Instant::now(), was_up: false, told: None };
        let (state, _) = watch::channel(LinkState::Down(LinkError::NotYet));
        Self { address, state, missing: Mutex::new(missing) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The connection is there.
    pub(super) fn up(&self, link: usize) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.links[link] = None;
        if missing.links.iter().any(Option::is_some) {
            return;
        }
        let before = self.state.send_replace(LinkState::Up);
        missing.was_up = true;
        if before != LinkState::Up {
            let after = format!("{:.1} s", missing.since.elapsed().as_secs_f64());
            tracing::info!(address = self.address, after, "Redis is connected");
        }
    }

    /// The connection is missing. Logged if that is news: one line, however many connections are missing and
    /// however often each of them tries.
    pub(super) fn down(&self, link: usize, error: LinkError) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.links[link] = Some(error.clone());
        let before = self.state.send_replace(LinkState::Down(error.clone()));
        if before == LinkState::Up {
            missing.since = Instant::now();
            missing.told = None;
            tracing::warn!(address = self.address, %error, "Redis is lost, trying to reconnect");
            return;
        }
        // Why a lost connection does not come back goes without saying, unless somebody has to do something.
        let passes = matches!(
            error,
            LinkError::Unreachable(_) | LinkError::Closed | LinkError::Silent | LinkError::Loading
        );
        let kind = Some(std::mem::discriminant(&error));
        if missing.told != kind && (!passes || !missing.was_up) {
            missing.told = kind;
            tracing::warn!(address = self.address, %error, "Redis cannot be used, trying on");
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// Lets a repeating log line through once in a while.
#[derive(Debug)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    const PAUSE: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(super) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= Self::PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Counts log lines.
    struct Lines(Arc<AtomicUsize>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn what_happens_to_all_links_is_one_line() {
        let lines = Arc::<AtomicUsize>::default();
        let check = |expected| assert_eq!(lines.swap(0, Ordering::Relaxed), expected);
        let unreachable = || LinkError::Unreachable("refused".to_owned());
        tracing::subscriber::with_default(Lines(Arc::clone(&lines)), || {
            let health = Health::new("redis:6379".to_owned(), 3);
            // Missing at the start.
            for _ in 0..10 {
                (0..3).for_each(|link| health.down(link, unreachable()));
            }
            check(1);
            (0..3).for_each(|link| health.up(link));
            check(1);
            assert_eq!(*health.watch().borrow(), LinkState::Up);

            // Lost for a while.
            (0..3).for_each(|link| health.down(link, LinkError::Closed));
            for _ in 0..10 {
                (0..3).for_each(|link| health.down(link, unreachable()));
            }
            health.down(0, LinkError::Loading);
            health.up(0);
            check(1);
            assert!(matches!(*health.watch().borrow(), LinkState::Down(_)));

            // It comes back, but not as it was.
            for _ in 0..10 {
                (1..3).for_each(|link| health.down(link, LinkError::WrongPassword));
            }
            check(1);
            (1..3).for_each(|link| health.up(link));
            check(1);
        });
    }
}
