//! This node's part in its cluster: it carries out the calls of other nodes, and takes their answers and letters.

mod commands;
mod letters;

use std::sync::Arc;
use std::time::Duration;

use fanwire_broker::{LinkState, LogRateLimit, planted};
use fanwire_protocol::Publication;
use fanwire_protocol::reason::CloseReason;
use tokio::time::{Instant, sleep_until};

use crate::message::ShardMessage;
use crate::node::Node;
use crate::peers::{Arrivals, CallAnswer, Peers, Receiver};

/// The time after which connections that are missing, while others are there, count as broken.
const WEDGED_AFTER: Duration = Duration::from_secs(5);

/// Carries out calls and takes answers for as long as it is polled. No part of that ends by itself: if one does, the node's part
/// in its cluster is not whole any more, and this returns.
pub(crate) async fn run(node: Node, peers: Peers, arrivals: Arrivals) {
    let Arrivals { calls, missed, answers, letters, dropped: _ } = arrivals;
    let ended = tokio::select! {
        () = planted::run("orders", commands::follow(node.clone(), peers.clone(), calls, missed)) => "orders",
        () = planted::run("answers", take_answers(&peers, answers)) => "answers",
        () = planted::run("letters", letters::take(&node, &peers, letters)) => "letters",
        () = planted::run("fencing", reconnect_after_fencing(&node, &peers)) => "fencing",
        () = planted::run("links", watch_links(&peers)) => "links",
    };
    tracing::error!(part = ended, "a part of the node's work in its cluster returned");
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
    // In a rolling update each may be of an unknown version.
    let log_limit = LogRateLimit::default();
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
