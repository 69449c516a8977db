//! Letters of other nodes: calls to sessions of this node, and answers to this node's own calls.

use std::sync::Arc;

use fanwire_protocol::Publication;

use super::LogRateLimit;
use crate::message::{AnswerTo, SessionAnswer, SessionCall, ShardMessage};
use crate::node::Node;
use crate::peers::{Letter, Peers, Receiver, Secret};

/// Takes letters for as long as it is polled.
pub(super) async fn take(node: &Node, peers: &Peers, mut letters: Receiver<Arc<Publication>>) {
    let mut log_limit = LogRateLimit::default();
    while let Some(publication) = letters.receive().await {
        match Letter::decode(&publication.data) {
            Ok(Letter::Answer { number, answer }) => peers.take_letter_answer(number, answer),
            Ok(Letter::Secret { number, secret }) => peers.take_secret(number, secret),
            Ok(Letter::AskSecret { from, number }) => {
                peers.send_letter(from, Letter::Secret { number, secret: Secret(node.sessions.secret()) });
            }
            Ok(Letter::Call { from, number, key, ask }) => match node.inbox_of(&key) {
                None => peers.answer_letter(from, number, SessionAnswer::Gone),
                Some(_) if node.inboxes.are_requests_full() => {
                    peers.answer_letter(from, number, SessionAnswer::Busy);
                }
                Some(inbox) => {
                    let answer = AnswerTo::Node(from, number);
                    inbox.send(ShardMessage::Session(Box::new(SessionCall { key, ask, answer })));
                }
            },
            Err(illegible) => {
                if log_limit.is_due() {
                    tracing::warn!("{illegible}");
                }
            }
        }
    }
}
