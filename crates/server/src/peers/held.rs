//! Counting a user's connections by asking the nodes that hold them, as what Redis says of a dead node is true for as
//! long as its lease lasts.

use std::ops::ControlFlow;
use std::time::Duration;

use fanwire_protocol::ErrorCode;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::message::Outcome;
use super::{CallType, Cluster, user_topic};
use crate::message::{Message, TopicCall, UserMessage};
use crate::node::Node;

/// The method of the question, answered by [`held_here`].
pub(super) const HELD: &str = "!held";

/// How long the other nodes may take to answer. A connection waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize, Serialize)]
struct Question<'a> {
    user: &'a str,
}

#[derive(Debug, Deserialize, Serialize)]
struct Held {
    connections: usize,
}

impl Cluster {
    /// Asks the other nodes how many connections of the user they hold, until `enough` are confirmed or the time is
    /// up. The user's owner is told how many were.
    pub(crate) fn confirm_connections(&self, user: Box<str>, enough: usize) {
        let cluster = self.clone();
        self.0.thread.runtime.spawn(async move {
            let parameters =
                serde_json::value::to_raw_value(&Question { user: &user }).expect("it is made for JSON");
            let mut elsewhere = 0_usize;
            let count = |_, outcome: Outcome| {
                let held = outcome.ok().and_then(|held| serde_json::from_str::<Held>(held.get()).ok());
                elsewhere = elsewhere.saturating_add(held.map_or(0, |held| held.connections));
                if elsewhere >= enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let asked = cluster.gather(CallType::Question, HELD, &parameters, PATIENCE, count);
            // Without an answer nothing is confirmed.
            let _ = timeout(PATIENCE, asked).await;
            let owner = cluster.0.inboxes.of(&user);
            owner.send(Message::User(UserMessage::Confirmed { user, elsewhere }));
        });
    }
}

/// Answers another node: the user's connections on this one that were admitted.
pub(super) async fn held_here(node: &Node, parameters: &str) -> Outcome {
    let Question { user } = serde_json::from_str(parameters).map_err(|_| ErrorCode::BAD_REQUEST)?;
    let owner = node.owner_of(user);
    // A connection that was admitted before the question may not be known here yet.
    let (reached, barrier) = oneshot::channel();
    owner.send(Message::Call(user_topic(user), TopicCall::Barrier(reached)));
    let _ = barrier.await;
    let (reply, held) = oneshot::channel();
    owner.send(Message::User(UserMessage::Held { user: user.into(), reply }));
    let connections = held.await.map_err(|_| ErrorCode::INTERNAL)?;
    serde_json::value::to_raw_value(&Held { connections }).map_err(|_| ErrorCode::INTERNAL.into())
}
