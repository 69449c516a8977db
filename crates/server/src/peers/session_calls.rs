//! Calls of clients to sessions of another node. Letters carry them and their answers.
//!
//! The first call to a node asks for its secret. From then on a key that the node has not made goes no further.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fanwire_broker::{EngineError, NewPublication};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::Peers;
use super::askers::Askers;
use super::forwarding::LETTER_BYTES;
use super::letter::{Caller, Letter, ReplyTo, Secret};
use super::names::{PATIENCE, answers_topic};
use crate::accept::admission::ClientNetwork;
use crate::message::{ParkedAt, PollAsk, SessionAnswer, SessionAsk, ShardMessage, Unreachable, Via};
use crate::session_key::{SessionKey, SessionSigner};

/// The time for another look at the list of nodes, once one of them is late.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// A letter that is being sent: what is said behind it waits for its end.
#[derive(Debug)]
pub(crate) struct Sending(oneshot::Receiver<()>);

impl Peers {
    /// Sends a call of a client to the node of its session, and returns the answer.
    pub(crate) async fn ask_session(
        &self,
        from: ClientNetwork,
        key: SessionKey,
        ask: SessionAsk,
    ) -> Result<SessionAnswer, Unreachable> {
        let answer = timeout(PATIENCE, self.ask_node(from, key, ask)).await.unwrap_or(Err(Unreachable::Late));
        match answer {
            // It may have left while it was waited for.
            Err(Unreachable::Late) if self.has_left(key.node).await => Err(Unreachable::NoSession),
            answer => answer,
        }
    }

    /// Returns true if a node is known not to be alive any more.
    async fn has_left(&self, node: Uuid) -> bool {
        let is_alive = self.0.live_nodes.has(&self.0.redis, &self.0.thread.runtime, node);
        matches!(timeout(LOOK_PATIENCE, is_alive).await, Ok(Ok(false)))
    }

    /// Looks whether nodes are alive, beside the caller. A shard is told of each that is not.
    pub(crate) fn look_for(&self, nodes: Vec<Uuid>, shard: u16) {
        let peers = self.clone();
        self.0.thread.runtime.spawn(async move {
            let look = async {
                for node in nodes {
                    if peers.has_left(node).await {
                        peers.0.inboxes.all[usize::from(shard)].send(ShardMessage::NodeGone(node));
                    }
                }
            };
            // What is not done by then is for the next look.
            let _ = timeout(LOOK_PATIENCE, look).await;
        });
    }

    async fn ask_node(
        &self,
        from: ClientNetwork,
        key: SessionKey,
        ask: SessionAsk,
    ) -> Result<SessionAnswer, Unreachable> {
        self.check(&key).await?;
        if !self.0.forwarding.may_forward(from, content_bytes(&ask)) {
            return Err(Unreachable::TooMuch);
        }
        let via = Via { node: self.0.id, network: Some(from) };
        let letter =
            |number| Letter::Call { from: Caller { via, reply_to: ReplyTo::Number(number) }, key, ask };
        let answer = self.ask_by_letter(&self.0.waiting_letters, key.node, letter).await?;
        self.count_answer(from, &answer);
        Ok(answer)
    }

    /// Counts an answer of another node to a client: what a poll brings is longer than the poll.
    pub(crate) fn count_answer(&self, to: ClientNetwork, answer: &SessionAnswer) {
        if let SessionAnswer::Poll(answer) = answer {
            self.0.forwarding.charge(to, answer.body.len());
        }
    }

    /// Sends what a poll that waits has to say to the node of its session, beside the caller and behind what it says
    /// `before`. The answer goes to the poll's shard.
    pub(crate) fn poll_session(
        &self,
        key: SessionKey,
        ask: SessionAsk,
        at: ParkedAt,
        before: Option<Sending>,
    ) -> Sending {
        let peers = self.clone();
        let (end, sending) = oneshot::channel();
        self.0.thread.runtime.spawn(async move {
            let _end = end;
            if let Some(Sending(before)) = before {
                // An error is the end as well.
                let _ = before.await;
            }
            let send = async {
                peers.check(&key).await?;
                let from = Caller { via: at.via, reply_to: ReplyTo::Poll(at.address) };
                let letter = Letter::Call { from, key, ask };
                peers.publish_letter(key.node, letter).await.map_err(|_| Unreachable::Redis)
            };
            let sent = timeout(PATIENCE, send).await.unwrap_or(Err(Unreachable::Late));
            if let Err(why) = sent {
                let answer = match why {
                    Unreachable::NoSession => SessionAnswer::Gone,
                    _ => SessionAnswer::Unreachable,
                };
                peers.0.inboxes.answer_poll(at.address, answer);
            }
        });
        Sending(sending)
    }

    /// Checks that a key was made by its node, which is alive.
    async fn check(&self, key: &SessionKey) -> Result<(), Unreachable> {
        let is_alive = self.0.live_nodes.has(&self.0.redis, &self.0.thread.runtime, key.node).await;
        if !is_alive.map_err(|_| Unreachable::Redis)? {
            return Err(Unreachable::NoSession);
        }
        if !self.signer(key.node).await?.made(key) {
            return Err(Unreachable::NoSession);
        }
        Ok(())
    }

    /// Returns the signer of another node.
    async fn signer(&self, node: Uuid) -> Result<Arc<SessionSigner>, Unreachable> {
        let ask = || self.clone().ask_secret(node);
        self.0.signers.of(&self.0.thread.runtime, node, ask).await
    }

    async fn ask_secret(self, node: Uuid) -> Result<Secret, Unreachable> {
        let letter = |number| Letter::AskSecret { from: self.0.id, number };
        let secret = timeout(PATIENCE, self.ask_by_letter(&self.0.waiting_secrets, node, letter));
        secret.await.unwrap_or(Err(Unreachable::Late))
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

    /// Takes room for an answer to a poll that came this way. Returns false if there is too little.
    pub(crate) fn may_answer(&self, via: Via, body_bytes: usize) -> bool {
        self.0.answering.may_forward(via, body_bytes)
    }

    /// Takes room for the last answer of a session, however little is left.
    pub(crate) fn charge_answer(&self, via: Via, body_bytes: usize) {
        self.0.answering.charge(via, body_bytes);
    }

    /// Answers a call that another node forwarded, beside the caller.
    pub(crate) fn answer_call(&self, to: Caller, answer: SessionAnswer) {
        self.send_letter(to.via.node, Letter::Answer { to: to.reply_to, answer });
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

/// Returns the bytes that a call counts for beside its letter: those of its commands, or of the three letters by which a poll is
/// told that there is nothing, waits, and ends.
fn content_bytes(ask: &SessionAsk) -> usize {
    match ask {
        SessionAsk::Commands { data, .. } => data.len(),
        SessionAsk::Poll(PollAsk { wait_millis: 1.., .. }) => 3 * LETTER_BYTES,
        SessionAsk::Poll(_) | SessionAsk::Left | SessionAsk::End => 0,
    }
}

fn hand_over<T>(waiting: &Askers<oneshot::Sender<T>>, number: u64, answer: T) {
    if let Some(asker) = waiting.take(number) {
        // A call that was given up needs no answer.
        let _ = asker.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_poll_counts_for_all_its_letters() {
        let poll = |wait_millis| SessionAsk::Poll(PollAsk { number: 0, wait_millis, topics: 0 });
        assert_eq!(content_bytes(&poll(0)), 0);
        assert_eq!(content_bytes(&poll(1)), 3 * LETTER_BYTES);
        let data = Bytes::from_static(b"{}");
        assert_eq!(content_bytes(&SessionAsk::Commands { first: None, data }), 2);
    }
}
