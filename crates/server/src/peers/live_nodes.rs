//! The nodes that are alive, as Redis told lately: whoever asks for a session of another node asks for its node first.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fanwire_broker::{EngineError, Redis};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// The time for which the list is taken as it is.
const FRESH: Duration = Duration::from_secs(1);

/// Between two reads of the list, however many ids are asked for that are not in it: clients can invent them.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct LiveNodeList {
    /// The last list that was read.
    list: Mutex<Option<List>>,
    /// Held by the one that reads it.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct List {
    /// The time at which the read began.
    began: Instant,
    ids: Vec<Uuid>,
}

impl LiveNodeList {
    /// Returns true if the node is alive. A node that is not in the list may have just joined, so the list is read again.
    pub(super) async fn has(&self, redis: &Redis, id: Uuid) -> Result<bool, EngineError> {
        self.has_by(id, || async { Ok(redis.peers().await?.into_iter().map(|peer| peer.id).collect()) }).await
    }

    async fn has_by<R, E>(&self, id: Uuid, read: impl FnOnce() -> R) -> Result<bool, E>
    where
        R: Future<Output = Result<Vec<Uuid>, E>>,
    {
        let asked = Instant::now();
        if self.look(|list| list.began + FRESH > asked && list.ids.contains(&id)) == Some(true) {
            return Ok(true);
        }
        let _reading = self.reading.lock().await;
        // Another one has read it meanwhile.
        if let Some(answer) = self.look(|list| (list.began > asked).then(|| list.ids.contains(&id))).flatten()
        {
            return Ok(answer);
        }
        if let Some(began) = self.look(|list| list.began) {
            sleep_until(began + PAUSE).await;
        }
        let began = Instant::now();
        let ids = read().await?;
        let is_there = ids.contains(&id);
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Some(List { began, ids });
        Ok(is_there)
    }

    fn look<T>(&self, at: impl FnOnce(&List) -> T) -> Option<T> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    const KNOWN: Uuid = Uuid::from_u128(1);

    #[tokio::test(start_paused = true)]
    async fn invented_ids_cause_few_reads_and_do_not_hold_up_known_ones() {
        let (nodes, reads) = (Arc::new(LiveNodeList::default()), Arc::new(AtomicUsize::new(0)));
        let ask = |id| {
            let (nodes, reads) = (nodes.clone(), reads.clone());
            async move {
                let read = || async {
                    reads.fetch_add(1, Relaxed);
                    Ok::<_, ()>(vec![KNOWN])
                };
                nodes.has_by(id, read).await.unwrap()
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
    async fn without_an_answer_the_next_one_asks_again() {
        let nodes = LiveNodeList::default();
        assert_eq!(nodes.has_by(KNOWN, || async { Err("down") }).await, Err("down"));
        assert_eq!(nodes.has_by(KNOWN, || async { Ok::<_, ()>(vec![KNOWN]) }).await, Ok(true));
    }
}
