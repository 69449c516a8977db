//! A server that runs and can be measured: its processes, where clients connect, how they speak, how it is published to.
//!
//! Dropping a target ends what it started.

use std::net::SocketAddrV4;
use std::rc::Rc;

use crate::dialect::{Audience, Dialect};
use crate::error::LoadError;
use crate::measure::process::Cores;
use crate::publish::Publisher;
use crate::scenario::Load;
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

    /// Where clients connect, in turn.
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
