//! The peers on Node.js: `peers/ws.js` and `peers/socketio.js`, one process with one port each.

use std::net::{SocketAddrV4, TcpStream};
use std::rc::Rc;

use crate::dialect::{Audience, Dialect, SocketIo, Ws};
use crate::error::LoadError;
use crate::publish::Publisher;
use crate::publish::http::HttpPublisher;
use crate::publish::post::{Burst, PostApi};
use crate::target::process::{ServerProcess, free_addresses};
use crate::target::{Part, Setup, Target, installed};

const PROGRAM: &str = "node";

/// The library of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Package {
    Ws,
    SocketIo,
}

impl Package {
    /// The package's name and the server's file.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Ws => ("ws", "ws.js"),
            Self::SocketIo => ("socket.io", "socketio.js"),
        }
    }
}

/// A running server; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Node {
    package: Package,
    process: ServerProcess,
    address: SocketAddrV4,
}

impl Node {
    /// Returns when the server accepts connections.
    pub(crate) fn start(package: Package, setup: &Setup<'_>) -> Result<Self, LoadError> {
        let program = installed::program(PROGRAM)?;
        let (name, script) = package.names();
        let folder = installed::peers_folder();
        installed::file(&folder.join("node_modules").join(name))?;
        let [address] = free_addresses()?;
        let process = ServerProcess::start(&program, setup.cores, |_, command| {
            command.env("NODE_ENV", "production").arg(folder.join(script)).arg(address.port().to_string());
            Ok(())
        })?;
        let mut node = Self { package, process, address };
        node.process.wait_until(|| TcpStream::connect(address).is_ok())?;
        Ok(node)
    }
}

impl Target for Node {
    fn parts(&self) -> Vec<Part> {
        vec![Part { name: "server", pid: self.process.pid() }]
    }

    fn versions(&self) -> Vec<String> {
        let node = installed::program(PROGRAM).map(|program| installed::version(&program, "--version"));
        let (name, _) = self.package.names();
        let packages = [name, "bufferutil"].map(installed::node_package_version);
        node.iter().map(|told| format!("Node.js {told}")).chain(packages).collect()
    }

    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError> {
        Ok(vec![self.address])
    }

    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError> {
        let host = self.address.to_string();
        Ok(match self.package {
            Package::Ws => Box::new(Ws { host, audience }),
            Package::SocketIo => Box::new(SocketIo { host, audience }),
        })
    }

    fn publisher(&self, _index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError> {
        let api = PostApi { host: self.address.to_string(), burst: Burst::Lines };
        Ok(Some(Box::new(HttpPublisher::connect(self.address, api)?)))
    }

    fn explain(&self, error: LoadError) -> LoadError {
        self.process.explain(error)
    }
}
