//! NATS: one server process, subscribers over WebSocket, publishers over the NATS protocol.

use std::fs;
use std::net::{SocketAddrV4, TcpStream};
use std::rc::Rc;

use crate::dialect::{self, Audience, Dialect};
use crate::error::{Doing, LoadError};
use crate::publish::Publisher;
use crate::publish::nats::NatsPublisher;
use crate::target::process::{ServerProcess, free_addresses};
use crate::target::{Part, Setup, Target, installed};

const PROGRAM: &str = "nats-server";
const CONFIGURATION: &str = include_str!("../../peers/nats.conf");

/// A running server; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Nats {
    process: ServerProcess,
    address: SocketAddrV4,
    websocket: SocketAddrV4,
}

impl Nats {
    /// Returns when both listeners accept connections.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, LoadError> {
        let program = installed::program(PROGRAM)?;
        let [address, websocket] = free_addresses()?;
        let process = ServerProcess::start(&program, setup.cores, |folder, command| {
            let file = folder.join("nats.conf");
            fs::write(&file, configuration(address, websocket)).doing(format!("write {}", file.display()))?;
            command.arg("--config").arg(&file);
            Ok(())
        })?;
        let mut nats = Self { process, address, websocket };
        nats.process
            .wait_until(|| [address, websocket].iter().all(|place| TcpStream::connect(place).is_ok()))?;
        Ok(nats)
    }
}

impl Target for Nats {
    fn parts(&self) -> Vec<Part> {
        vec![Part { name: "server", pid: self.process.pid() }]
    }

    fn versions(&self) -> Vec<String> {
        installed::program(PROGRAM).iter().map(|program| installed::version(program, "--version")).collect()
    }

    fn addresses(&self) -> Result<Vec<SocketAddrV4>, LoadError> {
        Ok(vec![self.websocket])
    }

    fn dialect(&self, audience: Rc<Audience>) -> Result<Box<dyn Dialect>, LoadError> {
        Ok(Box::new(dialect::Nats { host: self.websocket.to_string(), audience }))
    }

    fn publisher(&self, _index: usize) -> Result<Option<Box<dyn Publisher>>, LoadError> {
        Ok(Some(Box::new(NatsPublisher::connect(self.address)?)))
    }

    fn explain(&self, error: LoadError) -> LoadError {
        self.process.explain(error)
    }
}

fn configuration(address: SocketAddrV4, websocket: SocketAddrV4) -> String {
    CONFIGURATION
        .replace("{address}", &address.to_string())
        .replace("{websocket_address}", &websocket.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_filled_in() {
        let text = configuration("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert!(
            text.contains("\nlisten: \"127.0.0.1:1\"") && text.contains("    listen: \"127.0.0.1:2\""),
            "{text}"
        );
    }
}
