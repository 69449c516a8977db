//! Counts a user's connections by asking the nodes that hold them: Redis counts those of a dead node until its lease
//! ends.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::call::CallResult;
use super::{CallType, Peers};
use crate::message::{ShardMessage, UserMessage};

/// The method of the question, see [`HeldQuestion`].
pub(crate) const HELD: &str = "!held";

/// The time that other nodes have for an answer. A connection waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks a node for the number of the user's connections that it has admitted.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct HeldQuestion<'a> {
    pub user: &'a str,
}

/// The answer to a [`HeldQuestion`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Held {
    pub connections: usize,
}

impl Peers {
    /// Asks the other nodes how many connections of the user they hold, until `enough` are confirmed or the time is over.
    /// The user's owner gets the number.
    pub(crate) fn confirm_connections(&self, user: Box<str>, enough: usize) {
        let peers = self.clone();
        self.0.thread.runtime.spawn(async move {
            let parameters =
                serde_json::value::to_raw_value(&HeldQuestion { user: &user }).expect("it is made for JSON");
            let mut elsewhere = 0_usize;
            let count = |_, outcome: CallResult| {
                let held = outcome.ok().and_then(|held| serde_json::from_str::<Held>(held.get()).ok());
                elsewhere = elsewhere.saturating_add(held.map_or(0, |held| held.connections));
                if elsewhere >= enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let asked = peers.gather(CallType::Question, HELD, &parameters, PATIENCE, count);
            // Without an answer nothing is confirmed.
            let _ = timeout(PATIENCE, asked).await;
            let owner = peers.0.inboxes.of_user(&user);
            owner.send(ShardMessage::User(UserMessage::Confirmed { user, elsewhere }));
        });
    }
}
