//! A server that runs and can be measured: its processes, where clients connect, how they speak, how it is published to.
//!
//! Dropping a target ends what it started.

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
mod installed;
mod nats;
mod nchan;
mod node;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod redis;

/// What a target is started for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) settings: &'a Settings,
    pub(crate) cores: Cores,
    /// How many clients will come.
    pub(crate) clients: usize,
    /// What a target that sends by itself is to send; `None` where such a target cannot take part.
    pub(crate) load: Option<&'a Load>,
}

/// One process of a target, by the part that it plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// "server", "redis", ...: parts of one name are counted together. The first part is the one being measured.
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
}

/// A running server.
pub(crate) trait Target {
    /// Its processes, the measured ones first; empty if they are not on this machine.
    fn parts(&self) -> Vec<Part>;

    /// What its programs call themselves; empty if nobody knows.
    fn versions(&self) -> Vec<String>;

    /// Where it runs; `None` if somebody else started it.
    fn placement(&self) -> Option<Placement> {
        Some(Placement::ServerCore)
    }

    /// Where clients connect; each client has its node (`node_of`).
    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError>;

    /// What stands in front of every topic's name.
    fn topic_prefix(&self) -> &str {
        ""
    }

    /// How clients speak.
    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError>;

    /// One more connection to publish by; `None` if the target sends by itself, after `begin`.
    fn publisher(&self, index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError>;

    /// All clients are set up as far as they can tell: returns when the server has done its part too.
    fn settle(&mut self, _audience: &Audience, _clients: usize) -> Result<(), LoadError> {
        Ok(())
    }

    /// For a target that sends by itself: it does from now on.
    fn begin(&mut self) -> Result<(), LoadError> {
        Ok(())
    }

    /// How many clients the server believes to be in a topic, if it can say.
    fn present(&self, _topic: &str) -> Result<Option<u64>, LoadError> {
        Ok(None)
    }

    /// Keys in the server's Redis, and bytes it uses; `None` without one.
    fn redis_use(&self) -> Result<Option<redis::Use>, LoadError> {
        Ok(None)
    }

    /// Adds the server's own words to an error that may be its fault.
    fn explain(&self, error: LoadError) -> LoadError {
        error
    }
}

/// Which of several nodes a client or a publisher belongs to. Numbers are mixed: topics follow from them too, so any pattern
/// would put all members of a topic on the same node.
pub(crate) fn node_of(number: usize, nodes: usize) -> usize {
    // The finalizer of SplitMix64.
    let mut mixed = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % nodes as u64) as usize
}

/// Starts a subject afresh and returns when it is ready.
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

    /// How many clients of each topic are on each node.
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
