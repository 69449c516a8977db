//! This node's part in its cluster: it carries out the calls of other nodes, and takes their answers and letters.

mod commands;
mod letters;

use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::LinkState;
use fanwire_protocol::Publication;
use fanwire_protocol::reason::CloseReason;
use tokio::time::{Instant, sleep_until};

use crate::message::ShardMessage;
use crate::node::Node;
use crate::peers::{Arrivals, CallAnswer, Peers, Receiver};

/// The time after which connections that are missing, while others are there, count as broken.
const WEDGED_AFTER: Duration = Duration::from_secs(5);

/// Allows a log line about what other nodes send once in [`LogRateLimit::PAUSE`]: in a rolling update each message may be of
/// an unknown version.
#[derive(Debug, Default)]
struct LogRateLimit(Option<Instant>);

impl LogRateLimit {
    const PAUSE: Duration = Duration::from_secs(10);

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.0.is_none_or(|last| now - last >= Self::PAUSE);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// Carries out calls and takes answers for as long as it is polled.
pub(crate) async fn run(node: Node, peers: Peers, arrivals: Arrivals) {
    let Arrivals { calls, missed, answers, letters, dropped: _ } = arrivals;
    tokio::join!(
        commands::follow(node.clone(), peers.clone(), calls, missed),
        take_answers(&peers, answers),
        letters::take(&node, &peers, letters),
        reconnect_after_fencing(&node, &peers),
        watch_links(&peers)
    );
}

/// Notes connections to Redis that stay away while others are there.
async fn watch_links(peers: &Peers) {
    let mut state = peers.redis().state();
    let mut partial_since = None;
    loop {
        // Every failed attempt is a change, so the time counts from the first.
        partial_since = match &*state.borrow_and_update() {
            LinkState::Partial(_) => partial_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        let wedged_at = partial_since.map(|since| since + WEDGED_AFTER);
        peers.set_wedged(wedged_at.is_some_and(|at| at <= Instant::now()));
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = sleep_until(wedged_at.unwrap_or_else(Instant::now)),
                if wedged_at.is_some_and(|at| at > Instant::now()) => {}
        }
    }
}

/// Has all clients reconnect after other nodes fenced this one: their leaves were announced, and they recover what they
/// missed.
async fn reconnect_after_fencing(node: &Node, peers: &Peers) {
    let mut fenced = peers.redis().fenced();
    while fenced.changed().await.is_ok() {
        tracing::warn!(
            connections = node.connections(),
            "this node was fenced: it was out of reach for longer than its lease; its clients reconnect"
        );
        for inbox in node.inboxes.all.iter() {
            inbox.send(ShardMessage::Close(CloseReason::InsufficientState));
        }
    }
}

async fn take_answers(peers: &Peers, mut answers: Receiver<Arc<Publication>>) {
    let mut log_limit = LogRateLimit::default();
    while let Some(publication) = answers.receive().await {
        match serde_json::from_slice::<CallAnswer>(&publication.data) {
            Ok(answer) => peers.take_answer(answer),
            Err(error) => {
                if log_limit.is_due() {
                    tracing::warn!(%error, "an answer of another node cannot be decoded");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_version_that_is_unknown_is_logged_now_and_then() {
        let mut limit = LogRateLimit::default();
        let mut lines = || (0..100).filter(|_| limit.is_due()).count();
        assert_eq!((lines(), lines()), (1, 0));
        tokio::time::advance(LogRateLimit::PAUSE).await;
        assert_eq!(lines(), 1);
    }
}
