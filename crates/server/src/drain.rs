//! A node's graceful shutdown: load balancers learn of it first, then clients are closed evenly over a window while the
//! others are served, and their subscriptions end before anything stops.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::message::ShardMessage;
use crate::node::Node;
use crate::settings::ShutdownSettings;

/// The phases of a node's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainPhase {
    Serving,
    /// Listeners close, and clients are closed.
    Leaving,
    /// Shards end.
    Stopped,
}

/// The interval between two looks at figures that nothing announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The time that topics have to end their last subscriptions once all clients are gone: as long as an engine may take
/// for a call.
const TOPICS_PATIENCE: Duration = Duration::from_secs(3);

/// Returns when the last client is gone and has left its topics, or when the time for that is over. `listening` has no
/// sender once no shard listens and every request is answered.
pub(crate) async fn drain(node: &Node, phase: &watch::Sender<DrainPhase>, mut listening: mpsc::Receiver<()>) {
    node.start_draining();
    let ShutdownSettings { propagation, window, timeout: last } = node.settings.shutdown;
    // Backends call a node without clients too.
    sleep(propagation).await;

    let connections = node.connections();
    let window = window.min(longest_window(connections));
    tracing::info!(connections, ?window, "closing clients");
    // It has no receiver if every shard has ended.
    let _ = phase.send(DrainPhase::Leaving);
    for inbox in node.inboxes.all.iter() {
        inbox.send(ShardMessage::Drain(window));
    }
    let gone = async {
        // A request that is being answered may still bring a client.
        let _ = listening.recv().await;
        deserted(node).await;
    };
    if timeout(window.saturating_add(last), gone).await.is_err() {
        let connections = node.connections();
        tracing::warn!(connections, timeout = ?last, "connections were left when the timeout ended");
    }
    if timeout(TOPICS_PATIENCE, topics_done(node)).await.is_err() {
        tracing::warn!("topics were still busy when the node stopped");
    }
}

/// The longest window for this number of clients: a node with few does not take the whole window.
fn longest_window(connections: u64) -> Duration {
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    Duration::from_secs(1) * connections / ShutdownSettings::CLOSES_PER_SECOND_MIN
}

/// Waits until there is no client and none is about to be there.
async fn deserted(node: &Node) {
    while !node.permits.is_deserted() {
        sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until the owners of topics have ended the last clients' subscriptions, removed them from presence and
/// published their leaves.
async fn topics_done(node: &Node) {
    while node.counters.iter().any(|counters| counters.topics.value() > 0) {
        sleep(LOOK_INTERVAL).await;
    }
}
