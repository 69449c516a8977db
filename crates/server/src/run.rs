//! Starting and stopping a node.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fanwire_broker::{Event, Incompatible, MemoryOutbox, MemoryStatus, Outboxes, UserStatuses, planted};
use fanwire_protocol::{Publication, TopicName};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use uuid::Uuid;

use crate::accept::origin::AllowedOrigins;
use crate::accept::tls::{self, CertificateError, Tls};
use crate::accept::{bind, serve};
use crate::api::METHOD_LABELS;
use crate::auth::{KeyError, Tokens, fetch_keys};
use crate::counters::{Counter, Counters};
use crate::drain::{DrainPhase, drain};
use crate::events::{Events, WebhookError};
use crate::hooks::{BackendThread, HookError, Hooks};
use crate::inbox::{InboxReceiver, Inboxes};
use crate::message::ShardMessage;
use crate::metrics::Metrics;
use crate::node::{Links, Node};
use crate::peers::{JoinError, Peers};
use crate::request_budget::RequestBudget;
use crate::settings::{EngineSettings, RedisSettings, Settings, StatusSettings};
use crate::shard::Shard;
use crate::tasks::{OwnedTask, Task};
use crate::transport::Gate;
use crate::{cluster, internal};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot listen on {address} ({setting}): {error}")]
    Listen { address: SocketAddr, setting: &'static str, error: io::Error },
    #[error(transparent)]
    Cluster(#[from] JoinError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("the thread that calls backends could not be started: {0}")]
    BackendThread(io::Error),
    #[error("a shard could not be started: {0}")]
    Shard(io::Error),
}

/// A running node. Dropping it ends its shards and tasks at once; only [`Running::shutdown`] tells clients.
#[derive(Debug)]
pub struct Running {
    node: Node,
    client_address: SocketAddr,
    internal_address: SocketAddr,
    phase: watch::Sender<DrainPhase>,
    listening: mpsc::Receiver<()>,
    ended: mpsc::UnboundedReceiver<usize>,
    shards: Vec<thread::JoinHandle<()>>,
    internal: OwnedTask,
    summary: OwnedTask,
    certificate: Option<OwnedTask>,
    keys: Vec<OwnedTask>,
    events: Option<Events>,
    membership: Option<OwnedTask>,
    backends: Option<BackendThread>,
}

/// The failures after which a node cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// A defect: the shard's topics and clients are gone, and only a new process serves them again.
    #[error("shard {0} ended, so the node stops; the log has the reason")]
    Shard(usize),
    /// A defect: the node no longer follows its cluster, or not with all its parts.
    #[error("the node's part in its cluster ended, so the node stops; the log has the reason")]
    Membership,
    /// A defect: sessions wait for answers that nobody brings.
    #[error("the thread that calls backends ended, so the node stops; the log has the reason")]
    Backends,
    /// A defect: a task of the Redis engine ended.
    #[error("the task {0} of the Redis engine ended, so the node stops; the log has the reason")]
    Redis(&'static str),
    /// The cluster has other settings than this node.
    #[error("this node cannot join its cluster: {0}")]
    Refused(Incompatible),
}

/// The interval of the log line with the node's figures.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// Starts a node: binds its listeners, then starts its shards. Call it within a tokio runtime, which serves the internal
/// port beside the shards.
pub fn start(settings: Settings) -> Result<Running, StartError> {
    let settings = Arc::new(settings);
    let tokens = Tokens::new(&settings.connection_tokens, settings.subscription_tokens.as_ref())?;
    let tls = settings.tls.as_ref().map(Tls::new).transpose()?;
    let (inboxes, receivers) = Inboxes::new(settings.shards);

    let internal_failed = |error| StartError::Listen {
        address: settings.internal_address,
        setting: "internal.address and internal.port",
        error,
    };
    let internal_listener =
        bind::bind_alone(settings.internal_address, settings.admission.backlog).map_err(internal_failed)?;
    let internal_address = internal_listener.local_addr().map_err(internal_failed)?;
    let (client_address, listeners) = bind_clients(&settings)?;

    let joined = match &settings.engine {
        EngineSettings::Memory(_) => None,
        EngineSettings::Redis(redis) => {
            let forwarded_max = settings.admission.forwarded_bytes_per_second_max;
            let id = Uuid::new_v4();
            let redis = RedisSettings {
                status: settings.status.as_ref().map(|status| status.options.clone()),
                ..redis.clone()
            };
            Some(Peers::start(redis, id, &settings.name, inboxes.clone(), forwarded_max)?)
        }
    };
    let (peers, arrivals) = joined.unzip();
    let counters: Vec<Arc<Counters>> = inboxes.all.iter().map(|_| Arc::default()).collect();
    let metrics = Metrics::new(counters.clone(), settings.wires(), &METHOD_LABELS);
    let has_backends = !settings.hooks.is_empty();
    let backends = has_backends.then(BackendThread::start).transpose().map_err(StartError::BackendThread)?;
    let hooks = Hooks::start(&settings, inboxes.clone(), &metrics.hooks, backends.as_ref())?;
    let outboxes = outboxes(&settings, peers.as_ref());
    let statuses = statuses(&settings, peers.as_ref(), &inboxes);
    let links = Links { peers: peers.clone(), hooks, outboxes, statuses };
    let node = Node::new(settings.clone(), tokens, tls.clone(), inboxes, links, counters, metrics);
    let membership = peers
        .zip(arrivals)
        .map(|(peers, arrivals)| planted::run("membership", cluster::run(node.clone(), peers, arrivals)))
        .map(OwnedTask::spawn);

    let (phase, phases) = watch::channel(DrainPhase::Serving);
    let (listens, listening) = mpsc::channel(1);
    let (end, ended) = mpsc::unbounded_channel();
    let mut shards = Vec::new();
    for ((index, receiver), listener) in receivers.into_iter().enumerate().zip(listeners) {
        let (node, phases, listens) = (node.clone(), phases.clone(), listens.clone());
        let end = EndOfShard { index, tell: end.clone() };
        let thread = thread::Builder::new().name(format!("shard-{index}"));
        let shard = thread.spawn(move || {
            let _end = end;
            if let Err(error) = run_shard(index, node, receiver, listener, listens, phases) {
                tracing::error!(%error, shard = index, "a shard ended");
            }
        });
        shards.push(shard.map_err(StartError::Shard)?);
    }
    let internal_listener = TcpListener::from_std(internal_listener).map_err(internal_failed)?;
    let kept = node.clone();
    let internal = OwnedTask::spawn(async move {
        kept.tasks.keep(Task::Internal, || internal::listen(kept.clone(), &internal_listener)).await;
    });
    let kept = node.clone();
    let summary = OwnedTask::spawn(async move {
        kept.tasks.keep(Task::Summary, || summarize(kept.clone())).await;
    });
    let certificate = tls.zip(settings.tls.clone()).map(|(tls, settings)| {
        let kept = node.clone();
        OwnedTask::spawn(async move {
            kept.tasks.keep(Task::Certificate, || tls::follow(tls.clone(), settings.clone())).await;
        })
    });
    let keys = node.tokens.key_sets().map(|sets| {
        let (kept, sets) = (node.clone(), sets.clone());
        OwnedTask::spawn(async move {
            let tell =
                |keys| kept.inboxes.all.iter().for_each(|inbox| inbox.send(ShardMessage::KeysFetched(keys)));
            kept.tasks.keep(Task::Keys, || fetch_keys(sets.clone(), tell)).await;
        })
    });
    let keys = keys.collect();
    let events = Events::start(&node)?;
    Ok(Running {
        node,
        client_address,
        internal_address,
        phase,
        listening,
        ended,
        shards,
        internal,
        summary,
        certificate,
        keys,
        events,
        membership,
        backends,
    })
}

/// Returns the outboxes of the engine, if events are wanted.
fn outboxes(settings: &Settings, peers: Option<&Peers>) -> Option<Outboxes> {
    match &settings.engine {
        EngineSettings::Memory(memory) => memory.outbox.map(MemoryOutbox::new).map(Outboxes::Memory),
        EngineSettings::Redis(_) => peers?.redis().outbox().cloned().map(Outboxes::Redis),
    }
}

/// Returns the status of users, if a namespace has it.
fn statuses(settings: &Settings, peers: Option<&Peers>, inboxes: &Inboxes) -> Option<UserStatuses> {
    let StatusSettings { options, in_memory, .. } = settings.status.as_ref()?;
    if let Some(peers) = peers {
        return Some(UserStatuses::Redis(peers.redis().clone()));
    }
    let inboxes = inboxes.clone();
    let tell = move |topic: TopicName, publication: Publication| {
        let event = Event::Publication { topic, publication: publication.into(), epoch: None };
        inboxes.of_topic(event.topic()).send(ShardMessage::Event(event));
    };
    Some(UserStatuses::Memory(MemoryStatus::new(options.clone(), *in_memory, Box::new(tell))))
}

/// Logs one line a minute, instead of one for every connection.
async fn summarize(node: Node) {
    let sum = |counter: fn(&Counters) -> &Counter| -> u64 {
        node.counters.iter().map(|counters| counter(counters).value()).sum()
    };
    let mut published_before = 0;
    loop {
        tokio::time::sleep(SUMMARY_INTERVAL).await;
        let published = sum(|counters| &counters.publications);
        tracing::info!(
            connections = node.connections(),
            subscriptions = sum(|counters| &counters.subscriptions),
            users = sum(|counters| &counters.users),
            publications = published - published_before,
            "the last minute"
        );
        published_before = published;
    }
}

/// Binds a socket for each shard, all on one address.
fn bind_clients(settings: &Settings) -> Result<(SocketAddr, Vec<std::net::TcpListener>), StartError> {
    let failed = |error| StartError::Listen {
        address: settings.client_address,
        setting: "server.address and server.port",
        error,
    };
    let backlog = settings.admission.backlog;
    // Another program on the same port would share the connections, so this checks first that there is none.
    bind::check_free(settings.client_address).map_err(failed)?;
    let first = bind::bind(settings.client_address, backlog).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    while listeners.len() < settings.shards {
        listeners.push(bind::bind(address, backlog).map_err(failed)?);
    }
    Ok((address, listeners))
}

fn run_shard(
    index: usize,
    node: Node,
    receiver: InboxReceiver,
    listener: std::net::TcpListener,
    listens: mpsc::Sender<()>,
    mut phases: watch::Receiver<DrainPhase>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let (adopt, adopted) = mpsc::unbounded_channel();
        let budget = Rc::<RequestBudget>::default();
        let shard = Shard::new(index, node.clone(), budget.clone())?;
        let origins = AllowedOrigins::new(&node.settings.origins);
        let gate = Rc::new(Gate { node, origins, shard: index, budget, adopted: adopt });
        let accept = serve::accept(TcpListener::from_std(listener)?, gate, phases.clone());
        let broken = shard.broken();
        let mut accepting = tokio::task::spawn_local(async move {
            planted::run("listener", accept).await;
            drop(listens);
        });
        let phase = phases.clone();
        let accepts_nothing = async {
            // It may also have panicked.
            let _ = (&mut accepting).await;
            if *phase.borrow() >= DrainPhase::Leaving {
                // The shard goes on for those that it has.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            // The node has drained its connections by then.
            _ = phases.wait_for(|phase| *phase == DrainPhase::Stopped) => {}
            () = planted::run("shard", shard.run(receiver, adopted)) => {}
            () = broken => return Err(io::Error::other("a topic's task panicked")),
            () = accepts_nothing => return Err(io::Error::other("the task of its listener ended")),
        }
        accepting.abort();
        Ok(())
    })
}

/// Reports the end of a shard's thread, however it ended.
struct EndOfShard {
    index: usize,
    tell: mpsc::UnboundedSender<usize>,
}

impl Drop for EndOfShard {
    fn drop(&mut self) {
        // A node that shuts down does not receive it.
        let _ = self.tell.send(self.index);
    }
}

impl Running {
    /// Waits for a failure after which the node cannot go on. Cancel-safe.
    pub async fn failed(&mut self) -> Failed {
        let peers = self.node.peers.clone();
        let refused = async {
            match &peers {
                Some(peers) => peers.refused().await,
                None => std::future::pending().await,
            }
        };
        let broken = async {
            match &peers {
                Some(peers) => peers.redis().failed().await,
                None => std::future::pending().await,
            }
        };
        let hookless = async {
            match &mut self.backends {
                Some(backends) => backends.ended().await,
                None => std::future::pending().await,
            }
        };
        let left = async {
            match &mut self.membership {
                Some(membership) => membership.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(shard) = self.ended.recv() => Failed::Shard(shard),
            why = refused => Failed::Refused(why),
            task = broken => Failed::Redis(task),
            () = left => Failed::Membership,
            () = hookless => Failed::Backends,
        }
    }

    /// The address of the client port, with the port that was bound if the settings say 0.
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// Reads the certificate's files again. The result is in the log.
    pub fn reload_certificate(&self) {
        if let Some(tls) = &self.node.tls {
            tls.reload();
        }
    }

    /// Lets load balancers learn that the node leaves, closes its clients over `shutdown.window` so that they reconnect
    /// elsewhere, waits for them up to `shutdown.timeout`, and stops.
    pub async fn shutdown(self) {
        let Self {
            node,
            phase,
            listening,
            shards,
            internal,
            summary,
            certificate,
            keys,
            events,
            membership,
            backends,
            ..
        } = self;
        drop(summary);
        drain(&node, &phase, listening).await;
        // Clients and their subscriptions are gone, and shards still serve requests.
        drop(membership);
        if let Some(events) = events {
            events.stop().await;
        }
        if let Some(peers) = &node.peers {
            peers.leave().await;
        }
        let _ = phase.send(DrainPhase::Stopped);
        drop((internal, certificate, keys));
        let joined = tokio::task::spawn_blocking(move || {
            shards.into_iter().for_each(|shard| drop(shard.join()));
            backends.into_iter().for_each(BackendThread::stop);
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "the shards could not be awaited");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_that_panics_is_noticed() {
        let (tell, mut ended) = mpsc::unbounded_channel();
        let shard = thread::spawn(move || {
            let _end = EndOfShard { index: 3, tell };
            panic!("planted");
        });
        assert_eq!(ended.recv().await, Some(3));
        assert!(shard.join().is_err());
    }
}
