//! Calls of clients to sessions of another node. Letters carry them and their answers.
//!
//! The first call to a node asks for its secret. From then on a key that the node has not made goes no further.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use fanwire_broker::{EngineError, NewPublication};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::Peers;
use super::askers::Askers;
use super::letter::{Letter, Secret};
use super::names::{PATIENCE, answers_topic};
use crate::message::{SessionAnswer, SessionAsk, Unreachable};
use crate::session_key::{SessionKey, SessionSigner};

/// Nodes whose secrets are kept. Each run of a node has its own; beyond this all are asked for again.
const SIGNERS_MAX: usize = 1024;

impl Peers {
    /// Sends a call to the node of its session, and returns the answer.
    pub(crate) async fn ask_session(
        &self,
        key: SessionKey,
        ask: SessionAsk,
    ) -> Result<SessionAnswer, Unreachable> {
        timeout(PATIENCE, self.ask_node(key, ask)).await.unwrap_or(Err(Unreachable::Late))
    }

    async fn ask_node(&self, key: SessionKey, ask: SessionAsk) -> Result<SessionAnswer, Unreachable> {
        let is_alive = self.0.live_nodes.has(&self.0.redis, &self.0.thread.runtime, key.node).await;
        if !is_alive.map_err(|_| Unreachable::Redis)? {
            return Err(Unreachable::NoSession);
        }
        if !self.signer(key.node).await?.made(&key) {
            return Err(Unreachable::NoSession);
        }
        let letter = |number| Letter::Call { from: self.0.id, number, key, ask };
        self.ask_by_letter(&self.0.waiting_letters, key.node, letter).await
    }

    /// Returns the signer of another node, which is asked for its secret once.
    async fn signer(&self, node: Uuid) -> Result<Arc<SessionSigner>, Unreachable> {
        let signers = || self.0.signers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = signers().get(&node) {
            return Ok(signer.clone());
        }
        let letter = |number| Letter::AskSecret { from: self.0.id, number };
        let Secret(secret) = self.ask_by_letter(&self.0.waiting_secrets, node, letter).await?;
        let signer = Arc::new(SessionSigner::of(secret));
        let mut signers = signers();
        if signers.len() >= SIGNERS_MAX {
            signers.clear();
        }
        signers.insert(node, signer.clone());
        Ok(signer)
    }

    /// Sends a letter to a node, and returns the answer.
    async fn ask_by_letter<T>(
        &self,
        waiting: &Askers<oneshot::Sender<T>>,
        node: Uuid,
        letter: impl FnOnce(u64) -> Letter,
    ) -> Result<T, Unreachable> {
        let number = self.0.next_call.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        let _waiting = waiting.enter(number, answer);
        self.publish_letter(node, letter(number)).await.map_err(|_| Unreachable::Redis)?;
        // The sender waits with the number, so it is there.
        answered.await.map_err(|_| Unreachable::Late)
    }

    /// Sends a letter beside the caller.
    pub(crate) fn send_letter(&self, to: Uuid, letter: Letter) {
        let peers = self.clone();
        self.0.thread.runtime.spawn(async move {
            if let Err(error) = peers.publish_letter(to, letter).await {
                tracing::debug!(%error, "another node's call could not be answered");
            }
        });
    }

    async fn publish_letter(&self, to: Uuid, letter: Letter) -> Result<(), EngineError> {
        let publication = NewPublication { data: letter.encode(), ..NewPublication::default() };
        self.0.redis.publish(&answers_topic(to), publication).await.map(drop)
    }

    /// Answers a call that another node forwarded, beside the caller.
    pub(crate) fn answer_letter(&self, to: Uuid, number: u64, answer: SessionAnswer) {
        self.send_letter(to, Letter::Answer { number, answer });
    }

    /// Hands the answer to the call that waits for it.
    pub(crate) fn take_letter_answer(&self, number: u64, answer: SessionAnswer) {
        hand_over(&self.0.waiting_letters, number, answer);
    }

    /// Hands another node's secret to the call that waits for it.
    pub(crate) fn take_secret(&self, number: u64, secret: Secret) {
        hand_over(&self.0.waiting_secrets, number, secret);
    }
}

fn hand_over<T>(waiting: &Askers<oneshot::Sender<T>>, number: u64, answer: T) {
    if let Some(asker) = waiting.take(number) {
        // A call that was given up needs no answer.
        let _ = asker.send(answer);
    }
}
