//! The secrets of other nodes, as the signers that check keys of their sessions. Each node is asked once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::letter::Secret;
use crate::message::Unreachable;
use crate::session_key::SessionSigner;

/// Nodes whose secrets are kept. Each run of a node has its own; beyond this all are asked for again.
const SIGNERS_MAX: usize = 1024;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Signers(Arc<Mutex<HashMap<Uuid, watch::Receiver<Option<Signer>>>>>);

type Signer = Result<Arc<SessionSigner>, Unreachable>;

impl Signers {
    /// Returns the signer of a node. Unless it is known, the node is asked on the runtime, once for all callers that wait for it:
    /// one of them may not be polled for a while.
    pub(super) async fn of<R>(&self, runtime: &Handle, node: Uuid, ask: impl FnOnce() -> R) -> Signer
    where
        R: Future<Output = Result<Secret, Unreachable>> + Send + 'static,
    {
        let (mut told, question) = self.enter(node);
        if let Some(question) = question {
            runtime.spawn(question.put(ask()));
        }
        let told = told.wait_for(Option::is_some).await.map_err(|_| Unreachable::Late)?;
        told.clone().unwrap_or(Err(Unreachable::Late))
    }

    /// Returns where the node's signer is told, with the question for it if that is to be put.
    fn enter(&self, node: Uuid) -> (watch::Receiver<Option<Signer>>, Option<Question>) {
        let mut signers = self.lock();
        if let Some(told) = signers.get(&node) {
            return (told.clone(), None);
        }
        if signers.len() >= SIGNERS_MAX {
            signers.clear();
        }
        let (tell, told) = watch::channel(None);
        signers.insert(node, told.clone());
        (told, Some(Question { signers: self.clone(), node, tell, answer: Err(Unreachable::Late) }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Receiver<Option<Signer>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question for a node's secret. Dropped, it is over: one that ends early, by a panic say, has no answer.
struct Question {
    signers: Signers,
    node: Uuid,
    tell: watch::Sender<Option<Signer>>,
    answer: Result<Secret, Unreachable>,
}

impl Question {
    async fn put(mut self, asked: impl Future<Output = Result<Secret, Unreachable>>) {
        self.answer = asked.await;
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.answer.is_err() {
            // The next call asks again.
            self.signers.lock().remove(&self.node);
        }
        let signer = self.answer.map(|Secret(secret)| Arc::new(SessionSigner::of(secret)));
        // The calls that waited may have been given up.
        self.tell.send_replace(Some(signer));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::session_key::SECRET_BYTES;

    const NODE: Uuid = Uuid::from_u128(1);
    const SECRET: Secret = Secret([7; SECRET_BYTES]);

    #[tokio::test(start_paused = true)]
    async fn a_node_is_asked_once() {
        let (signers, runtime, asked) = (Signers::default(), Handle::current(), AtomicUsize::new(0));
        let ask = || {
            asked.fetch_add(1, Relaxed);
            async { Ok(SECRET) }
        };
        let (first, second) = tokio::join!(signers.of(&runtime, NODE, ask), signers.of(&runtime, NODE, ask));
        assert!(first.is_ok() && second.is_ok() && signers.of(&runtime, NODE, ask).await.is_ok());
        assert_eq!(asked.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_question_without_an_answer_the_next_one_asks_again() {
        let (signers, runtime) = (Signers::default(), Handle::current());
        let failed = signers.of(&runtime, NODE, || async { Err(Unreachable::Redis) }).await;
        assert_eq!(failed.err(), Some(Unreachable::Redis));
        let failed = signers.of(&runtime, NODE, || async { panic!("planted") }).await;
        assert_eq!(failed.err(), Some(Unreachable::Late));
        let known =
            timeout(Duration::from_secs(1), signers.of(&runtime, NODE, || async { Ok(SECRET) })).await;
        assert!(known.is_ok_and(|signer| signer.is_ok()));
    }
}
