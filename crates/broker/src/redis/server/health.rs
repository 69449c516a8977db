//! The state of all connections of the engine as one, logged once when it changes.

use std::fmt;
use std::mem::Discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::connection::LinkError;
use crate::redis::settings::Incompatible;

/// The state of the engine's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// All connections are open.
    Up,
    /// Some connections are missing, with the error of the last failed attempt. Calls through open connections work.
    /// This lasts about a second unless this node has a problem.
    Partial(LinkError),
    /// All connections are missing, with the error of the last attempt.
    Down(LinkError),
    /// This node must not join the cluster. This is final: the engine has stopped.
    Refused(Incompatible),
}

pub(in crate::redis) struct Health {
    address: String,
    state: watch::Sender<LinkState>,
    missing: Mutex<Missing>,
}

struct Missing {
    /// For each missing connection the reason.
    links: Vec<Option<LinkError>>,
    /// The connections that have been open before.
    were_up: Vec<bool>,
    reconnects: u64,
    /// The time since which a connection is missing.
    since: Instant,
    /// The last logged reason.
    told: Option<Discriminant<LinkError>>,
}

impl Health {
    pub(in crate::redis) fn new(address: String, links: usize) -> Self {
        let missing = Missing {
            links: vec![Some(LinkError::NotYet); links],
            were_up: vec![false; links],
            reconnects: 0,
            since: Instant::now(),
            told: None,
        };
        let (state, _) = watch::channel(LinkState::Down(LinkError::NotYet));
        Self { address, state, missing: Mutex::new(missing) }
    }

    pub(in crate::redis) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Returns which connections are open, and the number of reconnects.
    pub(in crate::redis) fn links(&self) -> (Vec<bool>, u64) {
        let missing = self.missing();
        (missing.links.iter().map(Option::is_none).collect(), missing.reconnects)
    }

    /// Notes that the connection is open.
    pub(in crate::redis) fn up(&self, link: usize) {
        let mut missing = self.missing();
        if self.is_refused() {
            return;
        }
        missing.links[link] = None;
        if std::mem::replace(&mut missing.were_up[link], true) {
            missing.reconnects += 1;
        }
        let state = missing.state();
        let before = self.state.send_replace(state.clone());
        if state == LinkState::Up && before != LinkState::Up {
            let after = format!("{:.1} s", missing.since.elapsed().as_secs_f64());
            tracing::info!(address = self.address, after, "Redis is connected");
        }
    }

    /// Notes that the connection is missing. Changes are logged: one line for all connections and all of their
    /// attempts.
    pub(in crate::redis) fn down(&self, link: usize, error: LinkError) {
        let mut missing = self.missing();
        if self.is_refused() {
            return;
        }
        missing.links[link] = Some(error.clone());
        let are_all_missing = missing.links.iter().all(Option::is_some);
        let state = if are_all_missing { LinkState::Down } else { LinkState::Partial };
        let before = self.state.send_replace(state(error.clone()));
        if before == LinkState::Up {
            missing.since = Instant::now();
            missing.told = None;
            tracing::warn!(address = self.address, %error, "Redis is lost; reconnecting");
            return;
        }
        // Failed attempts after a loss are expected. They are logged only if an operator has to act.
        let passes = matches!(
            error,
            LinkError::Unreachable(_) | LinkError::Closed | LinkError::Silent | LinkError::Loading
        );
        let kind = Some(std::mem::discriminant(&error));
        if missing.told != kind && (!passes || !missing.were_up[link]) {
            missing.told = kind;
            tracing::warn!(address = self.address, %error, "Redis is unavailable; retrying");
        }
    }

    /// Notes that the node must not join the cluster. Later changes of connections have no effect.
    pub(in crate::redis) fn refuse(&self, reason: Incompatible) {
        let _missing = self.missing();
        tracing::error!(address = self.address, %reason, "this node does not join the cluster");
        self.state.send_replace(LinkState::Refused(reason));
    }

    pub(in crate::redis) async fn until_refused(&self) {
        let mut state = self.watch();
        let refused = state.wait_for(|state| matches!(state, LinkState::Refused(_)));
        refused.await.expect("the sender is borrowed meanwhile");
    }

    pub(in crate::redis) fn is_refused(&self) -> bool {
        matches!(*self.state.borrow(), LinkState::Refused(_))
    }

    fn missing(&self) -> MutexGuard<'_, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Missing {
    fn state(&self) -> LinkState {
        let Some(error) = self.links.iter().flatten().next() else { return LinkState::Up };
        if self.links.iter().all(Option::is_some) {
            LinkState::Down(error.clone())
        } else {
            LinkState::Partial(error.clone())
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("state", &*self.state.borrow()).finish_non_exhaustive()
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
            assert_eq!(health.links(), (vec![true; 3], 0));

            // Lost for a while.
            (0..3).for_each(|link| health.down(link, LinkError::Closed));
            for _ in 0..10 {
                (0..3).for_each(|link| health.down(link, unreachable()));
            }
            health.down(0, LinkError::Loading);
            assert_eq!(*health.watch().borrow(), LinkState::Down(LinkError::Loading));
            health.up(0);
            check(1);
            assert_eq!(*health.watch().borrow(), LinkState::Partial(unreachable()));
            assert_eq!(health.links(), (vec![true, false, false], 1));

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
