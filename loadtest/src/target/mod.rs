//! A running server to measure: its processes, addresses, dialect and publishers.
//!
//! Dropping a target ends its processes.

use std::net::SocketAddrV4;
use std::rc::Rc;

use crate::dialect::{Audience, Dialect};
use crate::error::LoadError;
use crate::load::Load;
use crate::measure::process::{Cores, Placement};
use crate::publish::Publisher;
use crate::settings::Settings;
use crate::subject::{Server, Subject};
use crate::target::node::Package;

pub(crate) mod centrifuge;
pub(crate) mod fanwire;
pub(crate) mod hook;
mod installed;
mod nats;
mod nchan;
mod node;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod redis;

/// The parameters of a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) settings: &'a Settings,
    pub(crate) cores: Cores,
    /// The number of clients that will connect.
    pub(crate) clients: usize,
    /// The load for a target that sends by itself; `None` if such a target cannot take part.
    pub(crate) load: Option<&'a Load>,
}

/// One process of a target, with its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// "server", "redis", ...: processes of one name are counted together. The first one is measured.
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
}

/// A running server.
pub(crate) trait Target {
    /// Returns its processes, the measured ones first; empty if they are not on this machine.
    fn parts(&self) -> Vec<Part>;

    /// Returns the versions of its programs; empty if not known.
    fn versions(&self) -> Vec<String>;

    /// Returns the cores it may use; `None` for an external server.
    fn placement(&self) -> Option<Placement> {
        Some(Placement::ServerCore)
    }

    /// Returns the addresses for clients; each client has its node (`node_of`).
    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError>;

    /// Returns the prefix of every topic's name.
    fn topic_prefix(&self) -> &str {
        ""
    }

    /// Returns the dialect of clients.
    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError>;

    /// Opens one more connection for publishing; `None` if the target sends by itself, after `begin`.
    fn publisher(&self, index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError>;

    /// Waits until the server has set up all clients, which may be later than they can see.
    fn settle(&mut self, _audience: &Audience, _clients: usize) -> Result<(), LoadError> {
        Ok(())
    }

    /// Starts a target that sends by itself.
    fn begin(&mut self) -> Result<(), LoadError> {
        Ok(())
    }

    /// Returns how many clients the server counts in a topic, if it can.
    fn present(&self, _topic: &str) -> Result<Option<u64>, LoadError> {
        Ok(None)
    }

    /// Returns the number of keys in the server's Redis and its memory; `None` without a Redis.
    fn redis_use(&self) -> Result<Option<redis::Use>, LoadError> {
        Ok(None)
    }

    /// Returns the calls of the application's backend; `None` without one.
    fn hook_calls(&self) -> Option<hook::HookCalls> {
        None
    }

    /// Adds the server's log to an error that may be its fault.
    fn explain(&self, error: LoadError) -> LoadError {
        error
    }
}

/// Returns the node of a client or a publisher. Numbers are mixed: topics depend on them too, so a regular pattern would put
/// all members of a topic on the same node.
pub(crate) fn node_of(number: usize, nodes: usize) -> usize {
    // The finalizer of SplitMix64.
    let mut mixed = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % nodes as u64) as usize
}

/// Starts a subject and returns when it is ready.
pub(crate) fn start(setup: &Setup<'_>) -> Result<Box<dyn Target>, LoadError> {
    Ok(match setup.subject.server {
        Server::Raw => Box::new(raw::RawServer::start(setup)?),
        Server::Fanwire => Box::new(fanwire::Fanwire::start(setup)?),
        Server::Centrifuge => Box::new(centrifuge::External::of(setup)?),
        Server::Nchan => Box::new(nchan::Nchan::start(setup)?),
        Server::Nats => Box::new(nats::Nats::start(setup)?),
        Server::Ws => Box::new(node::Node::start(Package::Ws, setup)?),
        Server::SocketIo => Box::new(node::Node::start(Package::SocketIo, setup)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Seats;

    /// Returns how many clients of each topic are on each node.
    fn placed(seats: Seats, topics: usize, nodes: usize, clients: usize) -> Vec<Vec<usize>> {
        let audience = Audience::new("", seats);
        let mut placed = vec![vec![0; nodes]; topics];
        for client in 0..clients {
            for topic in audience.topics_of(client) {
                placed[topic][node_of(client, nodes)] += 1;
            }
        }
        placed
    }

    #[test]
    fn every_topic_has_subscribers_on_every_node() {
        for nodes in [2, 3] {
            let cluster = placed(Seats::Rooms { rooms: 10, per_client: 1 }, 10, nodes, 1000);
            let rooms = placed(Seats::Rooms { rooms: 10, per_client: 2 }, 10, nodes, 500);
            for on_nodes in cluster.iter().chain(&rooms) {
                let fair = 100 / nodes;
                assert!(on_nodes.iter().all(|count| count.abs_diff(fair) <= fair / 2), "{on_nodes:?}");
            }
        }
    }

    #[test]
    fn publishers_are_on_all_nodes() {
        for nodes in [1, 2, 3] {
            let mut publishers = vec![0; nodes];
            (0..12).for_each(|publisher| publishers[node_of(publisher, nodes)] += 1);
            assert!(publishers.iter().all(|count| *count >= 3), "{publishers:?}");
        }
    }
}
