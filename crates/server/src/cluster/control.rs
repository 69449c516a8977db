//! Doing what other nodes ask, in the order in which they asked, and taking their answers.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fanwire_broker::{Event, LinkState, Publish, Since};
use fanwire_protocol::{Disconnect, Epoch, Publication};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use uuid::Uuid;

use super::message::{Answer, Call, Outcome, SINGLE, Single};
use super::{Cluster, ORDERS_KEPT, answers_topic};
use crate::api;
use crate::handle::Node;
use crate::inbox::Message;
use crate::node::follow::{Follow, Step};

/// Events of the cluster's own topics.
pub(crate) type Arrivals = mpsc::Receiver<Event>;

/// Calls of other nodes that are done at the same time.
const CALLS_MAX: usize = 1024;

/// Connections that are missing for so long while others are there are not just being opened anew.
const WEDGED_AFTER: Duration = Duration::from_secs(5);

/// Between attempts to reach the engine.
const PAUSE: Duration = Duration::from_millis(200);

/// Does this node's part in the cluster for as long as it is polled.
pub(crate) async fn run(node: Node, cluster: Cluster, arrivals: Arrivals) {
    tokio::join!(
        listen(node.clone(), cluster.clone(), arrivals),
        return_from_the_dead(&node, &cluster),
        watch_links(&cluster)
    );
}

/// Notices connections that stay away while others are there.
async fn watch_links(cluster: &Cluster) {
    let mut state = cluster.0.redis.state();
    loop {
        let is_partial = matches!(&*state.borrow_and_update(), LinkState::Partial(_));
        let changed = if is_partial {
            match timeout(WEDGED_AFTER, state.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    cluster.0.wedged.store(true, Relaxed);
                    state.changed().await
                }
            }
        } else {
            state.changed().await
        };
        if !matches!(&*state.borrow(), LinkState::Partial(_)) {
            cluster.0.wedged.store(false, Relaxed);
        }
        if changed.is_err() {
            return;
        }
    }
}

/// Others took this node for dead and said that its clients left: they have to connect anew, and find what they
/// missed.
async fn return_from_the_dead(node: &Node, cluster: &Cluster) {
    let mut fenced = cluster.0.redis.fenced();
    while fenced.changed().await.is_ok() {
        tracing::warn!(
            connections = node.connections(),
            "this node was out of reach for longer than its lease, so its clients have to connect anew"
        );
        for inbox in node.inboxes.all.iter() {
            inbox.send(Message::Close(Disconnect::INSUFFICIENT_STATE));
        }
    }
}

async fn listen(node: Node, cluster: Cluster, mut arrivals: Arrivals) {
    let mut listener =
        Listener { node, calls: Arc::new(Semaphore::new(CALLS_MAX)), follow: Follow::default(), cluster };
    listener.begin().await;
    while let Some(event) = arrivals.recv().await {
        listener.take(event).await;
        while listener.follow.is_doubtful() {
            listener.repair().await;
        }
    }
}

struct Listener {
    node: Node,
    cluster: Cluster,
    /// How far the orders have been followed.
    follow: Follow,
    calls: Arc<Semaphore>,
}

impl Listener {
    /// Subscribes, for good, and finds out where the orders stand.
    async fn begin(&mut self) {
        let shared = &self.cluster.0;
        loop {
            let top = async {
                // Whether this node may join is known only then.
                shared.redis.peers().await?;
                shared.redis.subscribe(&shared.answers).await?;
                shared.redis.subscribe(&shared.control).await?;
                shared.redis.recover(&shared.control, None, 0, ORDERS_KEPT.meta_ttl).await
            };
            match top.await {
                Ok(answer) => {
                    self.follow.begin(answer.top);
                    shared.is_listening.store(true, Relaxed);
                    return;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Publication { topic, publication, .. } if topic == self.cluster.0.answers => {
                self.answered(&publication);
            }
            Event::Publication { publication, epoch: None, .. } => self.call(&publication).await,
            Event::Publication { publication, epoch: Some(epoch), .. } => {
                self.order(epoch, publication).await;
            }
            Event::Interrupted { topic } if topic == self.cluster.0.control => self.follow.doubt(),
            // An answer that was missed counts as none.
            Event::Interrupted { .. } | Event::Join { .. } | Event::Leave { .. } => {}
        }
    }

    async fn order(&mut self, epoch: Epoch, publication: Arc<Publication>) {
        if self.follow.take(epoch, &publication) == Step::Deliver {
            self.call(&publication).await;
        }
    }

    /// Reads the orders that may have been missed.
    async fn repair(&mut self) {
        let shared = &self.cluster.0;
        let Some(since) = self.follow.ask() else { return };
        let asked = Since { offset: since.offset, epoch: since.epoch.as_str() };
        let recover =
            shared.redis.recover(&shared.control, Some(asked), ORDERS_KEPT.size, ORDERS_KEPT.meta_ttl);
        match recover.await {
            Ok(answer) => {
                let repaired = self.follow.repair(answer);
                if repaired.lost {
                    tracing::warn!("orders of other nodes for clients of this one may have been lost");
                }
                for stamped in repaired.deliver {
                    self.call(&stamped.publication).await;
                }
            }
            Err(_) => {
                self.follow.doubt();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Begins a call of another node. Calls begin in order; none waits for the one before it to end.
    async fn call(&self, publication: &Publication) {
        let call: Call<'_> = match serde_json::from_slice(&publication.data) {
            Ok(call) => call,
            Err(error) => return tracing::warn!(%error, "another node says what cannot be read"),
        };
        let is_ours = call.from == self.cluster.0.id;
        if call.method == SINGLE {
            match serde_json::from_str::<Single>(call.parameters.get()) {
                Ok(single) => self.node.owner_of(&single.user).send(single.heard(is_ours)),
                Err(error) => tracing::warn!(%error, "another node says what cannot be read"),
            }
            return;
        }
        if is_ours {
            return;
        }
        // The semaphore is never closed.
        let Ok(permit) = self.calls.clone().acquire_owned().await else { return };
        let (node, cluster) = (self.node.clone(), self.cluster.clone());
        let (from, number) = (call.from, call.number);
        let (method, parameters) = (call.method.to_owned(), call.parameters.to_owned());
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = api::run_here(&node, &method, parameters.get()).await;
            if let Some(number) = number {
                cluster.answer(from, number, outcome).await;
            }
        });
    }

    fn answered(&self, publication: &Publication) {
        match serde_json::from_slice::<Answer>(&publication.data) {
            Ok(answer) => {
                let waiting = self.cluster.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(asker) = waiting.get(&answer.number) {
                    // Who does not wait any more needs no answer.
                    let _ = asker.send(answer);
                }
            }
            Err(error) => tracing::warn!(%error, "another node answers what cannot be read"),
        }
    }
}

impl Cluster {
    async fn answer(&self, to: Uuid, number: u64, outcome: Outcome) {
        let answer = Answer::new(self.0.id, number, outcome);
        let data = serde_json::to_vec(&answer).expect("its parts are JSON");
        let publish = Publish { data: data.into(), ..Publish::default() };
        if let Err(error) = self.0.redis.publish(&answers_topic(to), publish).await {
            tracing::debug!(%error, "another node's call could not be answered");
        }
    }
}
