//! Letters of other nodes: calls to sessions of this node, and answers to this node's own calls.

use std::sync::Arc;

use fanwire_broker::LogRateLimit;
use fanwire_protocol::Publication;

use crate::message::{AnswerTo, ParkedAt, SessionAnswer, SessionCall, ShardMessage};
use crate::node::Node;
use crate::peers::{Caller, Letter, Peers, Receiver, ReplyTo, Secret};

/// Takes letters for as long as it is polled.
pub(super) async fn take(node: &Node, peers: &Peers, mut letters: Receiver<Arc<Publication>>) {
    // In a rolling update each may be of an unknown version.
    let log_limit = LogRateLimit::default();
    while let Some(publication) = letters.receive().await {
        match Letter::decode(&publication.data) {
            Ok(Letter::Secret { number, secret }) => peers.take_secret(number, secret),
            Ok(Letter::AskSecret { from, number }) => {
                peers.send_letter(from, Letter::Secret { number, secret: Secret(node.sessions.secret()) });
            }
            Ok(Letter::Answer { to: ReplyTo::Number(number), answer }) => {
                peers.take_letter_answer(number, answer);
            }
            Ok(Letter::Answer { to: ReplyTo::Poll(address), answer }) => {
                node.inboxes.answer_poll(address, answer);
            }
            Ok(Letter::Call { from, key, ask }) => match node.inbox_of(&key) {
                None => peers.answer_call(from, SessionAnswer::Gone),
                Some(_) if node.inboxes.are_requests_full() => peers.answer_call(from, SessionAnswer::Busy),
                Some(inbox) => {
                    let Caller { via, reply_to } = from;
                    let answer = match reply_to {
                        ReplyTo::Number(number) => AnswerTo::Node(via, number),
                        ReplyTo::Poll(address) => AnswerTo::Parked(ParkedAt { via, address }),
                    };
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
