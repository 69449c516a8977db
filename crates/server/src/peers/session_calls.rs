//! Calls of clients to sessions of another node. Letters carry them and their answers.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use fanwire_broker::NewPublication;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::Peers;
use super::letter::Letter;
use super::names::{PATIENCE, answers_topic};
use crate::message::{SessionAnswer, SessionAsk, Unreachable};
use crate::session_key::SessionKey;

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
        let number = self.0.next_call.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        let _waiting = self.0.waiting_letters.enter(number, answer);
        let letter = Letter::Call { from: self.0.id, number, key, ask };
        let sent = self.0.redis.publish(&answers_topic(key.node), publication(letter.encode())).await;
        sent.map_err(|_| Unreachable::Redis)?;
        // The sender waits with the number, so it is there.
        answered.await.map_err(|_| Unreachable::Late)
    }

    /// Answers a call that another node forwarded, beside the caller.
    pub(crate) fn answer_letter(&self, to: Uuid, number: u64, answer: SessionAnswer) {
        let peers = self.clone();
        self.0.thread.runtime.spawn(async move {
            let letter = Letter::Answer { number, answer }.encode();
            if let Err(error) = peers.0.redis.publish(&answers_topic(to), publication(letter)).await {
                tracing::debug!(%error, "another node's call could not be answered");
            }
        });
    }

    /// Hands the answer to the call that waits for it.
    pub(crate) fn take_letter_answer(&self, number: u64, answer: SessionAnswer) {
        if let Some(asker) = self.0.waiting_letters.take(number) {
            // A call that was given up needs no answer.
            let _ = asker.send(answer);
        }
    }
}

fn publication(data: Bytes) -> NewPublication {
    NewPublication { data, ..NewPublication::default() }
}
