//! Counts the connections of a user, or of an address, by asking the nodes that hold them: Redis counts those of a dead node until its lease
//! ends.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::call::CallResult;
use super::{CallType, Peers};
use crate::message::{Holder, ShardMessage, UserMessage};

/// The method of the question, whose parameters are a [`Holder`]. The answer is [`Held`].
pub(crate) const HELD: &str = "!held";

/// The time that other nodes have for an answer. A connection waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer to a question for the number of a [`Holder`]'s connections that a node has admitted.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Held {
    pub connections: usize,
}

impl Peers {
    /// Asks the other nodes how many connections of the holder they have, until `enough` are confirmed or the time is over.
    /// The holder's owner gets the number.
    pub(crate) fn confirm_connections(&self, holder: Holder, enough: usize) {
        let peers = self.clone();
        self.0.thread.runtime.spawn(async move {
            let parameters = serde_json::value::to_raw_value(&holder).expect("it is made for JSON");
            let mut elsewhere = 0_usize;
            let count = |_, outcome: CallResult| {
                let held = outcome.ok().and_then(|held| serde_json::from_str::<Held>(held.get()).ok());
                elsewhere = elsewhere.saturating_add(held.map_or(0, |held| held.connections));
                if elsewhere >= enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let asked = peers.gather(CallType::Question, HELD, &parameters, PATIENCE, count);
            // Without an answer nothing is confirmed.
            let _ = timeout(PATIENCE, asked).await;
            let owner = peers.0.inboxes.of_holder(&holder);
            owner.send(ShardMessage::User(UserMessage::Confirmed { holder, elsewhere }));
        });
    }
}
