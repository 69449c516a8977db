//! The nodes that are alive, as Redis told lately: whoever asks for a session of another node asks for its node first.

use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::{EngineError, Redis};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// The time for which the list is taken as it is.
const FRESH: Duration = Duration::from_secs(1);

/// Between two reads of the list, however many ids are asked for that are not in it: clients can invent them.
const PAUSE: Duration = Duration::from_millis(100);

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct LiveNodeList(Arc<watch::Sender<Reads>>);

/// The reads of the list. A task of its own makes them one after the other, so that nobody waits for one that asked
/// earlier: its task may not be polled for a while.
#[derive(Debug, Default)]
struct Reads {
    /// The number of those that have begun.
    begun: u64,
    /// The result of the last one that is done.
    last: Option<List>,
    /// A task is about to read, or does.
    is_reading: bool,
}

#[derive(Debug)]
struct List {
    /// The number of the read, and the time at which it began.
    number: u64,
    began: Instant,
    ids: Result<Vec<Uuid>, EngineError>,
}

impl LiveNodeList {
    /// Returns true if the node is alive. A node that is not in the list may have just joined, so the list is read again,
    /// on the runtime.
    pub(super) async fn has(&self, redis: &Redis, runtime: &Handle, id: Uuid) -> Result<bool, EngineError> {
        let redis = redis.clone();
        let read = || async move { Ok(redis.peers().await?.into_iter().map(|peer| peer.id).collect()) };
        self.has_by(runtime, id, read).await
    }

    async fn has_by<R>(
        &self,
        runtime: &Handle,
        id: Uuid,
        read: impl FnOnce() -> R + Send + 'static,
    ) -> Result<bool, EngineError>
    where
        R: Future<Output = Result<Vec<Uuid>, EngineError>> + Send + 'static,
    {
        let mut reads = self.0.subscribe();
        let wanted = {
            let reads = reads.borrow();
            if reads.last.as_ref().is_some_and(|list| list.is_fresh() && list.has(id) == Ok(true)) {
                return Ok(true);
            }
            // One that is under way may have begun before the node joined.
            reads.begun + 1
        };
        let mut read = Some(read);
        loop {
            let is_to_begin = {
                let reads = reads.borrow_and_update();
                match &reads.last {
                    Some(list) if list.number >= wanted => return list.has(id),
                    _ => !reads.is_reading,
                }
            };
            if is_to_begin && let Some(read) = read.take_if(|_| self.claim()) {
                runtime.spawn(self.reading().run(read));
            }
            // The sender is this value.
            let _ = reads.changed().await;
        }
    }

    /// Returns true if the caller is the one to read.
    fn claim(&self) -> bool {
        self.0.send_if_modified(|reads| !std::mem::replace(&mut reads.is_reading, true))
    }

    fn reading(&self) -> Reading {
        Reading { nodes: self.clone(), began: Instant::now(), ids: Err(EngineError::Unavailable) }
    }
}

/// A read that was claimed. Dropped, it is done: one that ends early, by a panic say, has failed.
struct Reading {
    nodes: LiveNodeList,
    began: Instant,
    ids: Result<Vec<Uuid>, EngineError>,
}

impl Reading {
    async fn run<R>(mut self, read: impl FnOnce() -> R)
    where
        R: Future<Output = Result<Vec<Uuid>, EngineError>>,
    {
        let reads = &self.nodes.0;
        let last = reads.borrow().last.as_ref().map(|list| list.began);
        if let Some(began) = last {
            sleep_until(began + PAUSE).await;
        }
        self.began = Instant::now();
        self.nodes.0.send_modify(|reads| reads.begun += 1);
        self.ids = read().await;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let ids = std::mem::replace(&mut self.ids, Err(EngineError::Unavailable));
        self.nodes.0.send_modify(|reads| {
            reads.last = Some(List { number: reads.begun, began: self.began, ids });
            reads.is_reading = false;
        });
    }
}

impl List {
    fn is_fresh(&self) -> bool {
        self.began + FRESH > Instant::now()
    }

    fn has(&self, id: Uuid) -> Result<bool, EngineError> {
        self.ids.as_ref().map(|ids| ids.contains(&id)).map_err(|error| *error)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Poll;

    use tokio::time::timeout;

    use super::*;

    const KNOWN: Uuid = Uuid::from_u128(1);

    #[tokio::test(start_paused = true)]
    async fn invented_ids_cause_few_reads_and_do_not_hold_up_known_ones() {
        let (nodes, reads) = (LiveNodeList::default(), Arc::new(AtomicUsize::new(0)));
        let ask = |id| {
            let (nodes, reads) = (nodes.clone(), reads.clone());
            async move {
                let read = || async move {
                    reads.fetch_add(1, Relaxed);
                    Ok(vec![KNOWN])
                };
                nodes.has_by(&Handle::current(), id, read).await.unwrap()
            }
        };
        assert!(ask(KNOWN).await);
        let began = Instant::now();
        let invented: Vec<_> = (10..1010).map(|id| tokio::spawn(ask(Uuid::from_u128(id)))).collect();
        tokio::task::yield_now().await;
        assert!(ask(KNOWN).await);
        assert_eq!((began.elapsed(), reads.load(Relaxed)), (Duration::ZERO, 1));
        for asked in invented {
            assert!(!asked.await.unwrap());
        }
        assert_eq!((began.elapsed(), reads.load(Relaxed)), (PAUSE, 2));
        tokio::time::advance(FRESH).await;
        assert!(ask(KNOWN).await);
        assert_eq!(reads.load(Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_next_one_asks_again_behind_a_pause() {
        let (nodes, runtime) = (LiveNodeList::default(), Handle::current());
        let began = Instant::now();
        let failed = || async { Err(EngineError::Unavailable) };
        assert_eq!(nodes.has_by(&runtime, KNOWN, failed).await, Err(EngineError::Unavailable));
        assert_eq!(nodes.has_by(&runtime, KNOWN, || async { Ok(vec![KNOWN]) }).await, Ok(true));
        assert_eq!(began.elapsed(), PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_panics_has_failed_and_the_next_one_asks_again() {
        let (nodes, runtime) = (LiveNodeList::default(), Handle::current());
        let panics = || async { panic!("planted") };
        let failed = timeout(PAUSE, nodes.has_by(&runtime, KNOWN, panics)).await;
        assert_eq!(failed, Ok(Err(EngineError::Unavailable)));
        let next = timeout(2 * PAUSE, nodes.has_by(&runtime, KNOWN, || async { Ok(vec![KNOWN]) })).await;
        assert_eq!(next, Ok(Ok(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_polled_holds_up_nobody() {
        let (nodes, runtime) = (LiveNodeList::default(), Handle::current());
        let read = || async { Ok(vec![KNOWN]) };
        let mut stalled = pin!(nodes.has_by(&runtime, KNOWN, read));
        // Polled once, and not again before the other has its answer.
        let first = poll_fn(|context| Poll::Ready(stalled.as_mut().poll(context))).await;
        assert!(first.is_pending());
        tokio::select! {
            other = nodes.has_by(&runtime, KNOWN, read) => assert_eq!(other, Ok(true)),
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("held up"),
        }
        assert_eq!(stalled.await, Ok(true));
    }
}
