//! Starting and stopping a node.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fanwire_protocol::ClientId;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use uuid::Uuid;

use crate::auth::{KeyError, Tokens};
use crate::counters::{Counter, Counters};
use crate::handle::Node;
use crate::http::Gate;
use crate::inbox::{Inbox, Message, Outlet};
use crate::origin::AllowedOrigins;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::{internal, listener};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot listen on {address} ({setting}): {error}")]
    Listen { address: SocketAddr, setting: &'static str, error: io::Error },
    #[error("a shard could not be started: {0}")]
    Shard(io::Error),
}

/// A node at work. When it is dropped its shards end at once; only [`Running::shutdown`] tells clients.
#[derive(Debug)]
pub struct Running {
    node: Node,
    client_address: SocketAddr,
    internal_address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedReceiver<usize>,
    shards: Vec<thread::JoinHandle<()>>,
    internal: JoinHandle<()>,
    summary: JoinHandle<()>,
}

/// How often the log says what the node is doing.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// Starts a node: binds its listeners, then starts its shards. To be called within a tokio runtime, which
/// serves the internal port and stays out of the shards' way.
pub fn start(settings: Settings) -> Result<Running, StartError> {
    let settings = Arc::new(settings);
    let tokens = Tokens::new(&settings.connection_tokens, settings.subscription_tokens.as_ref())?;
    let (inboxes, outlets): (Vec<_>, Vec<_>) = (0..settings.shards).map(|_| Inbox::new()).unzip();
    let node = Node::new(ClientId(Uuid::new_v4()), settings.clone(), tokens, inboxes.into());

    let internal_failed = |error| StartError::Listen {
        address: settings.internal_address,
        setting: "internal.address and internal.port",
        error,
    };
    let internal_listener = listener::bind_alone(settings.internal_address, settings.admission.backlog)
        .map_err(internal_failed)?;
    let internal_address = internal_listener.local_addr().map_err(internal_failed)?;
    let (client_address, listeners) = bind_clients(&settings)?;

    let (stop, stopped) = watch::channel(false);
    let (end, ended) = mpsc::unbounded_channel();
    let mut shards = Vec::new();
    for ((index, outlet), listener) in outlets.into_iter().enumerate().zip(listeners) {
        let (node, stopped) = (node.clone(), stopped.clone());
        let end = EndOfShard { index, tell: end.clone() };
        let thread = thread::Builder::new().name(format!("shard-{index}"));
        let shard = thread.spawn(move || {
            let _end = end;
            if let Err(error) = run_shard(index, node, outlet, listener, stopped) {
                tracing::error!(%error, shard = index, "a shard ended");
            }
        });
        shards.push(shard.map_err(StartError::Shard)?);
    }
    let internal_listener = TcpListener::from_std(internal_listener).map_err(internal_failed)?;
    let internal = tokio::spawn(internal::listen(node.clone(), internal_listener));
    let summary = tokio::spawn(summarize(node.clone()));
    Ok(Running { node, client_address, internal_address, stop, ended, shards, internal, summary })
}

/// One line a minute instead of one for every connection.
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

/// One socket for each shard, all on one address.
fn bind_clients(settings: &Settings) -> Result<(SocketAddr, Vec<std::net::TcpListener>), StartError> {
    let failed = |error| StartError::Listen {
        address: settings.client_address,
        setting: "server.address and server.port",
        error,
    };
    let backlog = settings.admission.backlog;
    // Another program on the same port would get a share of the connections: find out before joining it.
    listener::check_free(settings.client_address).map_err(failed)?;
    let first = listener::bind(settings.client_address, backlog).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    while listeners.len() < settings.shards {
        listeners.push(listener::bind(address, backlog).map_err(failed)?);
    }
    Ok((address, listeners))
}

fn run_shard(
    index: usize,
    node: Node,
    outlet: Outlet,
    listener: std::net::TcpListener,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let (adopt, adopted) = mpsc::unbounded_channel();
        let shard = Shard::new(index, node.clone())?;
        let origins = AllowedOrigins::new(&node.settings.origins);
        let gate = Rc::new(Gate { node, origins, shard: index, adopted: adopt });
        let accepting = tokio::task::spawn_local(listener::accept(
            TcpListener::from_std(listener)?,
            gate,
            stopped.clone(),
        ));
        let mut stop = stopped;
        tokio::select! {
            () = shard.run(outlet, adopted) => {}
            // The node has drained its connections by then.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        accepting.abort();
        Ok(())
    })
}

/// Tells that a shard's thread is over, however it ended.
struct EndOfShard {
    index: usize,
    tell: mpsc::UnboundedSender<usize>,
}

impl Drop for EndOfShard {
    fn drop(&mut self) {
        // Nobody listens any more once the node is being shut down.
        let _ = self.tell.send(self.index);
    }
}

impl Running {
    /// Waits for a shard to end by itself, which is a defect of ours: topics and clients of that shard are gone,
    /// and only a new process serves them again. Cancel-safe.
    pub async fn failed(&mut self) -> usize {
        match self.ended.recv().await {
            Some(shard) => shard,
            None => std::future::pending().await,
        }
    }

    /// Where clients connect; tells the port when port 0 was asked for.
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// Tells clients to come back later and elsewhere, waits for them up to `shutdown.timeout`, and stops.
    pub async fn shutdown(self) {
        let Self { node, stop, shards, internal, summary, .. } = self;
        summary.abort();
        node.start_draining();
        let (done, mut drained) = mpsc::channel(1);
        for inbox in node.inboxes.iter() {
            inbox.send(Message::Drain(done.clone()));
        }
        drop(done);
        let timeout = node.settings.shutdown.timeout;
        if tokio::time::timeout(timeout, drained.recv()).await.is_err() {
            tracing::warn!(
                connections = node.connections(),
                ?timeout,
                "connections were left when the time was up"
            );
        }
        // The receivers are gone only if every shard has ended.
        let _ = stop.send(true);
        internal.abort();
        let joined =
            tokio::task::spawn_blocking(move || shards.into_iter().for_each(|shard| drop(shard.join())));
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
